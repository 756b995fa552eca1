"""What watches a training run: history, progress, best weights; and the rehearsal that counts epochs."""

from __future__ import annotations

import contextlib
import copy
import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.callback.progress import ProgressCallback
from fastai.callback.tracker import EarlyStoppingCallback
from fastai.learner import Learner, Recorder

from fastcls.machine import ranks
from fastcls.machine.screen import Screen
from fastcls.runfolder import runs
from fastcls.training import finder, patches

SHOW_EVERY = 0.5  # seconds between losses on the progress bar, each of which waits for the device
GUARD_EVERY = 20  # batches between losses that trackers log on a GPU


@dataclass(frozen=True)
class Phase:
    """One call of `Learner.fit`: so many epochs with these parameter groups trained."""

    epochs: int
    label: str
    trained: int = 0  # parameters, where they are known


def phase_label(learn: Learner) -> str:
    """Which part of the network is being trained, and how."""
    if hasattr(learn, "solve_head"):
        return runs.PROBE
    groups, frozen = len(learn.opt.param_lists), learn.opt.frozen_idx
    if frozen == 0:
        return "whole network"
    return "head only" if frozen == groups - 1 else f"last {groups - frozen} of {groups} groups"


def trained_parameters(learn: Learner) -> int:
    """How many parameters the next epoch changes."""
    if hasattr(learn, "solve_head"):
        return sum(p.numel() for p in learn.solve_head.layer.parameters())
    return sum(p.numel() for p in learn.model.parameters() if p.requires_grad)


def rehearse(learn: Learner, fit: Callable[..., object], **knobs: Any) -> list[Phase]:
    """The phases that `fit(learn, **knobs)` will train, found by running it with a `Learner.fit` that only counts.

    Gives [] where a recipe's fit does something that cannot be rehearsed. Weights, optimiser and frozen
    layers are as before.
    """
    phases: list[Phase] = []
    stand_in = copy.copy(learn)
    stand_in.cbs = learn.cbs.copy()  # those that `fit` adds go with it

    def counting_fit(n_epoch: int, *args: Any, cbs: Any = None, **kwargs: Any) -> None:
        if stand_in.opt is None:
            stand_in.create_opt()
        if search := finder.asked_for(cbs):  # a curve that every suggestion can be read from
            rates = np.geomspace(1e-7, 10, search.num_it)
            learn.recorder.lrs = rates.tolist()
            learn.recorder.losses = list(torch.from_numpy(np.abs(np.log10(rates) + 2)).float())
            return
        with stand_in.added_cbs(cbs):
            phases.append(Phase(n_epoch, phase_label(stand_in), trained_parameters(stand_in)))

    trained = [p.requires_grad for p in learn.model.parameters()]
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            patches.replaced(stand_in, fit=counting_fit),
            patches.replaced(learn.recorder, plot_lr_find=lambda *args, **kwargs: None),
        ):
            fit(stand_in, **knobs)
    except Exception:  # whatever the user's own code raises here it will raise again, for real, in training
        return []
    finally:
        for callback in learn.cbs:
            callback.learn = learn
        for parameter, flag in zip(learn.model.parameters(), trained, strict=True):
            parameter.requires_grad_(flag)
    return phases


