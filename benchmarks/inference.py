"""Images a second of `fastcls predict` against fastai's get_preds: python -m benchmarks.inference PETS IMAGENETTE CIFAR

The same photographs and weights (random, batch norms warmed up), interleaved; fastai with its own defaults, in fp32.
The arguments are folders of photographs, or of class folders; '-' leaves one out. Memory is the peak of a whole
`fastcls predict` process, for lists of 10,000 and of 100,000 files.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BAR = 2.0
TOLERANCE = 1e-3
MEMORY = """
import re, resource, sys
from pathlib import Path
from fastcls.cli import app
try:
    app(sys.argv[1:], prog_name="fastcls", standalone_mode=False)
finally:
    if sys.platform == "linux":  # ru_maxrss would count the process that started this one
        print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)) / 2**10)
    else:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def stock(files: list[Path], arch: str, size: int) -> Any:
    """A Learner such as fastai's documentation builds, on `files`, its classes made up."""
    import fastai.vision.all as fv
    import torch

    def label(name: str) -> str:
        return f"class {sum(map(ord, name)) % 10}"

    batch = fv.Normalize.from_stats(*fv.imagenet_stats)
    items = fv.Resize(size) if size != 32 else None
    dls = fv.ImageDataLoaders.from_name_func(files[0].parent, files, label, item_tfms=items, batch_tfms=batch)
    if arch == "cnn":
        from fastcls.networks import cnn

        learn = fv.Learner(dls, cnn(3, dls.c), loss_func=fv.CrossEntropyLossFlat())
    else:
        learn = fv.vision_learner(dls, getattr(fv.models, arch), pretrained=False)
    learn.arch_name = arch
    learn.model.train()
    with torch.no_grad():  # batch norms that have seen images, so that probabilities are not all 0 or 1
        for images, _ in itertools.islice(itertools.cycle(dls.valid), 3):
            learn.model(images[:32])
    return learn


def case(files: list[Path], arch: str, size: int, rounds: int) -> dict[str, Any]:
    """Images a second of both sides, `rounds` times in turn, and the largest difference of a probability."""
    from fastcls import export
    from fastcls.predict import Predictor

    learn = stock(files, arch, size)
    with tempfile.TemporaryDirectory() as folder:
        export.save(learn, Path(folder), {})
        predictor = Predictor(Path(folder))

        def ours() -> np.ndarray:
            return np.stack([answer.probabilities for answer in predictor.predict(map(str, files))])

        def theirs() -> np.ndarray:
            with learn.no_bar(), learn.no_logging():
                return learn.get_preds(dl=learn.dls.test_dl(files))[0].numpy()

        sides: dict[str, Callable[[], np.ndarray]] = {"fastcls": ours, "fastai": theirs}
        rates: dict[str, list[float]] = {name: [] for name in sides}
        answers: dict[str, np.ndarray] = {}
        predictor.probabilities([str(file) for file in files[:2]])
        for _ in range(rounds):
            for name, side in sides.items():
                started = time.perf_counter()
                answers[name] = side()
                rates[name].append(len(files) / (time.perf_counter() - started))
    difference = float(np.abs(answers["fastcls"] - answers["fastai"]).max())
    same = float((answers["fastcls"].argmax(1) == answers["fastai"].argmax(1)).mean())
    return {"images": len(files), "rates": rates, "difference": difference, "same_labels": same}


def memory(files: list[Path], arch: str, size: int) -> dict[str, float]:
    """Peak MiB of a process that labels 10,000 and 100,000 files."""
    from fastcls import export, runs

    with tempfile.TemporaryDirectory() as folder:
        export.save(stock(files, arch, size), Path(folder), {})
        runs.write_json(Path(folder) / "run.json", {})
        words = [sys.executable, "-c", MEMORY, "predict", folder, "-", "-o", f"{folder}/labels.csv"]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        peaks = {}
        for count in (10_000, 100_000):
            listed = "".join(f"{file}\n" for file in itertools.islice(itertools.cycle(files), count))
            done = subprocess.run(words, env=environment, input=listed, check=True, stdout=subprocess.PIPE, text=True)
            assert f"{count:,} of {count:,} images labelled" in done.stdout
            peaks[str(count)] = float(done.stdout.split()[-1])
        return peaks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("pets", "imagenette", "cifar"):
        parser.add_argument(name, help="a folder of images, or -")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write every figure to this file")
    arguments = parser.parse_args()
    cases = [
        ("ResNet-18, 224 px", arguments.pets, "resnet18", 224),
        ("ResNet-50, 224 px", arguments.pets, "resnet50", 224),
        ("ResNet-18, 128 px", arguments.imagenette, "resnet18", 128),
        ("CNN, 32 px", arguments.cifar, "cnn", 32),
    ]
    results: dict[str, Any] = {}
    print(f"{'':20s}{'files':>7s}{'fastcls images/s':>24s}{'fastai images/s':>24s}{'ratio':>7s}{'difference':>12s}")
    for name, folder, arch, size in cases:
        if folder == "-":
            continue
        files = sorted(f for f in Path(folder).rglob("*") if f.suffix.lower() in (".jpg", ".jpeg", ".png"))
        result = results[name] = case(files, arch, size, arguments.rounds)
        ours, theirs = (result["rates"][side] for side in ("fastcls", "fastai"))
        result["ratio"] = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        spread = [f"{statistics.median(r):,.0f} ({min(r):,.0f}–{max(r):,.0f})" for r in (ours, theirs)]
        print(
            f"{name:20s}{len(files):7,d}{spread[0]:>24s}{spread[1]:>24s}{result['ratio']:7.2f}"
            f"{result['difference']:12.1e}",
            flush=True,
        )
        assert result["difference"] <= TOLERANCE, "the two sides disagree"
    if arguments.cifar != "-":
        found = results["memory"] = memory(files, "cnn", 32)
        print("peak memory: " + ", ".join(f"{int(n):,} files {mib:,.0f} MiB" for n, mib in found.items()))
    print(
        f"n = {arguments.rounds} rounds in turn; medians (min–max); {len(os.sched_getaffinity(0))} cores; bar {BAR:g}"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
