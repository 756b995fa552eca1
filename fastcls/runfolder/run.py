"""A run folder, read: what is there as tables and values, what is missing or damaged by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from fastcls.errors import OutputError, of_system
from fastcls.runfolder import inside, runs, schema, splits
from fastcls.runfolder.predictions import BASELINE, FILE, GROUP, NAMES, NUMBERS, PARTS, counts, in_parts, read
from fastcls.runfolder.text import clean, number

HISTORY = "history.csv"
TRAINED = "trained_parameters"
HISTORY_FIXED = ("phase", "epoch", "step", "lr", "train_loss", "valid_loss", "seconds", "images_per_second", TRAINED)


@dataclass
class Run:
    """The readable files of a run folder; whatever is absent is empty here and named in `missing`."""

    folder: Path
    info: dict[str, Any]
    history: pd.DataFrame = field(default_factory=pd.DataFrame)
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    predictions: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*NAMES, *NUMBERS]))
    baseline: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*NAMES]))  # the probe's
    model: dict[str, Any] = field(default_factory=dict)
    heatmaps: dict[str, Any] = field(default_factory=dict)
    slices: pd.DataFrame = field(default_factory=pd.DataFrame)  # what else is known of an image
    evaluation: dict[str, Any] = field(default_factory=dict)  # of a run on images that came later
    counts: pd.DataFrame | None = None  # split, label, prediction, count of all images, where the above is a sample
    missing: list[str] = field(default_factory=list)

    def get(self, *keys: str) -> Any:
        """A value inside run.json, or None where the path leads nowhere."""
        value: Any = self.info
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def splits(self) -> list[str]:
        """The evaluated splits, the most trustworthy first: no epoch was chosen on the test split."""
        names = {*self.metrics, *self.predictions["split"].unique()}
        return sorted(names, key=lambda name: (name != "test", name != "valid", name))

    @property
    def metric_columns(self) -> list[str]:
        return [name for name in self.history.columns if name not in HISTORY_FIXED]


def open_run(folder: Path) -> Run:
    """Every file of the run folder that can be read; only run.json must be there."""
    folder = Path(folder)
    if not folder.is_dir():
        raise OutputError(f"There is no run folder {folder}.", "Run  fastcls runs  to list the runs that exist.")
    try:
        info = _json_object(folder / "run.json")
    except inside.Foreign:
        raise
    except (OSError, ValueError) as problem:
        if refused := of_system(problem):
            raise refused from None
        raise OutputError(
            f"{folder} cannot be reported on: {_why(problem, 'run.json')}.",
            "A run folder is written by  fastcls recipe NAME ; use that folder, not one inside or above it.",
        ) from problem
    run = Run(folder, info)

    def read_part(part: str, name: str, use: str, reader: Callable[[Path], Any], optional: bool = False) -> None:
        if optional and not (folder / name).is_file():
            return
        try:
            setattr(run, part, reader(folder / name))
        except (OSError, ValueError, KeyError, TypeError) as problem:  # pandas' parser errors are ValueErrors
            run.missing.append(f"{_why(problem, name)}, so {use} cannot be shown")

    read_part("metrics", "metrics.json", "the final figures", _metrics)
    read_part("history", HISTORY, "the curves of training", lambda _: read_history(folder))
    read_part("predictions", FILE, "confusions, classes and top losses", _predictions)
    if in_parts(folder):
        read_part("counts", PARTS, "the confusions of all images", lambda _: _counts(folder))
    # not every run has a pretrained body, a network with feature maps, new images, or a table with further columns
    read_part("baseline", BASELINE, "the comparison with the linear probe", _predictions, optional=True)
    read_part("model", "model.json", "the layers of the network", _json_object)
    read_part("heatmaps", "heatmaps.json", "the Grad-CAM heat maps", _json_object, optional=True)
    read_part("evaluation", runs.EVALUATION, "the figures of the run's own images", _json_object, optional=True)
    read_part("slices", splits.SLICES, "the accuracy of slices", splits.read_slices, optional=True)
    return run


def figure_of(metrics: Mapping[str, Any], split: str, name: str) -> float | None:
    """The value of a figure in what metrics.json holds; None where there is none."""
    entry = metrics.get(split, {}).get(name)
    return number(entry.get("value") if isinstance(entry, dict) else entry)


def _why(problem: Exception, name: str) -> str:
    if isinstance(problem, FileNotFoundError):
        return f"{name} is missing"
    return f"{name} cannot be read ({clean(problem)[:160] or type(problem).__name__})"


def _json_object(path: Path) -> dict[str, Any]:
    return schema.load(path, errors="surrogateescape")


def _metrics(path: Path) -> dict[str, dict[str, Any]]:
    return {clean(split): value for split, value in _json_object(path).items() if isinstance(value, dict)}


def read_history(folder: Path) -> pd.DataFrame:
    """A row an epoch, numbers as floats; a cell that is not a number is NaN."""
    table = pd.read_csv(folder / HISTORY, dtype=str, keep_default_na=False, encoding="utf-8", encoding_errors="replace")
    table.columns = pd.Index([clean(name) for name in table.columns])
    if "epoch" not in table:
        raise ValueError("it has no column 'epoch'")
    for name in table.columns:
        if name == "phase":
            table[name] = table[name].map(clean)
        else:
            table[name] = pd.to_numeric(table[name], errors="coerce").astype(float)
    for name in HISTORY_FIXED:
        if name not in table:
            table[name] = "" if name == "phase" else math.nan
    return table[table["epoch"].between(-math.inf, math.inf, inclusive="neither")].reset_index(drop=True)


def _counts(folder: Path) -> pd.DataFrame:
    table = counts(folder)
    for name in ("split", "label", "prediction"):
        table[name] = table[name].map(clean)
    return table


def _predictions(path: Path) -> pd.DataFrame:
    """The columns that a report needs, names as a page can show them."""
    table = read(path)
    table = table[[*NAMES, *NUMBERS, *([GROUP] if GROUP in table else [])]]
    for name in ("split", "label", "prediction"):
        names = {value: clean(value) for value in table[name].unique()}
        table[name] = table[name].map(names)
    return table
