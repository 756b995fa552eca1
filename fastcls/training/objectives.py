"""What the linear probe, losses and history need of a target: entropies, folds, weights, metrics."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from fastai.metrics import AccumMetric, ActivationType, accuracy, error_rate, skm_to_fastai, top_k_accuracy
from torch.nn import functional as F

from fastcls.data import target as data_target
from fastcls.evaluation import judging, labels


class OneClass:
    """One class an image: y (n,) indices; the weight is that of each class."""

    judge = judging.OneClass()

    def entropy(self, logits: torch.Tensor, y: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        """The sum of cross-entropies."""
        return F.cross_entropy(logits, y, weight, reduction="sum")

    def total(self, y: torch.Tensor, weight: torch.Tensor | None) -> float:
        """What that sum is a mean over."""
        return len(y) if weight is None else float(weight[y].sum())

    def mean(self, entropy: float, y: torch.Tensor, weight: torch.Tensor | None) -> float:
        """The sum as the loss function gives it."""
        return entropy / self.total(y, weight)

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.softmax(1)

    def balance(self, y: torch.Tensor, classes: int) -> torch.Tensor:
        """Weights by which every class counts alike."""
        counts = torch.bincount(y, minlength=classes).clamp(min=1).float()
        weights = counts.sum() / counts
        return weights / weights.mean()

    def strata(self, y: np.ndarray) -> np.ndarray:
        """(n,): what a sample is even over."""
        return y

    def folds(self, y: np.ndarray, count: int, once: bool) -> list[tuple[np.ndarray, np.ndarray]]:
        """Stratified folds, training and held-out rows of each; once: a single one. None where no class has two."""
        from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit

        most = int(np.bincount(y).max())
        if most < 2:
            return []
        folds: Any = StratifiedKFold(min(count, most), shuffle=True, random_state=0)
        if once:
            folds = StratifiedShuffleSplit(1, test_size=1 / count, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of classes with fewer images than folds
            return list(folds.split(np.zeros(len(y)), y))

    def metrics(self) -> list[Any]:
        """Those of fastai that a recipe watches, the first chooses the epoch."""
        return [accuracy, error_rate]

    @property
    def criteria(self) -> dict[str, Any]:
        """What --best-by knows beside a recipe's own metrics."""
        from sklearn import metrics as scores  # which a run's first lines need not wait for

        return {
            "accuracy": lambda: accuracy,
            "error_rate": lambda: error_rate,
            "top_k_accuracy": lambda: top_k_accuracy,
            "balanced_accuracy": lambda: skm_to_fastai(scores.balanced_accuracy_score, name="balanced_accuracy"),
            "f1": lambda: _macro("f1", scores.f1_score),
            "precision": lambda: _macro("precision", scores.precision_score),
            "recall": lambda: _macro("recall", scores.recall_score),
            "kappa": lambda: skm_to_fastai(scores.cohen_kappa_score, name="kappa"),
            "mcc": lambda: skm_to_fastai(scores.matthews_corrcoef, name="mcc"),
        }


