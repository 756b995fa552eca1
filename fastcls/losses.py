"""Loss functions and optimisers by the names that recipes give them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from fastai.data.all import DataLoaders
from fastai.losses import BaseLoss, CrossEntropyLossFlat, FocalLossFlat, LabelSmoothingCrossEntropyFlat
from fastai.optimizer import SGD, Adam, RAdam, ranger

from fastcls.errors import UsageError

OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "adam": partial(Adam, decouple_wd=False),  # L2 added to the gradient (Kingma & Ba 2015)
    "adamw": Adam,  # decoupled weight decay (Loshchilov & Hutter 2019), fastai's default
    "sgd": partial(SGD, mom=0.9),
    "radam": RAdam,  # rectified Adam (Liu et al. 2020)
    "ranger": ranger,  # RAdam with Lookahead
}


def optimizer(name: str) -> Callable[..., Any]:
    """The fastai optimiser of that name, for `opt_func`."""
    if name not in OPTIMIZERS:
        raise UsageError(f"There is no optimiser {name!r}.", f"Take one of {', '.join(OPTIMIZERS)}.")
    return OPTIMIZERS[name]


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
    targets = torch.tensor([int(label) for label in dls.train_ds.tls[-1]])
    counts = torch.bincount(targets, minlength=dls.c).clamp(min=1).float()
    weights = counts.sum() / counts
    return (weights / weights.mean()).to(dls.device)
