"""Time and memory as the data grow:  python -m benchmarks.growth

Images, classes, image size and workers, one at a time, on made-up JPEGs. Each point is a process of its own, so that
its memory is its own. Draws docs/growth.png; nothing may grow faster than what it is plotted against.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, show

ROOT = Path(__file__).parents[1]
IMAGES, CLASSES, SIZES, WORKERS = (
    (1_000, 10_000, 100_000),
    (2, 100, 1_000, 10_000),
    (32, 64, 128, 256, 512),
    (0, 1, 2, 4),
)
BASE = {"images": 10_000, "classes": 10, "size": 32, "workers": 0}


def make(folder: Path, images: int, classes: int, size: int) -> None:
    """So many links to 64 noisy JPEGs, in class folders."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    originals = []
    for i in range(64):
        file = folder / f"{i}.jpg"
        Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)).save(file, quality=90)
        originals.append(file)
    for c in range(classes):
        (folder / "images" / f"c{c:05d}").mkdir(parents=True)
    for i in range(images):
        os.link(originals[i % 64], folder / "images" / f"c{i % classes:05d}" / f"{i}.jpg")


def point(images: int, classes: int, size: int, workers: int) -> dict[str, float]:
    """Seconds of building the loaders, of decoding, and of an epoch; peak memory in MB above the imports'."""
    import resource

    from fastcls.running.loading import import_fastai

    import_fastai()
    from fastai.vision.all import CategoryBlock, DataBlock, ImageBlock, get_image_files, parent_label

    from fastcls import data, transforms
    from fastcls.settings import options

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    with tempfile.TemporaryDirectory() as scratch:
        os.environ["FASTCLS_DATA"] = f"{scratch}/data"
        make(Path(scratch), images, classes, size)
        before = peak()
        started = time.perf_counter()
        with options.using(options.Options(workers=workers)):
            block = DataBlock(
                (ImageBlock, CategoryBlock),
                get_items=get_image_files,
                get_y=parent_label,
                splitter=data.stratified(parent_label),
                batch_tfms=transforms.Crop(4, flip=0.5),
            )
            dls = data.loaders(block, Path(scratch) / "images", bs=64)
            built = time.perf_counter()
            dls.plan.prepare()
            decoded = time.perf_counter()
            for _ in dls.train:
                pass
        return {
            "building": built - started,
            "decoding": decoded - built,
            "epoch": time.perf_counter() - decoded,
            "memory": peak() - before,
        }


def draw(found: dict[str, list[tuple[int, dict[str, float]]]], file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6), layout="constrained")
    axes = figure.subplots(2, len(found))
    for column, (what, points) in enumerate(found.items()):
        x = [value for value, _ in points]
        for name in ("building", "decoding", "epoch"):
            axes[0, column].plot(x, [p[name] for _, p in points], "o-", label=name)
        axes[1, column].plot(x, [p["memory"] for _, p in points], "o-", color="0.3")
        for row, label in ((0, "seconds"), (1, "memory, MB")):
            axes[row, column].set(xlabel=what, ylabel=label if column == 0 else "")
            axes[row, column].spines[["top", "right"]].set_visible(False)
            if what != "workers":
                axes[row, column].set(xscale="log")
                axes[row, column].set_xticks(x, [f"{value:,}" for value in x])
                axes[row, column].minorticks_off()
            if what in ("images", "size"):
                axes[row, column].set(yscale="log")
            else:
                axes[row, column].set_ylim(bottom=0)
    axes[0, 0].legend(frameon=False)
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--point", help=argparse.SUPPRESS)
    parser.add_argument("--million", action="store_true", help="also a million images")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/growth.json and docs/growth.png")
    arguments = parser.parse_args()
    if arguments.point:
        print(json.dumps(point(**json.loads(arguments.point))))
        return
    images = (*IMAGES, 1_000_000) if arguments.million else IMAGES
    found: dict[str, list[tuple[int, dict[str, float]]]] = {}
    rows: list[list[Any]] = []
    for what, values in (("images", images), ("classes", CLASSES), ("size", SIZES), ("workers", WORKERS)):
        for value in values:
            settings = {**BASE, what: value} | ({"images": 20_000} if what == "classes" else {})
            settings |= {"images": 2_000} if what in ("size", "workers") else {}
            words = [sys.executable, "-W", "ignore", "-m", "benchmarks.growth", "--point", json.dumps(settings)]
            done = subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
            measured = json.loads(done.stdout.splitlines()[-1])
            found.setdefault(what, []).append((value, measured))
            rows.append(
                [
                    f"{value:,} {what}",
                    *(f"{measured[key]:.2f}" for key in ("building", "decoding", "epoch")),
                    f"{measured['memory']:,.0f}",
                ]
            )
            print(rows[-1], file=sys.stderr, flush=True)
    columns = ["", "building the loaders, s", "decoding, s, once", "an epoch, s", "memory, MB"]
    note = (
        "Synthetic JPEGs of 32 px; 10,000 images in 10 classes unless the row says otherwise, "
        "20,000 for classes, 2,000 for size and workers. One process per row, n = 1: memory is what loading adds to "
        "that of the imports."
    )
    show("growth", "Growth", columns, rows, 1, note, arguments.save)
    if arguments.save:
        draw(found, RESULTS.parents[1] / "docs" / "growth.png")


if __name__ == "__main__":
    main()
