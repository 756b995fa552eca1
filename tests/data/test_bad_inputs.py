"""Every case of bad_inputs.py: its outcome, its message, its exit code, its pixels and labels; the files untouched.

And what other bad input gets: a message that names what, where and how; a documented exit code; no half-written run.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import runpy
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from bad_inputs import CASES, Case, plain, splits, two
from conftest import ROOT, Fastcls, Outcome, command
from folders import csv_rows, images_of
from PIL import Image

from fastcls.images import preprocessing, uploads
from fastcls.images.decode import decode
from fastcls.running.loading import import_fastai
from fastcls.settings.sources import find

pytestmark = pytest.mark.faults
REACHED = 6  # the exit code of a recipe that ends at its first step
RECIPE = '''
"""Everything before the first step, which says so."""
from fastai.vision.all import *
from fastcls import data, datasets, models, training, transforms
from fastcls.transforms import draws
from fastcls.errors import TrainingError

def get_learner(path: str, labels: str = '', label_regex: str = '', valid_pct: float = 0.2, test_pct: float = 0.,
                group: str = '', split_by: str = '', size: int = 8, bs: int = 8, filters: tuple[int, ...] = (4,),
                dropout: float = 0., multi_label: str = 'auto'):
    table = datasets.folder(path, labels=labels, label_regex=label_regex, valid_pct=None, multi_label=multi_label)
    table = data.split(table, valid_pct, test_pct, group, split_by)
    block = DataBlock((ImageBlock, data.label_block(table)), get_x=ColReader('path'), get_y=ColReader('label'),
                      splitter=data.by_column, item_tfms=transforms.resize(size, fit='squish'))
    dls = data.loaders(block, table, bs=bs)
    return models.learner(dls, models.cnn(3, dls.c, filters, dropout=dropout), metrics=training.metrics(dls))

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
    images = images_of(Path("run"))
    rows = csv_rows("run/splits.csv")
    return {os.path.relpath(images / row["path"], "photos"): (row["label"], row["split"]) for row in rows}


def test_the_table_is_long_enough_and_the_page_is_made_from_it() -> None:
    assert len(CASES) >= 100 and len({(case.kind, case.name) for case in CASES}) == len(CASES)
    page = runpy.run_path(str(ROOT / "scripts" / "bad_inputs"))["page"]
    assert (ROOT / "docs" / "bad_inputs.md").read_text(encoding="utf-8") == page(), "run scripts/bad_inputs"


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """What takes long once, whatever the input."""
    import_fastai()
    importlib.import_module("sklearn.model_selection")


@pytest.mark.timeout(300, func_only=True)
@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.kind}: {case.name}".encode("ascii", "replace").decode()
)
def test_every_bad_input_has_its_declared_outcome(place: Path, case: Case) -> None:
    expected = case.make(place / "photos")
    before = state(place / "photos")
    started = time.process_time()  # what else runs on the machine does not count
    outcome = run(case)
    assert time.process_time() - started < 10
    shown = " ".join(outcome.output.split())
    assert "Traceback" not in outcome.output and case.says in shown, outcome.output
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


@pytest.mark.timeout(300, func_only=True)
def test_images_that_cannot_be_read_are_left_out_on_request(place: Path) -> None:
    good = splits(place / "photos", "train", "valid", "test")
    bad = ["train/cat/0.png", "train/dog/3.png", "valid/cat/1.png", "test/dog/0.png"]
    for number, name in enumerate(bad):
        (place / "photos" / name).write_bytes(b"" if number % 2 else plain("cat", 0)[:60])
    before = state(place / "photos")
    outcome = command("recipe", "./first_step.py", *TRAINED, "--path", "photos", "--skip-bad")
    assert outcome.code == REACHED, outcome.output
    assert_labels({name: label for name, label in good.items() if name not in bad})
    record = json.loads(Path("run/run.json").read_text())
    assert [line.partition("photos/")[2].partition(":")[0] for line in record["data"]["skipped"]] == bad
    assert "4 of 20 images cannot be read and were left out: " in outcome.output and "an empty file" in outcome.output
    assert any("left out" in note for note in record["notes"]), "which the report shows"
    assert state(place / "photos") == before


@pytest.mark.timeout(300, func_only=True)
def test_without_a_readable_training_image_there_is_nothing_to_skip_to(place: Path) -> None:
    for name in two(place / "photos"):
        (place / "photos" / name).write_bytes(b"")
    outcome = command("recipe", "./first_step.py", *TRAINED, "--path", "photos", "--skip-bad")
    assert outcome.code == 3 and "12 of 12 images cannot be read" in outcome.output


@pytest.mark.timeout(300, func_only=True)
@pytest.mark.parametrize("words", [["lr-find", "folder"], ["recipe", "folder", "--dry-run"]], ids=" ".join)
def test_a_bad_first_image_is_named_by_every_verb_that_builds_a_learner(place: Path, words: list[str]) -> None:
    splits(place / "photos", "train", "valid")
    (place / "photos/train/cat/0.png").write_bytes(b"x")
    outcome = command(*words, "--path", "photos", "--arch", "timm/test_resnet", "--weights", "none", "--size", 32)
    assert outcome.code == 3 and "1 of 16 images cannot be read:" in outcome.output, outcome.output
    assert "photos/train/cat/0.png: not an image" in outcome.output


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
    evaluated = {Path(row["path"]).name: row for row in csv_rows("run/predictions.csv")}
    answer = command("predict", "run", "photos", "-o", "labels.csv", "--probabilities")
    assert answer.code == 0, answer.output
    predicted = {Path(row["path"]).name: row for row in csv_rows("labels.csv")}
    assert len(predicted) == len(odd) and len(evaluated) >= len(odd) // 2 - 1
    for name, row in evaluated.items():
        assert float(predicted[name]["p:cat"]) == pytest.approx(float(row["p:cat"]), abs=1e-4), name


# ---------------------------------------------------------------------------- commands, recipes, folders, machines


def test_wrong_knobs_are_reported_together_each_with_the_nearest_right_one(fastcls: Fastcls) -> None:
    outcome = fastcls("recipe", "pets-resnet50", "--lrr", "3", "--tune", "hed", "--epochs", "many", "--sed=4", "--bs")
    assert outcome.code == 2
    for part in (
        "5 wrong settings",
        "'--lr'",
        "full, head, probe; did you mean 'head'",
        "--epochs many",
        "'--seed'",
        "--bs",
    ):
        assert part in outcome.output


@pytest.mark.parametrize(
    "words, part",
    [
        (["recipe", "pets-resnet5"], "pets-resnet50"),
        (["recipe", "./none.py"], "no recipe file"),
        (["recipe", "folder"], "--path: required"),
        (["recipe", "digits-cnn", "--device", "cud"], "'cuda'"),
        (["recipe", "digits-cnn", "--precision", "fp8"], "auto, fp32, bf16, fp16"),
        (["recipe", "digits-cnn", "--limit", "0"], "--limit 0"),
        (["recipe", "digits-cnn", "--seed", "1795323600000"], "from 0 to 4294967295"),
        (["recipe", "digits-cnn", "--set", "wd"], "KEY=VALUE"),
        (["recipe", "digits-cnn", "7"], "value without a knob"),
        (["recipe", "--epochs", "3"], "recipe folder --path PHOTOS --epochs 3"),
        (["lr-find", "digits-cnn", "--steps", "3"], "equal to 20"),
        (["lr-find", "digits-cnn", "--out", "curve.txt"], ".png"),
        (["runs", "--sort", "luck"], "time, accuracy or loss"),
        (["recipe", "cifar10-cnn", "--kernel", "0"], "1 or more"),
        (["recipe", "cifar10-cnn5", "--cutout", "3"], "from 0 to 1"),
        (["recipe", "cifar10-speedrun", "--widths", ","], "1 or more"),
    ],
)
def test_wrong_words_are_refused_before_torch_is_needed(fastcls: Fastcls, words: list[str], part: str) -> None:
    outcome = fastcls(*words)
    assert (outcome.code, part in outcome.output) == (2, True), outcome.output
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["recipe", "digits-cnn", "--out", "NAME"],
        ["runs", "--folder", "NAME"],
        ["check", "NAME"],
        ["predict", "NAME", "photos", "-o", "labels.csv"],
        ["export", "NAME"],
        ["compare", "digits-cnn", "--out", "NAME", "--dry-run"],
    ],
    ids=" ".join,
)
def test_a_name_that_no_file_system_takes_is_refused(fastcls: Fastcls, words: list[str]) -> None:
    outcome = fastcls(*(word.replace("NAME", "x" * 300) for word in words))
    assert outcome.code == 4 and "File name too long" in outcome.output, outcome.output
    assert "Traceback" not in outcome.output and not list(Path().iterdir())


@pytest.mark.parametrize(
    "source, part",
    [
        ("def get_learner(): pass", "has no `fit`"),
        ("x = 1", "has no `get_learner` and no `fit`"),
        ("def fit(learn: int", "line 1"),
        ("def get_learner(n=[]): pass\ndef fit(): pass", "has no parameter for the learner"),
        ("def get_learner(n=sum): pass\ndef fit(learn): pass", "'sum'"),
        ("def get_learner(n: dict = None): pass\ndef fit(learn): pass", "type dict"),
        ("def get_learner(seed=1): pass\ndef fit(learn): pass", "seed cannot be a knob"),
        ("def get_learner(lr=1): pass\ndef fit(learn, lr=2): pass", "knob of both"),
        ("import nothing_like_this\ndef get_learner(): pass\ndef fit(learn): pass", "line 1: ModuleNotFoundError"),
        ("def get_learner(): return 3\ndef fit(learn): pass", "returned int, not a Learner"),
    ],
)
def test_a_recipe_that_breaks_the_contract_is_refused(fastcls: Fastcls, source: str, part: str) -> None:
    Path("mine.py").write_text(source)
    outcome = fastcls("recipe", "./mine.py")
    assert (outcome.code, part in outcome.output) == (2, True), outcome.output
    assert not Path("runs").exists()


def test_a_fit_that_trains_nothing_is_refused(fastcls: Fastcls) -> None:
    source = find("digits-cnn").source
    Path("idle.py").write_text(source.replace("    learn.fit_one_cycle(epochs, lr, wd=wd)", "    pass"))
    outcome = fastcls("recipe", "./idle.py", "--limit", "10", "--out", "idle")
    assert outcome.code == 2 and "without training an epoch" in outcome.output
    assert json.loads(Path("idle/run.json").read_text())["status"] == "failed"


def test_an_out_folder_that_holds_something_is_left_alone(fastcls: Fastcls) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("years of work")
    outcome = fastcls("recipe", "digits-cnn", "--out", "mine")
    assert outcome.code == 4 and "not empty" in outcome.output
    assert [p.name for p in Path("mine").iterdir()] == ["thesis.txt"]


def test_an_out_folder_below_a_file_is_refused(fastcls: Fastcls) -> None:
    Path("notes").write_text("")
    outcome = fastcls("recipe", "digits-cnn", "--out", "notes/run")
    assert outcome.code == 4 and "notes" in outcome.output


@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write everywhere")
def test_an_out_folder_without_write_permission_is_refused(fastcls: Fastcls) -> None:
    Path("locked").mkdir(mode=0o500)
    outcome = fastcls("recipe", "digits-cnn", "--out", "locked/run")
    assert outcome.code == 4 and "cannot be written" in outcome.output


@pytest.mark.usefixtures("unreported")
def test_a_batch_larger_than_the_images_is_shrunk_and_said_so(fastcls: Fastcls) -> None:
    outcome = fastcls("recipe", "digits-cnn", "--limit", "4", "--bs", "512", "--epochs", "1", "--out", "r")
    assert outcome.code == 0 and "reduced from 512 to 40" in outcome.output
    assert "reduced" in json.loads(Path("r/run.json").read_text())["notes"][0]


def test_a_loss_that_is_not_finite_stops_the_run(fastcls: Fastcls) -> None:
    outcome = fastcls("recipe", "digits-cnn", "--limit", "30", "--lr", "1e30", "--epochs", "2", "--out", "r")
    assert outcome.code == 6 and "the learning rate: try a tenth of it" in outcome.output
    assert json.loads(Path("r/run.json").read_text())["status"] == "failed"


def test_weights_spoilt_by_the_last_step_are_no_result(fastcls: Fastcls) -> None:
    words = ["--limit", "20", "--filters", "8", "--lr", "1e9", "--epochs", "1", "--precision", "fp32"]
    outcome = fastcls("recipe", "digits-cnn", *words, "--out", "r")
    assert outcome.code == 6 and "the loss on valid is nan" in outcome.output and "a tenth of it" in outcome.output


def test_wrong_further_keywords_are_reported_together(fastcls: Fastcls) -> None:
    outcome = fastcls("recipe", "digits-cnn", "--set", "divv=3", "--set", "lr=3", "--set", "pct_start=0.2")
    assert outcome.code == 2
    assert "did you mean 'div'" in outcome.output and "use --lr 3" in outcome.output
    assert "pct_start" not in outcome.output


def test_an_unknown_architecture_gets_the_nearest_names(fastcls: Fastcls) -> None:
    two(Path("photos"))
    outcome = fastcls("recipe", "folder", "--path", "photos", "--arch", "resnet5O", "--weights", "none")
    assert outcome.code == 2 and "Did you mean resnet50, " in outcome.output
    assert outcome.output.count("resnet50,") == 1, "a name that both libraries have is offered once"


@pytest.mark.parametrize(("arch", "tag"), [("timm/resnet18.a1_in2k", "a1_in1k"), ("convnext_tiny.in12k_38", "in12k")])
def test_a_tag_that_there_is_not_is_refused_with_those_there_are(fastcls: Fastcls, arch: str, tag: str) -> None:
    two(Path("photos"))
    outcome = fastcls("recipe", "folder", "--path", "photos", "--arch", arch, "--weights", "none", "--dry-run")
    assert outcome.code == 2 and "no weights with the tag" in outcome.output
    assert f"Use one of timm/{arch.removeprefix('timm/').partition('.')[0]}." in outcome.output
    assert f"did you mean {tag!r}" in outcome.output


def test_weights_that_do_not_fit_are_refused(fastcls: Fastcls, digits_run: Path) -> None:
    two(Path("photos"))
    words = ["recipe", "folder", "--path", "photos", "--arch", "resnet18"]
    outcome = fastcls(*words, "--weights", digits_run)
    assert outcome.code == 4 and "does not fit" in outcome.output
    Path("w.pth").write_bytes(b"pickle")
    outcome = fastcls(*words, "--weights", "w.pth")
    assert outcome.code == 4 and "fastcls import w.pth --trust-pickle" in outcome.output
    Path("w.safetensors").write_bytes(b"\xff" * 64)
    outcome = fastcls(*words, "--weights", "w.safetensors")
    assert outcome.code == 4 and "not a readable" in outcome.output


def test_a_graphics_card_that_is_not_there_is_said_so(fastcls: Fastcls) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    outcome = fastcls("recipe", "digits-cnn", "--device", "cuda")
    assert outcome.code == 5 and "--device cuda" in outcome.output
    outcome = command("recipe", "digits-cnn", "--precision", "fp16")
    assert outcome.code == 5 and "bf16 or fp32" in outcome.output


def test_torch_and_torchvision_that_do_not_match_are_explained(
    fastcls: Fastcls, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "torchvision":
                raise RuntimeError("operator torchvision::nms does not exist")

    kept = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "torchvision"}
    for name in kept:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: True if name == "torchvision" else real(name, *a))
    for words in (["recipe", "digits-cnn"], ["doctor"]):
        outcome = fastcls(*words)
        assert outcome.code == 5 and "do not match" in outcome.output and "pip install" in outcome.output


def test_predict_refuses_what_is_no_run_and_answers_for_every_image(fastcls: Fastcls, digits_run: Path) -> None:
    assert fastcls("predict", "nothing", "x.png").code == 4
    assert fastcls("predict", digits_run, "nowhere.png").code == 3
    Path("bad.png").write_text("no picture")
    good = Path("good.png")
    Image.new("RGB", (8, 8), (0, 90, 30)).save(good)
    outcome = fastcls("predict", digits_run, "bad.png", good, "-o", "out.csv")
    rows = Path("out.csv").read_text().splitlines()
    assert outcome.code == 3 and len(rows) == 3
    assert rows[1].startswith("bad.png,,,") and "not an image" in rows[1] and rows[2].count(",") == 3
