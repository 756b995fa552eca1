"""How long the light verbs take, against `import typer`:  python -m benchmarks.startup

The bar is a ratio of at most 2: help and lists import neither torch nor fastai.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import arguments, ratio, show, spread

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
    options = arguments(__doc__ or "", rounds=15)
    times = measure(options.rounds)
    rows = []
    for name, seconds in times.items():
        rows.append([f"`{name}`", spread([1e3 * t for t in seconds], "{:.0f}"), f"{1 / ratio(times, PEER, name):.2f}"])
    show("startup", "Start of the light verbs", ["command", "ms", "ratio"], rows, options.rounds, "", options.save)


if __name__ == "__main__":
    main()
