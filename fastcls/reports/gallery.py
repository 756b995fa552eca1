"""The images that a report shows, each with its picture, prediction and why it is shown."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from fastcls.evaluation.selection import select
from fastcls.reports.thumbnails import Thumbnails, Tile
from fastcls.runfolder.text import clean, number

KINDS = {
    "losses": "Top losses",
    "confident": "Most confident mistakes",
    "unsure": "Correct, but least confident",
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
