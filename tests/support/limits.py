"""What a test lets the program have: time, rights, room on a disk."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


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


VERSION, OVERRIDES = 0x20080522, 0b110  # of Linux's capabilities: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Without root's right to read and write everything, which a container's tests may have."""
    if os.geteuid():
        yield
        return
    if sys.platform != "linux":
        pytest.skip("root may read and write everywhere")
    libc = ctypes.CDLL(None, use_errno=True)
    thread, held = (ctypes.c_uint32 * 2)(VERSION, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(thread, held) == 0
    before = held[0]
    held[0] &= ~OVERRIDES
    assert libc.capset(thread, held) == 0
    try:
        yield
    finally:
        held[0] = before
        assert libc.capset(thread, held) == 0


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of so many bytes."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
