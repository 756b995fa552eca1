"""What the documentation assumes, in small: photographs, tables, datasets, weights, earlier runs."""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import command
from PIL import Image

from fastcls.datasets import WNID_NAMES
from fastcls.runfolder import runs
from fastcls.training.checkpoints import Store

EARLIER = "20261121-101500-abcd"  # the run that the pages name
SMALL = ("--arch", "squeezenet1_1", "--weights", "none", "--size", 32, "--bs", 8, "--epochs", 1)


def picture(file: Path, hue: int, rng: np.random.Generator, side: int = 64) -> None:
    """A picture of noise with a patch whose colour is its class's."""
    pixels = rng.integers(0, 200, (side, side, 3))
    pixels[side // 4 : side // 2, side // 4 : side // 2] = (hue * 67 % 256, hue * 131 % 256, hue * 29 % 256)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(file, quality=90)


def photographs(folder: Path) -> None:
    """What a user has: class folders, a table of labels, pictures without, a competition's test set and sample."""
    rng = np.random.default_rng(0)
    rows = []
    for hue, label in enumerate(("cat", "dog", "horse", "sheep")):
        for i in range(8):
            rows.append((f"{label}/{label}_{i:02d}.jpg", label))
            picture(folder / "photos" / rows[-1][0], hue, rng)
    for i in range(4):
        picture(folder / "new_photos" / f"{i}.jpg", i, rng)
        picture(folder / "test" / f"{i:03d}.jpg", i, rng)
    later = []
    for i in range(24):
        label, site = ("cat", "dog", "horse")[i % 3], "north" if i % 2 else "south"
        later.append((f"{i}.jpg", label, site))
        picture(folder / "new_site" / f"{i}.jpg", i % 3, rng)
        picture(folder / "digits_of_may" / str(i % 3) / f"{i}.png", i % 3, rng, 8)
    tables = {
        "may.csv": [("path", "label", "site"), *later],
        "labels.csv": [("path", "label"), *rows],
        "patients.csv": [
            ("path", "label", "patient"),
            *((*row, f"{row[0][:3]}{i // 2 % 4}") for i, row in enumerate(rows)),
        ],
        "tags.csv": [("path", "tags"), *((row[0], row[1] + ";outdoors" * (i % 2)) for i, row in enumerate(rows))],
        "paths.csv": [("path",), *((f"photos/{name}",) for name, _ in rows)],
        "sample_submission.csv": [("image_id", "breed"), *((f"{i:03d}", "cat") for i in range(4))],
    }
    for name, lines in tables.items():
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows(lines)


def datasets(cache: Path) -> None:
    """What recipes download, as it is in the cache folder afterwards, with few images."""
    rng = np.random.default_rng(1)

    def fill(folder: Path, classes: list[str], count: int, side: int, kind: str) -> None:
        for hue, name in enumerate(classes):
            for i in range(count):
                picture(folder / name / f"{name}_{i}.{kind}", hue, rng, side)

    for name, count, each in (("cifar10", 10, 8), ("cifar100", 100, 3)):
        classes = [f"class{i:02d}" for i in range(count)]
        fill(cache / f"{name}-png" / "train", classes, each, 32, "png")
        fill(cache / f"{name}-png" / "test", classes, 1, 32, "png")
    wnids = [wnid for wnid, name in WNID_NAMES.items() if name in ("tench", "church", "parachute")]
    for name in ("imagenette2-160", "imagenette2-320"):
        fill(cache / name / name / "train", wnids, 8, 64, "jpg")
        fill(cache / name / name / "val", wnids, 2, 64, "jpg")
    for hue, breed in enumerate(("Abyssinian", "beagle", "pug")):
        for i in range(8):
            picture(cache / "oxford-iiit-pet" / "images" / f"{breed}_{i}.jpg", hue, rng)


def random_weights(url: str, file: str, *args: object, **kwargs: object) -> None:
    """In place of torch.hub's download: the network that torchvision has at `url`, its weights random."""
    import torch
    from torchvision.models import get_model, get_model_weights, list_models

    for name in list_models():
        if any(weights.url == url for weights in get_model_weights(name)):
            torch.save(get_model(name).state_dict(), file)
            return
    raise AssertionError(f"torchvision has no weights at {url}")


@contextlib.contextmanager
def interrupted_at_a_checkpoint() -> Iterator[None]:
    """Meanwhile a run is sent Ctrl-C when its first checkpoint is there."""
    save = Store.save

    def interrupted(*args: object) -> Path:
        saved = save(*args)
        os.kill(os.getpid(), signal.SIGINT)
        return saved

    with pytest.MonkeyPatch.context() as once:
        once.setattr(Store, "save", interrupted)
        yield


def earlier_runs(folder: Path, digits: Path, patch: pytest.MonkeyPatch) -> Path:
    """Runs under runs/, one of folder and, the newest, one of digits-cnn. Gives another, which was interrupted."""
    patch.chdir(folder)
    outcome = command("recipe", "folder", "--path", "photos", *SMALL, "--out", f"runs/folder/{EARLIER}")
    assert outcome.code == 0, outcome.output
    shutil.copytree(digits, folder / "runs" / "digits-cnn" / "20261121-101501-efgh")
    with interrupted_at_a_checkpoint():
        outcome = command("recipe", "digits-cnn", "--limit", 12, "--epochs", 2, "--filters", "8", "--out", "cut-off")
    assert outcome.code == 130, outcome.output
    return (folder / "cut-off").rename(folder.parent / "cut-off")


def newest(interrupted: Path) -> None:
    """Have the interrupted run be the newest of this folder."""
    shutil.copytree(interrupted, runs.new_folder("digits-cnn"))
