"""The memory that tensors free on a CPU: kept for the next step, given back where it has grown. glibc alone."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Any

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)
LARGEST = 1 << 30  # bytes that malloc takes from its heap; more is mapped, and unmapped when it is freed
OWN = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TOP_PAD_")  # glibc's, mallopt(3)


def keep_freed() -> None:
    """From now on malloc keeps what is freed, for the next allocation of that size.

    By itself glibc maps every block above 32 MB anew and gives back the top of its heap, so that the kernel zeroes the
    activations of every training step: a third of its time. FASTCLS_KEEP_MEMORY=0 leaves it so; so do settings of
    glibc's own in the environment.
    """
    environ = os.environ
    if environ.get("FASTCLS_KEEP_MEMORY") == "0" or "glibc.malloc" in environ.get("GLIBC_TUNABLES", ""):
        return
    if any(name in environ for name in OWN):
        return
    with contextlib.suppress(OSError, AttributeError, TypeError):
        if _libc().mallopt(MMAP_THRESHOLD, LARGEST):  # else of an older glibc, and its own rule serves better
            _libc().mallopt(TRIM_THRESHOLD, -1)


def give_back() -> None:
    """Hand free memory to the system, holes between used blocks too.

    Aligned new tensors do not fit the holes of freed ones of the same size: without this a training of minutes was
    seen to grow from 1.2 to 10 GB.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        _libc().malloc_trim(0)


def _libc() -> Any:
    return ctypes.CDLL(None)
