"""Training that continues where it was interrupted, to the bit as if it had not been: what is saved and replayed.

A recipe's `fit` is plain fastai code, so it is not continued in its middle but run again: `Replay` takes the place of
`Learner.fit`, passes over the phases that are done, restores the saved state in the one that was interrupted, and
continues at its next batch. All that is random depends on (seed, epoch, step) alone, so no generator's state is saved.
`fit` runs a recipe so, with everything that watches a training.
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.callback.schedule import LRFinder, ParamScheduler, SchedCos
from fastai.data.all import L, to_device
from fastai.learner import Learner, Recorder
from fastai.torch_core import get_model

from fastcls.machine import devices, ranks
from fastcls.machine.screen import Screen
from fastcls.machine.stop import Stop
from fastcls.settings import options
from fastcls.training import distributed, epochs, finder, patches
from fastcls.training.best import KeepBest, criterion
from fastcls.training.checkpoints import Checkpoint, Store, load_weights, packable
from fastcls.training.guard import Guard, refuse_last
from fastcls.training.history import EarlyStopping, History, Phase, Progress, quiet, rehearse
from fastcls.transforms import draws

SMOOTH = "smooth_loss"  # of the Recorder, an object of its own
BETWEEN = 2**31  # where the random numbers between two phases come from
LONG = 30.0  # seconds of training that a validation is not begun without having saved
EXTENSION = 0.1  # of the last phase's highest rates: where an extension begins


@dataclass(frozen=True)
class Position:
    """The next batch to be trained: in which call of `fit`, which of its epochs, after how many batches.

    batch None: the epoch has not begun. done: that call of `fit` was ended, by early stopping, say.
    """

    phase: int
    epoch: int
    batch: int | None = None
    done: bool = False


class Saver(Callback):
    """Saves a checkpoint at the end of every epoch, every so many minutes inside one, and when asked to stop."""

    order = EarlyStopping.order + 90  # when all else has seen the epoch

    def __init__(self, store: Store, history: History, best: KeepBest, stop: Stop, minutes: float = 5.0) -> None:
        self.store, self.history, self.best, self.stop, self.minutes = store, history, best, stop, minutes
        self.guard = Guard()
        self.agree: Callable[[bool], bool] | None = None  # of several processes: whether to save now, if that is due
        self.phase = -1  # the call of `fit` that goes on; before the first, none
        self.resumed: Checkpoint | None = None  # what the phase now beginning goes on from
        self.saved = time.monotonic()
        self.position = Position(0, 0)
        self.highest: dict[int, list[float]] = {}  # rates of each parameter group, by phase
        self.curves: list[list[list[float]]] = []  # rates and losses of each `lr_find` in the recipe's fit

    def state_dict(self) -> dict[str, Any]:
        return {"highest": self.highest, "curves": self.curves}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.highest = dict(state["highest"])
        self.curves = [[list(map(float, numbers)) for numbers in curve] for curve in state.get("curves", [])]

    def before_fit(self) -> None:
        self.highest[self.phase] = [0.0] * len(self.opt.hypers)
        if self.resumed is not None:
            restore(self.learn, self.resumed.state)
            self.position = position_of(self.resumed)
        else:
            self.position = Position(self.phase, 0)

    def after_batch(self) -> None:
        if self.training:
            self.position = Position(self.phase, self.epoch, self.iter + 1)
            rates = zip(self.highest[self.phase], self.opt.hypers, strict=True)
            self.highest[self.phase] = [max(highest, float(hyper["lr"])) for highest, hyper in rates]
            if self.iter + 1 < self.n_iter:  # after the last one `before_validate` does it
                self._save_if_due(60 * self.minutes, self.agree)
        else:
            self._save_if_due(math.inf)

    def before_validate(self) -> None:
        self.position = Position(self.phase, self.epoch, len(self.dls.train))
        self._save_if_due(min(60 * self.minutes, LONG))

    def _save_if_due(self, seconds: float, agree: Callable[[bool], bool] | None = None) -> None:
        due = self.stop.asked is not None or time.monotonic() - self.saved > seconds
        if due if agree is None else agree(due):
            self.save()
        self.stop.raise_if_asked()

    def after_epoch(self) -> None:
        self.position = Position(self.phase, self.epoch + 1)
        self.save()
        self.stop.raise_if_asked()

    def after_cancel_fit(self) -> None:
        self.position = Position(self.phase, self.epoch + 1, done=True)
        self.save()

    def save(self) -> None:
        """Write a checkpoint of this moment; of several processes the first one does. Diverged where it is none."""
        self.guard.check(self.learn)
        if ranks.first():
            state = {"position": asdict(self.position), **state_of(self.learn)}
            self.store.save(state, self.best.weights)
        self.saved = time.monotonic()


class Replay:
    """Stands in for `Learner.fit`: passes over what is done, restores, and goes on."""

    def __init__(
        self, learn: Learner, saver: Saver, found: Checkpoint | None, watchers: Sequence[Callback] = ()
    ) -> None:
        self.learn, self.saver, self.found, self.watchers = learn, saver, found, watchers
        self.inner = learn.fit
        self.searches = 0  # calls of lr_find

    def __call__(
        self,
        n_epoch: int,
        lr: Any = None,
        wd: float | None = None,
        cbs: Any = None,
        reset_opt: bool = False,
        start_epoch: int = 0,
    ) -> None:
        if search := finder.asked_for(cbs):
            self._find(n_epoch, search)
            return
        self.saver.phase += 1
        here = None if self.found is None else position_of(self.found)
        if here and self.saver.phase < here.phase:
            self._pass_over(lr, wd, reset_opt)
        else:
            start: Any = contextlib.nullcontext()
            if self.found and here and here.phase == self.saver.phase:
                self.saver.resumed = self.found
                epoch = n_epoch if here.done else here.epoch
                again = partial(restore_callbacks, self.learn, self.found.state)
                start = patches.beginning_at(self.learn, epoch, here.batch, again)
            with start:
                self.inner(n_epoch, lr, wd=wd, cbs=cbs, reset_opt=reset_opt, start_epoch=start_epoch)
            self.saver.resumed = None
        draws.reseed(options.current().seed, BETWEEN, self.saver.phase, device=self.learn.dls.device)

    def _find(self, n_epoch: int, search: LRFinder) -> None:
        """`lr_find` in a recipe's fit, whose curve fastai reads from the recorder: no epoch of the run.

        A resumed run finds what was found before: the weights that it was found with are gone.
        """
        learn, curves = self.learn, self.saver.curves
        self.searches += 1
        if self.searches > len(curves):
            with finder.restored(learn), learn.removed_cbs(self.watchers):
                self.inner(n_epoch, cbs=finder.InMemoryFinder.like(search))
            losses = [float(loss) for loss in learn.recorder.losses]
            curves.append([list(map(float, learn.recorder.lrs)), losses])
        rates, losses = curves[self.searches - 1]
        learn.recorder.lrs, learn.recorder.losses = list(rates), [torch.tensor(loss) for loss in losses]

    def _pass_over(self, lr: Any, wd: float | None, reset_opt: bool) -> None:
        """What `Learner.fit` leaves behind besides trained weights: an optimiser with these hyper-parameters."""
        learn = self.learn
        if reset_opt or not learn.opt:
            learn.create_opt()
        wd = learn.wd if wd is None else wd
        if wd is not None:
            learn.opt.set_hypers(wd=wd)
        learn.opt.set_hypers(lr=learn.lr if lr is None else lr)


@contextlib.contextmanager
def replaying(
    learn: Learner, saver: Saver, found: Checkpoint | None, watchers: Sequence[Callback] = ()
) -> Iterator[None]:
    """While this lasts, `learn.fit` goes on from `found`, if there is one; History and KeepBest do at once.

    watchers: the run's callbacks, which a recipe's `lr_find` does without.
    """
    if found is not None:
        saver.best.weights = found.best
        held = dict(found.state["callbacks"])
        for callback in (saver, saver.history, saver.best):
            callback.load_state_dict(held[f"{type(callback).__name__}#0"])
    validate = learn._do_epoch_validate

    def validate_or_save(*args: Any, **kwargs: Any) -> None:
        try:
            validate(*args, **kwargs)
        except Exception:  # of a metric, say: the epoch is trained
            saver.save()
            raise

    saver.stop.patient = True
    try:
        with patches.replaced(learn, fit=Replay(learn, saver, found, watchers), _do_epoch_validate=validate_or_save):
            yield
    finally:
        saver.stop.patient = False


def fit(
    learn: Learner,
    recipe_fit: Callable[..., object],
    knobs: dict[str, Any],
    out: Path,
    screen: Screen,
    stop: Stop,
    found: Checkpoint | None = None,
    extensions: Sequence[int] = (),
    watchers: Sequence[Callback] = (),
    extending: Callable[[int], object] = lambda epochs: None,
    saved: Callable[[Path], object] = lambda checkpoint: None,
) -> tuple[History, KeepBest, int]:
    """Run a recipe's `fit`, from `found` on if there is one, then train `extensions` further epochs each.

    Gives the history, the best epoch, and how many epochs were planned; the learner has its last weights.

    watchers: further callbacks, beside those that every run has. extending: called for every further extension, where
    the options ask for as many epochs as pay. saved: called with every new checkpoint.
    """
    opts = options.current()
    phases = rehearse(learn, recipe_fit, **knobs)
    pace = epochs.Pace(learn, phases) if opts.auto_epochs else None
    phases += [Phase(count, "extension") for count in extensions]
    history = History(out / "history.csv")
    best = KeepBest(history)
    progress = Progress(screen, history, phases)
    saver = Saver(Store(out, saved), history, best, stop, opts.checkpoint_minutes)
    watchers = [history, best, progress, saver.guard, saver, *watchers]
    if opts.patience is not None:
        watchers.append(EarlyStopping(criterion(learn), patience=opts.patience))
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
            quiet(learn),
            learn.added_cbs(watchers),
            replaying(learn, saver, found, watchers),
        ):
            recipe_fit(learn, **knobs)
            for count in extensions:
                extend(learn, count, saver.highest[saver.phase])
            while pace and (count := pace.further(history.rows, extensions)):
                extensions = [*extensions, count]
                phases.append(Phase(count, "extension"))
                extending(count)
                extend(learn, count, saver.highest[saver.phase])
            if pace:
                options.note(f"--epochs auto: {' + '.join(map(str, [pace.planned, *extensions]))} epochs.")
    finally:
        progress.stop()
    if opts.keep == "last" or best.epoch is None:
        refuse_last(learn, history.rows)
    return history, best, sum(phase.epochs for phase in phases)


def extend(learn: Learner, epochs: int, highest: Sequence[float]) -> None:
    """Train further epochs: a cosine from a tenth of the last phase's highest rates to nothing."""
    rates = np.array(highest) * EXTENSION
    learn.fit(epochs, lr=rates, cbs=ParamScheduler({"lr": SchedCos(rates, rates * 1e-5)}))


