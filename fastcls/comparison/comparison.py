"""Runs side by side: what differs between them, a row a setting with its spread over seeds, a test of two on one split.

Everything is read from the run folders, so runs made anywhere and any time can be compared.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from statistics import stdev
from typing import Any

import pandas as pd

from fastcls.comparison import differences
from fastcls.comparison.differences import Difference
from fastcls.errors import OutputError
from fastcls.runfolder import model_files, predictions, runs
from fastcls.runfolder import target as targets
from fastcls.runfolder.run import figure_of, read_history
from fastcls.runfolder.text import number
from fastcls.settings.knobs import as_text
from fastcls.settings.options import SILENT

HOME = Path("comparisons")
FIGURES = ("accuracy", "top5", "macro_f1", "loss")
MORE = ("mAP",)  # of several labels an image
COSTS = ("train_seconds", "images_per_second", "parameters", "trained_parameters", "peak_memory_bytes")


@dataclass(frozen=True)
class Entry:
    """A run in a comparison; `failed` says why it has no figures."""

    folder: Path
    setting: dict[str, str]
    seed: int
    record: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    failed: str = ""
    fold: str = ""  # 'K/N', of the images that it was trained on the rest of

    @property
    def target(self) -> targets.Target:
        """The kind of labels that its images have."""
        return targets.of(self.record.get("data") or {})

    @property
    def name(self) -> str:
        """Which of its setting's runs it is."""
        return f"seed {self.seed}" + (f", fold {self.fold}" if self.fold else "")

    @property
    def share(self) -> float:
        """Images that were held out for each that was trained on."""
        images = (self.record.get("data") or {}).get("images") or {}
        return images.get("valid", 0) / max(1, images.get("train", 0))

    def figure(self, name: str, split: str) -> float:
        """accuracy, top5, macro_f1 or loss on a split; NaN where there is none.

        Of several labels the accuracy is the share of images that have all of them right.
        """
        name = self.target.share if name == "accuracy" else name
        return _or_nan(figure_of(self.metrics, split, name))

    def cost(self, name: str) -> float:
        """One of COSTS, as the run recorded it; NaN where it did not."""
        record = self.record
        places = {**record.get("network", {}), **record.get("speed", {}), **record}
        return _or_nan(number(places.get(name)))

    @cached_property
    def history(self) -> pd.DataFrame:
        """A row an epoch: epoch, accuracy and losses."""
        try:
            table = read_history(self.folder)
        except (OSError, ValueError):
            return pd.DataFrame({"epoch": []})
        return table.drop(columns="phase")

    def right(self, split: str) -> pd.Series:
        """Whether each image of a split is classified rightly, by its path; empty where no file says so."""
        if not predictions.there(self.folder):
            return pd.Series(dtype=bool)
        table = self.predictions[self.predictions["split"] == split].drop_duplicates("path")
        right = pd.Series((table["label"] == table["prediction"]).to_numpy(), table["path"])
        if predictions.GROUP in table:
            right.attrs[predictions.GROUP] = dict(zip(table["path"], table[predictions.GROUP], strict=True))
        return right

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """split, path, label and prediction of every evaluated image, and its group where there are groups, as text."""
        table = predictions.of_run(self.folder)
        return table[[*predictions.NAMES, *([predictions.GROUP] if predictions.GROUP in table else [])]]


@dataclass(frozen=True)
class Row:
    """One setting: its runs' figures and costs as means, and how its accuracy stands to the baseline's.

    difference: of the accuracies above; None where one of the two settings has no figure. interval: of the mean
    accuracy, 95 %, where its runs are folds."""

    setting: dict[str, str]
    changed: dict[str, str]  # what of it is not as in the baseline
    entries: list[Entry]
    failed: int
    means: dict[str, float]
    deviation: float
    baseline: bool
    difference: Difference | None = None
    interval: tuple[float, float] | None = None

    @property
    def whole(self) -> Path | None:
        """The run folder of all folds of the setting, where they are folds of a comparison and all done."""
        folders = {entry.folder.parent.parent for entry in self.entries if entry.fold}
        found = folders.pop() if len(folders) == 1 else None
        return found if found and (found / model_files.RECORD).is_file() else None


@dataclass(frozen=True)
class Comparison:
    """Runs, the setting that the others are compared with, and the test of two: what a comparison's files say."""

    title: str
    command: str
    entries: Sequence[Entry]
    baseline: Mapping[str, str]
    test: differences.McNemar | None = None

    @cached_property
    def split(self) -> str:
        return split_of(self.entries)

    @cached_property
    def rows(self) -> list[Row]:
        return tabulate(self.entries, self.baseline)

    @property
    def target(self) -> targets.Target:
        """The kind of labels that the images have."""
        return self.done[0].target if self.done else targets.SINGLE

    @property
    def done(self) -> list[Entry]:
        return [entry for entry in self.entries if not entry.failed]

    @property
    def failed(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.failed]


def read(folder: Path, setting: Mapping[str, str], seed: int, fold: str = "") -> Entry:
    """A finished run as an entry of a comparison."""
    record, metrics = runs.read_json(folder / "run.json"), runs.read_json(folder / "metrics.json")
    return Entry(folder, dict(setting), seed, record, metrics, fold=fold)


