"""Images a second of `fastcls predict` against fastai's get_preds: python -m benchmarks.inference

The same photographs and weights (random, batch norms warmed up), interleaved; fastai with its own defaults, in fp32.
Memory is the peak of a whole
`fastcls predict` process, for lists of 10,000 and of 100,000 files.
"""

from __future__ import annotations

import itertools
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

from benchmarks.common import arguments, images_folder, show, spread

BAR = 2.0
TOLERANCE = 1e-3
MEMORY = """
import re, resource, sys
from pathlib import Path
from fastcls.cli.verbs import app
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
        from fastcls.models.networks import cnn

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
    from fastcls.inference import export
    from fastcls.inference.predictor import Predictor

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
    from fastcls.inference import export
    from fastcls.runfolder import runs

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
    options = arguments(__doc__ or "", rounds=5)
    cases = [
        ("ResNet-18, 224 px", images_folder("oxford-iiit-pet-sample"), "resnet18", 224),
        ("ResNet-50, 224 px", images_folder("oxford-iiit-pet-sample"), "resnet50", 224),
        ("ResNet-18, 128 px", images_folder("imagenette2-160") / "val", "resnet18", 128),
        ("CNN, 32 px", images_folder("cifar10") / "test", "cnn", 32),
    ]
    rows = []
    for name, folder, arch, size in cases:
        files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in (".jpg", ".jpeg", ".png"))
        result = case(files, arch, size, options.rounds)
        assert result["difference"] <= TOLERANCE, "the two sides disagree"
        ours, theirs = (result["rates"][side] for side in ("fastcls", "fastai"))
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        shown = [spread(rates, "{:,.0f}") for rates in (ours, theirs)]
        rows.append([name, f"{len(files):,}", *shown, f"{ratio:.2f}", f"{result['difference']:.0e}"])
    peaks = memory(files, "cnn", 32)
    note = "Peak memory of a `fastcls predict` process: " + ", ".join(
        f"{megabytes:,.0f} MB for {int(count):,} files" for count, megabytes in peaks.items()
    )
    columns = ["network", "files", "fastcls predict, images/s", "fastai get_preds, images/s", "ratio", "difference"]
    show("inference", "Inference", columns, rows, options.rounds, f"{note}. Ratio bar: {BAR:g}.", options.save)


if __name__ == "__main__":
    main()
