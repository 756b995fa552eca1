"""Learning rates over a whole training, by name, through fastai's own fit functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastai.callback.schedule import ParamScheduler, SchedLin, SchedNo, combine_scheds, combined_cos
from fastai.learner import Learner

from fastcls.errors import UsageError

SCHEDULES = ("one-cycle", "flat-cos", "step", "constant")


def fit_schedule(
    learn: Learner,
    schedule: str,
    epochs: int,
    lr: float,
    factor: float = 0.5,
    steps: int = 3,
    warmup: float | None = None,
    **kwargs: Any,
) -> None:
    """Train for `epochs` with one of SCHEDULES and the highest learning rate `lr`; other keywords go to `Learner.fit`.

    one-cycle: up, then down to zero (Smith 2018). flat-cos: constant for three quarters, then cosine decay. step:
    multiplied by `factor` after each of `steps` equal parts, like torch's StepLR. constant: the same rate throughout.
    warmup: the share of the training in which the rate rises (Goyal et al. 2017); None is a quarter for one-cycle,
    along a cosine, and zero for the others, which rise linearly.
    """
    if schedule not in SCHEDULES:
        raise UsageError(f"Unknown schedule {schedule!r}.", f"Use one of {', '.join(SCHEDULES)}.")
    if warmup is not None and not 0 <= warmup < 1:
        raise UsageError(
            f"--warmup {warmup:g}: a share of the training must be from 0 to below 1.", "Use for example --warmup 0.05."
        )
    if schedule == "one-cycle":
        learn.fit_one_cycle(epochs, lr, **({} if warmup is None else {"pct_start": max(warmup, 1e-6)}), **kwargs)
        return
    if schedule == "flat-cos" and not warmup:
        learn.fit_flat_cos(epochs, lr, **kwargs)
        return
    rates = _rates(schedule, lr, factor, steps)
    if warmup:
        rates = combine_scheds([warmup, 1 - warmup], [SchedLin(lr / 1000, lr), rates])
    learn.fit(epochs, lr, **{**kwargs, "cbs": [ParamScheduler({"lr": rates}), *kwargs.get("cbs", ())]})


def _rates(schedule: str, lr: float, factor: float, steps: int) -> Callable[[float], float]:
    """The rate by the share of the training that is done."""
    if schedule == "flat-cos":
        return combined_cos(0.75, lr, lr, lr / 1e5)
    stairs = [SchedNo(lr * factor**i, lr * factor**i) for i in range(steps if schedule == "step" else 1)]
    return combine_scheds([1 / len(stairs)] * len(stairs), stairs)
