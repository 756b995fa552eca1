"""Runs that tests kill and resume: processes forked from one that has imported everything."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from fastcls.machine import ranks

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


class Ended(NamedTuple):
    """What a process ended with, the seconds of a processor that it took, and the most bytes that it had."""

    code: int
    seconds: float
    most: int


class Forks:
    """The process of trials.py, for all tests of one of pytest's workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = subprocess.Popen(
            [sys.executable, ROOT / "tests" / "support" / "trials.py"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert self._answer() == ["ready"]

    def _answer(self) -> list[str]:
        assert self.server.stdout
        return self.server.stdout.readline().split()

    def _ask(self, what: Any) -> list[str]:
        assert self.server.stdin
        self.server.stdin.write(json.dumps(what) + "\n")
        self.server.stdin.flush()
        return self._answer()

    def start(self, words: Sequence[object], log: Path, **how: Any) -> tuple[int, int]:
        """The number of a process that runs the command, and the bytes that it begins with; how: see trials.py."""
        number, resident = self._ask({"words": [str(word) for word in words], "log": str(log), **how})
        return int(number), int(resident)

    def wait(self, child: int) -> Ended:
        code, seconds, most = self._ask(child)
        return Ended(int(code), float(seconds), int(most))


@pytest.fixture(scope="session")
def forks(data_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    found = Forks(tmp_path_factory.mktemp("forks"))
    with found.server:
        yield found
        found.server.kill()


class Trials:
    """Runs that can be killed, of a recipe and some images in a folder."""

    def __init__(self, folder: Path, forks: Forks, recipe: str, images: dict[str, int], *common: object) -> None:
        self.folder, self.forks, self.common = folder, forks, common
        draw(folder / "images", images)
        (folder / "mine.py").write_text(recipe)

    def words(self, out: str | Path, *more: object) -> list[object]:
        """Those of a run into a folder."""
        words = ["recipe", self.folder / "mine.py", "--path", self.folder / "images", "--out", self.folder / out]
        return [*words, "--checkpoint-minutes", 0, "--seed", 7, *self.common, *more]

    def _fork(self, words: Sequence[object], log: Path, env: dict[str, str], **how: Any) -> int:
        data = {"FASTCLS_DATA": str(self.folder / "data")}
        return self.forks.start(words, log, env=data | env, **how)[0]

    def start(self, *words: object) -> int:
        """The number of the process of a run; what it shows goes to the end of log.txt."""
        return self._fork(words, self.folder / "log.txt", {})

    def wait(self, child: int) -> int:
        return self.forks.wait(child).code

    def run(self, *words: object) -> None:
        assert self.wait(self.start(*words)) == 0, (self.folder / "log.txt").read_text()[-3000:]

    def begin(
        self, count: int, *words: object, whole: bool = False, strike: Any = None, env: dict[str, str] | None = None
    ) -> list[int]:
        """The process numbers of one run, by rank; what each shows goes to rank-<n>.txt. whole: the report and all."""
        store, started = self.folder / f"store {time.monotonic_ns()}", []
        for rank in range(count):
            self.log(rank).unlink(missing_ok=True)
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
            place = {name: str(value) for name, value in place.items()} | {ranks.RENDEZVOUS: store.as_uri()}
            mine = [str(word).replace("{rank}", str(rank)) for word in words]
            there = (place if count > 1 else {}) | (env or {})
            blow = None if rank else strike
            started.append(self._fork(mine, self.log(rank), there, whole=whole, strike=blow))
        return started

    def several(self, count: int, *words: object, whole: bool = False, env: dict[str, str] | None = None) -> None:
        for rank, child in enumerate(self.begin(count, *words, whole=whole, env=env)):
            assert self.wait(child) == 0, self.log(rank).read_text()[-3000:]

    def log(self, rank: int) -> Path:
        return self.folder / f"rank-{rank}.txt"


def draw(home: Path, images: dict[str, int]) -> None:
    """So many images of each colour."""
    rng = np.random.default_rng(0)
    for channel, (klass, count) in enumerate(images.items()):
        (home / klass).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 200, (16, 16, 3))
            pixels[4:9, 4:9, channel] += 55
            Image.fromarray(pixels.astype(np.uint8)).save(home / klass / f"{i}.png")


@pytest.fixture(scope="module")
def trials(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Trials:
    return Trials(tmp_path_factory.mktemp("trials"), forks, RECIPE, dict.fromkeys(("red", "green", "blue"), 40))


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
