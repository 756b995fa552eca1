"""Loss functions by the names that recipes give them; with class weights, the same on every batch size."""

from __future__ import annotations

import math

import torch
from fastai.data.all import DataLoaders
from fastai.learner import AvgLoss, Learner
from fastai.losses import BaseLoss, CrossEntropyLossFlat
from torch import nn
from torch.nn import functional as F

from fastcls.data.pixels import targets
from fastcls.errors import UsageError


class FocalLoss(nn.Module):
    """α (1 - p)^γ times the cross-entropy of an image whose class has probability p and weight α (Lin et al. 2017).

    fastai's takes the weighted cross-entropy for p too, so that the loss of a class of small weight nearly vanishes.
    """

    weight: torch.Tensor | None
    y_int = True  # fastai's mixup blends the losses of two labels

    def __init__(self, gamma: float = 2.0, weight: torch.Tensor | None = None, reduction: str = "mean") -> None:
        super().__init__()
        self.gamma, self.reduction = gamma, reduction
        self.register_buffer("weight", weight)

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """input (n, classes) logits, target (n,) class indices."""
        entropy = F.cross_entropy(input, target, reduction="none")
        loss = (1 - torch.exp(-entropy)) ** self.gamma * entropy
        if self.weight is not None:
            loss = self.weight[target] * loss
        if self.reduction == "none":
            return loss
        return loss.mean() if self.reduction == "mean" else loss.sum()


class FocalLossFlat(CrossEntropyLossFlat):
    """`FocalLoss` as fastai's losses are used: any axis, softmax as its activation."""

    def __init__(self, *, axis: int = -1, **kwargs: object) -> None:
        BaseLoss.__init__(self, FocalLoss, axis=axis, **kwargs)


class AvgLossByWeight(AvgLoss):
    """fastai's mean loss over batches, each counting by its class weights where the loss has some, not by its images.

    So a validation loss is that of the whole split, whatever the batch size.
    """

    def accumulate(self, learn: Learner) -> None:
        loss = getattr(learn.loss_func, "func", learn.loss_func)
        weight = loss.weight if isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss) else None
        if weight is None:
            super().accumulate(learn)
            return
        counts = weight[learn.yb[0]].sum()
        self.total += learn.to_detach(learn.loss.mean() * counts)
        self.count += learn.to_detach(counts)


def loss(name: str, dls: DataLoaders, class_weights: bool = False, smoothing: float = 0.1) -> BaseLoss:
    """'cross-entropy', 'label-smoothing' (Szegedy et al. 2016) or 'focal' (Lin et al. 2017, gamma 2).

    `class_weights` weighs each class by the inverse of its share of the training images.
    """
    weight = _inverse_frequency(dls) if class_weights else None
    if name == "cross-entropy":
        return CrossEntropyLossFlat(weight=weight)
    if name == "label-smoothing":
        return CrossEntropyLossFlat(weight=weight, label_smoothing=smoothing)  # fastai's weighs it otherwise than torch
    if name == "focal":
        if weight is not None:  # a mean over images, not over weights as torch's: so these have the mean 1
            weight = weight / weight[targets(dls.train_ds)].mean()
        return FocalLossFlat(weight=weight)
    raise UsageError(f"There is no loss {name!r}.", "Take cross-entropy, label-smoothing or focal.")


def bounds(learn: Learner) -> dict[str, float]:
    """What the Learner's loss can be: 'least', where each label is known, and 'chance', where no image is looked at.

    Chance is the best constant output, on at most 4,096 training images. Empty for a loss that takes something else.
    """
    try:
        labels = targets(learn.dls.train_ds)
        labels = labels[:: len(labels) // 4096 + 1].to(learn.dls.device)
        known = 2 * F.one_hot(labels, learn.dls.c).float() - 1
        least = min(float(learn.loss_func(sure * known, labels).mean()) for sure in torch.arange(0, 10, 0.125).tolist())
        output = torch.zeros(learn.dls.c, device=labels.device, requires_grad=True)
        optimizer = torch.optim.LBFGS([output], max_iter=50, line_search_fn="strong_wolfe")

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            value = learn.loss_func(output.expand(len(labels), -1), labels).mean()
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(closure)
            chance = closure().item()
    except Exception:  # a loss of the user's own may want anything
        return {}
    return {"least": least, "chance": chance} if math.isfinite(chance) and least < chance else {}


def _inverse_frequency(dls: DataLoaders) -> torch.Tensor:
    counts = torch.bincount(targets(dls.train_ds), minlength=dls.c).clamp(min=1).float()
    weights = counts.sum() / counts
    return (weights / weights.mean()).to(dls.device)
