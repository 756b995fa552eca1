"""What the predictions say: which classes are confused, how each one fares, where the loss is highest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from fastcls.evaluation.metrics import wilson
from fastcls.evaluation.selection import PAIRS
from fastcls.reports.gallery import gallery
from fastcls.reports.thumbnails import Shown, Thumbnails, Tile
from fastcls.runfolder.text import number

WHOLE_MATRIX = 40  # up to this many classes the matrix is drawn in full
BLOCK = 20  # above, this many classes: those confused most
MOST_ROWS = 2000  # of the table of classes


@dataclass(frozen=True)
class Pair:
    """A class misclassified as another, with pictures of the mistake and of both classes."""

    label: str
    prediction: str
    count: int
    support: int
    back: int  # how often the other way round
    mistake: Tile
    label_example: Tile | None
    prediction_example: Tile | None

    @property
    def share(self) -> float:
        return self.count / self.support


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix, whole or the part where most of the confusion is."""

    names: list[str]
    counts: np.ndarray  # labels down, predictions across
    support: np.ndarray  # of the whole split, also where only a part is shown
    whole: bool


@dataclass(frozen=True)
class ClassRow:
    name: str
    support: int
    precision: float | None
    recall: float | None
    f1: float | None
    low: float | None  # 95 % interval of the recall
    high: float | None
    taken_for: str
    taken_count: int
    average_precision: float | None


@dataclass(frozen=True)
class Outcome:
    """Everything that a page shows of one split's predictions."""

    n: int
    classes: int
    mistakes: int
    accuracy: float
    majority: str
    majority_share: float
    macro_f1: float
    mean_loss: float | None
    matrix: Matrix
    pairs: list[Pair]
    confused_pairs: int
    rows: list[ClassRow]
    left_off: int
    absent: list[str]
    shown: list[Shown] = field(default_factory=list)

    @property
    def losses(self) -> list[Shown]:
        return [one for one in self.shown if "losses" in one.kinds]

    @property
    def top_wrong(self) -> int:
        return sum(one.wrong for one in self.losses)


def outcome(
    predictions: pd.DataFrame, classes: list[str], thumbnails: Thumbnails, precisions: Mapping[str, float]
) -> Outcome | None:
    """The view of one split, or None where it has no labelled prediction; precisions: the average one of a class."""
    table = predictions[(predictions["label"] != "") & (predictions["prediction"] != "")]
    if table.empty:
        return None
    seen = {*table["label"].unique(), *table["prediction"].unique()}
    names = list(dict.fromkeys([*classes, *sorted(seen - set(classes))]))
    support = table["label"].value_counts()
    wrong = table[table["label"] != table["prediction"]]
    pairs = wrong.groupby(["label", "prediction"]).size().sort_values(ascending=False, kind="stable")
    rows = _class_rows(table, names, pairs, precisions)
    supported = [row for row in rows if row.support]
    return Outcome(
        n=len(table),
        classes=len(names),
        mistakes=len(wrong),
        accuracy=1 - len(wrong) / len(table),
        majority=str(support.index[0]),
        majority_share=float(support.iloc[0] / len(table)),
        macro_f1=float(np.mean([row.f1 or 0.0 for row in supported])),
        mean_loss=number(table["loss"].mean()),
        matrix=_matrix(table, names, support, pairs),
        pairs=_pairs(table, wrong, pairs, support, thumbnails),
        confused_pairs=len(pairs),
        rows=rows[:MOST_ROWS],
        left_off=max(0, len(rows) - MOST_ROWS),
        absent=[name for name in names if name not in support.index],
        shown=gallery(table, thumbnails),
    )


def _class_rows(
    table: pd.DataFrame, names: list[str], pairs: pd.Series, precisions: Mapping[str, float]
) -> list[ClassRow]:
    """A row a class, the worst F1 first, classes without a picture in the split last."""
    place = {name: i for i, name in enumerate(names)}
    labels, predictions = (table[column].map(place).to_numpy(int) for column in ("label", "prediction"))
    hits, support, predicted = (
        np.bincount(where, minlength=len(names)) for where in (labels[labels == predictions], labels, predictions)
    )
    with np.errstate(invalid="ignore"):  # nothing of nothing is not finite
        precision, recall, f1 = hits / predicted, hits / support, 2 * hits / (support + predicted)
    worst: dict[str, tuple[str, int]] = {}
    for (label, prediction), count in pairs.items():
        worst.setdefault(str(label), (str(prediction), int(count)))
    rows = []
    for i, name in enumerate(names):
        n = int(support[i])
        low, high = wilson(round(float(recall[i]) * n), n) if n else (None, None)
        taken, times = worst.get(name, ("", 0))
        p, r, f = (number(values[i]) for values in (precision, recall, f1))
        average = number(precisions.get(name))
        rows.append(ClassRow(name, n, p, r, f if n else None, low, high, taken, times, average))
    return sorted(rows, key=lambda row: (not row.support, row.f1 if row.f1 is not None else 0.0, -row.support))


def _matrix(table: pd.DataFrame, names: list[str], support: pd.Series, pairs: pd.Series) -> Matrix:
    whole = len(names) <= WHOLE_MATRIX
    shown = names
    if not whole:
        chosen: dict[str, None] = {}
        for label, prediction in pairs.index:
            if len(chosen | {label: None, prediction: None}) <= BLOCK:
                chosen |= {label: None, prediction: None}
        shown = list(chosen) or [str(name) for name in support.index[:BLOCK]]
    inside = table[table["label"].isin(shown) & table["prediction"].isin(shown)]
    counts = pd.crosstab(inside["label"], inside["prediction"]).reindex(index=shown, columns=shown, fill_value=0)
    return Matrix(shown, counts.to_numpy(), support.reindex(shown, fill_value=0).to_numpy(), whole)


def _pairs(
    table: pd.DataFrame, wrong: pd.DataFrame, pairs: pd.Series, support: pd.Series, thumbnails: Thumbnails
) -> list[Pair]:
    right = table[table["label"] == table["prediction"]].sort_values("confidence", ascending=False, kind="stable")
    examples = right.drop_duplicates("label").set_index("label")["path"]
    mistakes = wrong.sort_values("loss", ascending=False, kind="stable").drop_duplicates(["label", "prediction"])
    mistaken = mistakes.set_index(["label", "prediction"])["path"]

    def example(name: str) -> Tile | None:
        return thumbnails.tile(examples[name]) if name in examples.index else None

    return [
        Pair(
            label=str(label),
            prediction=str(prediction),
            count=int(count),
            support=int(support[label]),
            back=int(pairs.get((prediction, label), 0)),
            mistake=thumbnails.tile(mistaken[(label, prediction)]),
            label_example=example(label),
            prediction_example=example(prediction),
        )
        for (label, prediction), count in pairs.iloc[:PAIRS].items()
    ]