def existing(folders: Sequence[Path]) -> list[Entry]:
    """Runs that are there, each with the recipe, knobs and options that are not the same in all of them.

    OutputError for a run that did not end, and where the runs do not tell the same classes apart.
    """
    entries = []
    for folder in dict.fromkeys(folders):
        entry = read(folder, {}, 0)
        if entry.record.get("status") != "done":
            raise OutputError(f"{folder} is {entry.record.get('status')}, so it has no final metrics to compare.")
        entries.append(entry)
    classes = [tuple(runs.read_json(entry.folder / "model.json").get("classes", ())) for entry in entries]
    for entry, own in zip(entries, classes, strict=True):
        if entry.target != entries[0].target:
            raise OutputError(
                f"{entry.folder} is {entry.target.kind}, {entries[0].folder} {entries[0].target.kind}: "
                "their metrics are not comparable."
            )
        if set(own) != set(classes[0]):
            raise OutputError(
                f"{entry.folder} has different classes from {entries[0].folder} ({len(own)} and "
                f"{len(classes[0])} of them): their metrics are not comparable."
            )
    values = [_described(entry.record) for entry in entries]
    names = list(dict.fromkeys(name for one in values for name in one))
    differing = [name for name in names if len({one.get(name) for one in values}) > 1]
    return [
        replace(
            entry,
            setting={name: one.get(name, "–") for name in differing},
            seed=entry.record.get("seed", 0),
            fold=(entry.record.get("options") or {}).get("fold", ""),
        )
        for entry, one in zip(entries, values, strict=True)
    ]


def _described(record: Mapping[str, Any]) -> dict[str, str]:
    """Everything about a run that could be another's difference, as text."""
    knobs = {name: value for values in record.get("knobs", {}).values() for name, value in values.items()}
    options = {name: value for name, value in record.get("options", {}).items() if name not in (*SILENT, "fold")}
    everything = {"recipe": record.get("recipe"), **knobs, **options, **record.get("extra", {})}
    return {name: as_text(value) for name, value in everything.items()}


def folder_of(entries: Sequence[Entry]) -> Path:
    """Where the files of a comparison of existing runs go: comparisons/, under a name that these runs always have."""
    names = sorted(str(entry.folder.resolve()) for entry in entries)
    checksum = hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return HOME / f"{entries[0].record.get('recipe')}-{len(names)}-runs-{checksum}"


def split_of(entries: Sequence[Entry]) -> str:
    """'test' where every run was evaluated on it, 'new' where `evaluate` did that, else 'valid', as of folds."""
    done = [entry for entry in entries if not entry.failed]
    if any(entry.fold for entry in done):
        return "valid"
    return next((name for name in ("test", "new") if done and all(name in entry.metrics for entry in done)), "valid")


def tabulate(entries: Sequence[Entry], baseline: Mapping[str, str]) -> list[Row]:
    """A row a setting, the best first and those without a figure last; differences are to `baseline`'s setting."""
    split = split_of(entries)
    groups: dict[tuple[tuple[str, str], ...], list[Entry]] = {}
    for entry in entries:
        groups.setdefault(tuple(entry.setting.items()), []).append(entry)
    held = [entry for entry in groups.get(tuple(baseline.items()), []) if not entry.failed]
    rows = [_row(group, held, split, baseline) for group in groups.values()]
    return sorted(rows, key=lambda row: (math.isnan(row.means["accuracy"]), -row.means["accuracy"]))


def _row(group: Sequence[Entry], held: Sequence[Entry], split: str, baseline: Mapping[str, str]) -> Row:
    setting = group[0].setting
    changed = {key: value for key, value in setting.items() if value != baseline.get(key)}
    done = [entry for entry in group if not entry.failed]
    values = [entry.figure("accuracy", split) for entry in done]
    table = pd.DataFrame(
        {name: [entry.figure(name, split) for entry in done] for name in (*FIGURES, *MORE)}
        | {name: [entry.cost(name) for entry in done] for name in COSTS},
        dtype=float,
    )
    means = table.mean().to_dict()
    deviation = stdev(values) if len(values) > 1 and all(map(math.isfinite, values)) else math.nan
    fixed = (setting, changed, done, len(group) - len(done), means, deviation, not changed)
    interval = interval_of(done, split) if done and all(entry.fold for entry in done) else None
    if not changed or not done or not held:
        return Row(*fixed, interval=interval)
    return Row(*fixed, differences.difference(_side(done, split), _side(held, split)), interval)


def interval_of(folds: Sequence[Entry], split: str) -> tuple[float, float] | None:
    """The 95 % interval of the mean accuracy of these folds, as `differences.of_folds` has it."""
    return differences.of_folds(_side(folds, split))


def mcnemar(first: Entry, second: Entry, split: str) -> differences.McNemar | None:
    """The exact McNemar test of two runs on the images that both were evaluated on; None where they share none."""
    a, b = (e.predictions[e.predictions["split"] == split] for e in (first, second))
    return differences.paired(a, b)


def _side(entries: Sequence[Entry], split: str) -> list[differences.Run]:
    return [
        differences.Run(
            entry.seed, entry.figure("accuracy", split), partial(entry.right, split), entry.fold, entry.share
        )
        for entry in entries
    ]


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
