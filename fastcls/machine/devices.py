"""The device a run computes on, its cores and seeds, and what the machine is."""

from __future__ import annotations

import contextlib
import functools
import platform
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastcls.errors import EnvironmentProblem
from fastcls.machine import host, ranks
from fastcls.settings import options

NUMBERS_A_THREAD = 1 << 21  # what a thread must have to compute to be worth waking: some milliseconds


def device() -> torch.device:
    """The device of the options in force; EnvironmentProblem where it is missing."""
    wanted, _, number = options.current().device.partition(":")
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        kind = next(kind for kind, found in there.items() if found)
        return _own(kind, ranks.here())
    if not there[wanted] and ranks.world() == 1:
        raise EnvironmentProblem(
            f"--device {wanted}: this machine (or its torch {torch.__version__}) has none.",
            f"Use --device {' or '.join(kind for kind, found in there.items() if found)}, or omit it.",
        )
    if number and ranks.world() == 1:
        if int(number) >= (count := torch.cuda.device_count()):
            raise EnvironmentProblem(
                f"--device cuda:{number}: torch finds {count} GPU{'s' * (count != 1)}, numbered from 0.",
                "Choose one of them, or omit it.",
            )
        return _gpu(int(number))
    return _own(wanted, ranks.here())


def _own(kind: str, place: ranks.Place) -> torch.device:
    """The device of that kind; each of several processes has a GPU to itself."""
    if place.world == 1 or kind == "cpu":
        return torch.device(kind)
    there = torch.cuda.device_count()
    if there < place.local_world:
        raise EnvironmentProblem(
            f"{place.local_world} processes on this machine need {place.local_world} CUDA GPUs; torch finds {there}.",
            f"Start fewer processes, or use the CPU:  --device cpu --processes {place.local_world}",
        )
    return _gpu(place.local_rank)


def _gpu(index: int) -> torch.device:
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (every device)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def cores() -> int:
    """Processor cores that this process may use; several on one machine share them out."""
    return max(1, host.cores() // ranks.here().local_world)


@functools.cache
def threads() -> ThreadPoolExecutor:
    """A thread a core, for work that releases Python's lock: decoding and resizing."""
    return ThreadPoolExecutor(cores(), thread_name_prefix="pixels")


@contextlib.contextmanager
def threads_for(numbers: int) -> Iterator[None]:
    """As many of torch's threads as `numbers` to be computed are worth: for few, waking and awaiting them costs more.

    On a busy machine it costs fifty times more, since whoever waits for a thread spins. Setting them takes 0.2 µs.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, numbers // NUMBERS_A_THREAD)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def workers() -> int:
    """Loader processes: as requested, else by the cores; none on two cores, where they only get in the way."""
    wanted = options.current().workers
    return wanted if wanted is not None else (0 if cores() <= 2 else min(16, cores()))


def describe(where: torch.device) -> dict[str, Any]:
    """Device type, name, thread count, and how many processes train together, for run.json."""
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else _processor()
    return {"type": where.type, "name": name, "threads": torch.get_num_threads(), "processes": ranks.world()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def forget_peak_memory(where: torch.device) -> None:
    """Start measuring the peak memory anew."""
    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats(where)
    host.forget_peak()


def peak_memory(where: torch.device) -> int | None:
    """Most bytes held since `forget_peak_memory`: by torch's tensors on a GPU, else by the process (resident set)."""
    if where.type == "cuda":
        return torch.cuda.max_memory_allocated(where)
    return int(host.resident("VmHWM")) or None
