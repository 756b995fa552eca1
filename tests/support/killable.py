"""Runs that tests kill and resume: processes forked from one that has imported everything."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

RECIPE = '''"""Augmentation, dropout, mixup, batch norm, early stopping's callback, fine_tune, or a solved head."""
from fastai.vision.all import *
from fastcls import data, models, training, transforms
from fastcls.training.averaging import ema
from fastcls.transforms.mixing import mix

def get_learner(path: str, opt: str = 'adamw', bs: int = 16, pixels: bool = True, average: float = 0.):
    from fastcls.training.optimizers import optimizer
    block = DataBlock(blocks=(ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label,
                      splitter=data.stratified(parent_label, 0.25),
                      item_tfms=transforms.resize(16) if pixels else Resize(16, method='squish'),
                      batch_tfms=transforms.augment(flip=True, rotate=10., translate=0.1, jitter=0.2))
    dls = data.loaders(block, path, bs=bs)
    net = models.cnn(3, dls.c, (8, 16), dropout=0.3)
    return models.learner(dls, net, metrics=accuracy, opt_func=optimizer(opt), cbs=[*mix(mixup=0.4), *ema(average)],
                          splitter=lambda m: L(m[:3], m[3:]).map(params))

def fit(learn, epochs: int = 3, solved: bool = False):
    if solved:
        models.fit_head(learn)
        return learn.fit_one_cycle(epochs, slice(1e-4, 1e-3), cbs=training.PolyakAverage())
    learn.fine_tune(epochs, 5e-3, freeze_epochs=1)
'''


class Trials:
    """Runs that can be killed: processes forked from one that has imported everything."""

    def __init__(self, folder: Path, *modules: str) -> None:
        self.folder = folder
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "FASTCLS_DATA": str(folder / "data")}
        self.server = subprocess.Popen(
            [sys.executable, ROOT / "tests" / "support" / "trials.py", *modules],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env,
        )  # fmt: skip
        assert self.server.stdout and self.server.stdout.readline() == "ready\n"

    def ask(self, what: Any) -> int:
        assert self.server.stdin and self.server.stdout
        self.server.stdin.write(json.dumps(what) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def start(self, *words: object) -> int:
        return self.ask([str(self.folder / "log.txt"), *map(str, words)])

    def run(self, *words: object) -> None:
        assert self.ask(self.start(*words)) == 0, (self.folder / "log.txt").read_text()[-3000:]


@pytest.fixture(scope="module")
def trials(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    folder = tmp_path_factory.mktemp("trials")
    rng = np.random.default_rng(0)
    for klass, colour in {"red": 0, "green": 1, "blue": 2}.items():
        (folder / "images" / klass).mkdir(parents=True)
        for i in range(40):
            pixels = rng.integers(0, 200, (16, 16, 3))
            pixels[4:9, 4:9, colour] += 55
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / klass / f"{i}.png")
    (folder / "mine.py").write_text(RECIPE)
    found = Trials(folder, *getattr(request.module, "MODULES", ()))
    with found.server:
        yield found
        found.server.kill()


def digest(run: Path) -> dict[str, Any]:
    """What two runs must have in common: every tensor of the last checkpoint, the best weights, the history."""
    (last,) = sorted((run / "checkpoints").glob("[0-9]*"))[-1:]
    with (run / "history.csv").open(newline="") as file:
        rows = [
            {key: value for key, value in row.items() if key not in ("seconds", "images_per_second")}
            for row in csv.DictReader(file)
        ]
    files = {
        name: hashlib.sha256((last / name).read_bytes()).hexdigest()
        for name in ("state.safetensors", "best.safetensors")
    }
    return {"history": rows, "best_epoch": json.loads((run / "run.json").read_text())["best_epoch"], **files}


def words(trials: Trials, out: Path, *more: object) -> list[object]:
    recipe, images = trials.folder / "mine.py", trials.folder / "images"
    return ["recipe", recipe, "--path", images, "--out", out, "--checkpoint-minutes", 0, "--seed", 7, *more]


VARIANTS: dict[str, list[object]] = {
    "no workers": [],
    "two workers": ["--workers", 2, "--no-pixels"],
    "solved head": ["--solved"],
    "accumulating": ["--opt", "ranger", "--accumulate", 2, "--clip", 1, "--average", 0.9],
}


AUTO = {"auto": ["--epochs", "auto", "--best-by", "f1"]}  # how long it takes is not known before


def saves(run: Path) -> int:
    """How often a run has saved itself."""
    return max((int(folder.name) for folder in (run / "checkpoints").glob("[0-9]*")), default=0)


def ended(child: int) -> bool:
    return Path(f"/proc/{child}/stat").read_text().split()[2] == "Z"


def until(condition: Any, seconds: float = 300) -> None:
    """Wait until it holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)