def position_of(checkpoint: Checkpoint) -> Position:
    return Position(**checkpoint.state["position"])


# ------------------------------------------------------------------ a learner's state, as plain values and tensors


def state_of(learn: Learner) -> dict[str, Any]:
    """All that the next step depends on."""
    return {
        "trained": {"pct_train": learn.pct_train, "train_iter": learn.train_iter},
        "model": dict(get_model(learn.model).state_dict()),
        "loss_func": dict(learn.loss_func.state_dict()) if isinstance(learn.loss_func, torch.nn.Module) else {},
        "optimizer": learn.opt.state_dict(),
        "gradients": [_gradient(p) for p in learn.model.parameters()],
        "scaler": learn.scaler.state_dict() if getattr(learn, "scaler", None) is not None else None,
        "callbacks": {name: _remembered(callback) for name, callback in _named(learn)},
    }


def _gradient(parameter: torch.Tensor) -> Any:
    """None, or True for zeros, or what is accumulated."""
    if parameter.grad is None:
        return None
    return parameter.grad if parameter.grad.any() else True


def restore(learn: Learner, state: Mapping[str, Any]) -> None:
    """Make a learner what it was when `state_of` was asked."""
    load_weights(get_model(learn.model), state["model"])
    if state["loss_func"]:
        learn.loss_func.load_state_dict(state["loss_func"])
    learn.opt.load_state_dict(_placed(learn, state["optimizer"]))
    for parameter, held in zip(learn.model.parameters(), state["gradients"], strict=True):
        zeros = None if held is None else torch.zeros_like(parameter)
        parameter.grad = zeros if held is None or held is True else zeros.copy_(held)  # type: ignore[union-attr]
    if state["scaler"] and getattr(learn, "scaler", None) is not None:
        learn.scaler.load_state_dict(state["scaler"])
    restore_callbacks(learn, state)


