"""The images that a report shows: the hardest, those whose labels are in doubt, those that are there twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from fastcls.audit import check_record
from fastcls.audit.finding import Finding
from fastcls.evaluation.selection import select
from fastcls.evaluation.suspects import Noise, Suspect, suspects
from fastcls.reports.thumbnails import Shown, Thumbnails
from fastcls.reports.wording import grouped
from fastcls.runfolder.predictions import HeldOut
from fastcls.runfolder.text import clean, number

KINDS = {
    "losses": "Top losses",
    "confident": "Most confident mistakes",
    "unsure": "Correct, but least confident",
    "mistakes": "All mistakes shown here",
}
DOUBTS = 24  # labels in doubt that are pictured
SUSPECTS = (
    "path",
    "label",
    "looks_like",
    "probability_of_label",
    "probability_of_other",
    "margin",
    "probability_wrong",
)
GROUPS, EACH = 6, 3  # groups of copies that are pictured of a kind, and images of each


def gallery(table: pd.DataFrame, thumbnails: Thumbnails, each: int = 0) -> list[Shown]:
    """Every image of every kind once, the highest loss first; and so many of each cell of the confusion matrix."""
    kinds = select(table)
    costly = table[table["loss"].notna()].sort_values("loss", ascending=False, kind="stable")
    rows = pd.concat([*kinds.values(), costly.groupby(["label", "prediction"], sort=False).head(each)])
    rows = rows[~rows.index.duplicated()].sort_values("loss", ascending=False, kind="stable")
    members = {kind: set(chosen.index) for kind, chosen in kinds.items()}
    members["mistakes"] |= set(rows.index[rows["label"] != rows["prediction"]])
    return [
        Shown(
            thumbnails.tile(row.path),
            clean(row.path),
            row.label,
            row.prediction,
            number(row.confidence),
            float(row.loss),
            kinds=tuple(kind for kind in KINDS if row.Index in members[kind]),
        )
        for row in rows.itertuples()
    ]


@dataclass(frozen=True)
class Doubts:
    """Labels in doubt, a row of SUSPECTS each, the most doubtful first, and how many of them are wrong."""

    rows: list[tuple[Any, ...]]
    noise: Noise | None = None

    @property
    def sentence(self) -> str:
        """How many of these doubts are likely to be the labels' fault, how many the network's."""
        if self.noise is None or not self.rows:
            return ""
        if not self.noise.shown:
            return (
                "A network with as many mistakes as this one contradicts about as many correct labels: there is no "
                "evidence that any label is wrong."
            )
        wrong = [row[-1] for row in self.rows]
        first = wrong[:DOUBTS]
        return (
            f"About {sum(wrong):.0f} of them are likely to be wrong, {sum(first):.0f} among the first {len(first)}; "
            "judging by its confidence, the others are the network's own mistakes."
        )


def doubtful(held: HeldOut, names: list[str]) -> Doubts:
    """The labels of one split's images that the network contradicts."""
    known = held.entries
    found, noise = suspects(held.labels, known.rows, known.classes, known.values, held.own, len(names))
    rows = [doubt(one, held.paths[one.row], names[held.labels[one.row]], names[one.looks_like]) for one in found]
    return Doubts(rows, noise)


def doubt(one: Suspect, path: str, label: str, looks_like: str) -> tuple[Any, ...]:
    """A row of SUSPECTS."""
    return path, label, looks_like, one.of_label, one.of_other, one.margin, round(one.wrong, 4)


def pictured(rows: list[tuple[Any, ...]], thumbnails: Thumbnails) -> list[tuple[Shown, float]]:
    """The first labels in doubt, each with its own probability; the prediction is the class that it looks like."""
    return [
        (Shown(thumbnails.tile(path), clean(path), label, other, of_other), of_label)
        for path, label, other, of_label, of_other, *_ in rows[:DOUBTS]
    ]


def copies(
    found: check_record.Found | None, thumbnails: Thumbnails
) -> tuple[list[tuple[Finding, list[list[Shown]]]], str]:
    """Duplicates and leaks as the run's check found them, the gravest first, with pictures of some groups.

    Beside them a sentence on how many images were looked at; ([], '') without a check.
    """
    if found is None:
        return [], ""
    kinds = [
        (finding, [[thumbnails.shown(item, item.path) for item in group[:EACH]] for group in finding.groups[:GROUPS]])
        for finding in found.findings
        if finding.kind in check_record.COPIES
    ]
    part = "all" if found.looked_at >= found.files else f"{grouped(found.looked_at)} of the"
    looked = f"The check before training compared {part} {grouped(found.files)} images with each other"
    more = "" if found.looked_at >= found.files else " (it takes ten seconds at most; `fastcls check` compares all)"
    return kinds, f"{looked}{more}{'.' if kinds else ' and found no copies.'}"
