"""Loss functions by the names that recipes give them, and what makes probabilities of a network's outputs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from fastai.data.all import DataLoaders
from fastai.losses import BaseLoss, CrossEntropyLossFlat, FocalLossFlat, LabelSmoothingCrossEntropyFlat

from fastcls.batches.pixels import targets
from fastcls.errors import UsageError


def loss(name: str, dls: DataLoaders, class_weights: bool = False, smoothing: float = 0.1) -> BaseLoss:
    """'cross-entropy', 'label-smoothing' (Szegedy et al. 2016) or 'focal' (Lin et al. 2017, gamma 2).

    `class_weights` weighs each class by the inverse of its share of the training images, mean 1.
    """
    weight = _inverse_frequency(dls) if class_weights else None
    if name == "cross-entropy":
        return CrossEntropyLossFlat(weight=weight)
    if name == "label-smoothing":
        return LabelSmoothingCrossEntropyFlat(eps=smoothing, weight=weight)
    if name == "focal":
        return FocalLossFlat(weight=weight)
    raise UsageError(f"There is no loss {name!r}.", "Take cross-entropy, label-smoothing or focal.")


def activation(loss_func: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Outputs (n, classes) to probabilities: as the loss itself says, else softmax.

    fastai takes the outputs of a network with any other loss, torch's CrossEntropyLoss among them, for probabilities.
    """
    own = getattr(loss_func, "activation", None)
    return own if own is not None else partial(torch.softmax, dim=-1)


def _inverse_frequency(dls: DataLoaders) -> torch.Tensor:
    counts = torch.bincount(targets(dls.train_ds), minlength=dls.c).clamp(min=1).float()
    weights = counts.sum() / counts
    return (weights / weights.mean()).to(dls.device)
