"""How long the light verbs take, against `import typer`:  python -m benchmarks.startup

The bar is a ratio of at most 2: help and lists import neither torch nor fastai. Then the first answer of
`fastcls predict`, against `import onnxruntime`; the bar is a ratio of 2.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import arguments, ratio, show, spread

ROOT = Path(__file__).parents[1]
PEER = "python -c 'import typer'"
IMPORT = "python -c 'import onnxruntime'"
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


def first_answer(rounds: int) -> dict[str, list[float]]:
    """Processor seconds of each command, so that what else runs on the machine hardly counts."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "FASTCLS_DATA": folder, "PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        train = [*["-m", "fastcls", "recipe", "digits-cnn", "--epochs", "1", "--limit", "20", "--out"], f"{folder}/run"]
        subprocess.run([sys.executable, *train], env=environment, stdout=subprocess.DEVNULL, check=True)
        image = next(Path(folder, "digits").rglob("*.png"))
        commands = {
            IMPORT: ["-c", "import onnxruntime"],
            "fastcls predict RUN IMAGE": ["-m", "fastcls", "predict", f"{folder}/run", str(image)],
        }
        spent: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds + 1):
            for name, words in commands.items():
                before = os.times()
                subprocess.run([sys.executable, *words], env=environment, stdout=subprocess.DEVNULL, check=True)
                after = os.times()
                spent[name].append(sum(after[2:4]) - sum(before[2:4]))
    return {name: seconds[1:] for name, seconds in spent.items()}


def verbs(options: argparse.Namespace) -> None:
    times = measure(options.rounds)
    rows = []
    for name, seconds in times.items():
        rows.append([f"`{name}`", spread([1e3 * t for t in seconds], "{:.0f}"), f"{1 / ratio(times, PEER, name):.2f}"])
    show("startup", "Start of the light commands", ["command", "ms", "ratio"], rows, options.rounds, "", options.save)


def predict(options: argparse.Namespace) -> None:
    spent = first_answer(options.rounds)
    rows = [
        [f"`{name}`", spread([1e3 * t for t in seconds], "{:.0f}"), f"{1 / ratio(spent, IMPORT, name):.2f}"]
        for name, seconds in spent.items()
    ]
    columns = ["command", "CPU ms", "ratio"]
    show("startup-predict", "The first prediction", columns, rows, options.rounds, "", options.save)


def main() -> None:
    options = arguments(__doc__ or "", rounds=15, only="")  # only: verbs or predict
    if options.only != "predict":
        verbs(options)
    if options.only != "verbs":
        predict(options)


if __name__ == "__main__":
    main()
