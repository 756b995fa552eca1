"""Test accuracy and time of whole runs of cifar10-speedrun:  python -m benchmarks.speedrun --rounds 3

A round is a seed; the time is that of the whole command, imports, decoding, test split, report and export included.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import arguments, images_folder, show
from fastcls.runfolder import runs


def main() -> None:
    options = arguments(__doc__ or "", rounds=3, first=1)
    rows = []
    for seed in range(options.first, options.first + options.rounds):
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "run"
            words = ["recipe", "cifar10-speedrun", "--path", images_folder("cifar10"), "--keep", "last", "--seed", seed]
            started = time.perf_counter()
            command = [sys.executable, "-W", "ignore", "-m", "fastcls", *words, "--out", out]
            subprocess.run([str(word) for word in command], check=True)
            rows.append(row(out, time.perf_counter() - started))
    accuracies = [float(cells[1]) for cells in rows]
    sd = f" ± {statistics.stdev(accuracies):.4f}" if len(rows) > 1 else ""
    note = f"Mean test accuracy {statistics.mean(accuracies):.4f}{sd}, n = {len(rows)}."
    columns = [
        "seed",
        "test accuracy",
        "95 % interval",
        "whole run, s",
        "of that training, s",
        "images/s",
    ]
    show("speedrun", "cifar10-speedrun on this machine", columns, rows, len(rows), note, options.save)


def row(out: Path, seconds: float) -> list[str]:
    record, accuracy = runs.read_json(out / "run.json"), runs.read_json(out / "metrics.json")["test"]["accuracy"]
    header, *lines = (out / "history.csv").read_text().splitlines()
    training = sum(float(line.split(",")[header.split(",").index("seconds")]) for line in lines)
    speed = record["speed"]
    figures = [f"{accuracy['value']:.4f}", f"{accuracy['low']:.4f}–{accuracy['high']:.4f}"]
    times = [f"{seconds:.0f}", f"{training:.0f}", f"{speed['images_per_second']:,.0f}"]
    return [str(record["seed"]), *figures, *times]


if __name__ == "__main__":
    main()
