"""How much memory there is for this process, and whether an error says that it was too little."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

GUESS = 4e9  # bytes, where the system does not say
GROUPS = Path("/sys/fs/cgroup")
# what torch raises besides its OutOfMemoryError: on CPUs, from cuBLAS and cuDNN, on Apple's GPUs
PHRASES = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def available() -> float:
    """Bytes that this process can still take: of the machine, of its control groups, of `ulimit -v` and `-d`."""
    return max(0.0, min(_machine(), *_groups(), *_limits()))


def ran_out(problem: BaseException) -> bool:
    """Whether an error is torch's, CUDA's or Python's way to say that there is no memory left."""
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError":
        return True
    return isinstance(problem, RuntimeError) and any(phrase in str(problem) for phrase in PHRASES)


def _machine() -> float:
    found = _table(Path("/proc/meminfo")).get("MemAvailable")
    return GUESS if found is None else found


def _groups() -> Iterator[float]:
    """What the control groups of this process have left, version 2 and then 1; containers are such groups."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, inside = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        home, most, used = (
            (GROUPS, "memory.max", "memory.current")
            if not controllers
            else (GROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        group = home / inside.lstrip("/")
        for folder in (group, *group.parents):  # a group has no more than those above it
            limit, usage = _number(folder / most), _number(folder / used)
            if limit is not None and usage is not None:
                reclaimable = _fields(folder / "memory.stat").get("inactive_file", 0)
                yield limit - usage + reclaimable
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
    """Bytes of this process in memory now, or with 'VmHWM' at most since `forget_peak`; 0 where nothing says so."""
    return _table(Path("/proc/self/status")).get(what, 0.0)


def forget_peak() -> None:
    """Count the most bytes in memory anew; Linux alone can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _table(file: Path) -> dict[str, float]:
    """Bytes by name of a file of lines such as 'VmRSS:  1234 kB'."""
    try:
        rows = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return {}
    return {row[0].rstrip(":"): 1024.0 * int(row[1]) for row in rows if len(row) == 3 and row[2] == "kB"}


def _fields(file: Path) -> dict[str, int]:
    try:
        rows = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return {}
    return {row[0]: int(row[1]) for row in rows if len(row) == 2}


def _number(file: Path) -> float | None:
    """A number that a file holds; None where it holds 'max', or is not there."""
    try:
        return float(int(file.read_text()))
    except (OSError, ValueError):
        return None
