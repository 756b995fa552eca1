"""Ctrl-C and SIGTERM: the first has training stop after the step, the second stops at once. Other ends of a run."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

from fastcls.machine import ranks

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
ECHO = 5.0  # seconds
NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Stopped(BaseException):
    """A signal ended the run; `code` is what a shell expects then."""

    def __init__(self, number: int) -> None:
        super().__init__(NAMES[signal.Signals(number)])
        self.code = CODES[signal.Signals(number)]


class Ended(Exception):
    """Whoever watches a run ends it early, for good: its status from then on, and why."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason

    def __str__(self) -> str:
        return self.reason  # fastai writes over the arguments of what a callback raises


class Stop:
    """Whether a signal requests to stop. While `patient`, the first one only sets `asked`; every other raises Stopped.

    shared: several processes train together; the signal is `heard`, and `asked` set when all know of it. What comes
    within ECHO seconds is the same signal, sent by the job's manager and passed on by the launcher. So is what comes
    that soon after Stopped was raised: what is cleaned up then should not be left half done.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self.heard: int | None = None
        self.since = 0.0  # when it was heard
        self.raised = -math.inf  # when Stopped was
        self.shared = False
        self.patient = False
        self.deferring = False
        self.process = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:  # a loader's worker, which ends with its parent
            return
        if self.deferring:
            self.asked = number
            return
        if self.patient and self.heard is None:
            self.heard, self.since = number, time.monotonic()
            if not self.shared:
                self.asked = number
            if ranks.first():
                name = NAMES[signal.Signals(number)]
                with contextlib.suppress(OSError, RuntimeError, ValueError):  # `| tee` was stopped too; amid a print
                    print(
                        f"\n{name}: finishing the step and saving; once more stops immediately.",
                        file=sys.stderr,
                        flush=True,
                    )
            return
        now = time.monotonic()
        if now - self.raised < ECHO or (self.shared and self.patient and now - self.since < ECHO):
            return
        self.asked, self.raised = number, now  # asked: a finaliser may swallow the exception, for `raise_if_asked`
        raise Stopped(number)

    def raise_if_asked(self) -> None:
        """Stopped, if a signal requested it."""
        if self.asked is not None:
            raise Stopped(self.asked)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Stopped is raised at the end of this, not amid it: what a finaliser raises is printed and ignored."""
        self.deferring = True
        try:
            yield
        finally:
            self.deferring = False
        self.raise_if_asked()


_listening: Stop | None = None


@contextlib.contextmanager
def listening() -> Iterator[Stop]:
    """Both signals go to a Stop while this lasts, the same one for blocks inside.

    In a thread, where Python has no signals, none does.
    """
    global _listening
    if threading.current_thread() is not threading.main_thread():
        yield Stop()
        return
    if _listening is not None:
        yield _listening
        return
    _listening = stop = Stop()
    before = {number: signal.signal(number, stop) for number in CODES}
    try:
        yield stop
    finally:
        _listening = None
        for number, handler in before.items():
            signal.signal(number, handler)
