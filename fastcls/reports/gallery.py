"""The images that a report shows: the hardest, those whose labels are in doubt, those that are there twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from fastcls.audit import check_record
from fastcls.audit.finding import Finding
from fastcls.evaluation.selection import select
from fastcls.evaluation.suspects import suspects
from fastcls.reports.thumbnails import Shown, Thumbnails
from fastcls.reports.wording import grouped
from fastcls.runfolder.predictions import Probabilities
from fastcls.runfolder.text import clean, number

KINDS = {
    "losses": "Top losses",
    "confident": "Most confident mistakes",
    "unsure": "Correct, but least confident",
    "mistakes": "All mistakes shown here",
}
DOUBTS = 24  # labels in doubt that are pictured
SUSPECTS = ("path", "label", "looks_like", "probability_of_label", "probability_of_other", "margin")
GROUPS, EACH = 6, 3  # groups of copies that are pictured of a kind, and images of each


def gallery(table: pd.DataFrame, thumbnails: Thumbnails) -> list[Shown]:
    """Every image of every kind once, the highest loss first."""
    kinds = select(table)
    rows = pd.concat(list(kinds.values()))
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


def doubtful(table: pd.DataFrame, probabilities: Probabilities, names: list[str]) -> pd.DataFrame:
    """A row of SUSPECTS for each label in doubt, the most doubtful first; table: one split's labelled images."""
    labels = table["label"].map({name: i for i, name in enumerate(names)}).to_numpy(int)
    own = np.nan_to_num(np.exp(-table["loss"].to_numpy(float)))
    rows, classes, values = probabilities.rows, probabilities.classes, probabilities.values
    paths, written = table["path"].to_numpy(), table["label"].to_numpy()
    found = [
        (paths[one.row], written[one.row], names[one.looks_like], one.of_label, one.of_other, one.margin)
        for one in suspects(labels, rows, classes, values, own, len(names))
    ]
    return pd.DataFrame(found, columns=list(SUSPECTS))


def pictured(doubts: pd.DataFrame, thumbnails: Thumbnails) -> list[tuple[Shown, float]]:
    """The first of them, each with the probability of its own label; its prediction is what it looks like."""
    return [
        (Shown(thumbnails.tile(path), clean(path), label, other, of_other), of_label)
        for path, label, other, of_label, of_other, _ in doubts.head(DOUBTS).itertuples(index=False)
    ]


def copies(run: Path, thumbnails: Thumbnails) -> tuple[list[tuple[Finding, list[list[Shown]]]], str]:
    """Duplicates and leaks as the run's check found them, the gravest first, with pictures of some groups.

    Beside them a sentence on how many images were looked at; ([], '') without a check.
    """
    found = check_record.read(run)
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
    return kinds, f"{looked}{more}{'.' if kinds else ' and found no two that are one.'}"
