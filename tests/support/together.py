"""Runs of several processes, and what they must have in common with those of one.

The network computes in 64 bits, so that what is left of the difference between averaging two halves of a batch and
summing the whole is far below any mistake in sharing out images, in the moments of batch norm, in gradients or in
figures: those would show in the first digits.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import csv_rows
from killable import Forks, Trials

RECIPE = '''"""Augmentation, batch norm, a frozen phase and a whole one, in 64 bits."""
from fastai.vision.all import *
from fastcls import data, models, transforms

class Exact(nn.Module):
    def __init__(self, net, unused):
        super().__init__()
        self.net, self.unused = net.double(), nn.Linear(1, 1) if unused else nn.Identity()

    def forward(self, x): return self.net(x.double())

def counted(preds, targs): return float(len(preds))

def get_learner(path: str, bs: int = 16, pixels: bool = True, unused: bool = False):
    block = DataBlock(blocks=(ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label,
                      splitter=data.stratified(parent_label, 0.3),
                      item_tfms=transforms.resize(16) if pixels else Resize(16, method='squish'),
                      batch_tfms=transforms.augment(flip=True, rotate=10., translate=0.1, jitter=0.2))
    dls = data.loaders(block, path, bs=bs)
    net = Exact(models.cnn(3, dls.c, (8, 16)), unused)
    return models.learner(dls, net, metrics=[accuracy, AccumMetric(counted, dim_argmax=-1, name='images')],
                          splitter=lambda m: L(m.net[:3], nn.ModuleList([m.net[3:], m.unused])).map(params))

def fit(learn, epochs: int = 2):
    learn.fine_tune(epochs, 5e-3, freeze_epochs=1)
'''
IMAGES = {"red": 47, "green": 45, "blue": 44}  # 41 to validate with: two processes cannot share them evenly


@pytest.fixture(scope="module")
def several(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Trials:
    common = ("--device", "cpu", "--precision", "fp32")
    return Trials(tmp_path_factory.mktemp("several"), forks, RECIPE, IMAGES, *common)


@pytest.fixture(scope="module")
def alone(several: Trials) -> Path:
    """What one process makes of it."""
    several.several(1, *several.words("alone"))
    return several.folder / "alone"


def state(run: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    (newest,) = sorted((run / "checkpoints").glob("[0-9]*"))[-1:]
    return {name: load_file(newest / f"{name}.safetensors") for name in ("state", "best")}


def history(run: Path) -> list[dict[str, str]]:
    return csv_rows(run / "history.csv")


def assert_same(run: Path, other: Path) -> None:
    """Every tensor of the last checkpoint, the best weights, and every figure of the history, but for rounding."""
    for name, tensors in state(run).items():
        expected = state(other)[name]
        assert tensors.keys() == expected.keys() and not any("module." in key for key in tensors)
        for key, value in tensors.items():
            rounding = 1e-9 if value.dtype == np.float64 else 1e-6  # losses are kept in 32 bits
            np.testing.assert_allclose(value, expected[key], rounding, 1e-12, err_msg=f"{name} {key}")
    rows, expected_rows = history(run), history(other)
    assert len(rows) == len(expected_rows)
    for row, expected_row in zip(rows, expected_rows, strict=True):
        for name in ("train_loss", "valid_loss", "accuracy", "images", "lr", "step"):
            assert float(row[name]) == pytest.approx(float(expected_row[name]), rel=1e-6), name
        assert row["phase"] == expected_row["phase"]
    record, expected_record = (json.loads((folder / "run.json").read_text()) for folder in (run, other))
    assert record["best_epoch"] == expected_record["best_epoch"] and record["status"] == "done"


def record(run: Path) -> dict[str, Any]:
    return json.loads((run / "run.json").read_text())
