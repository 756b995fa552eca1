"""How long the light verbs take, against `import typer`:  python -m benchmarks.startup

The bar is a ratio of at most 2: help and lists import neither torch nor fastai.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PEER = "python -c 'import typer'"
COMMANDS = {
    PEER: ["-c", "import typer"],
    "fastcls --help": ["-m", "fastcls", "--help"],
    "fastcls recipes": ["-m", "fastcls", "recipes"],
    "fastcls recipe NAME --help": ["-m", "fastcls", "recipe", "pets-resnet50", "--help"],
}


def measure(runs: int) -> dict[str, list[float]]:
    """Seconds of every run of every command, interleaved; the first round warms the disk cache and is not kept."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as bytecode:  # which every user has, though this shell may forbid to write it
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": bytecode}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for _ in range(runs + 1):
            for name, words in COMMANDS.items():
                started = time.perf_counter()
                subprocess.run([sys.executable, *words], env=environment, stdout=subprocess.DEVNULL, check=True)
                times[name].append(time.perf_counter() - started)
    return {name: seconds[1:] for name, seconds in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--json", type=Path, help="also write every time to this file")
    arguments = parser.parse_args()
    times = measure(arguments.runs)
    peer = statistics.median(times[PEER])
    print(
        f"{'command':28s}{'median ms':>10s}{'min–max':>14s}{'ratio':>7s}   n = {arguments.runs}, {os.cpu_count()} cores"
    )
    for name, seconds in times.items():
        span = f"{min(seconds) * 1e3:.0f}–{max(seconds) * 1e3:.0f}"
        print(f"{name:28s}{statistics.median(seconds) * 1e3:10.0f}{span:>14s}{statistics.median(seconds) / peer:7.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(times, indent=1))


if __name__ == "__main__":
    main()
