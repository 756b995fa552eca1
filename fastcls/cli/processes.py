"""--gpus and --processes: a run by several processes, started here, by torchrun or by accelerate launch."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import typer

from fastcls.cli.completion import option
from fastcls.errors import KnobError, UsageError
from fastcls.log import logger
from fastcls.machine import host, ranks
from fastcls.settings.options import Options

A_CORE = 8  # processes; more only take each other's memory


# of what trains with several processes
GPUS = option("--gpus N", "Train on N GPUs of this machine; --bs is the total batch size.", None)
PROCESSES = option("--processes N", "Train with N processes on any device; see docs/scaling.md.", None)


def count(gpus: int | None, processes: int | None) -> int:
    """How many processes this machine is asked for; UsageError where that is not what was started."""
    refuse_too_many("--gpus", gpus)
    refuse_too_many("--processes", processes)
    if gpus and processes:
        raise UsageError("--gpus and --processes exclude each other.", "Use one of them.")
    asked, place = gpus or processes or 1, ranks.here()
    if place.world > 1 and asked not in (1, place.local_world):
        raise UsageError(
            f"{place.local_world} processes were started on this machine, and {'--gpus' if gpus else '--processes'} "
            f"is {asked}.",
            "Omit it: torchrun or accelerate launch sets the number.",
        )
    if asked == 1 and ranks.only_one_started():
        logger.warning(
            "note: accelerate launch was given several processes but started one, as it does without GPUs or with "
            "--cpu.\nFor more than one, pass  --device cpu --processes N  to fastcls, or use torchrun."
        )
    return asked


def refuse_too_many(flag: str, number: int | None) -> None:
    """KnobError for a number of processes that this machine cannot have."""
    if number is not None and number < 1:
        raise KnobError(f"{flag} {number}: expected an integer, 1 or more")
    if number is not None and number > (most := A_CORE * host.cores()):
        raise KnobError(f"{flag} {number}: expected at most {most}, {A_CORE} for each available core")


def on_gpus(options: Options, gpus: int | None) -> Options:
    """The options of a run that was asked for GPUs."""
    if not gpus:
        return options
    if options.device not in ("auto", "cuda"):
        raise UsageError(f"--gpus {gpus} and --device {options.device} contradict each other.", "Omit one of them.")
    return replace(options, device="cuda")


def start(asked: int, out: Path) -> None:
    """Start the processes if they are still to be started, and end as they do."""
    if asked < 2 or ranks.world() > 1:
        return
    from fastcls.machine.launch import launch, require_accelerate

    require_accelerate()
    raise typer.Exit(launch(asked, out))


def launched_folder() -> Path | None:
    """Where the launcher has this process write."""
    return Path(os.environ[ranks.FOLDER]) if ranks.FOLDER in os.environ else None
