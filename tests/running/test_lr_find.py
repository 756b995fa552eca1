"""The learning-rate finder: a figure, suggestions, a command, and a learner that is as it was."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Outcome
from fastai.callback.core import Callback
from PIL import Image

from fastcls import recipe
from fastcls.running.lr_find import lr_find

Fastcls = Callable[..., Outcome]


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
