"""Averages of weights that are kept instead of the last step's: over the steps, or between start and end of a fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
            self._copy(state["weights"], weights)

    def before_fit(self) -> None:
        self.run = not any(isinstance(callback, LRFinder) for callback in self.learn.cbs)
        self.steps, self.shown = 0, False
        self.live = list(fractions(self.learn).values())  # a look at every module, which a step need not take
        self.other = {name: value.clone() for name, value in fractions(self.learn).items()}

    def after_step(self) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(list(self.other.values()), self.live, 1 - decay)

    def before_validate(self) -> None:
        self._show(True)

    def before_train(self) -> None:
        self._show(False)

    def after_fit(self) -> None:
        self._show(True)

    def _show(self, shown: bool) -> None:
        """Change places, number by number: the optimiser goes on with the same tensors."""
        if shown == self.shown or not self.other:
            return
        weights = fractions(self.learn)
        held = {name: value.clone() for name, value in weights.items()}
        self._copy(self.other, weights)
        self._copy(held, self.other)
        self.shown = shown

    @staticmethod
    def _copy(source: Mapping[str, torch.Tensor], into: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, value in into.items():
                value.copy_(source[name])


class Interpolate(Callback):
    """Ends a fit between the weights that it began with and those that it reached, where the validation loss is least.

    WiSE-FT (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", equation 1): what fine-tuning gains is
    mostly kept, what it distorts is undone. The last epoch is validated with the interpolated weights. With batch norm
    that is trained too the statistics are interpolated as well: rather freeze them (fastai's BnFreeze).
    """

    order = 1000  # after the checkpoint that is taken before a validation

    def __init__(self, shares: Sequence[float] = (0.25, 0.5, 0.75, 1.0)) -> None:
        self.shares = shares
        self.start: dict[str, torch.Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"start": self.start}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        weights = fractions(self.learn)
        self.start = {name: value.to(weights[name].device) for name, value in state["start"].items()}

    def before_fit(self) -> None:
        self.start = {name: value.clone() for name, value in fractions(self.learn).items()}

    def before_validate(self) -> None:
        if self.epoch + 1 < self.n_epoch:
            return
        weights = fractions(self.learn)
        end = {name: value.clone() for name, value in weights.items()}

        def move(share: float) -> None:
            for name, value in weights.items():
                torch.lerp(self.start[name], end[name], share, out=value)

        losses = []
        for share in self.shares:
            move(share)
            losses.append(self._loss())
        best = self.shares[int(np.argmin(losses))]
        move(best)
        self.start = {}
        options.note(f"the last weights are {best:.0%} of the way from the first to the fine-tuned ones.")

    @torch.no_grad()
    def _loss(self) -> float:
        """Of the validation images, which several processes share."""
        network = get_model(self.learn.model).eval()
        total = torch.zeros(2, device=self.dls.device)
        for *inputs, target in self.dls.valid:
            total += torch.stack([self.loss_func(network(*inputs), target).mean(), total.new_ones(())]) * len(target)
        if ranks.world() > 1:
            torch.distributed.all_reduce(total)
        return float(total[0] / total[1])


def fractions(learn: Learner) -> dict[str, torch.Tensor]:
    """All of the network that is a number with a fraction; counters need no average."""
    state = get_model(learn.model).state_dict()
    return {name: value.detach() for name, value in state.items() if value.is_floating_point()}


def ema(decay: float) -> list[Callback]:
    """The callbacks that average the weights with this decay, 0.99 to 0.9999; 0 is without."""
    if not 0 <= decay < 1:
        raise UsageError(f"A decay of {decay:g} averages nothing.", "Give --ema 0.999, say, or 0 for none.")
    return [EMA(decay)] if decay else []
