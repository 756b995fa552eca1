"""Which images of a split a report shows, and why: the hardest, the boldest mistakes, the luckiest answers."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from fastcls.reports.runfiles import clean, number
from fastcls.reports.thumbnails import Thumbnails, Tile

TOP_LOSSES, SUREST, UNSURE = 24, 12, 12
PAIRS = 12  # of classes, with an example mistake each
EACH = 3  # further mistakes of one pair of classes, so that a cell of the matrix has something to show
MISTAKES = 96  # of these in all, of the commonest pairs first

KINDS = {
    "losses": "Top losses",
    "surest": "Surest mistakes",
    "unsure": "Right, but least sure",
    "mistakes": "All mistakes shown here",
}


@dataclass(frozen=True)
class Shown:
    """An image with what was said of it, and the kinds of KINDS that it belongs to."""

    file: str
    path: str
    label: str
    prediction: str
    confidence: float | None
    loss: float
    tile: Tile
    kinds: tuple[str, ...] = ("losses",)

    @property
    def wrong(self) -> bool:
        return self.label != self.prediction


def select(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each kind; table: path, label, prediction, confidence and loss of one split's images."""
    table = table[table["loss"].notna()]
    wrong = table[table["label"] != table["prediction"]]
    right = table[table["label"] == table["prediction"]]
    return {
        "losses": table.nlargest(TOP_LOSSES, "loss"),
        "surest": wrong.nlargest(SUREST, "confidence"),
        "unsure": right.nsmallest(UNSURE, "confidence"),
        "mistakes": _of_pairs(wrong).head(MISTAKES),
    }


def explained(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that get a heat map: all kinds', but of the further mistakes only one of each commonest pair."""
    kinds = select(table)
    pairs = kinds["mistakes"].drop_duplicates(["label", "prediction"]).head(PAIRS)
    chosen = pd.concat([kinds["losses"], kinds["surest"], kinds["unsure"], pairs])
    return chosen[~chosen.index.duplicated()]


def gallery(table: pd.DataFrame, thumbnails: Thumbnails) -> list[Shown]:
    """Every image of every kind once, the highest loss first."""
    kinds = select(table)
    rows = pd.concat(list(kinds.values()))
    rows = rows[~rows.index.duplicated()].sort_values("loss", ascending=False, kind="stable")
    members = {kind: set(chosen.index) for kind, chosen in kinds.items()}
    return [
        Shown(
            file=clean(row.path).replace("\\", "/").rsplit("/", 1)[-1],
            path=clean(row.path),
            label=row.label,
            prediction=row.prediction,
            confidence=number(row.confidence),
            loss=float(row.loss),
            tile=thumbnails.tile(row.path),
            kinds=tuple(
                kind
                for kind in KINDS
                if row.Index in members[kind] or (kind == "mistakes" and row.label != row.prediction)
            ),
        )
        for row in rows.itertuples()
    ]


def _of_pairs(wrong: pd.DataFrame) -> pd.DataFrame:
    """At most EACH mistakes of a pair of classes, costliest first; the commonest pairs first, every pair's first before
    any second."""
    wrong = wrong.sort_values("loss", ascending=False, kind="stable")
    pair = wrong.groupby(["label", "prediction"], sort=False)
    ranked = wrong.assign(_nth=pair.cumcount(), _size=pair["loss"].transform("size"))
    ranked = ranked[ranked["_nth"] < EACH].sort_values(["_nth", "_size"], ascending=[True, False], kind="stable")
    return ranked.drop(columns=["_nth", "_size"])
