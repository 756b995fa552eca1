"""What the predictions say: which classes are confused, how each one fares, where the loss is highest."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from fastcls.evaluation import grouped
from fastcls.evaluation.metrics import wilson
from fastcls.evaluation.selection import PAIRS
from fastcls.reports.figures import Figure, Palette
from fastcls.reports.gallery import gallery
from fastcls.reports.thumbnails import Shown, Thumbnails, Tile
from fastcls.runfolder.target import SINGLE, Target
from fastcls.runfolder.text import LABEL, number, shorten

T = TypeVar("T")
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
    predictions: pd.DataFrame,
    classes: list[str],
    thumbnails: Thumbnails,
    precisions: Mapping[str, float],
    each: int = 0,
    counts: pd.DataFrame | None = None,
) -> Outcome | None:
    """The view of one split, or None where it has no labelled prediction; precisions: the average one of a class.

    each: pictures of a cell of the confusion matrix, at least. counts: label, prediction and count of all images, where
    the predictions are a sample of them.
    """
    table = predictions[(predictions["label"] != "") & (predictions["prediction"] != "")]
    if table.empty:
        return None
    codes = grouped.codes_in(table) if counts is None else None
    every = table.assign(count=1) if counts is None else counts[counts["label"] != ""]
    seen = {*every["label"].unique(), *every["prediction"].unique()}
    names = list(dict.fromkeys([*classes, *sorted(seen - set(classes))]))
    support = table["label"].value_counts() if counts is None else _sums(every, "label")
    wrong = table[table["label"] != table["prediction"]]
    mistaken = every[every["label"] != every["prediction"]]
    pairs = _sums(mistaken, "label", "prediction")
    rows = _class_rows(every, names, pairs, precisions, codes)
    n, mistakes = int(every["count"].sum()), int(mistaken["count"].sum())
    return Outcome(
        n=n,
        classes=len(names),
        mistakes=mistakes,
        accuracy=1 - mistakes / n,
        majority=str(support.index[0]),
        majority_share=float(support.iloc[0] / n),
        matrix=_matrix(every, names, support, pairs),
        pairs=_pairs(table, wrong, pairs, support, thumbnails),
        confused_pairs=len(pairs),
        rows=rows[:MOST_ROWS],
        left_off=max(0, len(rows) - MOST_ROWS),
        absent=[name for name in names if name not in support.index],
        shown=gallery(table, thumbnails, each),
    )


def _sums(every: pd.DataFrame, *columns: str) -> pd.Series:
    """The images of each value of the columns, the most first."""
    return (
        every.groupby(list(columns) if len(columns) > 1 else columns[0])["count"]
        .sum()
        .sort_values(ascending=False, kind="stable")
    )


def _class_rows(
    every: pd.DataFrame, names: list[str], pairs: pd.Series, precisions: Mapping[str, float], codes: np.ndarray | None
) -> list[ClassRow]:
    """A row a class, the worst F1 first, classes without a picture in the split last.

    every: label, prediction and count. codes: the groups of its rows, where there are groups.
    """
    place = {name: i for i, name in enumerate(names)}
    labels, predictions = (every[column].map(place).to_numpy(int) for column in ("label", "prediction"))
    times = every["count"].to_numpy(float)
    right = labels == predictions
    hits, support, predicted = (
        np.bincount(where, weights, len(names)).astype(int).tolist()
        for where, weights in ((labels[right], times[right]), (labels, times), (predictions, times))
    )
    worst: dict[str, tuple[str, int]] = {}
    for (label, prediction), count in pairs.items():
        worst.setdefault(str(label), (str(prediction), int(count)))
    rows = []
    for i, name in enumerate(names):
        interval = wilson(hits[i], support[i])
        if codes is not None and support[i]:
            own = labels == i
            interval = grouped.proportion(predictions[own] == i, codes[own])
        counts = support[i], predicted[i], hits[i]
        rows.append(class_row(name, *counts, interval, worst.get(name, ("", 0)), number(precisions.get(name))))
    return weakest_first(rows)


def class_row(
    name: str,
    support: int,
    predicted: int,
    hits: int,
    interval: tuple[float | None, float | None],
    taken: tuple[str, int],
    average_precision: float | None,
) -> ClassRow:
    """A row of numbers of images; a share of none of them is None."""

    def share(images: int, of: int) -> float | None:
        return images / of if of else None

    f1 = share(2 * hits, support + predicted) if support else None
    found = share(hits, predicted), share(hits, support), f1
    return ClassRow(name, support, *found, *interval, *taken, average_precision)


def weakest_first(rows: list[ClassRow]) -> list[ClassRow]:
    """By F1, those without an image last."""
    return sorted(rows, key=lambda row: (not row.support, row.f1 or 0.0, -row.support))


def most_confused(pairs: Iterable[Sequence[T]]) -> list[T]:
    """The members of these pairs, the first of them, as many as BLOCK holds."""
    chosen: dict[T, None] = {}
    for pair in pairs:
        if len(more := chosen | dict.fromkeys(pair)) <= BLOCK:
            chosen = more
    return list(chosen)


def _matrix(every: pd.DataFrame, names: list[str], support: pd.Series, pairs: pd.Series) -> Matrix:
    whole = len(names) <= WHOLE_MATRIX
    shown = names if whole else most_confused(pairs.index) or [str(name) for name in support.index[:BLOCK]]
    inside = every[every["label"].isin(shown) & every["prediction"].isin(shown)]
    counts = inside.groupby(["label", "prediction"])["count"].sum().unstack(fill_value=0)
    counts = counts.reindex(index=shown, columns=shown, fill_value=0)
    return Matrix(shown, counts.to_numpy(int), support.reindex(shown, fill_value=0).to_numpy(), whole)


def _pairs(
    table: pd.DataFrame, wrong: pd.DataFrame, pairs: pd.Series, support: pd.Series, thumbnails: Thumbnails
) -> list[Pair]:
    right = table[table["label"] == table["prediction"]].sort_values("confidence", ascending=False, kind="stable")
    examples = right.drop_duplicates("label").set_index("label")["path"]
    mistakes = wrong.sort_values("loss", ascending=False, kind="stable").drop_duplicates(["label", "prediction"])
    mistaken = mistakes.set_index(["label", "prediction"])["path"]
    pairs = pairs[pairs.index.isin(mistaken.index)]  # of a sample not each has an example

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


def matrix_figure(matrix: Matrix, split: str, target: Target = SINGLE) -> Figure:
    """The confusion matrix: right answers in blue, mistakes in vermillion, each row a whole.

    Of several labels an image: labels that were missed, and what was seen instead in the same images.
    """
    count = len(matrix.names)
    cell = 0.5 if count <= 6 else 0.4 if count <= 12 else 0.25
    longest = min(LABEL, max(len(name) for name in matrix.names))
    margin = 0.75 + 0.085 * longest
    tips, cells = {}, {}
    for i, j in np.argwhere(matrix.counts):
        name, other = matrix.names[i], matrix.names[j]
        end = "correct" if i == j else f"{target.mistake} {other}"
        tips[f"cell-{i}-{j}"] = f"{name}: {matrix.counts[i, j]} of {matrix.support[i]} {end}"
        cells[f"cell-{i}-{j}"] = (name, other, str(matrix.counts[i, j]))
    if matrix.whole:
        title = f"{target.matrix}, {split} split, {count} {target.plural}"
    else:
        title = f"The {count} most confused {target.plural}, {split} split"
    side = cell * count + margin
    draw = _cells(matrix, title, cell * 72, target)
    return Figure(
        "confusion-matrix",
        title,
        f"{title}: rows are labels, columns predictions",
        side,
        side,
        draw,
        tips,
        tight=True,
        cells=cells,
        scrolls=True,
    )


def _cells(matrix: Matrix, title: str, cell: float, target: Target) -> Callable[[Axes, Palette], None]:
    def draw(ax: Axes, palette: Palette) -> None:
        count = len(matrix.names)
        ax.set_facecolor("none")
        size = min(10.0, cell * 0.5)
        for i, j in np.argwhere(matrix.counts):
            times, of = int(matrix.counts[i, j]), max(1, int(matrix.support[i]))
            depth = 0.12 + 0.88 * math.sqrt(min(1.0, times / of))
            colour = palette.right if i == j else palette.wrong
            square = Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=colour, alpha=depth, linewidth=0)
            square.set_gid(f"cell-{i}-{j}")
            ax.add_patch(square)
            if len(str(times)) * 0.6 * size <= cell * 0.95:
                ink = palette.on_cell if depth > 0.78 else palette.ink
                ax.text(j, i, str(times), ha="center", va="center_baseline", fontsize=size, color=ink)
        names = [shorten(name) for name in matrix.names]
        label = 9.5 if count <= 12 else 8.5
        slant = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if count <= 12 else {"rotation": 90}
        ax.set_xticks(range(count), names, fontsize=label, color=palette.ink, **slant)
        ax.set_yticks(range(count), names, fontsize=label, color=palette.ink)
        ax.set_xticks(np.arange(count + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(count + 1) - 0.5, minor=True)
        ax.grid(which="minor", color=palette.line, linewidth=0.6)
        ax.tick_params(which="both", length=0)
        ax.set_xlim(-0.5, count - 0.5)
        ax.set_ylim(count - 0.5, -0.5)
        ax.set_aspect("equal")
        for spine in ax.spines.values():
            spine.set_color(palette.line)
        ax.set_xlabel(target.across, color=palette.muted)
        ax.set_ylabel(target.down, color=palette.muted)
        if count > 4:
            ax.set_title(title, loc="left", color=palette.ink, fontsize=11, fontweight="bold")

    return draw
