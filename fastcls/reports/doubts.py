"""Labels that the network contradicts, with pictures, and as a table to be corrected."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from fastcls.evaluation.suspects import suspects
from fastcls.reports.thumbnails import Thumbnails, Tile
from fastcls.runfolder.predictions import Probabilities
from fastcls.runfolder.text import clean

PICTURED = 24
COLUMNS = ("path", "label", "looks_like", "probability_of_label", "probability_of_other", "margin")


@dataclass(frozen=True)
class Doubt:
    file: str
    path: str
    label: str
    looks_like: str
    of_label: float
    of_other: float
    tile: Tile


def doubtful(table: pd.DataFrame, probabilities: Probabilities | None, names: list[str]) -> list[tuple[object, ...]]:
    """A row of COLUMNS for each label in doubt, the most doubtful first; table: one split's labelled images."""
    if probabilities is None or table.empty:
        return []
    place = {name: i for i, name in enumerate(names)}
    labels = table["label"].map(place).to_numpy(int)
    own = np.exp(-table["loss"].to_numpy(float))
    rows, classes, values = probabilities.rows, probabilities.classes, probabilities.values
    paths, written = table["path"].to_numpy(), table["label"].to_numpy()
    return [
        (paths[one.row], written[one.row], names[one.looks_like], one.of_label, one.of_other, one.margin)
        for one in suspects(labels, rows, classes, values, np.nan_to_num(own), len(names))
    ]


def pictured(rows: list[tuple[object, ...]], thumbnails: Thumbnails) -> list[Doubt]:
    """The first PICTURED of them as the page shows them."""
    return [
        Doubt(
            clean(path).replace("\\", "/").rsplit("/", 1)[-1],
            clean(path),
            str(label),
            str(other),
            float(of_label),  # type: ignore[arg-type]
            float(of_other),  # type: ignore[arg-type]
            thumbnails.tile(str(path)),
        )
        for path, label, other, of_label, of_other, _ in rows[:PICTURED]
    ]
