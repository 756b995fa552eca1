"""The rank of this process, as torchrun, `accelerate launch` or `--gpus` put it into the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from fastcls.errors import EnvironmentProblem

FOLDER = "FASTCLS_RUN_FOLDER"  # where rank 0 writes, as the launcher decided
RENDEZVOUS = "FASTCLS_RENDEZVOUS"  # a file through which the launcher's processes find each other, instead of a port

UNSET = "Start several processes with torchrun, accelerate launch or --gpus N; for a single one unset RANK."


@dataclass(frozen=True)
class Place:
    """A process among `world` ones, of which `local_world` are on this machine."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1

    @property
    def machines(self) -> int:
        """How many they are on, where all have as many."""
        return -(-self.world // self.local_world)


_joined: Place | None = None


def here() -> Place:
    """This process's place; alone where only one was started."""
    if _joined is not None:
        return _joined
    env = os.environ
    if "RANK" not in env or (world := _number("WORLD_SIZE", 1)) < 2:
        return Place()
    local = _number("LOCAL_RANK", 0), _number("LOCAL_WORLD_SIZE", 1)  # else it is the only one of its machine
    if (rank := _number("RANK", 0)) >= world:
        raise EnvironmentProblem(f"RANK={rank}: of WORLD_SIZE={world} processes the last is {world - 1}.", UNSET)
    return Place(rank, world, *local)


def _number(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.strip().isdecimal():
        raise EnvironmentProblem(f"The environment variable {name} is {text!r}, not a number.", UNSET)
    return int(text)


def launched() -> bool:
    """Whether a launcher started this process, be it the only one."""
    return "RANK" in os.environ


def rank() -> int:
    return here().rank


def world() -> int:
    """How many processes train together."""
    return here().world


def first() -> bool:
    """Whether this is the process that writes, shows and evaluates."""
    return here().rank == 0


def name() -> str:
    """What this process's messages begin with, to distinguish them from those of rank 0, which has the terminal."""
    if first():
        return ""
    import socket

    return f"rank {rank()} on {socket.gethostname()}: "


def stream() -> tuple[int, ...]:
    """What sets this process's random numbers apart from the others'; the first one's are those of one alone."""
    return (here().rank,) if here().rank else ()


def join() -> Place:
    """Keep the place and take it out of the environment, where fastai would gather every figure once more."""
    global _joined
    _joined = here()
    for name in ("RANK", "WORLD_SIZE"):
        os.environ.pop(name, None)
    return _joined


def leave() -> None:
    """From now on this process works alone, under the rank that it had."""
    global _joined
    _joined = replace(here(), world=1, local_world=1)


def only_one_started() -> bool:
    """Whether `accelerate launch` started one process in place of several: without GPUs it does so silently."""
    env = os.environ
    return "ACCELERATE_MIXED_PRECISION" in env and "MASTER_ADDR" in env and "WORLD_SIZE" not in env
