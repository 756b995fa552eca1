"""fastai's learning-rate finder without a trace: no file, and weights, optimiser and random states as they were."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager

from fastai.basics import L
from fastai.callback.core import CancelFitException
from fastai.callback.schedule import LRFinder, ParamScheduler
from fastai.learner import Learner
from fastai.torch_core import get_random_states, set_random_states

from fastcls.training import losses
from fastcls.training.checkpoints import load_weights


class InMemoryFinder(LRFinder):
    """fastai's finder without its temporary pickle on disk: `restored` gives the weights back."""

    @classmethod
    def like(cls, finder: LRFinder) -> InMemoryFinder:
        """One that does what fastai's own would."""
        own = cls(num_it=finder.num_it, stop_div=finder.stop_div)
        own.scheds = finder.scheds
        return own

    def before_fit(self) -> None:
        ParamScheduler.before_fit(self)
        self.best_loss = float("inf")
        self.lost = losses.bounds(self.learn).get("chance", math.log(max(2, getattr(self.dls, "c", 2))))

    def after_batch(self) -> None:
        """fastai's, but from a solved head, whose loss is small, the noise of a batch is no divergence."""
        ParamScheduler.after_batch(self)
        self.best_loss = min(self.best_loss, float(self.smooth_loss))
        if (self.stop_div and self.smooth_loss > max(4 * self.best_loss, self.lost)) or self.train_iter >= self.num_it:
            raise CancelFitException

    def after_fit(self) -> None:
        self.learn.opt.zero_grad()


@contextmanager
def restored(learn: Learner) -> Iterator[None]:
    """Weights, optimiser and random states as they were, however the block ends (Ctrl-C included)."""
    weights = {name: tensor.detach().clone() for name, tensor in learn.model.state_dict().items()}
    optimizer = None if learn.opt is None else copy.deepcopy(learn.opt.state_dict())
    states = get_random_states()
    loaders = [(dl, copy.deepcopy(dl.rng.getstate())) for dl in learn.dls if hasattr(dl, "rng")]
    try:
        yield
    finally:
        load_weights(learn.model, weights)
        if optimizer is None:
            learn.opt = None
        else:
            learn.opt.load_state_dict(optimizer)
        set_random_states(**states)
        for dl, state in loaders:
            dl.rng.setstate(state)


def asked_for(callbacks: object) -> LRFinder | None:
    """The finder among the callbacks of a call of `fit`."""
    return next((callback for callback in L(callbacks) if isinstance(callback, LRFinder)), None)
