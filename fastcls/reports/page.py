"""What the page says: the files of a run, turned into the words and numbers of each section."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from fastcls.reports.classes import Outcome
from fastcls.reports.learning import Phase, Verdict, phases, verdict
from fastcls.reports.scores import Score, leaks
from fastcls.reports.wording import percent, receptive_field, times
from fastcls.runfolder import runs
from fastcls.runfolder.recorded import BY_HAND
from fastcls.runfolder.run import TRAINED, Run, figure_of
from fastcls.runfolder.text import clean, number

STATUS = {"done": "good", "running": "open", "pruned": "open", "interrupted": "warn", "failed": "warn"}
MOST_LAYERS = 1000
LONG_TABLE = 12  # epochs beyond which their table starts collapsed


def callouts(run: Run, split: str, found: dict[str, Score], outcome: Outcome | None) -> list[tuple[str, str]]:
    """(mood, sentence) of everything the reader should know before believing a figure."""
    items: list[tuple[str, str]] = []
    status, reason = clean(run.get("status") or "unknown"), clean(run.get("reason") or "")
    if status != "done":
        what = {"running": "had not finished when this page was written", "failed": "failed"}
        what |= {"interrupted": "was interrupted", "unknown": "does not say how it ended"}
        what |= {"pruned": "was pruned by a search"}
        because = f": {reason.rstrip('.')}" if reason else ""
        state = what.get(status, f"has the status “{status}”")
        items.append(("warn", f"This run {state}{because}. This page shows what it has written so far."))
    items += [("warn", f"{sentence}.") for sentence in run.missing]
    if run.counts is not None:
        shown = int((run.predictions["split"] == split).sum())
        of = int(run.counts.loc[run.counts["split"] == split, "count"].sum())
        items.append(
            (
                "note",
                f"The metrics at the top, the confusion matrix and the table of classes cover all {of:,} images; "
                f"curves, calibration, decisions, suspect labels and pictures cover a random sample of {shown:,}.",
            )
        )
    known = run.splits()
    if known and split not in known:
        items.append(("warn", f"The {split} split has not been evaluated."))
    accuracy = found.get("accuracy")
    if accuracy and outcome and abs(accuracy.value - outcome.accuracy) > 1.5 / max(outcome.n, 1):
        items.append(
            ("warn", f"The run's files disagree: metrics.json has an accuracy of {percent(accuracy.value)}, "
f"but predictions.csv gives {percent(outcome.accuracy)}.")
        )  # fmt: skip
    if seen := leaks(run, split):
        items.append(("warn", seen))
    if limit := run.get("options", "limit"):
        items.append(
            (
                "warn",
                f"At most {clean(limit)} images per class were used (--limit), so these are not the recipe's metrics.",
            )
        )
    items += [("note", text[0].upper() + text[1:]) for note in run.get("notes") or [] if (text := clean(note))]
    if weights := clean(run.get("weights") or ""):
        items.append(("note", weights))
    return items


SAYS_NOTHING = ("images", "image", "imgs", "jpeg", "data", "dataset", "train", "all")


def title(run: Run) -> str:
    """The network and the images: what the recipe's own title names may be another network, other images."""
    if run.get("recipe") == BY_HAND:
        return clean(run.get("title") or "")
    network = clean(run.model.get("arch") or "")
    folder = Path(clean(run.get("data", "root") or ""))
    root = folder.parent.name if folder.name.lower() in SAYS_NOTHING else folder.name
    return " on ".join(part for part in (network, root) if part) or clean(run.get("title") or "")


def layers(run: Run) -> tuple[list[dict[str, Any]], int]:
    """The rows of the summary table and how many of them are left off."""
    rows = run.model.get("summary") or []
    counts = [int(number(row.get("parameters")) or 0) for row in rows]
    total = number(run.model.get("parameters")) or sum(counts)
    found = [
        {
            "name": clean(row.get("layer", "")),
            "type": clean(row.get("type", "")),
            "shape": times(row.get("output_shape")).removeprefix("1 × "),  # of one image
            "kernel": times(row.get("kernel")),
            "stride": times(row.get("stride")),
            "parameters": count,
            "share": min(1.0, count / total) if total else 0.0,
            "multiply_adds": number(row.get("multiply_adds")),
            "receptive_field": receptive_field(row.get("receptive_field")),
            "trainable": bool(row.get("trainable")),
        }
        for row, count in zip(rows[:MOST_LAYERS], counts, strict=False)
    ]
    return found, max(0, len(rows) - MOST_LAYERS)


