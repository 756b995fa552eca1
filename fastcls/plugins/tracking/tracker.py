"""What every tracker is, what it logs of a finished run, and the callback through which it sees training."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from fastai.callback.core import Callback

from fastcls.evaluation import selection
from fastcls.reports import page
from fastcls.runfolder.run import Run, open_run
from fastcls.settings import options
from fastcls.training.history import GUARD_EVERY, History

PROJECT = "fastcls"  # where no environment variable names another
LONGEST = 160  # characters of a reason
CURVES = ("loss", "learning-rate", "metric-")  # figures that trackers draw themselves
MODEL = ("model.safetensors", "model.onnx", "model.json")
RECORDS = ("report.html", "metrics.json", "predictions.csv", "history.csv", "run.json", "recipe.py")


class Tracker:
    """A place that a run is reported to. Its files go to `folder`, inside the run folder.

    kept: what run.json holds of it, which a resumed run begins with. `given_up` after the first failure.
    """

    title = ""

    def __init__(self, folder: Path, kept: Mapping[str, Any]) -> None:
        self.folder, self.kept, self.given_up = folder, dict(kept), False

    def start(self, record: Mapping[str, Any]) -> None:
        """Before the first step; record: run.json so far. `kept` says whether the run was tracked before."""

    def callback(self) -> Callback:
        """What watches training."""
        return Steps(self)

    def begin(self, step: int) -> None:
        """A call of `fit` goes on after this step."""

    def finish(self, ending: Ending) -> None:
        """All that the finished run folder holds."""
        raise NotImplementedError

    def stop(self, status: str) -> None:
        """The run ended before its time: 'interrupted' or 'failed'."""

    def advice(self) -> str:
        """Where the user sees it."""
        raise NotImplementedError

    @contextlib.contextmanager
    def trying(self) -> Iterator[None]:
        """What goes wrong in here ends this tracker and nothing else."""
        try:
            yield
        except Exception as problem:  # a server that is down, a library that breaks: the run is worth more
            self.given_up = True
            options.note(f"--track: {self.title} failed ({reason(problem)}). The run continues without it.")
            with contextlib.suppress(Exception):
                self.stop("failed")


@dataclass
class Ending:
    """A finished run: its folder, its last step, and further pictures."""

    run: Path
    pictures: list[Path]

    @cached_property
    def files(self) -> Run:
        return open_run(self.run)

    @property
    def step(self) -> int:
        return int(self.files.history["step"].iloc[-1])

    def figures(self, *parts: str) -> dict[str, float]:
        """The final figures, `valid/accuracy`; with the parts 'low' and 'high' also the ends of their intervals."""
        return {
            f"{split}/{name}{'' if part == 'value' else f'_{part}'}": float(figure[part])
            for split, values in self.files.metrics.items()
            for name, figure in values.items()
            if isinstance(figure, dict) and ":" not in name  # those of single labels are in metrics.json
            for part in ("value", *parts)
            if figure.get(part) is not None
        }

    @property
    def images(self) -> dict[str, Path]:
        """Pictures by name: a batch as the network saw it, the confusion matrix, top losses, calibration …"""
        drawn = [file for file in sorted((self.run / "figures").glob("*.png")) if not file.stem.startswith(CURVES)]
        return {file.stem: file for file in [*drawn, *self.pictures] if file.is_file()}

    @property
    def model(self) -> list[Path]:
        return self._there(MODEL)

    @property
    def records(self) -> list[Path]:
        return self._there(RECORDS)

    def _there(self, names: Iterable[str]) -> list[Path]:
        return [self.run / name for name in names if (self.run / name).is_file()]

    @property
    def answers(self) -> pd.DataFrame:
        """The validation split's rows of predictions.csv."""
        table = self.files.predictions
        return table[table["split"] == "valid"]

    @property
    def top_losses(self) -> pd.DataFrame:
        return selection.select(self.answers)["losses"]

    @property
    def classes(self) -> list[str]:
        return [str(name) for name in self.files.model.get("classes", [])]

    @property
    def root(self) -> Path:
        """The folder that paths of predictions.csv begin in."""
        return Path(self.files.get("data", "root") or "")

    @property
    def network(self) -> str:
        """The summary of the network, a line a layer, in aligned columns."""
        layers, left = page.layers(self.files)
        columns = ["name", "type", "shape", "kernel", "parameters", "multiply_adds", "receptive_field"]
        table = pd.DataFrame(layers, columns=columns).to_string(index=False, float_format="{:,.0f}".format, na_rep="")
        total = self.files.model.get("parameters")
        more = [f"… and {left} more layers"] if left else []
        return "\n".join([f"{self.files.model.get('arch')}: {total:,} parameters", "", table, *more])


class Watching(Callback):
    """What the callbacks of all trackers share: the step of the whole run, when to look, and how it fails.

    A step is logged every so many batches and at an epoch's end only, for reading a loss makes a GPU wait.
    """

    order = History.order + 2  # when the epoch is in the history

    history: History  # the learner's callback of that name

    def __init__(self, tracker: Any) -> None:
        self.tracker = tracker

    @property
    def train_iter(self) -> int:
        """fastai's own begins again with every call of `fit`."""
        return self.history.step

    @property
    def due(self) -> bool:
        return self.training and ((self.iter + 1) % GUARD_EVERY == 0 or self.iter + 1 == self.n_iter)

    @property
    def rate(self) -> float:
        """Images a second in this epoch so far; ask for the loss first, which waits for the device."""
        return self.history.seen / max(time.perf_counter() - self.history.started, 1e-9)

    def __call__(self, event_name: str) -> Any:
        if hasattr(type(self), event_name) and not self.tracker.given_up:  # most of the events of a batch are nobody's
            with self.tracker.trying():
                return super().__call__(event_name)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: where a resumed run goes on is the history's to say."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Steps(Watching):
    """For trackers without a callback in fastai: their `begin`, `step` and `epoch`, with fastai's names."""

    def before_fit(self) -> None:
        self.tracker.begin(self.history.step)

    def after_batch(self) -> None:
        if self.due:
            rates = {f"lr_{i}": float(hyper["lr"]) for i, hyper in enumerate(self.opt.hypers)}
            loss = float(self.smooth_loss)
            epoch = len(self.history.rows) + (self.iter + 1) / self.n_iter
            values = {"epoch": round(epoch, 4), "train_loss": loss, **rates, "images_per_second": round(self.rate, 1)}
            self.tracker.step(self.history.step, values)

    def after_epoch(self) -> None:
        self.tracker.epoch(self.history.rows[-1])


def reason(problem: Exception) -> str:
    """The last line of a message, for fastai puts a line before it, without passwords that addresses hold."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    text = public(lines[-1]) if lines else type(problem).__name__
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def public(text: str) -> str:
    """A text without the names and passwords that its addresses hold."""
    return re.sub(r"//[^/@\s]*@", "//", text)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level, `get_learner.bs`; sequences as text."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
    return found


def knobs(record: Mapping[str, Any]) -> dict[str, Any]:
    """Every knob of a run's recipe by its name."""
    return flat({name: value for stage in record["knobs"].values() for name, value in stage.items()})


def settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a run was asked for: recipe, knobs, options, and what it was made on."""
    about = {name: record[name] for name in ("options", "extra", "data", "device", "versions")}
    return {"recipe": record["recipe"], **knobs(record), **flat(about)}


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """What of a row of the history is a curve: losses, metrics, rate, speed."""
    skipped = ("step", "lr")  # the former is the axis, the latter is logged for each group of parameters
    return {k: float(v) for k, v in row.items() if k not in skipped and isinstance(v, (int, float))}
