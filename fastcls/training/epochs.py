"""How many epochs: as many as fit into a time, or as many as pay."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

import torch
from fastai.learner import Learner

from fastcls.errors import UsageError
from fastcls.settings import shell
from fastcls.training import best
from fastcls.training import history as train

PROBE_SECONDS = 10.0
PROBE_STEPS = 20
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MOST = 10  # times as many epochs as the recipe's that 'auto' trains


def within(
    learn: Learner, recipe_fit: Callable[..., object], knobs: Mapping[str, Any], seconds: float
) -> tuple[int, float]:
    """(`epochs` for a recipe's fit that train for about `seconds`, what an epoch takes), by some steps that are timed.

    Frozen epochs count as whole ones. UsageError where not even one fits, or the fit cannot be rehearsed.
    """
    phases = train.rehearse(learn, recipe_fit, **{**knobs, "epochs": 1})
    if not phases:
        raise UsageError("--time: this recipe's fit does more than call Learner.fit.", "Use --epochs N.")
    each = seconds_of_epoch(learn)
    before = sum(phase.epochs for phase in phases) - 1  # of other phases
    epochs = int(seconds / each) - before
    if epochs < 1:
        raise UsageError(
            f"--time: {before + 1} epoch{'s' if before else ''} of this recipe take{'' if before else 's'} about "
            f"{shell.lasting((before + 1) * each)} here.",
            "Use a longer --time, a smaller network or --size, or fewer images with --limit.",
        )
    return epochs, each


def seconds_of_epoch(learn: Learner, steps: int = PROBE_STEPS) -> float:
    """What an epoch and its validation will take, by some steps of a copy of the network: the learner stays itself."""
    network = copy.deepcopy(learn.model)
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.0)
    half = partial(torch.autocast, learn.dls.device.type, DTYPES[learn.precision])
    total = 0.0
    for loader, trains in ((learn.dls.train, True), (learn.dls.valid, False)):
        network.train(trains)
        taken, until, started = [], time.perf_counter() + PROBE_SECONDS, time.perf_counter()
        for *inputs, target in islice(loader, steps):
            with torch.set_grad_enabled(trains), half(enabled=trains and learn.precision != "fp32"):
                loss = learn.loss_func(network(*inputs), target)
            if trains:
                loss.mean().backward()
                optimiser.step()
                optimiser.zero_grad()
            loss.mean().item()  # waits for the device
            now = time.perf_counter()
            taken.append(now - started)
            started = now
            if now > until and len(taken) > 1:
                break
        total += statistics.median(taken[1:] or taken) * len(loader)  # the first warms up
    return total


class Pace:
    """How many epochs more are worth training after the recipe's own: half as many each time, while the last ones paid.

    They paid if the best figure so far rose by more than half its standard error, of a loss by more than 1 %.
    """

    def __init__(self, learn: Learner, phases: Sequence[train.Phase]) -> None:
        if not phases:
            raise UsageError("--epochs auto: this recipe's fit does more than call Learner.fit.", "Use --epochs N.")
        self.planned = sum(phase.epochs for phase in phases)
        self.criterion, self.images = best.criterion(learn), len(learn.dls.valid_ds)

    def further(self, rows: Sequence[Mapping[str, Any]], extensions: Sequence[int]) -> int:
        """0 where it no longer pays, or MOST times the recipe's epochs are trained. rows: those of the history."""
        if extensions:
            end = self.planned + sum(extensions)
            before, after = self._best(rows[: end - extensions[-1]]), self._best(rows[:end])
            if abs(after - before) <= self._noise(before):
                return 0
        step = max(1, round(self.planned / 2))
        return step if self.planned + sum(extensions) + step <= MOST * self.planned else 0

    def _best(self, rows: Sequence[Mapping[str, Any]]) -> float:
        values = [float(row[self.criterion]) for row in rows if row.get(self.criterion) is not None]
        return min(values) if best.smaller_is_better(self.criterion) else max(values)

    def _noise(self, value: float) -> float:
        if "loss" in self.criterion or not 0 <= value <= 1:
            return 0.01 * abs(value)
        return 0.5 * math.sqrt(value * (1 - value) / self.images)
