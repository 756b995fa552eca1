"""Averages of the weights, kept instead of the last step's: exponential, or the mean over all steps of a fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.callback.schedule import LRFinder
from fastai.learner import Learner
from fastai.torch_core import get_model

from fastcls.errors import UsageError
from fastcls.machine import ranks
from fastcls.settings import options
from fastcls.training.best import beats, calibrated_losses


class EMA(Callback):
    """After every step the average moves towards the weights by 1 - decay (Polyak and Juditsky 1992).

    Early on by more, 1 - (1 + n) / (10 + n) after n steps, so that the initial weights are forgotten. From the
    validation of an epoch to the training of the next, and after the fit, the network holds the average; batch norm's
    statistics are averaged too. The next fit of the learner starts from it.
    """

    def __init__(self, decay: float = 0.999) -> None:
        self.decay, self.steps = decay, 0
        self.other: dict[str, torch.Tensor] = {}  # the average, or the weights while the network holds that
        self.shown = False  # whether the network holds the average

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps; with the weights themselves while the network holds the average."""
        if not self.shown:
            return {"steps": self.steps, "average": self.other}
        return {"steps": self.steps, "average": fractions(self.learn), "weights": self.other}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        weights = fractions(self.learn)
        self.steps, self.shown = state["steps"], False
        self.other = {name: value.to(weights[name].device) for name, value in state["average"].items()}
        if "weights" in state:
            copy(state["weights"], weights)

    def before_fit(self) -> None:
        self.run = not any(isinstance(callback, LRFinder) for callback in self.learn.cbs)
        self.steps, self.shown = 0, False
        self.live = list(fractions(self.learn).values())  # a look at every module, which a step need not take
        self.other = {name: value.clone() for name, value in fractions(self.learn).items()}

    def after_step(self) -> None:
        self.steps += 1
        torch._foreach_lerp_(list(self.other.values()), self.live, 1 - self._kept())

    def _kept(self) -> float:
        """The share of the average that stays at this step."""
        return min(self.decay, (1 + self.steps) / (10 + self.steps))

    def before_validate(self) -> None:
        self._show(True)

    def before_train(self) -> None:
        self._show(False)

    def after_fit(self) -> None:
        self._show(True)

    def _show(self, shown: bool) -> None:
        """Change places, number by number: the optimiser continues the same tensors."""
        if shown == self.shown or not self.other:
            return
        weights = fractions(self.learn)
        held = {name: value.clone() for name, value in weights.items()}
        copy(self.other, weights)
        copy(held, self.other)
        self.shown = shown


class PolyakAverage(EMA):
    """Validate with the mean of the weights over all steps so far, including the initial ones, and end a fit with it.

    Early steps of fine-tuning from a solved head gain little and distort features (Kumar et al. 2022); the mean over
    the steps (Polyak and Juditsky 1992) keeps the gain, as interpolation with the initial weights does (Wortsman et al.
    2022, "Robust fine-tuning of zero-shot models"). The fit ends with the last weights instead if their calibrated loss
    on the validation images is lower by more than chance, as after many steps (`best.beats`). Batch norm's statistics
    are averaged too; it is better to freeze them (`probe.FreezeStatistics`).
    """

    order = 1000  # after the checkpoint that is taken before a validation

    def __init__(self) -> None:
        super().__init__(1.0)

    def _kept(self) -> float:
        return self.steps / (self.steps + 1)

    def before_validate(self) -> None:
        self._show(True)
        if self.epoch + 1 < self.n_epoch:
            return
        of_mean = self._losses()
        self._show(False)
        of_last = self._losses()
        ahead = beats(of_mean - of_last, math.sqrt(len(of_mean)))  # by a standard error
        if ahead:
            self.other = {}
        self._show(True)
        kind = "last weights" if ahead else "mean of the weights over all steps"
        figures = f"{of_mean.mean():.4f} for the mean, {of_last.mean():.4f} for the last"
        options.note(f"training ends with the {kind} (calibrated loss on valid: {figures}).")

    @torch.no_grad()
    def _losses(self) -> np.ndarray:
        """(n,): cross-entropy of the validation images, of which each process has a share, at its best temperature."""
        network = get_model(self.learn.model).eval()
        seen = [(network(*inputs).float(), target) for *inputs, target in self.dls.valid]
        logits, targets = (torch.cat(parts).as_subclass(torch.Tensor) for parts in zip(*seen, strict=True))
        own = calibrated_losses(self.loss_func, logits, targets)
        if ranks.world() == 1:
            return own
        every = [own] * ranks.world()
        torch.distributed.all_gather_object(every, own)
        return np.concatenate(every)


def copy(source: Mapping[str, torch.Tensor], into: Mapping[str, torch.Tensor]) -> None:
    """Numbers into the same tensors, so that the optimiser continues them."""
    with torch.no_grad():
        for name, value in into.items():
            value.copy_(source[name])


def fractions(learn: Learner) -> dict[str, torch.Tensor]:
    """All of the network that is a number with a fraction; counters need no average."""
    state = get_model(learn.model).state_dict()
    return {name: value.detach() for name, value in state.items() if value.is_floating_point()}


def ema(decay: float) -> list[Callback]:
    """The callbacks that average the weights with this decay, 0.99 to 0.9999; none for 0."""
    if not 0 <= decay < 1:
        raise UsageError(
            f"--ema {decay:g}: a decay must be between 0 and 1.", "Use for example --ema 0.999, or 0 for none."
        )
    return [EMA(decay)] if decay else []
