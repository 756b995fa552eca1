"""How long a test lets the program compute or wait."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


class TooLong(BaseException):
    """No TimeoutError, which is an OSError: a program that suppresses those would hide that it waited."""


@contextlib.contextmanager
def within(seconds: int, waiting: int = 10) -> Iterator[None]:
    """TooLong, wherever the program is when it has computed for so long, or waited for `waiting` times as long."""

    def out_of_time(number: int, frame: object) -> None:
        raise TooLong(f"longer than {seconds} s")

    clocks = [
        (signal.SIGPROF, signal.ITIMER_PROF, seconds),
        (signal.SIGALRM, signal.ITIMER_REAL, waiting * seconds),
    ]
    before = [signal.signal(number, out_of_time) for number, _, _ in clocks]
    for _, clock, most in clocks:
        signal.setitimer(clock, most)
    try:
        yield
    finally:
        for (number, clock, _), handler in zip(clocks, before, strict=True):
            signal.setitimer(clock, 0)
            signal.signal(number, handler)
