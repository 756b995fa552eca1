"""fastai's learning-rate finder on a learner that is afterwards as it was, weights to random state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.basics import L
from fastai.callback.schedule import ParamScheduler, minimum, slide, steep, valley
from fastai.learner import Learner

from fastcls.errors import TrainingError
from fastcls.machine.screen import Screen, escape
from fastcls.runfolder import register, runs
from fastcls.running.faults import batches_of_one
from fastcls.running.loading import prepared
from fastcls.settings import shell
from fastcls.settings.request import Request
from fastcls.training import patches
from fastcls.training.finder import InMemoryFinder, restored
from fastcls.training.history import quiet
from fastcls.training.probe import SolveHead

METHODS = (valley, steep, minimum, slide)


@dataclass(frozen=True)
class Rates:
    """The finder's curve and fastai's suggestions by name."""

    rates: list[float]
    losses: list[float]
    suggestions: dict[str, float]


class _Begun(Exception):
    """A recipe's `fit` has come to its first epoch of training; args: the callbacks of that fit."""


@contextmanager
def first_training(learn: Learner, fit: Callable[..., object], **knobs: Any) -> Iterator[None]:
    """The learner as the first training of a recipe's `fit` finds it: head solved, layers frozen, callbacks added."""
    own = learn.fit

    def fit_or_stop(n_epoch: int, *args: Any, cbs: Any = None, **kwargs: Any) -> None:
        if not any(isinstance(callback, SolveHead) for callback in L(cbs)):
            raise _Begun(*L(cbs))
        own(n_epoch, *args, cbs=cbs, **kwargs)

    try:
        with quiet(learn), patches.replaced(learn, fit=fit_or_stop):
            fit(learn, **knobs)
    except _Begun as begun:
        callbacks = [callback for callback in begun.args if not isinstance(callback, ParamScheduler)]
    else:
        raise TrainingError(
            "With these settings nothing is trained at a learning rate that could be searched.",
            "Use other settings, for example `--tune full` if the recipe has the knob tune.",
        )
    with learn.added_cbs(callbacks):
        yield


def lr_find(learn: Learner, steps: int = 100, start_lr: float = 1e-7, end_lr: float = 10.0) -> Rates:
    """Train `steps` mini-batches at growing rates and suggest one; `learn` is left as it was found.

    Suggestions are fastai's: valley, steep, minimum (a tenth of the rate of the least loss), slide.
    """
    epochs = steps // len(learn.dls.train) + 1
    with restored(learn), quiet(learn):
        learn.fit(epochs, cbs=InMemoryFinder(start_lr, end_lr, steps))
        rates, losses = list(learn.recorder.lrs), [float(loss) for loss in learn.recorder.losses]
    pairs = [(rate, loss) for rate, loss in zip(rates, losses, strict=True) if np.isfinite(loss)]
    head, tail = steps // 10, 5  # as fastai does: the first steps are noise, the last have diverged
    usable = pairs[head : len(pairs) - tail]
    if len(usable) < 8:
        raise TrainingError(
            f"The finder recorded only {len(usable)} usable losses, too few for a suggestion.",
            "Increase --steps, or check the data: the loss diverges from the start.",
        )
    lrs, values = (torch.tensor(column) for column in zip(*usable, strict=True))
    suggestions = {}
    for method in METHODS:
        try:
            suggestions[method.__name__] = float(method(lrs, values, steps)[0])
        except (IndexError, ValueError):  # fastai's slide runs off a curve that never turns
            continue
    return Rates([r for r, _ in pairs], [loss for _, loss in pairs], suggestions)


def draw(found: Rates, file: Path, title: str) -> None:
    """The curve with the suggestions marked, as .png, .svg or .pdf."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(found.rates, found.losses, color="0.35", linewidth=1.5)
    for (name, rate), colour in zip(found.suggestions.items(), ("C0", "C1", "C2", "C3"), strict=False):
        loss = np.interp(np.log(rate), np.log(found.rates), found.losses)
        axes.plot(rate, loss, "o", color=colour, markersize=8, label=f"{name}  {rate:.1e}")
    finite = np.array(found.losses)
    axes.set_ylim(finite.min() - 0.05 * np.ptp(finite), min(finite.max(), 2 * finite[: len(finite) // 2].max()))
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss (smoothed)")
    axes.set_title(title, fontsize="medium", parse_math=False)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    register.wrote(runs.atomic_path(file, lambda temporary: figure.savefig(temporary, dpi=160)))


def find_rates(request: Request, file: Path, steps: int, screen: Screen) -> None:
    """The `lr-find` verb: run the finder on a recipe, draw, and print suggestions and the next command."""
    with prepared(request) as ready:
        screen.print(f"{escape(request.source.name)}: {steps} mini-batches at rates from 1e-7 to 10 …")
        knobs = request.stage("get_learner") | request.stage("fit")
        with batches_of_one(knobs), first_training(ready.learn, ready.recipe.fit, **request.stage("fit")):
            found = lr_find(ready.learn, steps)
        for note in ready.notes:
            screen.print(f"note     {escape(note)}", soft_wrap=True)
    draw(found, file, f"{request.source.name}: loss against learning rate")
    for name, rate in found.suggestions.items():
        screen.print(f"{name:8s} {rate:.2e}")
    knob = next((k.flag for k in request.source.stage("fit") if k.name == "lr"), None)
    screen.print(f"figure   {escape(file)}")
    if knob and "valley" in found.suggestions:
        # the same command, less what belongs to the finder alone and the rate itself
        given = request.words_without("--out", "--steps", "--lr")[2:]
        following = shell.command("recipe", *given, knob, f"{found.suggestions['valley']:.2g}")
        screen.print(f"next     {escape(following)}", soft_wrap=True)
