"""Which epoch is the best, by a metric on the validation split: its weights are kept, or the run ends for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.data.all import get_c
from fastai.learner import Learner
from fastai.torch_core import get_model

from fastcls.errors import DataError, KnobError, did_you_mean
from fastcls.evaluation.interpret import activation
from fastcls.machine.stop import Ended
from fastcls.runfolder import runs
from fastcls.settings import options
from fastcls.training import objectives
from fastcls.training.checkpoints import load_weights
from fastcls.training.history import EarlyStopping, History, Stateless

DOUBT = 3.0  # images that speak for the linear probe beforehand, a standard deviation each
TIE = 0.5  # standard errors of a share; two epochs that differ by less are distinguished by their loss
MOST = 50_000_000  # probabilities that are calibrated for it; with more of them images, chance decides little
LOSS = "valid_loss"
TOP = 5  # classes that fastai's top_k_accuracy looks at


def ensure(learn: Learner, name: str) -> None:
    """Have the learner compute that figure after every epoch; KnobError where there is none of that name.

    Names are those of history.csv: the recipe's own metrics, `valid_loss`, or one of its target's
    (means over the classes).
    """
    own = [metric.name for metric in learn.metrics]
    if not name or name == LOSS or name in own:
        return
    criteria = objectives.of(learn.dls).criteria
    if name not in criteria:
        known = list(dict.fromkeys([*own, LOSS, *criteria]))
        raise KnobError(f"--best-by {name}: expected {', '.join(known)}{did_you_mean(name, known)}")
    if name == "top_k_accuracy" and (classes := get_c(learn.dls)) <= TOP:
        raise KnobError(f"--best-by {name}: it counts the {TOP} most likely classes, but there are only {classes}.")
    learn.metrics = [*learn.metrics, criteria[name]()]


def criterion(learn: Learner) -> str:
    """The figure on the validation split by which epochs are compared: as asked, or the first metric, or the loss."""
    if options.current().best_by:
        return options.current().best_by
    return str(learn.metrics[0].name) if learn.metrics else LOSS


def smaller_is_better(criterion: str) -> bool:
    """Whether a figure of that name is better the smaller it is, by the rule that fastai has."""
    return "loss" in criterion or "error" in criterion


def calibrated_losses(loss_func: Any, outputs: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """(n,): cross-entropy of a network's outputs (n, classes) at the temperature that suits them, an image each."""
    judge = objectives.of_labels(labels).judge
    p = activation(loss_func, judge.target)(outputs.float()).cpu().numpy()
    y = labels.long().cpu().numpy()
    return np.asarray(judge.losses(judge.target.softened(p, judge.temperature(p, y)), y))


def beats(gains: np.ndarray, against: float) -> bool:
    """Whether the sum of these differences (n,) is above zero by more than `against` times their standard deviation.

    As if so many further images had come out worse by that: what a few images say must be clear, of many it counts.
    """
    return len(gains) > 1 and bool(gains.sum() > against * gains.std(ddof=1))


class KeepBest(Callback):
    """Keeps the weights of the best epoch, by the first metric on the validation split.

    Of epochs within half a standard error of the best, which the validation images cannot tell apart, the one with the
    least loss at the temperature that suits it is taken: among many epochs and few images the highest accuracy is
    mostly luck. From the linear probe an epoch takes over where its losses at that temperature are less, image by
    image, against a prior of DOUBT images: twenty images would prefer a worse network half of the time.
    """

    order = History.order + 1

    def __init__(self, history: History) -> None:
        self.history = history
        self.top: float | None = None  # the metric's best value so far, larger is better
        self.best: tuple[float, float] | None = None  # metric and loss of the epoch that is kept
        self.epoch: int | None = None
        self.probe: torch.Tensor | None = None  # calibrated losses (n,) of the validation images under the probe
        self.weights: dict[str, torch.Tensor] = {}
        self.images = 0  # that were validated with
        # their outputs and targets, where these are not too many
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the weights."""
        return {"top": self.top, "best": self.best, "epoch": self.epoch, "probe": self.probe}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.top, self.best, self.epoch = state.get("top"), state["best"], state["epoch"]
        self.probe = state.get("probe")

    def before_fit(self) -> None:
        self.criterion = criterion(self.learn)

    def before_validate(self) -> None:
        self.seen, self.images = [], 0

    def after_batch(self) -> None:
        if self.training:
            return
        self.images += len(self.yb[0])
        if self.images * self.pred[:1].numel() > MOST:
            self.seen = []
        else:
            self.seen.append((self.pred.detach().cpu(), self.yb[0].detach().cpu()))

    def after_epoch(self) -> None:
        row = self.history.rows[-1]
        value, loss = row.get(self.criterion), row.get("valid_loss")
        if value is None or loss is None or not math.isfinite(loss):
            return
        value = -value if smaller_is_better(self.criterion) else value
        tie = self._tie(value)
        losses = self._calibrated_losses() if tie else None
        calibrated = loss if losses is None else float(losses.mean())
        if losses is not None and row["phase"] == runs.PROBE:
            self.probe = torch.from_numpy(losses)
        elif losses is not None and self.probe is not None and not beats(self.probe.numpy() - losses, DOUBT):
            return
        self.top = value if self.top is None else max(self.top, value)
        least = self.top - tie
        if self.best is not None and self.best[0] >= least and (value < least or calibrated >= self.best[1]):
            return
        self.best, self.epoch = (value, calibrated), row["epoch"]
        state = get_model(self.learn.model).state_dict()
        self.weights = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}

    def _tie(self, value: float) -> float:
        """Differences in the metric that mean nothing; 0 for what is no share of the images."""
        share = abs(value)
        if "loss" in self.criterion or share > 1 or not self.images:
            return 0.0
        return TIE * math.sqrt(max(share * (1 - share), 1 / self.images) / self.images)

    def _calibrated_losses(self) -> np.ndarray | None:
        """Cross-entropy of each validation image at the temperature that suits this epoch; None of too many."""
        if not self.seen:
            return None
        outputs, targets = (torch.cat(parts).as_subclass(torch.Tensor) for parts in zip(*self.seen, strict=True))
        if outputs.ndim != 2 or targets.ndim > 2:
            return None
        return calibrated_losses(self.loss_func, outputs, targets)

    def restore(self, learn: Learner) -> None:
        """Load the best epoch's weights."""
        if self.epoch != self.history.rows[-1]["epoch"]:
            load_weights(learn.model, self.weights)


class Prune(Stateless):
    """Has every epoch but the last judged by its figure on the validation split; Ended('pruned') if the verdict is one.

    judge: epoch (from 1) and figure -> why the run ends here, or nothing. metric: 'accuracy', 'macro_f1', 'loss' or
    'mAP'.
    """

    order = EarlyStopping.order + 1  # when the epoch is written and shown, before it is saved

    def __init__(self, judge: Callable[[int, float], str], metric: str) -> None:
        self.judge, self.metric = judge, metric

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
        value = row.get({"loss": "valid_loss", "macro_f1": "f1"}.get(metric, metric))
    elif "mAP" in row:
        raise DataError("--metric accuracy: these images have several labels each.", "Use --metric mAP or macro_f1.")
    elif row.get("accuracy") is not None:
        value = row["accuracy"]
    else:
        value = None if row.get("error_rate") is None else 1 - row["error_rate"]
    return float(value) if value is not None and math.isfinite(value) else None
