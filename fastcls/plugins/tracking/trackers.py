"""The trackers of a run, all log the same; one that fails leaves the others and the run alone."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastai.callback.core import Callback
from matplotlib.figure import Figure

from fastcls.evaluation.interpret import Interpretation
from fastcls.machine import ranks
from fastcls.machine.screen import Screen, escape
from fastcls.plugins.tracking import names
from fastcls.plugins.tracking.tracker import Ending, Tracker, reason
from fastcls.settings import options

CLASSES = {"csv": "Csv", "tensorboard": "TensorBoard", "wandb": "Wandb", "mlflow": "Mlflow"}
HARDEST = 9  # images of the picture of top losses
SIDE = 8.0  # of that picture, inches


class Tracking:
    """Starts, continues and ends every tracker that --track names; of several processes only the first tracks."""

    def __init__(self, asked: str, run: Path, before: Mapping[str, Any]) -> None:
        self.run = run
        self.trackers: dict[str, Tracker] = {}
        known = [name for name in names(asked) if name in CLASSES]  # an untrusted run folder may name anything
        for name in known if ranks.first() else ():
            kept = (before.get("tracking") or {}).get(name) or {}
            try:
                module = importlib.import_module(f"fastcls.plugins.tracking.{name}")
            except Exception as problem:  # a library that is there and broken
                options.note(f"--track {name} cannot be imported ({problem}). The run continues without it.")
                continue
            self.trackers[name] = getattr(module, CLASSES[name])(run / "tracking", kept)

    @property
    def _working(self) -> list[Tracker]:
        return [tracker for tracker in self.trackers.values() if not tracker.given_up]

    def start(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Begin, or continue, the tracked runs; gives what run.json is to keep of them."""
        for tracker in self._working:
            with tracker.trying():
                tracker.start(record)
        return {name: tracker.kept for name, tracker in self.trackers.items()}

    def callbacks(self) -> list[Callback]:
        """What watches training."""
        return [tracker.callback() for tracker in self._working]

    def finish(self, valid: Interpretation) -> None:
        """Hand over all that the finished run folder holds, and the hardest images of the validation split."""
        if not self._working:
            return
        hardest = self.run / "tracking" / "top-losses.png"
        try:
            _draw(valid, hardest)
        except Exception as problem:  # an image that is gone since, a disk that is full
            options.note(f"--track: cannot draw the top losses ({reason(problem)}).")
        ending = Ending(self.run, [hardest])
        for tracker in self._working:
            with tracker.trying():
                tracker.finish(ending)

    def stop(self, status: str) -> None:
        """The run ended before its time."""
        for tracker in self._working:
            with tracker.trying():
                tracker.stop(status)

    def show(self, screen: Screen) -> None:
        """Say where each tracked run is to be seen."""
        for tracker in self._working:
            screen.print(f"tracked  {escape(tracker.advice())}", soft_wrap=True)


def _draw(valid: Interpretation, file: Path) -> None:
    """The images of the validation split with the highest loss."""
    figure = Figure(figsize=(SIDE, SIDE), layout="tight")
    valid.plot_top_losses(min(HARDEST, len(valid.targs)), axs=figure.subplots(3, 3).ravel())
    file.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters of class names that no font has
        figure.savefig(file, dpi=100)
