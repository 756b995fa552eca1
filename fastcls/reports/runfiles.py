"""A run folder as a report sees it: read what is there, say what is not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from fastcls.errors import OutputError
from fastcls.runfolder import runs, schema

TEXT_COLUMNS = ("split", "path", "label", "prediction")
NUMBER_COLUMNS = ("confidence", "calibrated", "loss")
TRAINED = "trained_parameters"
HISTORY_FIXED = ("phase", "epoch", "step", "lr", "train_loss", "valid_loss", "seconds", "images_per_second", TRAINED)


@dataclass
class RunFiles:
    """The readable files of a run folder; whatever is absent is empty here and named in `missing`."""

    folder: Path
    info: dict[str, Any]
    history: pd.DataFrame = field(default_factory=pd.DataFrame)
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    predictions: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*TEXT_COLUMNS, *NUMBER_COLUMNS]))
    baseline: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*TEXT_COLUMNS]))  # the probe's
    model: dict[str, Any] = field(default_factory=dict)
    heatmaps: dict[str, Any] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def get(self, *keys: str) -> Any:
        """A value inside run.json, or None where the path leads nowhere."""
        value: Any = self.info
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def splits(self) -> list[str]:
        """The evaluated splits, the validation split first."""
        names = {*self.metrics, *self.predictions["split"].unique()}
        return sorted(names, key=lambda name: (name != "valid", name != "test", name))

    @property
    def metric_columns(self) -> list[str]:
        return [name for name in self.history.columns if name not in HISTORY_FIXED]


def clean(value: Any) -> str:
    """Any value as one line of text that HTML, SVG and UTF-8 can all carry."""
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    text = "".join(c if c.isprintable() or c in "\u200c\u200d" else " " for c in text)
    return " ".join(text.split())


def number(value: Any) -> float | None:
    """`value` as a finite float, else None."""
    if isinstance(value, bool):
        return None
    try:
        result = float(value)
    except (TypeError, ValueError):
        return None
    return result if math.isfinite(result) else None


def read(folder: Path) -> RunFiles:
    """Every file of the run folder that can be read; only run.json must be there."""
    folder = Path(folder)
    if not folder.is_dir():
        raise OutputError(f"There is no run folder {folder}.", "Run  fastcls runs  to list the runs that exist.")
    try:
        info = _json_object(folder / "run.json")
    except (OSError, ValueError) as problem:
        raise OutputError(
            f"{folder} cannot be reported on: {_why(problem, 'run.json')}.",
            "A run folder is made by  fastcls recipe NAME ; name that folder, not one inside or around it.",
        ) from problem
    run = RunFiles(folder, info)
    run.metrics = _read(run, "metrics.json", "the final figures", _metrics, {})
    run.history = _read(run, "history.csv", "the curves of training", _history, run.history)
    run.predictions = _read(run, "predictions.csv", "confusions, classes and top losses", _predictions, run.predictions)
    if (folder / runs.BASELINE).is_file():  # a run without a pretrained body has none
        run.baseline = _read(run, runs.BASELINE, "the comparison with the linear probe", _predictions, run.baseline)
    run.model = _read(run, "model.json", "the layers of the network", _json_object, {})
    if (folder / "heatmaps.json").is_file():  # some networks have none
        run.heatmaps = _read(run, "heatmaps.json", "where the network looked", _json_object, {})
    return run


def _read(run: RunFiles, name: str, use: str, reader: Callable[[Path], Any], empty: Any) -> Any:
    try:
        return reader(run.folder / name)
    except (OSError, ValueError, KeyError, TypeError) as problem:  # pandas' parser errors are ValueErrors
        run.missing.append(f"{_why(problem, name)}, so {use} cannot be shown")
        return empty


def _why(problem: Exception, name: str) -> str:
    if isinstance(problem, FileNotFoundError):
        return f"{name} is missing"
    return f"{name} cannot be read ({clean(problem)[:160] or type(problem).__name__})"


def _json_object(path: Path) -> dict[str, Any]:
    return schema.load(path, errors="surrogateescape")


def _metrics(path: Path) -> dict[str, dict[str, Any]]:
    return {clean(split): value for split, value in _json_object(path).items() if isinstance(value, dict)}


def _history(path: Path) -> pd.DataFrame:
    """A row an epoch, numbers as floats; a cell that is no number is NaN."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8", encoding_errors="replace")
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
    return table[table["epoch"].map(math.isfinite)].reset_index(drop=True)


def _predictions(path: Path) -> pd.DataFrame:
    """The columns a report needs; names stay text, so that a class called 'NA' or '007' keeps its name."""
    wanted = {*TEXT_COLUMNS, *NUMBER_COLUMNS}
    table = pd.read_csv(
        path,
        dtype=str,
        keep_default_na=False,
        encoding="utf-8",
        encoding_errors="surrogateescape",
        usecols=lambda name: name in wanted,
    )
    lacking = [name for name in TEXT_COLUMNS if name not in table]
    if lacking:
        raise ValueError(f"it has no column {', '.join(lacking)}")
    for name in ("split", "label", "prediction"):
        names = {value: clean(value) for value in table[name].unique()}
        table[name] = table[name].map(names)
    for name in NUMBER_COLUMNS:
        values = table[name] if name in table else pd.Series(math.nan, index=table.index)
        table[name] = pd.to_numeric(values, errors="coerce").astype(float)
    return table