def trained_phases(run: Run) -> list[tuple[Phase, int, int]]:
    """What was trained and what frozen when, in parameters; empty for a run that did not record it."""
    total = number(run.model.get("parameters"))
    if total is None or run.history.empty or run.history[TRAINED].isna().any():
        return []
    trained = dict(zip(run.history["epoch"].astype(int), run.history[TRAINED].astype(int), strict=True))
    return [(one, trained[one.last], max(0, int(total) - trained[one.last])) for one in phases(run.history)]


def settings(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    """Tables of (name, value): knobs by stage, options, data, preprocessing, device, versions."""
    stages = {f"{clean(stage)}()": values for stage, values in (run.get("knobs") or {}).items()}
    groups = {
        **stages,
        "Options": run.get("options"),
        "Further settings": run.get("extra"),
        "Data": run.get("data"),
        "Network": {key: run.model.get(key) for key in ("arch", "preprocessing") if run.model.get(key)},
        "Device": run.get("device"),
        "Versions": run.get("versions"),
    }
    return [(title, _flat(values)) for title, values in groups.items() if values]


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for key, value in values.items():
        name = prefix + clean(key)
        if isinstance(value, dict) and value:
            found += _flat(value, f"{name}.")
        else:
            shown = ", ".join(_plain(item) for item in value) if isinstance(value, list) else _plain(value)
            found.append((name, shown))
    return found


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else str(value)
    return clean(value) if value != "" else "(empty)"


def objective_sentence(run: Run, kept: int | None) -> str:
    """Why the loss at the top is not that of the curves, where the two differ."""
    measured = figure_of(run.metrics, "valid", "loss")
    if measured is None or run.history.empty or kept is None:
        return ""
    curve = number(run.history.loc[run.history["epoch"] == kept, "valid_loss"].mean())
    if curve is None or abs(curve - measured) <= 0.05 * max(abs(curve), abs(measured)):
        return ""
    return (
        f"The validation loss of epoch {kept} is {curve:.3g} here and {measured:.3g} at the top: the curves "
        "show the training objective, which may include label smoothing or class weights; the loss "
        "at the top is plain cross-entropy."
    )


def no_heat(run: Run) -> str:
    """Why no picture has a heat map, where none has."""
    notes = [clean(note) for note in run.get("notes") or [] if str(note).startswith(runs.NO_HEAT)]
    return notes[0].removeprefix(runs.NO_HEAT).strip() if notes else "this run recorded none for these images"


def learning(run: Run, classes: int) -> tuple[list[Phase], Verdict, list[dict[str, Any]], int | None]:
    """Phases, verdict, a row an epoch for the table, and the epoch whose weights were kept."""
    best = number(run.get("best_epoch"))
    recorded = set() if run.history.empty else set(run.history["epoch"])
    kept = int(best) if best in recorded and best is not None else None
    columns = run.metric_columns
    least, chance = (number(run.get("loss", name)) for name in ("least", "chance"))
    bounds = (0.0, math.log(max(classes, 1)))  # older runs: cross-entropy
    if least is not None and chance is not None:
        bounds = least, chance
    rows = [
        {
            "epoch": int(row["epoch"]),
            "phase": row["phase"],
            "kept": kept == int(row["epoch"]),
            "cells": [number(row[name]) for name in ("train_loss", "valid_loss")],
            "metrics": [number(row[name]) for name in columns],
            "lr": number(row["lr"]),
            "seconds": number(row["seconds"]),
            "rate": number(row["images_per_second"]),
        }
        for row in run.history.to_dict("records")
    ]
    return phases(run.history) if rows else [], verdict(run.history, bounds), rows, kept