class Labels:
    """Any number of labels an image: y (n, labels) zeros and ones; the weight is that of each label's positives."""

    judge = judging.Labels()

    def entropy(self, logits: torch.Tensor, y: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        """The sum of binary cross-entropies: a problem of its own for each label."""
        return F.binary_cross_entropy_with_logits(logits, y, pos_weight=weight, reduction="sum")

    def total(self, y: torch.Tensor, weight: torch.Tensor | None) -> float:
        """What that sum is a mean over: images, so that each label has as strong a decay as if it were alone."""
        return len(y)

    def mean(self, entropy: float, y: torch.Tensor, weight: torch.Tensor | None) -> float:
        """The sum as the loss function gives it: over images and labels."""
        return entropy / y.numel()

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.sigmoid()

    def balance(self, y: torch.Tensor, classes: int) -> torch.Tensor:
        """Negatives over positives of each label, at most 100: a label's both sides count alike."""
        positive = y.sum(0)
        return ((len(y) - positive) / positive.clamp(min=1)).clamp(max=100)

    def strata(self, y: np.ndarray) -> np.ndarray:
        """(n,): the rarest label of each image, for a sample."""
        rare = np.where(y > 0, y.sum(0), np.inf)
        return np.where(y.any(1), rare.argmin(1), y.shape[1])

    def folds(self, y: np.ndarray, count: int, once: bool) -> list[tuple[np.ndarray, np.ndarray]]:
        """Folds by iterative stratification, training and held-out rows of each; once: a single one."""
        from iterstrat.ml_stratifiers import MultilabelStratifiedKFold, MultilabelStratifiedShuffleSplit

        if len(y) < count or not y.any():
            return []
        folds: Any = MultilabelStratifiedKFold(count, shuffle=True, random_state=0)
        if once:
            folds = MultilabelStratifiedShuffleSplit(1, test_size=1 / count, random_state=0)
        return [(a, b) for a, b in folds.split(np.zeros(len(y)), y.astype(int)) if len(a) and len(b)]

    def metrics(self) -> list[Any]:
        """mAP, which chooses the epoch, and macro F1 at 0.5."""
        return [self.criteria["mAP"](), self.criteria["f1"]()]

    @property
    def criteria(self) -> dict[str, Any]:
        """What --best-by knows beside a recipe's own metrics; what decides does so at 0.5."""
        from sklearn import metrics as scores

        def decided(name: str, score: Any, **options: Any) -> Any:
            return lambda: _decided(name, score, **options)

        def mean_average_precision() -> Any:
            how = {"activation": ActivationType.Sigmoid, "flatten": False, "to_np": True}
            return AccumMetric(lambda p, truth: labels.mean_average_precision(p, truth.astype(bool)), name="mAP", **how)

        averages = {f"f1_{name}": decided(f"f1_{name}", scores.f1_score, average=name) for name in ("micro", "samples")}
        return {
            "mAP": mean_average_precision,
            "f1": decided("f1", scores.f1_score, average="macro"),
            **averages,
            "f2_samples": decided("f2_samples", scores.fbeta_score, average="samples", beta=2),
            "precision": decided("precision", scores.precision_score, average="macro"),
            "recall": decided("recall", scores.recall_score, average="macro"),
            "subset_accuracy": decided("subset_accuracy", scores.accuracy_score),
            "hamming_loss": decided("hamming_loss", scores.hamming_loss),
        }


def _macro(name: str, score: Any) -> Any:
    """The mean over the classes that occur, as metrics.json has it: one that is only predicted has no recall."""

    def mean(targets: Any, predictions: Any) -> float:
        return float(score(targets, predictions, labels=np.unique(targets), average="macro", zero_division=0))

    return skm_to_fastai(mean, name=name)


def _decided(name: str, score: Any, average: str = "", **options: Any) -> Any:
    """A figure of scikit-learn's at 0.5; macro: over the labels that occur."""

    def measured(truth: np.ndarray, decided: np.ndarray) -> float:
        kwargs = dict(options)
        if average:
            kwargs |= {"average": average, "zero_division": 0}
        if average == "macro":
            kwargs["labels"] = np.flatnonzero(truth.any(0))
        return float(score(truth.astype(int), decided.astype(int), **kwargs))

    return skm_to_fastai(measured, name=name, thresh=labels.HALF, flatten=False)


Objective = OneClass | Labels


def of(dls: Any) -> Objective:
    """That of a Learner's loaders."""
    return Labels() if data_target.of(dls).several else OneClass()


def of_labels(y: torch.Tensor) -> Objective:
    """That of labels as `pixels.targets` gives them."""
    return OneClass() if y.ndim == 1 else Labels()


def metrics(dls: Any) -> list[Any]:
    """The metrics of a recipe: accuracy and error rate for one class per image; mAP and macro F1 for several labels."""
    return of(dls).metrics()
