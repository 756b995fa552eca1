"""Every method of fastai's Learner and of its losses that is replaced, on one object and for the length of a fit.

fastai has callbacks for most of what a run needs. What they cannot do is here, and by these functions alone: begin a
fit in the middle of an epoch, do something else than batches, and compute without what a step's Python costs. The names
in `REPLACED` are held to the source that they were written for by tests/training/test_patches.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from operator import attrgetter
from typing import Any

import torch
from fastai.callback.core import Callback, CancelEpochException
from fastai.learner import AvgSmoothLoss, Learner, Recorder
from fastai.losses import BaseLoss
from fastai.torch_core import to_detach

REPLACED = (
    Learner.fit,
    Learner._do_fit,
    Learner._do_epoch_train,
    Learner._do_epoch_validate,
    Learner.all_batches,
    Learner._call_one,
    Learner.to_detach,
    BaseLoss._contiguous,
)


def restore(owner: Any, *names: str) -> None:
    """Give an object the methods of its class back."""
    for name in names:
        vars(owner).pop(name, None)


@contextlib.contextmanager
def replaced(owner: Any, **methods: Callable[..., Any]) -> Iterator[None]:
    """While this lasts, an object has these methods instead of those that it had."""
    own = {name: method for name, method in vars(owner).items() if name in methods}
    vars(owner).update(methods)
    try:
        yield
    finally:
        restore(owner, *methods)
        vars(owner).update(own)


def once(owner: Any, name: str, method: Callable[[], object]) -> None:
    """Have the next call of an object's method do something else."""

    def call() -> None:
        restore(owner, name)
        method()

    setattr(owner, name, call)


@contextlib.contextmanager
def beginning_at(learn: Learner, epoch: int, batch: int | None, again: Callable[[], object]) -> Iterator[None]:
    """While this lasts, `fit` begins at this epoch and, unless it is None, at this batch of it.

    again: called before the first epoch and before that batch, to restore what callbacks have reset as the fit, or the
    epoch, began.
    """

    def do_fit() -> None:
        again()
        for here in range(epoch, learn.n_epoch):
            learn.epoch = here
            learn._with_events(learn._do_epoch, "epoch", CancelEpochException)

    def rest_of_batches() -> None:
        again()
        learn.n_iter = len(learn.dl)
        learn.dl.skip = batch
        for i, items in enumerate(learn.dl, batch or 0):
            learn.one_batch(i, items)

    with replaced(learn, _do_fit=do_fit):
        if batch == len(learn.dls.train):  # the epoch is trained, but was not validated: only what comes after
            once(learn, "_do_epoch_train", again)
        elif batch is not None:
            once(learn, "all_batches", rest_of_batches)
        try:
            yield
        finally:
            restore(learn, "_do_epoch_train", "all_batches")


class Dispatch(Callback):
    """While `fit` runs, an event calls the callbacks that define it.

    fastai calls all of them, and each looks for the event in itself, in the Learner and in the model: 7 µs for each of
    the callbacks, in each of a step's eight events.
    """

    order = -100

    def __init__(self) -> None:
        self.present: tuple[Callback, ...] = ()
        self.defining: dict[str, list[Callback]] = {}

    def before_fit(self) -> None:
        self.learn._call_one = self.call

    def after_fit(self) -> None:
        restore(self.learn, "_call_one")

    def call(self, event: str) -> None:
        present = tuple(self.learn.cbs.items)
        if present != self.present:
            self.present, self.defining = present, {}
        if event not in self.defining:
            every = event == "after_fit"  # where fastai sets `run` of all of them again
            those = [cb for cb in present if every or hasattr(type(cb), event) or event in vars(cb)]
            self.defining[event] = sorted(those, key=attrgetter("order"))
        for callback in self.defining[event]:
            callback(event)


class PlainLoss(Callback):
    """While `fit` runs, fastai's losses compute with plain tensors.

    They compute with tensors of fastai's own, so that all that is done to a loss, its backward pass too, goes through
    Python: a sixth of the step of a small network. What is computed is the same.
    """

    def before_fit(self) -> None:
        single = all(p.dtype == torch.float32 for p in self.learn.model.parameters())  # fastai's smoothed loss is, too
        if single and isinstance(self.learn.loss_func, BaseLoss):
            self.learn.loss_func._contiguous = partial(_contiguous, axis=self.learn.loss_func.axis)

    def after_fit(self) -> None:
        if isinstance(self.learn.loss_func, BaseLoss):
            restore(self.learn.loss_func, "_contiguous")


def _contiguous(x: Any, axis: int) -> Any:
    return x.transpose(axis, -1).contiguous().as_subclass(torch.Tensor) if isinstance(x, torch.Tensor) else x


class SmoothLossOnDevice(AvgSmoothLoss):
    """fastai's smoothed loss, left where it was computed."""

    val: torch.Tensor

    def accumulate(self, learn: Learner) -> None:
        self.count += 1
        loss = to_detach(learn.loss.mean(), cpu=False)
        self.val = torch.lerp(loss, self.val.to(loss.device), self.beta)


class OnDevice(Callback):
    """Losses and metrics accumulate on the device: fastai copies them to the host, and so waits, every batch."""

    order = Recorder.order - 40

    def before_fit(self) -> None:
        self.learn.to_detach = partial(to_detach, cpu=False)
        if hasattr(self.learn, "recorder"):
            self.learn.recorder.smooth_loss = SmoothLossOnDevice(beta=self.learn.recorder.smooth_loss.beta)

    def after_fit(self) -> None:
        restore(self.learn, "to_detach")
        if hasattr(self.learn, "recorder") and self.learn.recorder.losses:
            losses: Any = self.learn.recorder.losses
            self.learn.recorder.losses = list(torch.stack(losses).cpu())

    def after_cancel_fit(self) -> None:
        self.after_fit()
