"""Every case of bad_inputs.py: its outcome, its message, its exit code, its pixels and labels; the files untouched."""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
import os
import runpy
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from bad_inputs import CASES, Case
from conftest import ROOT, Outcome, command
from PIL import Image

from fastcls.images import preprocessing, uploads
from fastcls.images.decode import decode
from fastcls.running.loading import import_fastai

REACHED = 6  # the exit code of a recipe that ends at its first step
RECIPE = '''
"""Everything before the first step, which says so."""
from fastai.vision.all import *
from fastcls import data, datasets, models, training, transforms
from fastcls.transforms import draws
from fastcls.errors import TrainingError

def get_learner(path: str, labels: str = '', label_regex: str = '', valid_pct: float = 0.2, size: int = 8, bs: int = 8,
                filters: tuple[int, ...] = (4,), dropout: float = 0.):
    table = datasets.folder(path, labels=labels, label_regex=label_regex, valid_pct=valid_pct)
    block = DataBlock((ImageBlock, CategoryBlock), get_x=ColReader('path'), get_y=ColReader('label'),
                      splitter=data.by_column, item_tfms=transforms.resize(size, method='squish'))
    dls = data.loaders(block, table, bs=bs)
    return models.learner(dls, models.cnn(3, dls.c, filters, dropout=dropout), metrics=accuracy)

def fit(learn, epochs: int = 1, lr: float = 0.1):
    seen = {}
    for dataset in (learn.dls.train_ds, learn.dls.valid_ds):
        every = learn.dls.plan.source(dataset)(draws.Key(0, 0, np.arange(len(dataset))))
        seen.update(zip(dataset.items['path'], every.permute(0, 2, 3, 1).numpy()))
    np.savez('seen.npz', paths=np.array(list(seen)), pixels=np.stack(list(seen.values())))
    raise TrainingError('the first step')
'''
TRAINED = ("--precision", "fp32", "--out", "run")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "first_step.py").write_text(RECIPE.lstrip())
    return tmp_path


def state(folder: Path) -> dict[str, tuple[object, ...]]:
    """Everything below a folder: kind, time, and what it holds."""
    found = {}
    for parent, folders, files in os.walk(os.fsencode(folder)):
        for name in (*folders, *files):
            path = Path(os.fsdecode(parent), os.fsdecode(name))
            status = path.lstat()
            data = hashlib.sha256(path.read_bytes()).digest() if path.is_file() and not path.is_symlink() else b""
            found[str(path)] = (status.st_mode, status.st_mtime_ns, status.st_size, data)
    return found


def run(case: Case) -> Outcome:
    """What training, up to its first step, makes of it."""
    words = case.words if "--path" in case.words else ("--path", "photos", *case.words)
    return command("recipe", "./first_step.py", *TRAINED, *words)


def trained_on() -> dict[str, tuple[str, str]]:
    """{path below photos: (label, split)} as the run recorded it."""
    images = Path(json.loads(Path("run/run.json").read_text())["data"]["root"])
    with Path("run/splits.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {os.path.relpath(images / row["path"], "photos"): (row["label"], row["split"]) for row in rows}


def test_the_table_is_long_enough_and_the_page_is_made_from_it() -> None:
    assert len(CASES) >= 120 and len({(case.kind, case.name) for case in CASES}) == len(CASES)
    page = runpy.run_path(str(ROOT / "scripts" / "bad_inputs"))["page"]
    assert (ROOT / "docs" / "bad_inputs.md").read_text(encoding="utf-8") == page(), "run scripts/bad_inputs"


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """What takes long once, whatever the input."""
    import_fastai()
    importlib.import_module("sklearn.model_selection")


@pytest.mark.timeout(60, func_only=True)
@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.kind}: {case.name}".encode("ascii", "replace").decode()
)
def test_every_bad_input_has_its_declared_outcome(place: Path, case: Case) -> None:
    expected = case.make(place / "photos")
    before = state(place / "photos")
    started = time.process_time()  # what else runs on the machine does not count
    outcome = run(case)
    assert time.process_time() - started < 10
    told = " ".join(outcome.output.split())
    assert "Traceback" not in outcome.output and case.says in told, outcome.output
    assert state(place / "photos") == before
    if case.outcome == "refused":
        assert outcome.code == case.code and "error: " in outcome.output, outcome.output
        assert not Path("seen.npz").exists(), "it reached the first step"
    else:
        assert outcome.code == REACHED, outcome.output
        if expected is not None:
            assert_labels(expected)
        if case.pixels is not None:
            assert_pixels(place / "photos" / case.file, case.pixels())
    if case.kind != "knob" and "--limit" not in case.words:
        assert_checked(case)


