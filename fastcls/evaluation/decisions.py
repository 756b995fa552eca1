"""Decisions from probabilities: sets of classes with a guarantee, thresholds a class, the least expected cost.

A score of n held-out images bounds that of a new one like them: it is at most the ⌈(n + 1) level⌉-th smallest with a
probability of `level` at least, whatever the network (split conformal prediction: Vovk, Gammerman and Shafer 2005). Of
images in groups one group counts as one score, and the new image is one of a new group (Lee, Barber and Willett 2023).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastcls.datasets.label_table import rows_of
from fastcls.datasets.walk import count, some
from fastcls.errors import DataError, did_you_mean
from fastcls.evaluation.calibration import threshold_for
from fastcls.evaluation.grouped import effect, within
from fastcls.runfolder.target import SINGLE
from fastcls.runfolder.text import number

RISK = 0.05  # of a precision that is promised and not kept
UNSURE = -1  # the index of no class
AMPLE = 3  # times the least number of images: fewer cover more than is wanted, with sets twice as large
ROUNDING = 1e-9  # a share of numbers such as 0.9 / 0.1


def needed(level: float) -> int:
    """So many images at least say anything of a level."""
    return math.ceil(level / (1 - level) * (1 - ROUNDING))


def bound(scores: np.ndarray, level: float, codes: np.ndarray | None = None) -> float:
    """What a new score is at most with a probability of `level`, 0 to 1; infinite where there are too few scores.

    codes (n,): the groups of the images, where there are any; then too few groups.
    """
    if codes is not None:
        _, of, sizes = np.unique(codes, return_inverse=True, return_counts=True)
        order = np.argsort(scores, kind="stable")
        reached = np.cumsum(1 / sizes[of][order]) / (len(sizes) + 1)
        at = int(np.searchsorted(reached, level * (1 - ROUNDING)))
        return float(scores[order[at]]) if at < len(scores) else math.inf
    rank = math.ceil((len(scores) + 1) * level * (1 - ROUNDING))
    return float(np.partition(scores, rank - 1)[rank - 1]) if rank <= len(scores) else math.inf


# ------------------------------------------------------------------ sets of classes


def units(rows: np.ndarray, codes: np.ndarray | None) -> int:
    """How many images these are, or, where there are groups, of how many groups."""
    return int(rows.sum()) if codes is None else len(np.unique(codes[rows]))


def set_thresholds(
    own: np.ndarray, labels: np.ndarray, classes: int, coverage: float, codes: np.ndarray | None = None
) -> tuple[np.ndarray, int]:
    """(classes,) the least probability with which a class is in a set, and how many classes have one of their own.

    own, labels (n,): the probability that each held-out image gets for its label (LAC: Sadinle, Lei and Wasserman
    2019). Each class with AMPLE images is calibrated by itself, so that its own images are covered (Mondrian); the
    others together, with the next smallest classes where they too are too few. -inf where all are too few. codes (n,):
    the groups of the images, where there are any, which count in place of images.
    """

    def least_probability(rows: np.ndarray) -> float:
        return -bound(-own[rows], coverage, within(codes, rows))

    counts = np.array([units(labels == k, codes) for k in range(classes)])
    least = needed(coverage)
    shared = counts < AMPLE * least
    for k in np.argsort(counts, kind="stable"):
        if not shared.any() or units(shared[labels], codes) >= least:
            break
        shared[k] = True
    found = np.full(classes, least_probability(shared[labels]) if shared.any() else 0.0)
    for k in np.flatnonzero(~shared):
        found[k] = least_probability(labels == k)
    return found, int((~shared).sum())


def sets(probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(n, classes) whether a class is in an image's set, which holds the likeliest class in any case."""
    chosen = probabilities >= thresholds
    chosen[np.arange(len(chosen)), probabilities.argmax(1)] = True
    return chosen


# ------------------------------------------------------------------ thresholds


@dataclass(frozen=True)
class Thresholds:
    """An image is called the class of `recall` whose threshold it passes most clearly, else the likeliest.

    recall: class -> the probability from which on it is called so.  precision (classes,): the least probability of each
    class with which it is predicted; infinite where no precision can be promised.
    """

    recall: dict[int, float]
    precision: np.ndarray

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """(n,) indices of classes, or UNSURE."""
        decided = _called(probabilities, self.recall)
        sure = probabilities[np.arange(len(decided)), decided] >= self.precision[decided]
        return np.where(sure, decided, UNSURE)


