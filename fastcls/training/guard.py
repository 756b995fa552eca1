"""A guard of training: a loss or weights that are not finites stop it within a step and are never saved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from fastai.learner import Learner, Recorder

from fastcls.errors import Diverged
from fastcls.training.history import Stateless


@dataclass(frozen=True)
class _Loss:
    """A batch's loss, perhaps still on its way from the device."""

    epoch: int
    batch: int
    value: torch.Tensor
    arrived: torch.cuda.Event | None

    @classmethod
    def of(cls, learn: Learner) -> _Loss:
        value, arrived = learn.loss.detach().mean(), None
        if value.device.type == "cuda":
            value, arrived = value.to("cpu", non_blocking=True), torch.cuda.Event()
            arrived.record()
        return cls(_epoch(learn), learn.iter + 1, value, arrived)

    def read(self) -> float:
        """The number, once it is there."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.value.item()


class Guard(Stateless):
    """Stops a run whose loss is not finite within a step, and keeps what no more can be trained with from being saved.

    A CPU's loss is looked at before its step. A GPU's is looked at when the next batch has gone forward: by then it has
    long arrived, and the GPU is never waited for. One bad step is taken there; `check`, before every save, finds it.

    shared: several processes train together; what one has `found` they `refuse` at a step that they agree on.
    """

    order = Recorder.order - 1

    def __init__(self) -> None:
        self.last: _Loss | None = None
        self.found: _Loss | None = None
        self.shared = False

    def before_fit(self) -> None:
        self.last = self.found = None

    def after_loss(self) -> None:
        if self.training:
            before, self.last = self.last, _Loss.of(self.learn)
            self._refuse(self.last if self.at_once(self.last.value) else before)

    @staticmethod
    def at_once(loss: torch.Tensor) -> bool:
        """Whether a look at it costs nothing."""
        return loss.device.type == "cpu" and not loss.is_pinned()

    def after_train(self) -> None:
        self._refuse(self.last)

    def check(self, learn: Learner) -> None:
        """Diverged where the last loss or the weights are no numbers."""
        self._refuse(self.last)
        sound = torch.stack([parameter.detach().isfinite().all() for parameter in learn.model.parameters()]).all()
        if not sound:
            epoch = self.last.epoch if self.last else _epoch(learn)  # which may have ended since
            raise Diverged(f"Weights became NaN or infinite in epoch {epoch}.", _causes(learn))

    def _refuse(self, loss: _Loss | None) -> None:
        if loss is None or math.isfinite(loss.read()):
            return
        self.found = self.found or loss
        if not self.shared:
            self.refuse(loss.batch)

    def refuse(self, batch: int) -> None:
        """Diverged, for the loss that was found here, or by another process in that batch."""
        epoch, value = (self.found.epoch, self.found.read()) if self.found else (_epoch(self.learn), math.nan)
        rate = self.opt.hypers[-1]["lr"]
        where = f"in epoch {epoch}, batch {batch}, at a learning rate of {rate:.2g}"
        raise Diverged(f"The loss became {value:g} {where}.", _causes(self.learn))


def refuse_last(learn: Learner, rows: Sequence[Mapping[str, Any]]) -> None:
    """Diverged where the weights of the last epoch, which the run would end with, give no loss on valid.

    The last steps of a training can spoil weights whose losses were all finite.
    """
    loss = rows[-1].get("valid_loss") if rows else None
    if loss is not None and not math.isfinite(loss):
        raise Diverged(f"After the last epoch, {len(rows)}, the loss on valid is {loss:g}.", _causes(learn))


def _epoch(learn: Learner) -> int:
    """Counted as the history and the screen do, over all calls of `fit`."""
    return len(learn.history.rows) + 1 if hasattr(learn, "history") else learn.epoch + 1


def _causes(learn: Learner) -> str:
    """What makes losses no numbers, the likeliest first."""
    precision = getattr(learn, "precision", "fp32")
    causes = [
        "the learning rate: try a tenth of it, or --clip 1; `fastcls lr-find` suggests one",
        f"the precision: it is {precision}" + (", so unlikely" if precision == "fp32" else "; try --precision fp32"),
        "the data: `fastcls check` finds damaged images; a custom transform or loss may divide by 0",
    ]
    if not all(x.isfinite().all() for x in learn.xb if isinstance(x, torch.Tensor)):
        causes = ["the data: after its transforms, this batch contains NaN or infinite values", *causes[:2]]
    return "Likely causes, most likely first:\n  " + "\n  ".join(causes)