def assert_labels(expected: dict[str, str]) -> None:
    """Each file has the label, and the split, that a careful reader gives it, and no other file is there."""
    found = trained_on()
    assert {path: label for path, (label, _) in found.items()} == {
        path: row.removesuffix(f" {found[path][1]}") if path in found else row for path, row in expected.items()
    }


def assert_pixels(file: Path, pixels: np.ndarray) -> None:
    """The same pixels, give or take a last bit, in training, item by item, in prediction and in the browser."""
    from fastai.vision.core import PILImage

    alike = {"decoded": decode(file), "an item": np.asarray(PILImage.create(file))}
    if _taken_in_the_browser(file):
        alike["in the browser"] = uploads.read(file.read_bytes()).pixels
    for where, seen in alike.items():
        assert seen.shape == pixels.shape, where
        assert np.abs(seen.astype(int) - pixels).max() <= 3, where
    how = {"mode": "RGB", "method": "squish", "resize": [8, 8], "size": [8, 8]}
    with np.load("seen.npz") as held:
        in_training = dict(zip(held["paths"].tolist(), held["pixels"], strict=True))[file.as_posix()]
    np.testing.assert_array_equal(in_training, preprocessing.prepare(file, how))
    assert np.abs(in_training.astype(int) - preprocessing.prepare(pixels, how)).max() <= 3


def _taken_in_the_browser(file: Path) -> bool:
    with Image.open(file) as image:
        return image.format in uploads.FORMATS and getattr(image, "n_frames", 1) == 1


def assert_checked(case: Case) -> None:
    """`fastcls check` ends in an error wherever training is refused."""
    words = dict(zip(case.words[::2], case.words[1::2], strict=True))
    path = words.pop("--path", "photos")
    checked = command("check", path, *(word for pair in words.items() for word in pair), "-o", "checked")
    assert "Traceback" not in checked.output
    assert checked.code in ((case.code,) if case.outcome == "refused" else (0, 3)), checked.output


def test_what_was_trained_and_evaluated_is_what_is_predicted(place: Path) -> None:
    """A run on turned, transparent, deep, moving and CMYK files, and `predict` on the same files afterwards."""
    odd = [case for case in CASES if case.pixels is not None and case.outcome != "refused"]
    for number, case in enumerate(odd):
        case.make(place / "made")
        target = place / "photos" / ("cat", "dog")[number % 2] / f"{number}{Path(case.file).suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(place / "made" / case.file, target)
        shutil.rmtree(place / "made")
    Path("whole.py").write_text(RECIPE.lstrip().split("    seen = {}")[0] + "    learn.fit_one_cycle(epochs, lr)\n")
    outcome = command("recipe", "./whole.py", "--path", "photos", "--valid-pct", "0.5", *TRAINED)
    assert outcome.code == 0, outcome.output
    with Path("run/predictions.csv").open(newline="", encoding="utf-8") as file:
        evaluated = {Path(row["path"]).name: row for row in csv.DictReader(file)}
    answer = command("predict", "run", "photos", "-o", "labels.csv", "--probabilities")
    assert answer.code == 0, answer.output
    with Path("labels.csv").open(newline="", encoding="utf-8") as file:
        predicted = {Path(row["path"]).name: row for row in csv.DictReader(file)}
    assert len(predicted) == len(odd) and len(evaluated) >= len(odd) // 2 - 1
    for name, row in evaluated.items():
        assert float(predicted[name]["p:cat"]) == pytest.approx(float(row["p:cat"]), abs=1e-4), name
