"""The learning-rate finder: a figure, suggestions, a command, and a learner that is as it was."""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Fastcls
from fastai.callback.core import Callback
from PIL import Image

from fastcls import recipe
from fastcls.running.lr_find import lr_find
from fastcls.training.resume import Saver

TIMES = ("seconds", "images_per_second")


def test_the_verb_draws_suggests_and_names_the_next_command(fastcls: Fastcls, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["lr-find", "digits-cnn", "--filters", "8,16", "--out", "the curve.png"]
    monkeypatch.setattr(sys, "argv", ["fastcls", *words])  # which the next command is made from
    outcome = fastcls(*words)
    assert outcome.code == 0, outcome.output
    for part in ("valley", "steep", "minimum", "slide", "the curve.png"):
        assert part in outcome.output
    assert re.search(r"fastcls recipe digits-cnn --filters 8,16 --lr [\d.e-]+\n", outcome.output), outcome.output
    with Image.open("the curve.png") as figure:
        assert figure.width > 800 and len(figure.convert("L").getcolors()) > 20
    assert [p.name for p in Path().iterdir()] == ["the curve.png"], "nothing else is left behind"


def snapshot(learn) -> list[object]:
    weights = [tensor.clone() for tensor in learn.model.state_dict().values()]
    optimiser = [] if learn.opt is None else [v for state in learn.opt.state_dict()["state"] for v in state.values()]
    return [
        *weights,
        *[torch.as_tensor(v).clone() for v in optimiser],
        torch.get_rng_state(),
        torch.tensor(random.getstate()[1]),
        torch.as_tensor(np.random.get_state()[1].astype(np.int64)),
    ]


class CtrlC(Callback):
    def after_batch(self) -> None:
        if self.train_iter == 30:
            raise KeyboardInterrupt


@pytest.mark.unpickles
@pytest.mark.parametrize("interrupted", [False, True], ids=["finished", "Ctrl-C"])
@pytest.mark.parametrize("trained", [False, True], ids=["new", "already trained"])
def test_the_learner_is_as_it_was(interrupted: bool, trained: bool) -> None:
    learn = recipe("digits-cnn").get_learner(filters=(8,))
    if trained:
        with learn.no_bar(), learn.no_logging():
            learn.fit(1, 1e-3)
    before = snapshot(learn)
    if interrupted:
        learn.add_cb(CtrlC())
        with pytest.raises(KeyboardInterrupt):
            lr_find(learn)
        learn.remove_cb(CtrlC)
    else:
        found = lr_find(learn)
        assert set(found.suggestions) >= {"valley", "steep", "minimum"}
        assert all(1e-7 <= rate <= 10 for rate in found.suggestions.values())
    after = snapshot(learn)
    assert len(before) == len(after) and all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


FINDS = '''"""Digits, at a rate that is looked for."""
from fastai.vision.all import *
from fastcls import recipe
def get_learner(): return recipe('digits-cnn').get_learner(filters=(8,))
def fit(learn):
    learn.fit_one_cycle(1, learn.lr_find().valley)
    learn.fit_one_cycle(1, learn.lr_find(suggest_funcs=(valley, steep)).steep / 10)
'''


@pytest.mark.usefixtures("unreported")
def test_a_recipe_may_look_for_its_rate(fastcls: Fastcls, monkeypatch: pytest.MonkeyPatch) -> None:
    """No epoch of the run, no lost metric, no file; and a resumed run takes the rates that were found."""
    Path("finds.py").write_text(FINDS)
    words = ["recipe", "./finds.py", "--limit", "40", "--precision", "fp32"]
    assert fastcls(*words, "--out", "whole").code == 0
    history = Path("whole/history.csv").read_text().splitlines()
    assert len(history) == 3 and "accuracy" in history[0] and not list(Path().rglob("*.pth"))
    columns = [row.split(",") for row in history]
    rates = [float(row[columns[0].index("lr")]) for row in columns[1:]]
    assert all(0 < rate < 1 for rate in rates)

    def stop(self: Saver) -> None:
        save(self)
        if self.phase == 1 and self.position.batch == 3:
            raise KeyboardInterrupt

    save = Saver.save
    with monkeypatch.context() as patch:
        patch.setattr(Saver, "save", stop)
        patch.setattr(Saver, "_save_if_due", lambda self, *_: self.save())
        assert fastcls(*words, "--out", "cut").code == 130
    assert fastcls("resume", "cut", "--trust").code == 0
    timeless = [[cell for name, cell in zip(columns[0], row, strict=True) if name not in TIMES] for row in columns[1:]]
    cut = [row.split(",") for row in Path("cut/history.csv").read_text().splitlines()]
    assert [[cell for name, cell in zip(cut[0], row, strict=True) if name not in TIMES] for row in cut[1:]] == timeless
