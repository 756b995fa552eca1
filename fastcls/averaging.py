"""An exponential moving average of the weights, which is validated and kept instead of the last step's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from fastai.callback.core import Callback
from fastai.callback.schedule import LRFinder
from fastai.torch_core import get_model

from fastcls.errors import UsageError


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
        return {"steps": self.steps, "average": self._weights(), "weights": self.other}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        weights = self._weights()
        self.steps, self.shown = state["steps"], False
        self.other = {name: value.to(weights[name].device) for name, value in state["average"].items()}
        if "weights" in state:
            self._copy(state["weights"], weights)

    def before_fit(self) -> None:
        self.run = not any(isinstance(callback, LRFinder) for callback in self.learn.cbs)
        self.steps, self.shown = 0, False
        self.live = list(self._weights().values())  # a look at every module, which a step need not take
        self.other = {name: value.clone() for name, value in self._weights().items()}

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

    def _weights(self) -> dict[str, torch.Tensor]:
        """All of the network that is a number with a fraction; counters need no average."""
        state = get_model(self.learn.model).state_dict()
        return {name: value.detach() for name, value in state.items() if value.is_floating_point()}

    def _show(self, shown: bool) -> None:
        """Change places, number by number: the optimiser goes on with the same tensors."""
        if shown == self.shown or not self.other:
            return
        weights = self._weights()
        held = {name: value.clone() for name, value in weights.items()}
        self._copy(self.other, weights)
        self._copy(held, self.other)
        self.shown = shown

    @staticmethod
    def _copy(source: Mapping[str, torch.Tensor], into: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, value in into.items():
                value.copy_(source[name])


def ema(decay: float) -> list[Callback]:
    """The callbacks that average the weights with this decay, 0.99 to 0.9999; 0 is without."""
    if not 0 <= decay < 1:
        raise UsageError(f"A decay of {decay:g} averages nothing.", "Give --ema 0.999, say, or 0 for none.")
    return [EMA(decay)] if decay else []
