"""Learning rates over a whole training, by name, through fastai's own fit functions."""

from __future__ import annotations

from typing import Any

from fastai.callback.schedule import ParamScheduler, SchedNo, combine_scheds
from fastai.learner import Learner

from fastcls.errors import UsageError

SCHEDULES = ("one-cycle", "flat-cos", "step", "constant")


def fit_schedule(
    learn: Learner, schedule: str, epochs: int, lr: float, factor: float = 0.5, steps: int = 3, **kwargs: Any
) -> None:
    """Train for `epochs` by one of SCHEDULES, `lr` being its highest rate; further keywords are those of `Learner.fit`.

    one-cycle: up, then down to nothing (Smith 2018). flat-cos: flat for three quarters, then down along a cosine.
    step: times `factor` after each of `steps` equal parts, as torch's StepLR. constant: the same rate throughout.
    """
    if schedule == "one-cycle":
        learn.fit_one_cycle(epochs, lr, **kwargs)
    elif schedule == "flat-cos":
        learn.fit_flat_cos(epochs, lr, **kwargs)
    elif schedule == "step":
        stairs = [SchedNo(lr * factor**i, lr * factor**i) for i in range(steps)]
        rate = ParamScheduler({"lr": combine_scheds([1 / steps] * steps, stairs)})
        learn.fit(epochs, lr, **{**kwargs, "cbs": [rate, *kwargs.get("cbs", ())]})
    elif schedule == "constant":
        learn.fit(epochs, lr, **kwargs)
    else:
        raise UsageError(f"There is no schedule {schedule!r}.", f"Take one of {', '.join(SCHEDULES)}.")