def tune(
    probabilities: np.ndarray,
    labels: np.ndarray,
    recall: dict[int, float],
    precision: dict[int, float],
    codes: np.ndarray | None = None,
) -> Thresholds:
    """Thresholds for a wanted recall and precision of some classes, tuned on images (n, classes), (n,).

    Recall: as of `set_thresholds`, 0 (always called so) where there are too few images. Precision: held in 95 % of
    cases (`calibration.threshold_for`). codes (n,): the groups of the images, where there are any.
    """
    own = probabilities[np.arange(len(labels)), labels]
    called = {k: max(0.0, -bound(-own[labels == k], level, within(codes, labels == k))) for k, level in recall.items()}
    decided = _called(probabilities, called)
    thresholds = np.zeros(probabilities.shape[1])
    for k, level in precision.items():
        mine = decided == k
        found = promised(level, probabilities[mine, k], labels[mine] == k, within(codes, mine))
        thresholds[k] = found[0] if found else np.inf
    return Thresholds(called, thresholds)


def promised(
    level: float, confidence: np.ndarray, right: np.ndarray, codes: np.ndarray | None
) -> tuple[float, float] | None:
    """`calibration.threshold_for` a precision of images that were called a class, in groups where there are any."""
    if not len(right):
        return None
    return threshold_for(level, confidence, right, RISK, effect(right.astype(float), codes))


def _called(probabilities: np.ndarray, recall: dict[int, float]) -> np.ndarray:
    decided = probabilities.argmax(1)
    if recall:
        names, thresholds = list(recall), np.array(list(recall.values()))
        clearly = probabilities[:, names] / np.maximum(thresholds, 1e-300)
        decided = np.where((clearly >= 1).any(1), np.array(names)[clearly.argmax(1)], decided)
    return decided


# ------------------------------------------------------------------ costs


@dataclass(frozen=True)
class Costs:
    """What each decision costs for each true class: (classes, decisions). Decisions may be others than classes."""

    names: list[str]  # of the classes
    decisions: list[str]
    table: np.ndarray

    def decide(self, probabilities: np.ndarray, temperature: float) -> np.ndarray:
        """(n,) indices of the decisions of the least expected cost, at calibrated probabilities (Elkan 2001)."""
        return (SINGLE.softened(probabilities, temperature) @ self.table).argmin(1)


def read_costs(file: Path, classes: Sequence[str]) -> Costs:
    """A cost table: a row a true class, a column a decision. DataError names what is missing or is not a number."""
    form = "It needs a row per true class and a column per decision:  true,cat,dog,refuse"
    try:
        rows = [row for _, row in rows_of(file, [], strict=True)]
    except OSError as problem:
        raise DataError(f"--costs {file}: cannot be read ({problem.strerror or problem}).", form) from None
    if len(rows) < 2 or len(rows[0]) < 3:
        raise DataError(f"--costs {file}: a table with {count(len(rows), 'row')} is not a cost table.", form)
    decisions, found = rows[0][1:], {row[0]: row[1:] for row in rows[1:]}
    if lacking := [name for name in classes if name not in found]:
        near = did_you_mean(lacking[0], found)
        raise DataError(f"--costs {file}: no row for {some(map(repr, lacking))}{near}.", form)
    strange = next((name for name in found if name not in classes), None)
    if strange is not None:
        raise DataError(
            f"--costs {file}: {strange!r} is not a class of this run{did_you_mean(strange, classes)}.", form
        )
    columns = [name for name in classes if name not in decisions]
    if columns and len(columns) < len(classes):
        raise DataError(
            f"--costs {file}: no column for {some(map(repr, columns))}.",
            "Decisions are either all classes, plus any others, or none of the classes.",
        )
    if len(set(decisions)) < len(decisions) or len(found) < len(rows) - 1:
        raise DataError(f"--costs {file}: a row or a column occurs twice.", form)
    for name, cells in found.items():
        if len(cells) != len(decisions):
            raise DataError(f"--costs {file}: {name!r} has {len(cells)} costs for {len(decisions)} decisions.", form)
        wrong = next((cell for cell in cells if number(cell) is None), None)
        if wrong is not None:
            raise DataError(f"--costs {file}: {name!r} has the cost {wrong!r}.", "Costs must be finite numbers.")
    return Costs(list(classes), decisions, np.array([[float(cell) for cell in found[name]] for name in classes]))
