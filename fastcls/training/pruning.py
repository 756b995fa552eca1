"""A callback that tells each epoch's figure to someone who may end the run for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from fastai.callback.core import Callback

from fastcls.machine.stop import Ended
from fastcls.training.history import EarlyStopping


class Judge(Callback):
    """Has every epoch but the last judged by its figure on the validation split; Ended('pruned') if the verdict is one.

    judge: epoch (from 1) and figure -> why the run ends here, or nothing. metric: 'accuracy', 'macro_f1' or 'loss'.
    """

    order = EarlyStopping.order + 1  # when the epoch is written and shown, before it is saved

    def __init__(self, judge: Callable[[int, float], str], metric: str) -> None:
        self.judge, self.metric = judge, metric

    def state_dict(self) -> dict[str, Any]:
        """Nothing: who judges remembers."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...

    def after_epoch(self) -> None:
        rows = self.learn.history.rows
        value = figure(rows[-1], self.metric)
        if value is None:
            return
        verdict = self.judge(len(rows), value)
        if verdict and len(rows) < self.learn.progress.total_epochs:
            raise Ended("pruned", verdict)


def figure(row: Mapping[str, Any], metric: str) -> float | None:
    """An epoch's figure by a row of history.csv, where the search has had it computed."""
    if metric != "accuracy":
        value = row.get({"loss": "valid_loss", "macro_f1": "f1"}[metric])
    elif row.get("accuracy") is not None:
        value = row["accuracy"]
    else:
        value = None if row.get("error_rate") is None else 1 - row["error_rate"]
    return float(value) if value is not None and math.isfinite(value) else None
