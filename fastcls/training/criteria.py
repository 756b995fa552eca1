"""The figures on the validation split that an epoch can be the best by: fastai's metrics, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from fastai.data.all import get_c
from fastai.learner import Learner
from fastai.metrics import accuracy, error_rate, skm_to_fastai, top_k_accuracy
from sklearn import metrics as scores

from fastcls.errors import KnobError, did_you_mean

LOSS = "valid_loss"
TOP = 5  # classes that fastai's top_k_accuracy looks at
CRITERIA: dict[str, Callable[[], Any]] = {
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


def _macro(name: str, score: Callable[..., float]) -> Any:
    """The mean over the classes that occur, as metrics.json has it: one that is only predicted has no recall."""

    def mean(targets: Any, predictions: Any) -> float:
        return score(targets, predictions, labels=np.unique(targets), average="macro", zero_division=0)

    return skm_to_fastai(mean, name=name)


def ensure(learn: Learner, name: str) -> None:
    """Have the learner compute that figure after every epoch; KnobError where there is none of that name.

    Names are those of history.csv: the recipe's own metrics, `valid_loss`, or one of CRITERIA (means over the classes).
    """
    own = [metric.name for metric in learn.metrics]
    if not name or name == LOSS or name in own:
        return
    if name not in CRITERIA:
        known = list(dict.fromkeys([*own, LOSS, *CRITERIA]))
        raise KnobError(f"--best-by {name}: takes {', '.join(known)}{did_you_mean(name, known)}")
    if name == "top_k_accuracy" and (classes := get_c(learn.dls)) <= TOP:
        raise KnobError(f"--best-by {name}: it counts the {TOP} likeliest classes, and there are {classes}.")
    learn.metrics = [*learn.metrics, CRITERIA[name]()]
