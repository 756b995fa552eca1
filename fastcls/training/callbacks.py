"""Training a prepared learner with everything that watches it: history, best weights, guard, progress, checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastai.callback.core import Callback
from fastai.learner import Learner

from fastcls.machine import devices, ranks
from fastcls.machine.screen import Screen
from fastcls.machine.stop import Stop
from fastcls.settings import options
from fastcls.training import best as best_epoch
from fastcls.training import checkpoints, distributed, epochs, guard, resume
from fastcls.training import history as train


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
    extending: Callable[[int], object] = lambda epochs: None,
    saved: Callable[[Path], object] = lambda checkpoint: None,
) -> tuple[train.History, best_epoch.KeepBest, int]:
    """Run a recipe's `fit`, from `found` on if there is one, then train `extensions` further epochs each.

    Gives the history, the best epoch, and how many epochs were planned; the learner has its last weights.

    watchers: further callbacks, beside those that every run has. extending: called for every further extension, where
    the options ask for as many epochs as pay. saved: called with every new checkpoint.
    """
    opts = options.current()
    phases = train.rehearse(learn, recipe_fit, **knobs)
    pace = epochs.Pace(learn, phases) if opts.auto_epochs else None
    phases += [train.Phase(count, "extension") for count in extensions]
    history = train.History(out / "history.csv")
    best = best_epoch.KeepBest(history)
    progress = train.Progress(screen, history, phases)
    saver = resume.Saver(checkpoints.Store(out, saved), history, best, stop, opts.checkpoint_minutes)
    watchers = [history, best, progress, saver.guard, saver, *watchers]
    if opts.patience is not None:
        watchers.append(train.EarlyStopping(best_epoch.criterion(learn), patience=opts.patience))
    if ranks.world() > 1:
        from fastcls.training import parallel

        together = parallel.DataParallel(learn, stop, saver.guard)
        saver.agree = together.agree
        watchers.append(together)
    if ranks.first():
        saver.store.sweep()
    devices.forget_peak_memory(learn.dls.device)
    try:
        with (
            distributed.contact(),
            train.quiet(learn),
            learn.added_cbs(watchers),
            resume.replaying(learn, saver, found, watchers),
        ):
            recipe_fit(learn, **knobs)
            for count in extensions:
                resume.extend(learn, count, saver.highest[saver.phase])
            while pace and (count := pace.further(history.rows, extensions)):
                extensions = [*extensions, count]
                phases.append(train.Phase(count, "extension"))
                extending(count)
                resume.extend(learn, count, saver.highest[saver.phase])
            if pace:
                options.note(f"--epochs auto: {' + '.join(map(str, [pace.planned, *extensions]))} epochs.")
    finally:
        progress.stop()
    if opts.keep == "last" or best.epoch is None:
        guard.refuse_last(learn, history.rows)
    return history, best, sum(phase.epochs for phase in phases)