def restore_callbacks(learn: Learner, state: Mapping[str, Any]) -> None:
    """Give callbacks back what they had counted and collected."""
    held = state["callbacks"]
    for name, callback in _named(learn):
        values = held.get(name)
        if values is None:
            continue
        values = copy.deepcopy(values)  # restored twice where an epoch had begun
        if hasattr(type(callback), "load_state_dict"):
            callback.load_state_dict(values)
        else:
            if SMOOTH in values:
                vars(callback.smooth_loss).update(values.pop(SMOOTH))
            vars(callback).update(values)
    for name, value in state["trained"].items():
        setattr(learn, name, value)


def _named(learn: Learner) -> Iterator[tuple[str, Callback]]:
    """Every callback with its class's name and how many of that class come before it."""
    seen: dict[str, int] = {}
    for callback in learn.cbs.sorted("order"):
        kind = type(callback).__name__
        yield f"{kind}#{seen.setdefault(kind, 0)}", callback
        seen[kind] += 1


def _remembered(callback: Callback) -> dict[str, Any]:
    """A callback's state: what it says itself, or its attributes that are numbers, text, tensors, or hold such."""
    if hasattr(type(callback), "state_dict"):
        return dict(callback.state_dict())
    found = {name: value for name, value in vars(callback).items() if name != "run" and packable(value)}
    if isinstance(callback, Recorder):
        found[SMOOTH] = {name: getattr(callback.smooth_loss, name) for name in ("count", "val")}
    return found


def _placed(learn: Learner, state: Any) -> Any:
    """An optimiser's state on the device, in the memory format of the parameters that its tensors belong to."""
    if not isinstance(state.get("state"), list):
        return state  # torch's, whose own load_state_dict does it
    device = learn.dls.device
    parameters = [p for group in learn.opt.param_lists for p in group]
    entries = [
        {name: _beside(parameter, value) for name, value in entry.items()}
        for parameter, entry in zip(parameters, state["state"], strict=True)
    ]
    return {**to_device(state, device), "state": entries, "hypers": L(state["hypers"])}


def _beside(parameter: torch.Tensor, value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    if value.shape == parameter.shape:
        return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    return value.to(parameter.device)
