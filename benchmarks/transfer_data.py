"""Real photographs for benchmarks.transfer: a few images a class, the same files for every method.

A subset is drawn by its seed from the training split; a fifth of each class (at least one image) is held out of it for
validation, so that every method chooses its epoch on the same images. The test images are never trained on.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import images_folder

Images = list[tuple[str, str]]  # path below the dataset's folder, class

TEST_IMAGES_A_CLASS = 100  # of Imagenette: 1,000 of its 3,925, always the same


@dataclass(frozen=True)
class Dataset:
    """A folder of images with their published split."""

    root: Path
    train: Images
    test: Images

    def subset(self, shots: str, seed: int) -> tuple[Images, Images]:
        """(train, valid): `shots` images a class, or 'all'; a fifth of each class is held out for validation."""
        drawn, train, valid = random.Random(seed), [], []
        for images in _by_class(self.train):
            drawn.shuffle(images)
            chosen = images if shots == "all" else images[: int(shots)]
            held_out = max(1, len(chosen) // 5)
            valid += chosen[:held_out]
            train += chosen[held_out:]
        return sorted(train), sorted(valid)

    def takes_all(self, shots: str) -> bool:
        """Whether so many images a class are the training split, but for a few (pets have 19.9 a class)."""
        return shots == "all" or sum(map(len, self.subset(shots, 0))) > 0.95 * len(self.train)


def load(name: str, data: Path) -> Dataset:
    """'pets', 'birds' or 'imagenette' below the folder that ../shared/data's archives are unpacked into."""
    return {"pets": _pets, "birds": _birds, "imagenette": _imagenette}[name](data)


def _by_class(images: Images) -> list[Images]:
    classes = defaultdict(list)
    for path, label in images:
        classes[label].append((path, label))
    return [sorted(classes[label]) for label in sorted(classes)]


def _pets(data: Path) -> Dataset:
    root = images_folder("oxford-iiit-pet-40", data)

    def part(name: str) -> Images:
        names = [line.split()[0] for line in (root / "annotations" / f"{name}.txt").read_text().splitlines()]
        return [(f"images/{name}.jpg", name.rpartition("_")[0]) for name in names]

    return Dataset(root, part("trainval"), part("test"))


def _birds(data: Path) -> Dataset:
    root = images_folder("CUB_200_2011", data)
    paths, in_train = (_table(root / f"{name}.txt") for name in ("images", "train_test_split"))
    parts: dict[str, Images] = {"1": [], "0": []}
    for number, path in paths.items():
        parts[in_train[number]].append((f"images/{path}", path.partition("/")[0]))
    return Dataset(root, parts["1"], parts["0"])


def _imagenette(data: Path) -> Dataset:
    root = images_folder("imagenette2-160", data)

    def part(name: str) -> Images:
        return sorted((f"{name}/{file.parent.name}/{file.name}", file.parent.name) for file in root.glob(f"{name}/*/*"))

    fixed = random.Random(0)
    test = [image for images in _by_class(part("val")) for image in fixed.sample(images, TEST_IMAGES_A_CLASS)]
    return Dataset(root, part("train"), test)


def _table(file: Path) -> dict[str, str]:
    rows: Iterable[list[str]] = (line.split() for line in file.read_text().splitlines())
    return {row[0]: row[1] for row in rows}
