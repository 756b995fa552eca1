"""What bad input gets: a message that names what, where and how; a documented exit code; no half-written run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Outcome, command
from PIL import Image

from fastcls.settings.sources import find

Fastcls = Callable[..., Outcome]
RECIPE = find("digits-cnn").source


def picture(file: Path, side: int = 16, colour: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), (colour * 20 % 256, 90, 30)).save(file)
    return file


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
        (["recipe", "folder"], "--path: is required"),
        (["recipe", "digits-cnn", "--device", "cud"], "'cuda'"),
        (["recipe", "digits-cnn", "--precision", "fp8"], "auto, fp32, bf16, fp16"),
        (["recipe", "digits-cnn", "--limit", "0"], "--limit 0"),
        (["recipe", "digits-cnn", "--seed", "1795323600000"], "from 0 to 4294967295"),
        (["recipe", "digits-cnn", "-o", "wd"], "KEY=VALUE"),
        (["recipe", "digits-cnn", "7"], "value without a knob"),
        (["recipe", "--epochs", "3"], "Usage"),
        (["lr-find", "digits-cnn", "--steps", "3"], "at least 20"),
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
        ("def get_learner(): pass", "lacks `fit`"),
        ("x = 1", "lacks `get_learner` and `fit`"),
        ("def fit(learn: int", "line 1"),
        ("def get_learner(n=[]): pass\ndef fit(): pass", "takes no learner"),
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
    Path("idle.py").write_text(RECIPE.replace("    learn.fit_one_cycle(epochs, lr, wd=wd)", "    pass"))
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


def _one_class() -> None:
    for i in range(8):
        picture(Path(f"photos/cat/{i}.png"), colour=i)


def _fake_image() -> None:
    _one_class()
    picture(Path("photos/dog/1.png"))
    picture(Path("photos/dog/2.png"))
    Path("photos/dog/3.png").write_text("no picture")


def _truncated_image() -> None:
    _one_class()
    for i in range(8):
        file = picture(Path(f"photos/dog/{i}.jpg"), side=64)
        file.write_bytes(file.read_bytes()[:-60])


@pytest.mark.parametrize(
    "make, part",
    [
        (lambda: None, "photos"),
        (lambda: Path("photos").mkdir(), "photos"),
        (lambda: Path("photos").write_text("a file"), "photos"),
        (_one_class, "one class"),
        (_fake_image, "3.png: not an image"),
        (_truncated_image, "jpg: "),
    ],
    ids=["missing", "empty", "a file", "one class", "a fake image", "truncated images"],
)
def test_images_that_cannot_be_trained_on_are_refused(fastcls: Fastcls, make: Callable[[], None], part: str) -> None:
    make()
    words = ["--path", "photos", "--arch", "resnet18", "--weights", "none", "--size", "16", "--epochs", "1"]
    outcome = fastcls("recipe", "folder", *words)
    assert (outcome.code, part in outcome.output) == (3, True), outcome.output


def test_a_batch_larger_than_the_images_is_shrunk_and_said_so(fastcls: Fastcls) -> None:
    outcome = fastcls("recipe", "digits-cnn", "--limit", "4", "--bs", "512", "--epochs", "1", "--out", "r")
    assert outcome.code == 0 and "shrunk from 512 to 40" in outcome.output
    assert "shrunk" in json.loads(Path("r/run.json").read_text())["notes"][0]


def test_a_loss_that_is_no_number_stops_the_run(fastcls: Fastcls) -> None:
    outcome = fastcls("recipe", "digits-cnn", "--limit", "30", "--lr", "1e30", "--epochs", "2", "--out", "r")
    assert outcome.code == 6 and "the learning rate: try a tenth of it" in outcome.output
    assert json.loads(Path("r/run.json").read_text())["status"] == "failed"


def test_weights_spoilt_by_the_last_step_are_no_result(fastcls: Fastcls) -> None:
    words = ["--limit", "20", "--filters", "8", "--lr", "1e9", "--epochs", "1", "--precision", "fp32"]
    outcome = fastcls("recipe", "digits-cnn", *words, "--out", "r")
    assert outcome.code == 6 and "the loss on valid is nan" in outcome.output and "a tenth of it" in outcome.output


def test_wrong_further_keywords_are_reported_together(fastcls: Fastcls) -> None:
    outcome = fastcls("recipe", "digits-cnn", "-o", "divv=3", "-o", "lr=3", "-o", "pct_start=0.2")
    assert outcome.code == 2
    assert "did you mean 'div'" in outcome.output and "write --lr 3" in outcome.output
    assert "pct_start" not in outcome.output


def test_an_unknown_architecture_gets_the_nearest_names(fastcls: Fastcls) -> None:
    for breed in ("cat", "dog"):
        for i in range(4):
            picture(Path(f"photos/{breed}/{i}.png"), colour=i)
    outcome = fastcls("recipe", "folder", "--path", "photos", "--arch", "resnet5O", "--weights", "none")
    assert outcome.code == 2 and "resnet50" in outcome.output


def test_weights_that_do_not_fit_are_refused(fastcls: Fastcls, digits_run: Path) -> None:
    for breed in ("cat", "dog"):
        for i in range(4):
            picture(Path(f"photos/{breed}/{i}.png"), colour=i)
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
    import sys

    class Broken:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "torchvision":
                raise RuntimeError("operator torchvision::nms does not exist")

    kept = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "torchvision"}
    for name in kept:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: True if name == "torchvision" else real(name, *a))
    for words in (["recipe", "digits-cnn"], ["doctor"]):
        outcome = fastcls(*words)
        assert outcome.code == 5 and "do not match" in outcome.output and "pip install" in outcome.output


def test_predict_refuses_what_is_no_run_and_answers_for_every_image(fastcls: Fastcls, digits_run: Path) -> None:
    assert fastcls("predict", "nothing", "x.png").code == 4
    assert fastcls("predict", digits_run, "nowhere.png").code == 3
    Path("bad.png").write_text("no picture")
    good = picture(Path("good.png"), side=8)
    outcome = fastcls("predict", digits_run, "bad.png", good, "-o", "out.csv")
    rows = Path("out.csv").read_text().splitlines()
    assert outcome.code == 3 and len(rows) == 3
    assert rows[1].startswith("bad.png,,,") and "not an image" in rows[1] and rows[2].count(",") == 3
