"""Mosaics of Imagenette: photographs put together, labelled with all their classes, for several labels an image.

    python -m benchmarks.mosaics ~/data/imagenette2-160 mosaics        # 1,500 + 500 images and labels.csv

One picture in five fills its tile alone, of the others half share it in two, half in three or four quarters. Pictures
of train/ make train, those of val/ make valid. Real pixels, exact labels, a fixed seed.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fastcls.datasets import WNID_NAMES
from fastcls.datasets.walk import is_image, walked

SIDE = 224
PLACES = {
    1: [(0, 0, 2, 2)],
    2: [(0, 0, 1, 2), (1, 0, 1, 2)],
    3: [(0, 0, 1, 1), (1, 0, 1, 1), (0, 1, 1, 1)],
    4: [(0, 0, 1, 1), (1, 0, 1, 1), (0, 1, 1, 1), (1, 1, 1, 1)],
}  # column, row, width and height, in halves of the side


def make(imagenette: Path, out: Path, train: int = 1500, valid: int = 500, seed: int = 0) -> Path:
    """Write `train` + `valid` mosaics and labels.csv (file, labels, split; labels joined by ';'); gives that table."""
    rng = np.random.default_rng(seed)
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for split, folder, count in (("train", "train", train), ("valid", "val", valid)):
        images = [Path(file) for file in walked(imagenette / folder) if is_image(file)]
        for number in range(count):
            parts = 1 if rng.random() < 0.2 else int(rng.choice([2, 2, 3, 4]))
            chosen = [images[i] for i in rng.choice(len(images), parts, replace=False)]
            name = f"{split}{number:04d}.jpg"
            mosaic(chosen, rng).save(out / name, quality=90)
            labels = sorted({WNID_NAMES.get(image.parent.name, image.parent.name) for image in chosen})
            rows.append((name, ";".join(labels), split))
    with (out / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "labels", "split"), *rows])
    return out / "labels.csv"


def mosaic(files: list[Path], rng: np.random.Generator) -> Image.Image:
    """These pictures on one tile, in places drawn by chance; a quarter that is left is gray."""
    tile = Image.new("RGB", (SIDE, SIDE), (128, 128, 128))
    upright = len(files) == 2 and rng.random() < 0.5
    half = SIDE // 2
    for file, (column, row, width, height) in zip(files, PLACES[len(files)], strict=True):
        if upright:
            column, row, width, height = row, column, height, width
        with Image.open(file) as picture:
            part = ImageOps.fit(picture.convert("RGB"), (width * half, height * half), Image.Resampling.BICUBIC)
        tile.paste(part, (column * half, row * half))
    return tile


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("imagenette", type=Path, help="the folder with train/ and val/")
    parser.add_argument("out", type=Path, help="where the mosaics go")
    parser.add_argument("--train", type=int, default=1500)
    parser.add_argument("--valid", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(make(given.imagenette, given.out, given.train, given.valid, given.seed))
