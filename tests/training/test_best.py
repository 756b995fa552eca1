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


def keeping(history: History, criterion: str) -> KeepBest:
    keep = KeepBest(history)
    keep.learn = SimpleNamespace(
        metrics=[SimpleNamespace(name=criterion)],
        model=nn.Linear(1, 1),
        loss_func=CrossEntropyLossFlat(),
        training=False,
    )
    keep.before_fit()
    return keep


def epoch_ends(keep: KeepBest, number: int, pred: torch.Tensor, target: torch.Tensor, criterion: str) -> None:
    """With these outputs of the validation images; number 0 is a linear probe."""
    keep.before_validate()
    keep.learn.pred, keep.learn.yb = pred, (target,)
    keep.after_batch()
    share = float((pred.argmax(1) == target).float().mean())
    loss = float(nn.functional.cross_entropy(pred, target))
    value = {"accuracy": share, "error_rate": 1 - share, "valid_loss": loss}[criterion]
    phase = "whole network" if number else "linear probe"
    keep.history.rows.append({"phase": phase, "epoch": number, "valid_loss": loss, criterion: value})
    keep.after_epoch()


def kept(tmp_path: Path, epochs: list[tuple[int, float, float]], images: int, criterion: str = "accuracy") -> Any:
    """The epoch that is kept of some with (right answers, logit of the right ones, doubt in the wrong ones)."""
    keep = keeping(History(tmp_path / "history.csv"), criterion)
    for number, (right, logit, doubt) in enumerate(epochs, 1):
        epoch_ends(keep, number, *outputs(right, images, logit, doubt), criterion)
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


@pytest.mark.parametrize(("gain", "images", "least", "most"), [
    (0.0, 20, 0, 16),  # two equally good networks: 0.67 standard errors better one time in four
    (0.0, 4, 0, 7),  # of four images, 1.5 of them
    (0.7, 1000, 40, 40),
])  # fmt: skip
def test_the_fewer_images_the_clearer_must_an_epoch_be_better_than_the_probe(
    tmp_path: Path, gain: float, images: int, least: int, most: int
) -> None:
    replaced = 0
    for seed in range(40):
        torch.manual_seed(seed)
        history = History(tmp_path / "history.csv")
        keep = keeping(history, "accuracy")
        for number, margin in enumerate((1.5, 1.5 + gain)):
            logits = torch.stack([margin + 1.5 * torch.randn(images), torch.zeros(images)], 1)
            epoch_ends(keep, number, logits, torch.zeros(images, dtype=torch.long), "accuracy")
        replaced += keep.epoch == 1
    assert least <= replaced <= most


def test_a_loss_that_was_asked_for_decides_alone(tmp_path: Path) -> None:
    assert kept(tmp_path, [(90, 1.0, 0.5), (90, 20.0, 0.4)], 100, "valid_loss") == 1
