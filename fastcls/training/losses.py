"""Loss functions by the names that recipes give them; with class weights, the same on every batch size."""

from __future__ import annotations

import math

import torch
from fastai.data.all import DataLoaders
from fastai.learner import AvgLoss, Learner
from fastai.losses import BaseLoss, BCEWithLogitsLossFlat, CrossEntropyLossFlat
from torch import nn
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from fastcls.data import target
from fastcls.data.pixels import targets
from fastcls.errors import UsageError
from fastcls.training import objectives

LOSSES = ("cross-entropy", "label-smoothing", "focal", "asymmetric")


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
        return loss if self.reduction == "none" else getattr(loss, self.reduction)()


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


class LabelLoss(nn.Module):
    """Of any number of labels an image, the mean over images and labels; targets may be shares, as mixup makes them.

    binary cross-entropy, focal (Lin et al. 2017) or asymmetric (Ridnik et al. 2021, timm's). smoothing moves targets
    towards a half; pos_weight (labels,) weighs positives.
    """

    pos_weight: torch.Tensor | None

    def __init__(
        self,
        kind: str = "cross-entropy",
        smoothing: float = 0.0,
        pos_weight: torch.Tensor | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.kind, self.smoothing, self.reduction = kind, smoothing, reduction
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """input (n, labels) logits, target (n, labels) 0 to 1."""
        target = target.to(input.dtype) * (1 - self.smoothing) + self.smoothing / 2
        if self.kind == "asymmetric":
            from timm.loss import AsymmetricLossMultiLabel

            loss = AsymmetricLossMultiLabel(reduction="none", pos_weight=self.pos_weight)(input, target)
        elif self.kind == "focal":
            loss = sigmoid_focal_loss(input, target, alpha=-1)
            if self.pos_weight is not None:
                loss = loss * (1 + (self.pos_weight - 1) * target)
        else:
            loss = F.binary_cross_entropy_with_logits(input, target, pos_weight=self.pos_weight, reduction="none")
        return loss.mean(-1) if self.reduction == "none" else getattr(loss, self.reduction)()


class LabelLossFlat(BCEWithLogitsLossFlat):
    """`LabelLoss` as fastai's losses are used: sigmoid as its activation."""

    def __init__(self, *, thresh: float = 0.5, **kwargs: object) -> None:
        BaseLoss.__init__(self, LabelLoss, flatten=False, floatify=True, is_2d=False, **kwargs)
        self.thresh = thresh


def loss(name: str, dls: DataLoaders, class_weights: bool = False, smoothing: float = 0.1) -> BaseLoss:
    """'cross-entropy', 'label-smoothing' (Szegedy et al. 2016), 'focal' (Lin et al. 2017, gamma 2) or 'asymmetric'.

    `class_weights` weights each class by the inverse of its share of the training images. With several labels per
    image the entropy is binary, and `class_weights` weights the positives of each label by its negatives per positive;
    the asymmetric loss (Ridnik et al. 2021) is only for several labels.
    """
    weight = objectives.of(dls).balance(targets(dls.train_ds), dls.c).to(dls.device) if class_weights else None
    if name not in LOSSES:
        raise UsageError(f"Unknown loss {name!r}.", f"Use {', '.join(LOSSES[:-1])} or {LOSSES[-1]}.")
    if target.of(dls).several:
        return LabelLossFlat(kind=name, smoothing=smoothing * (name == "label-smoothing"), pos_weight=weight)
    if name == "asymmetric":
        raise UsageError(
            "--loss asymmetric: it needs several labels per image, and these have one class each.",
            "Use another loss, such as focal.",
        )
    if name == "cross-entropy":
        return CrossEntropyLossFlat(weight=weight)
    if name == "label-smoothing":
        return CrossEntropyLossFlat(weight=weight, label_smoothing=smoothing)  # fastai's weighs it otherwise than torch
    if weight is not None:  # a mean over images, not over weights as torch's: so these have the mean 1
        weight = weight / weight[targets(dls.train_ds)].mean()
    return FocalLossFlat(weight=weight)


def bounds(learn: Learner) -> dict[str, float]:
    """What the Learner's loss can be: 'least', where each label is known, and 'chance', where no image is looked at.

    Chance is the best constant output, on at most 4,096 training images. Empty for a loss that takes something else.
    """
    try:
        labels = targets(learn.dls.train_ds)
        labels = labels[:: len(labels) // 4096 + 1].to(learn.dls.device)
        known = 2 * (F.one_hot(labels, learn.dls.c) if labels.ndim == 1 else labels).float() - 1
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
