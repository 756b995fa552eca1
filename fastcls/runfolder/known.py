"""What a run said of the images it was evaluated on, read from predictions.csv without torch or pandas."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastcls.errors import OutputError, UsageError, did_you_mean
from fastcls.runfolder import runs


@dataclass(frozen=True)
class Known:
    """An image of the run, its label, and what the network said."""

    path: str  # below the run's data folder
    label: str
    prediction: str
    confidence: float | None  # calibrated, where the run is

    @property
    def wrong(self) -> bool:
        return self.label != self.prediction


def read(run: Path, split: str) -> list[Known]:
    """The images of a split, in the order of predictions.csv; none where there is no such file.

    UsageError for a split that was not evaluated, OutputError for a file that is no predictions.csv.
    """
    file = run / "predictions.csv"
    if not file.is_file():
        return []
    calibrated = runs.read_json(run / "model.json").get("temperature") is not None
    splits: dict[str, list[Known]] = {}
    try:
        with file.open(newline="", encoding="utf-8", errors="surrogateescape") as table:
            for row in (reader := csv.DictReader(table, strict=True)):
                if None in (row["path"], row["split"], row["label"], row["prediction"]):
                    raise ValueError(f"line {reader.line_num} is too short")
                sure = row.get("calibrated") if calibrated else row.get("confidence")
                known = Known(row["path"], row["label"], row["prediction"], float(sure) if sure else None)
                splits.setdefault(row["split"], []).append(known)
    except (OSError, KeyError, ValueError, csv.Error) as problem:
        raise OutputError(f"{file} cannot be read: {type(problem).__name__}: {problem}.") from None
    if split not in splits:
        raise UsageError(
            f"--split {split}: this run was not evaluated on it{did_you_mean(split, splits)}",
            f"It was on: {', '.join(splits) or 'none'}.",
        )
    return splits[split]


def coverage(images: Sequence[Known], steps: int = 100) -> list[tuple[int, int]]:
    """For each threshold 0, 1/steps, … 1: how many images are answered (as sure as that), and how many of them rightly.

    Empty where the run did not record how sure it was.
    """
    if not images or any(image.confidence is None for image in images):
        return []
    sure = np.array([image.confidence for image in images], dtype=float)
    right = np.array([not image.wrong for image in images])
    answered = sure[None] >= np.arange(steps + 1)[:, None] / steps
    return list(zip(answered.sum(1).tolist(), (answered & right).sum(1).tolist(), strict=True))
