"""The named stages of a run, and how a process is sent a signal as it comes to one."""

from __future__ import annotations

import functools
import importlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Stage:
    """A call of a function: its module and name, which call of it, before or after it, of which file."""

    module: str
    name: str
    call: int = 1
    after: bool = False
    of: str = ""


RUNNER, SAVER, STORE = "fastcls.running.runner", "fastcls.training.resume", "fastcls.training.checkpoints"
EVALUATION, WRITE = "fastcls.running.evaluation", ("fastcls.runfolder.runs", "atomic_path")
STAGES = {
    "recipe.py": Stage(*WRITE, of="recipe.py"),
    "splits": Stage("fastcls.runfolder.splits", "write"),
    "first record": Stage(*WRITE, of="run.json"),
    "opening": Stage("fastcls.running.messages", "Messages.opening"),
    "tracking begins": Stage("fastcls.plugins.tracking.trackers", "Tracking.start"),
    "decode": Stage(RUNNER, "_Run._decode"),
    "cache": Stage("fastcls.images.cache", "_build"),
    "cache written": Stage("fastcls.images.cache", "_build", after=True),
    "cache opened": Stage("fastcls.images.cache", "_open", after=True),
    "check": Stage(RUNNER, "_Run._check"),
    "check.json": Stage(*WRITE, of="check.json"),
    "training begins": Stage(RUNNER, "_Run._train"),
    "first step": Stage(SAVER, "Saver.after_batch"),
    "mid epoch": Stage(SAVER, "Saver.after_batch", 6),
    "mid epoch, after": Stage(SAVER, "Saver.after_batch", 14, after=True),
    "last step": Stage(SAVER, "Saver.before_validate", 4),
    "before validation": Stage(SAVER, "Saver.before_validate", 2),
    "before validation, saved": Stage(SAVER, "Saver.before_validate", 2, after=True),
    "validation": Stage("fastcls.training.history", "History.after_batch", 8),
    "after validation": Stage(SAVER, "Saver.after_epoch", 2),
    "epoch saved": Stage(SAVER, "Saver.after_epoch", 2, after=True),
    "last epoch": Stage(SAVER, "Saver.after_epoch", 4),
    "last epoch saved": Stage(SAVER, "Saver.after_epoch", 4, after=True),
    "phase begins": Stage(SAVER, "Saver.before_fit", 2),
    "between phases": Stage(SAVER, "Replay.__call__", after=True),
    "second phase": Stage(SAVER, "Replay.__call__", 2),
    "training ends": Stage(SAVER, "Replay.__call__", 2, after=True),
    "first checkpoint": Stage(STORE, "Store.save"),
    "checkpoint": Stage(STORE, "Store.save", 8),
    "checkpoint, tensors": Stage(STORE, "save_file", 9),
    "checkpoint, best": Stage(STORE, "save_file", 10),
    "checkpoint, sync": Stage(STORE, "_sync", 13),
    "checkpoint, manifest": Stage(STORE, "_manifest", 3),
    "checkpoint, renamed": Stage(STORE, "_sync", 18),
    "checkpoint, old one removed": Stage(STORE, "_remove", 2),
    "checkpoint, written": Stage(STORE, "Store.save", 8, after=True),
    "best weights": Stage("fastcls.training.best", "KeepBest.after_epoch", 2),
    "best weights kept": Stage("fastcls.training.best", "KeepBest.after_epoch", 2, after=True),
    "best weights restored": Stage("fastcls.training.best", "KeepBest.restore"),
    "history": Stage(*WRITE, of="history.csv", call=2),
    "evaluation": Stage(EVALUATION, "evaluate"),
    "inference pass": Stage(EVALUATION, "evaluated", after=True),
    "heatmaps": Stage(EVALUATION, "_heatmaps"),
    "heatmaps computed": Stage(EVALUATION, "_heatmaps", after=True),
    "batch picture": Stage(EVALUATION, "_save_batch"),
    "metrics.json": Stage(*WRITE, of="metrics.json"),
    "heatmaps.json": Stage(*WRITE, of="heatmaps.json"),
    "predictions.csv": Stage("fastcls.runfolder.predictions", "write"),
    "predictions written": Stage("fastcls.runfolder.predictions", "write", after=True),
    "network files": Stage("fastcls.inference.export", "save"),
    "network files, weights": Stage(*WRITE, of="model.safetensors", after=True),
    "network files, ONNX": Stage(*WRITE, of="model.onnx"),
    "network files, record": Stage(*WRITE, of="model.json"),
    "network files written": Stage("fastcls.inference.export", "save", after=True),
    "onnx verify": Stage("fastcls.inference.export", "verify"),
    "onnx verified": Stage("fastcls.inference.export", "verify", after=True),
    "newest kept": Stage(STORE, "Store.keep_newest", after=True),
    "report": Stage("fastcls.reports.build", "write"),
    "report.html": Stage(*WRITE, of="report.html"),
    "report written": Stage("fastcls.reports.build", "write", after=True),
    "closing": Stage("fastcls.running.messages", "Messages.closing"),
    "log": Stage("fastcls.machine.screen", "Screen.write_log"),
    "log written": Stage("fastcls.machine.screen", "Screen.write_log", after=True),
    "tracking": Stage("fastcls.plugins.tracking.trackers", "Tracking.finish"),
    "last record": Stage("fastcls.running.messages", "Messages.next"),
}
SIGNALS = {
    "KILL": (signal.SIGKILL,),
    "TERM": (signal.SIGTERM,),
    "INT": (signal.SIGINT,),
    "INT INT": (signal.SIGINT,) * 2,
}


def arm(name: str, signals: str, mark: str) -> None:
    """Have this process send itself signals when it comes to a stage, and leave a file that says so."""
    stage, here = STAGES[name], os.getpid()
    holder: Any = importlib.import_module(stage.module)
    *path, last = stage.name.split(".")
    for part in path:
        holder = getattr(holder, part)
    original, calls = holder.__dict__[last], 0

    def strike() -> None:
        Path(mark).touch()
        for number in SIGNALS[signals]:
            os.kill(os.getpid(), number)

    @functools.wraps(getattr(original, "__func__", original))
    def struck(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        meant = os.getpid() == here and stage.of in ("", Path(str(args[0] if args else "")).name)
        calls += meant
        due = meant and calls == stage.call and not Path(mark).exists()
        if due and not stage.after:
            strike()
        given = getattr(original, "__func__", original)(*args, **kwargs)
        if due and stage.after:
            strike()
        return given

    setattr(holder, last, classmethod(struck) if isinstance(original, classmethod) else struck)
