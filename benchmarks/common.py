"""What the measurements share: sides timed in turn, the machine described, results as JSON that `scripts/performance`
turns into docs/performance.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def in_turn(
    sides: Mapping[str, Callable[[], object]],
    rounds: int,
    warm: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of every side, one after the other in each round, so that all see the same machine.

    `warm` adds a first round that is not kept. clock: `time.process_time` counts the processor's seconds instead.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + warm):
        for name, side in sides.items():
            started = clock()
            side()
            taken = clock() - started
            if number >= warm:
                seconds[name].append(taken)
            print(f"  round {number + 1 - warm}: {name}: {taken:.2f} s", file=sys.stderr, flush=True)
    return seconds


def ratio(seconds: Mapping[str, Sequence[float]], peer: str, ours: str) -> float:
    """How many times faster we are: the median over rounds of peer's time over ours."""
    return statistics.median(p / o for p, o in zip(seconds[peer], seconds[ours], strict=True))


def spread(values: Sequence[float], form: str = "{:,.1f}") -> str:
    """median (least–most)."""
    shown = [form.format(value) for value in (statistics.median(values), min(values), max(values))]
    return f"{shown[0]} ({shown[1]}–{shown[2]})"


def hardware() -> str:
    """Processor, cores, and the GPU where torch sees one."""
    import torch

    from fastcls.machine import devices

    text = f"{devices.describe(torch.device('cpu'))['name']}, {devices.cores()} cores"
    return f"{text}, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else text


def arguments(doc: str, **defaults: Any) -> argparse.Namespace:
    """--rounds and the like, with their defaults."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/NAME.json")
    return parser.parse_args()


def show(
    name: str,
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    n: int,
    note: str = "",
    save: bool = True,
) -> None:
    """Print a table of results and, with `save`, keep it for docs/performance.md."""
    widths = [max(len(str(row[i])) for row in [columns, *rows]) for i in range(len(columns))]
    for row in [columns, *rows]:
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)))
    words = [word for word in sys.argv[1:] if word != "--save" and not word.startswith(("/", "~"))]
    record = {
        "title": title,
        "command": " ".join([f"python -m benchmarks.{name.split('-')[0]}", *words]),
        "hardware": hardware(),
        "versions": {"python": platform.python_version()}
        | {p: version(p) for p in ("torch", "torchvision", "fastai", "timm")},
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "n": n,
        "columns": list(columns),
        "rows": [list(map(str, row)) for row in rows],
        "note": note,
    }
    if save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def images_home() -> Path:
    """FASTCLS_IMAGES, else ~/data: where ../shared/data's archives are unpacked."""
    return Path(os.environ.get("FASTCLS_IMAGES", "~/data")).expanduser()


def images_folder(name: str, home: Path | None = None) -> Path:
    """A dataset of real images below `home`, whether its archive was unpacked there or into a folder of its own."""
    home = home or images_home()
    for folder in (home / name / name, home / name, *home.glob(f"*/{name}")):
        if folder.is_dir():
            return folder
    sys.exit(f"{home / name} is missing: set FASTCLS_IMAGES to the folder that holds {name}/.")
