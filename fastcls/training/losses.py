"""Loss functions by the names that recipes give them."""

from __future__ import annotations

import torch
from fastai.data.all import DataLoaders
from fastai.losses import BaseLoss, CrossEntropyLossFlat, FocalLossFlat, LabelSmoothingCrossEntropyFlat

from fastcls.data.pixels import targets
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


def _inverse_frequency(dls: DataLoaders) -> torch.Tensor:
    counts = torch.bincount(targets(dls.train_ds), minlength=dls.c).clamp(min=1).float()
    weights = counts.sum() / counts
    return (weights / weights.mean()).to(dls.device)
