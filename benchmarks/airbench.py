"""cifar10-speedrun against airbench on the same GPU:  python -m benchmarks.airbench --script airbench94_muon.py

The peer is K. Jordan's public script (github.com/KellerJordan/cifar10-airbench), run as it is; it trains on the dataset
that it downloads. Ours trains through fastai's Learner on image files that are decoded once; only training counts on
both sides, as the peer reports it. Without a CUDA GPU there is nothing to compare.
"""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import statistics
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.common import arguments, images_folder, show, spread


def ours(folder: Path, seed: int, words: list[str]) -> tuple[float, float]:
    """Test accuracy and seconds of training of one run."""
    from typer.testing import CliRunner

    from fastcls.cli.verbs import app
    from fastcls.runfolder import runs

    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "run"
        command = [
            "recipe",
            "cifar10-speedrun",
            "--path",
            folder,
            "--keep",
            "last",
            "--seed",
            seed,
            "--out",
            out,
            *words,
        ]
        result = CliRunner().invoke(app, [str(word) for word in command])
        if result.exit_code:
            sys.exit(result.output)
        history = (out / "history.csv").read_text().splitlines()
        place = history[0].split(",").index("seconds")
        return runs.read_json(out / "metrics.json")["test"]["accuracy"]["value"], sum(
            float(line.split(",")[place]) for line in history[1:]
        )


def peer(script: Path) -> list[tuple[float, float]]:
    """(accuracy, seconds) of the runs that the script prints a table of: its last two percentages and its time."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        runpy.run_path(str(script), run_name="__main__")
    found = []
    for line in text.getvalue().splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        if len(cells) >= 6 and "eval" in cells and re.fullmatch(r"0\.\d+", cells[-2] or ""):
            found.append((float(cells[-2]), float(cells[-1])))
    return found


def main() -> None:
    options = arguments(__doc__ or "", rounds=5, script="", epochs=0)
    if not torch.cuda.is_available():
        sys.exit("There is no CUDA GPU: not measured.")
    words = ["--epochs", str(options.epochs)] if options.epochs else []
    folder = images_folder("cifar10")
    ours(folder, 0, ["--epochs", "1"])  # decodes the images, compiles what there is to compile
    mine = [ours(folder, seed, words) for seed in range(1, options.rounds + 1)]
    sides = {"fastcls cifar10-speedrun": mine}
    if options.script:
        sides["airbench"] = peer(Path(options.script))
    base = statistics.median(seconds for _, seconds in mine)
    rows = []
    for name, found in sides.items():
        if not found:
            sys.exit(f"{options.script} printed no table of results that could be read.")
        accuracies, seconds = zip(*found, strict=True)
        rows.append(
            [
                name,
                f"{statistics.mean(accuracies):.4f}",
                spread(accuracies, "{:.4f}"),
                spread(seconds, "{:.2f}"),
                f"{base / statistics.median(seconds):.2f}",
            ]
        )
    columns = [
        "side",
        "mean test accuracy",
        "median (least–most)",
        "seconds of training",
        "ours, times as long",
    ]
    show("airbench", "CIFAR-10 on one GPU", columns, rows, options.rounds, "", options.save)


if __name__ == "__main__":
    main()
