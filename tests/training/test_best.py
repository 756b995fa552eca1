"""Which epoch is kept: the best by the metric, and by the calibrated loss among those that chance cannot tell apart."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fastai.losses import CrossEntropyLossFlat
from torch import nn

from fastcls.training.best import KeepBest
from fastcls.training.history import History


def outputs(right: int, images: int, logit: float, doubt: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of two classes with so many right answers; the wrong ones `doubt` times as confident as those."""
    sure = torch.full((images,), logit)
    sure[right:] *= -doubt
    return torch.stack([sure, torch.zeros(images)], 1), torch.zeros(images, dtype=torch.long)


def kept(tmp_path: Path, epochs: list[tuple[int, float, float]], images: int, criterion: str = "accuracy") -> Any:
    """The epoch that is kept of some with (right answers, logit of the right ones, doubt in the wrong ones)."""
    history = History(tmp_path / "history.csv")
    keep = KeepBest(history)
    metric = SimpleNamespace(name=criterion)
    keep.learn = SimpleNamespace(
        metrics=[metric], model=nn.Linear(1, 1), loss_func=CrossEntropyLossFlat(), training=False
    )
    keep.before_fit()
    for number, (right, logit, doubt) in enumerate(epochs, 1):
        keep.before_validate()
        pred, target = outputs(right, images, logit, doubt)
        keep.learn.pred, keep.learn.yb = pred, (target,)
        keep.after_batch()
        share = right / images
        loss = float(nn.functional.cross_entropy(pred, target))
        value = {"accuracy": share, "error_rate": 1 - share, "valid_loss": loss}[criterion]
        history.rows.append({"phase": "whole network", "epoch": number, "valid_loss": loss, criterion: value})
        keep.after_epoch()
    return keep.epoch


@pytest.mark.parametrize(("epochs", "images", "epoch"), [
    ([(80, 2.0, 1.0), (95, 2.0, 1.0), (85, 2.0, 0.1)], 100, 2),  # far better counts, whatever the loss
    ([(90, 2.0, 1.0), (91, 2.0, 1.0), (90, 2.0, 0.2)], 100, 3),  # one image of a hundred is chance
    ([(900, 2.0, 1.0), (930, 2.0, 1.0), (900, 2.0, 0.2)], 1000, 2),  # thirty of a thousand are not
    ([(90, 1.0, 0.5), (90, 20.0, 0.4)], 100, 2),  # sure of itself, which a temperature corrects
    ([(90, 2.0, 0.3), (89, 2.0, 0.25), (88, 2.0, 0.2), (87, 2.0, 0.1)], 100, 2),  # ties are with the best, not the last
])  # fmt: skip
@pytest.mark.parametrize("criterion", ["accuracy", "error_rate"])
def test_chance_does_not_choose_the_epoch(
    tmp_path: Path, epochs: list[tuple[int, float, float]], images: int, epoch: int, criterion: str
) -> None:
    assert kept(tmp_path, epochs, images, criterion) == epoch


def test_a_loss_that_was_asked_for_decides_alone(tmp_path: Path) -> None:
    assert kept(tmp_path, [(90, 1.0, 0.5), (90, 20.0, 0.4)], 100, "valid_loss") == 1
