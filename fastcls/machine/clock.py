"""The system's clock, which may be set during a run: durations come from one that cannot be."""

from __future__ import annotations

import time

from fastcls.settings import options

WORTH = 60.0  # seconds set back that are worth a note; a clock that is kept by NTP slews over less


class Clock:
    """Remembers how the time of day stood to the steady clock."""

    def __init__(self) -> None:
        self.offset = time.time() - time.monotonic()

    def check(self) -> None:
        """Add a note where the time of day was set back since; a machine that slept looks as if it was set forward."""
        back = self.offset - (time.time() - time.monotonic())
        if back > WORTH:
            options.note(
                f"the system's clock was set back by {back / 60:,.0f} min during the run: times of day in its files "
                "are out of order; durations, checkpoints and their order are right."
            )
