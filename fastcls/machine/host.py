"""The processor cores and the memory that this process can have, and what becomes of the memory that it frees.

psutil knows neither control groups nor a peak that can be reset. What is freed is glibc's business alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GUESS = 4e9  # bytes, where the system does not report it
GROUPS = Path("/sys/fs/cgroup")
# what torch raises besides its OutOfMemoryError: on CPUs, from cuBLAS and cuDNN, on Apple's GPUs
PHRASES = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)
LARGEST = 1 << 30  # bytes that malloc takes from its heap; more is mapped, and unmapped when it is freed
OWN = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TOP_PAD_")  # glibc's, mallopt(3)


def cores() -> int:
    """Processor cores that this process may use, by its affinity where the system has that."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available() -> float:
    """Bytes that this process can still take: of the machine, of its control groups, of `ulimit -v` and `-d`."""
    machine = _table(Path("/proc/meminfo")).get("MemAvailable", GUESS)
    return max(0.0, min([machine, *_groups(), *_limits()]))


def ran_out(problem: BaseException) -> bool:
    """Whether an error is torch's, CUDA's or Python's for too little memory."""
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError":
        return True
    return isinstance(problem, RuntimeError) and any(phrase in str(problem) for phrase in PHRASES)


def _groups() -> Iterator[float]:
    """What the control groups of this process have left, version 2 and 1; containers are such groups."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, inside = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        home = GROUPS / controllers
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        group = home / inside.lstrip("/")
        for folder in (group, *group.parents):  # a group has no more than those above it
            limit, used = (_number(folder / name) for name in names)
            if limit is not None and used is not None:
                yield limit - used + _table(folder / "memory.stat").get("inactive_file", 0)  # which can be reclaimed
            if folder == home:
                break


def _limits() -> Iterator[float]:
    """What `ulimit` leaves of the address space and of data."""
    try:
        import resource
    except ImportError:  # Windows
        return
    table = _table(Path("/proc/self/status"))
    for kind, used in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        limit = resource.getrlimit(kind)[0]
        if limit != resource.RLIM_INFINITY and used in table:
            yield limit - table[used]


def resident(what: str = "VmRSS") -> float:
    """Bytes of this process in memory now, or with 'VmHWM' at most since `forget_peak`; 0 where that is unknown."""
    return _table(Path("/proc/self/status")).get(what, 0.0)


def forget_peak() -> None:
    """Count the most bytes in memory anew; Linux alone can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _table(file: Path) -> dict[str, float]:
    """Bytes by name of a file of lines such as 'VmRSS:  1234 kB' or 'inactive_file 1234'; empty where it is missing."""
    try:
        rows = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return {}
    scales = {2: 1.0, 3: 1024.0}
    numbers = [row for row in rows if len(row) in scales and row[1].isdigit() and row[2:] in ([], ["kB"])]
    return {row[0].rstrip(":"): scales[len(row)] * int(row[1]) for row in numbers}


def _number(file: Path) -> float | None:
    """A number that a file holds; None where it holds 'max', or is missing."""
    try:
        return float(int(file.read_text()))
    except (OSError, ValueError):
        return None


# ------------------------------------------------------------------ freed memory


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
