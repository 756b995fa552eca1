"""What `predict` decides from an image's probabilities: sets, thresholds, costs, unknown; held-out images calibrate it.

The sets, and what is unknown, are calibrated on the test split where there is one: nothing was chosen on it, which is
what the guarantee rests on. Thresholds are tuned on the validation split, so that the report can judge them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fastcls.datasets.walk import count, some
from fastcls.errors import OutputError, UsageError, did_you_mean
from fastcls.evaluation import decisions
from fastcls.evaluation.calibration import fewest
from fastcls.evaluation.grouped import codes_of
from fastcls.inference.requirements import UNKNOWN, UNSURE, Levels, Row, Wanted, share
from fastcls.runfolder import model_files, predictions, runs
from fastcls.runfolder import target as targets
from fastcls.settings import shell


@dataclass
class Decider:
    """The further columns of an image's row. temperature: that of the probabilities that it is given."""

    classes: Sequence[str]
    temperature: float
    rate: float | None = None  # of known images that are called unknown
    sets: np.ndarray | None = None  # (classes,) thresholds
    thresholds: decisions.Thresholds | None = None
    costs: decisions.Costs | None = None
    fitted: float = 1.0  # the run's temperature
    notes: list[str] = field(default_factory=list)

    @property
    def columns(self) -> dict[str, type]:
        known = {"set": (self.sets, list), "expected_cost": (self.costs, float), "p_known": (self.rate, float)}
        return {name: kind for name, (part, kind) in known.items() if part is not None}

    def cells(self, p: np.ndarray, p_known: float | None) -> Row:
        """Of an image's probabilities (classes,): the columns, and another prediction where it is one."""
        raw = targets.SINGLE.softened(p[None], 1 / self.temperature)
        row: Row = {}
        if self.sets is not None:
            chosen = np.flatnonzero(decisions.sets(raw, self.sets)[0]).tolist()
            row["set"] = [self.classes[k] for k in sorted(chosen, key=lambda k: -p[k])]
        if self.thresholds is not None:
            k = int(self.thresholds.decide(raw)[0])
            row |= {"prediction": UNSURE} if k < 0 else {"prediction": self.classes[k], "confidence": float(p[k])}
        if self.costs is not None:
            expected = (targets.SINGLE.softened(raw, self.fitted) @ self.costs.table)[0]
            row |= {"prediction": self.costs.decisions[int(expected.argmin())], "expected_cost": float(expected.min())}
        if self.rate is not None and p_known is not None:
            row["p_known"] = p_known
            if p_known <= self.rate:
                row["prediction"] = UNKNOWN
        return row


def decider(run: Path, wanted: Wanted, temperature: float = 1) -> Decider:
    """Calibrated on a run's held-out images. UsageError for what they cannot promise, with the number that could."""
    model = model_files.read(run)
    classes = list(model.get("classes", ()))
    if targets.of(model).several and wanted:
        raise UsageError(
            f"{wanted.first}: it needs one class per image, and this run has several labels.",
            f"Omit {wanted.first}. Each label has its own threshold; --threshold T sets one for all.",
        )
    found = Decider(classes, temperature)
    if wanted.costs and (wanted.precision or wanted.recall):
        raise UsageError(
            "--costs cannot be combined with --precision or --recall: the thresholds follow from the costs.",
            "Omit --precision and --recall.",
        )
    for flag, name in {"--precision": UNSURE, "--unknown": UNKNOWN}.items():
        if getattr(wanted, flag[2:]) is not None and name in classes:
            raise UsageError(f"{flag}: {name!r} is a class of this run, so its rows could not be distinguished.")
    if wanted.costs:
        found.costs = decisions.read_costs(shell.path(wanted.costs), classes)
        found.fitted = model.get("temperature") or 1.0
        if model.get("temperature") is None:
            found.notes.append("--costs: this run has no temperature, so its probabilities are not calibrated.")
    if wanted.coverage is None and wanted.precision is None and wanted.recall is None and wanted.unknown is None:
        return found
    splits = predictions.held_out(run, classes)
    if not splits:
        raise OutputError(
            f"{run} has no held-out predictions ({predictions.FILE}) to calibrate on.", "Train the recipe again."
        )
    first = next(iter(splits.values()))
    if wanted.coverage is not None:
        coverage = share(wanted.coverage, "--coverage")
        codes = codes_of(first.groups)
        every = np.ones(len(first.labels), bool)
        _enough(f"--coverage {coverage:g}", coverage, every, codes, f"the {first.split} split of {run}")
        found.sets, apart = decisions.set_thresholds(first.own, first.labels, len(classes), coverage, codes)
        each = "each class separately" if apart == len(classes) else f"{apart} of {len(classes)} classes separately"
        over = "" if codes is None else f" in {count(decisions.units(every, codes), 'group')}"
        images = count(len(first.labels), f"{first.split} image")
        text = f"sets: coverage {coverage:g}, calibrated on {images}{over}, {each}."
        if first.split != "test" and runs.read_json(run / "run.json").get("best_epoch"):
            text += " The epoch was chosen on these images, so coverage of new ones may be slightly lower."
        found.notes.append(text)
    if wanted.unknown is not None:
        found.rate = share(wanted.unknown, "--unknown")
        where = f"the {first.split} split of {run}"
        _enough(f"--unknown {found.rate:g}", 1 - found.rate, np.ones(len(first.labels), bool), None, where)
    if wanted.precision is not None or wanted.recall is not None:
        found.thresholds = _thresholds(wanted, classes, splits.get("valid", first), found.notes)
    return found


def _enough(what: str, level: float, rows: np.ndarray, codes: np.ndarray | None, where: str) -> None:
    least, units, there = decisions.needed(level), "image" if codes is None else "group", decisions.units(rows, codes)
    if there < least:
        raise UsageError(
            f"{what}: needs {count(least, f'held-out {units}')}, {where} has {there:,}.",
            f"Hold out more {units}s, or lower the target.",
        )


def _thresholds(
    wanted: Wanted, classes: Sequence[str], held: predictions.HeldOut, notes: list[str]
) -> decisions.Thresholds:
    asked = {flag: _indices(getattr(wanted, flag[2:]), flag, classes) for flag in ("--recall", "--precision")}
    recall, precision = asked.values()
    codes = codes_of(held.groups)
    for k, level in recall.items():
        where = f"the {held.split} split's {classes[k]!r}"
        _enough(f"--recall {classes[k]}={level:g}", level, held.labels == k, codes, where)
    found = decisions.tune(held.dense, held.labels, recall, precision, codes)
    refused = [k for k in precision if not np.isfinite(found.precision[k])]
    if precision and len(refused) == len(precision):
        least, apart = fewest(min(precision.values()), decisions.RISK), "" if codes is None else " of different groups"
        raise UsageError(
            f"--precision {min(precision.values()):g}: the {held.split} split cannot guarantee it for any class; it "
            f"needs {least:,} images{apart} predicted as the class, all of them right (more if there are mistakes).",
            "Hold out more images, or lower the target.",
        )
    if refused:
        named = some(repr(classes[k]) for k in refused)
        notes.append(f"--precision: the {held.split} split cannot guarantee it for {named}, which becomes {UNSURE!r}.")
    return found


def _indices(levels: Levels, flag: str, classes: Sequence[str]) -> dict[int, float]:
    if levels is None:
        return {}
    every = levels if isinstance(levels, Mapping) else dict.fromkeys(classes, levels)
    for name in every:
        if name not in classes:
            raise UsageError(f"{flag} {name}=: not a class of this run{did_you_mean(name, classes)}.")
    return {classes.index(name): share(level, flag) for name, level in every.items()}
