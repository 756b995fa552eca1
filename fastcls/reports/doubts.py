"""Labels that the network contradicts, with pictures, and as a table to be corrected."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from fastcls.evaluation.suspects import Noise, suspects
from fastcls.reports.thumbnails import Thumbnails, Tile
from fastcls.runfolder.predictions import Probabilities
from fastcls.runfolder.text import clean

PICTURED = 24
COLUMNS = ("path", "label", "looks_like", "probability_of_label", "probability_of_other", "margin", "probability_wrong")


@dataclass(frozen=True)
class Doubt:
    file: str
    path: str
    label: str
    looks_like: str
    of_label: float
    of_other: float
    wrong: float
    tile: Tile


@dataclass(frozen=True)
class Doubts:
    """Labels in doubt, a row of COLUMNS each, the most doubtful first, and how many of them are wrong."""

    rows: list[tuple[object, ...]]
    noise: Noise | None = None

    @property
    def sentence(self) -> str:
        """How many of these doubts are likely to be the labels' fault, how many the network's."""
        if self.noise is None or not self.rows:
            return ""
        wrong = np.array([row[-1] for row in self.rows], dtype=float)
        if not self.noise.shown:
            return (
                "A network that is as often wrong as this one contradicts about as many right labels: nothing shows "
                "that any label is wrong."
            )
        first = wrong[:PICTURED]
        return (
            f"About {wrong.sum():.0f} of them are likely to be wrong, {first.sum():.0f} among the first {len(first)}; "
            "the others are the network's own mistakes, as its confidence tells."
        )


def doubtful(table: pd.DataFrame, probabilities: Probabilities | None, names: list[str]) -> Doubts:
    """The labels of one split's images that the network contradicts."""
    if probabilities is None or table.empty:
        return Doubts([])
    place = {name: i for i, name in enumerate(names)}
    labels = table["label"].map(place).to_numpy(int)
    own = np.nan_to_num(np.exp(-table["loss"].to_numpy(float)))
    found, noise = suspects(labels, probabilities.rows, probabilities.classes, probabilities.values, own, len(names))
    paths, written = table["path"].to_numpy(), table["label"].to_numpy()
    rows: list[tuple[object, ...]] = [
        (
            *(paths[one.row], written[one.row], names[one.looks_like]),
            *(one.of_label, one.of_other, one.margin, round(one.wrong, 4)),
        )
        for one in found
    ]
    return Doubts(rows, noise)


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
            float(wrong),  # type: ignore[arg-type]
            thumbnails.tile(str(path)),
        )
        for path, label, other, of_label, of_other, _, wrong in rows[:PICTURED]
    ]
