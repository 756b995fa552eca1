"""Training a prepared learner with everything that watches it: history, best weights, guard, progress, checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fastai.callback.core import Callback
from fastai.learner import Learner

from fastcls import check, checkpoints, devices, distributed, options, ranks, resume, train
from fastcls.data import item_paths
from fastcls.errors import TrainingError
from fastcls.screen import Screen
from fastcls.stop import Stop


@dataclass(frozen=True)
class Trained:
    """What training left behind, the learner with its last weights apart."""

    history: train.History
    best: train.KeepBest
    planned: int  # epochs


def fit(
    learn: Learner,
    recipe_fit: Callable[..., object],
    knobs: dict[str, Any],
    out: Path,
    screen: Screen,
    stop: Stop,
    found: checkpoints.Checkpoint | None = None,
    extensions: Sequence[int] = (),
    watchers: Sequence[Callback] = (),
) -> Trained:
    """Run a recipe's `fit`, from `found` on if there is one, then train `extensions` further epochs each.

    watchers: further callbacks, beside those that every run has.
    """
    opts = options.current()
    phases = train.rehearse(learn, recipe_fit, **knobs)
    phases += [train.Phase(epochs, "extension") for epochs in extensions]
    history = train.History(out / "history.csv")
    best = train.KeepBest(history)
    progress = train.Progress(screen, history, phases)
    saver = resume.Saver(checkpoints.Store(out), history, best, stop, opts.checkpoint_minutes)
    watchers = [history, best, progress, train.Guard(), saver, *watchers]
    if opts.patience is not None:
        watchers.append(train.EarlyStopping(train.criterion(learn), patience=opts.patience))
    if ranks.world() > 1:
        from fastcls import parallel

        watchers.append(parallel.Together(learn, stop))
    if ranks.first():
        saver.store.sweep()
    devices.forget_peak_memory(learn.dls.device)
    try:
        with (
            distributed.contact(),
            train.quiet(learn),
            learn.added_cbs(watchers),
            resume.replaying(learn, saver, found),
        ):
            recipe_fit(learn, **knobs)
            for epochs in extensions:
                resume.extend(learn, epochs, saver.highest[saver.phase])
    except torch.OutOfMemoryError as problem:
        raise TrainingError(
            f"The device ran out of memory: {str(problem).splitlines()[0]}",
            "Halve --bs, make --size smaller, or use --precision bf16.",
        ) from problem
    except (OSError, SyntaxError):  # a file that opens but does not decode: find out which
        check.refuse_broken(item_paths(learn.dls.train_ds.items), decode=True)
        check.refuse_broken(item_paths(learn.dls.valid_ds.items), decode=True)
        raise
    finally:
        progress.stop()
    distributed.leave()  # what comes now is the first process's alone
    return Trained(history, best, sum(phase.epochs for phase in phases))