class Stateless(Callback):
    """A callback of which a checkpoint keeps nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class History(Callback):
    """A row an epoch, kept in `rows` and written to history.csv."""

    order = Recorder.order + 1
    kept = ("rows", "header", "step", "seen", "speed")  # by checkpoints

    def __init__(self, file: Path) -> None:
        self.file, self.step = file, 0
        self.rows: list[dict[str, Any]] = []
        self.header: list[str] = []
        self.seen, self.speed, self.started = 0, 0.0, time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps; of the clock only what it has measured."""
        spent = time.perf_counter() - self.started
        return {**{name: getattr(self, name) for name in self.kept}, "spent": spent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self.kept:
            setattr(self, name, state[name])
        self.started = time.perf_counter() - state["spent"]

    @property
    def trained(self) -> int:
        """Epochs of training so far: the linear probe is none."""
        return sum(row["phase"] != runs.PROBE for row in self.rows)

    def before_train(self) -> None:
        self.seen, self.started = 0, time.perf_counter()

    def after_batch(self) -> None:
        if self.training:
            self.seen += ranks.world() * len(self.learn.yb[0]) if self.learn.yb else 0
            self.step += 1

    def after_train(self) -> None:
        self.speed = self.seen / max(time.perf_counter() - self.started, 1e-9)

    def after_epoch(self) -> None:
        recorder = self.learn.recorder
        names = [name for name in recorder.metric_names[1:] if name != "time"]
        phase = phase_label(self.learn)
        row = {
            "phase": phase,
            "epoch": 0 if phase == runs.PROBE else self.trained + 1,
            "step": self.step,
            "lr": recorder.lrs[-1] if recorder.lrs else None,
            **{name: as_number(value) for name, value in zip(names, self.learn.final_record, strict=False)},
            "seconds": round(time.perf_counter() - self.started, 3),
            "images_per_second": round(self.speed, 1),
            "trained_parameters": trained_parameters(self.learn),
        }
        self.rows.append(row)
        self.header += [name for name in row if name not in self.header]
        if ranks.first():
            runs.write_csv(self.file, self.header, [[r.get(name, "") for name in self.header] for r in self.rows])


def as_number(value: Any) -> float | None:
    """A figure as a float; None where it is none, as an array."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


class EarlyStopping(EarlyStoppingCallback):
    """fastai's, without its line on the terminal: the run says it, in its log too."""

    order = History.order + 3  # when the epoch is written and shown

    def after_epoch(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            super().after_epoch()


class Progress(Stateless):
    """One bar for the whole run and a table row an epoch."""

    order = History.order + 2

    def __init__(self, screen: Screen, history: History, phases: list[Phase]) -> None:
        self.screen, self.history, self.phases = screen, history, phases
        self.bar = screen.progress()
        self.columns: list[str] = []
        self.shown = 0.0

    def before_fit(self) -> None:
        batches = len(self.dls.train) + len(self.dls.valid)
        known = sum(phase.epochs for phase in self.phases)
        done = len(self.history.rows)
        total = max(known, done + self.n_epoch) * batches
        if not self.bar.tasks:
            self.bar.start()
            self.bar.add_task("", total=total, figures="")
        self.total_epochs = total // batches
        self.bar.update(self.bar.tasks[0].id, total=total, completed=done * batches)

    def before_epoch(self) -> None:
        phase = phase_label(self.learn)
        label = phase if phase == runs.PROBE else f"epoch {self.history.trained + 1}/{self.total_epochs} {phase}"
        self.bar.update(self.bar.tasks[0].id, description=label)

    def after_batch(self) -> None:
        task = self.bar.tasks[0].id
        self.bar.advance(task)
        now = time.perf_counter()
        if self.screen.live and self.training and now - self.shown > SHOW_EVERY:
            self.shown = now
            speed = self.history.seen / max(now - self.history.started, 1e-9)
            metric = f"  {self._metric()}" if self.history.rows else ""
            self.bar.update(task, figures=f"loss {float(self.smooth_loss):.4f}{metric}  {speed:,.0f} img/s")

    def _metric(self) -> str:
        row = self.history.rows[-1]
        names = [m.name for m in self.learn.metrics]
        return f"{names[0]} {row[names[0]]:.4f}" if names and row.get(names[0]) is not None else ""

    def after_epoch(self) -> None:
        row = self.history.rows[-1]
        if not self.columns:
            self.columns = [name for name in row if name not in ("step", "lr", "trained_parameters")]
            titles = [_cell(name, TITLES.get(name, name)) for name in self.columns]
            self.screen.print("  ".join(titles), style="bold", markup=False)
        cells = [_cell(name, _text(name, row.get(name))) for name in self.columns]
        self.screen.print("  ".join(cells), markup=False)

    def stop(self) -> None:
        self.bar.stop()


TITLES = {"images_per_second": "img/s"}


def _cell(name: str, text: str) -> str:
    """A column's text, as wide as its heading."""
    return text.ljust(14) if name == "phase" else text.rjust(max(len(TITLES.get(name, name)), 6))


def _text(name: str, value: Any) -> str:
    if value is None or name in ("phase", "epoch"):
        return "–" if value is None else str(value)
    return f"{value:,.1f}" if name in ("seconds", "images_per_second") else f"{value:.4f}"


@contextlib.contextmanager
def quiet(learn: Learner) -> Any:
    """fastai's own printing and progress bars switched off."""
    with learn.removed_cbs(learn.cbs.filter(lambda cb: isinstance(cb, ProgressCallback))), learn.no_logging():
        yield
