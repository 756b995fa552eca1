"""Precision-recall and ROC curves, one class against the rest; scikit-learn does the counting."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

from fastcls.reports.figures import Figure, Palette, frame
from fastcls.runfolder.predictions import Probabilities

GRID = np.linspace(0, 1, 501)
DRAWN = 40  # classes whose own curves are drawn, thin; above, only micro and macro


@dataclass(frozen=True)
class Curves:
    """Average precision of each class (NaN without an image), and the curves over all of them."""

    average_precision: np.ndarray  # (classes,)
    precision: dict[str, np.ndarray]  # 'micro', 'macro': at the recalls of GRID
    sensitivity: dict[str, np.ndarray]  # 'micro', 'macro': the true at the false positive rates of GRID
    area: dict[str, float]  # under the latter
    each: list[tuple[np.ndarray, np.ndarray]]  # of every class with an image: precision and sensitivity on GRID
    whole: bool


def curves(labels: np.ndarray, probabilities: Probabilities, count: int) -> Curves | None:
    """labels (n,): class indices. A probability that is not on record counts as nothing, below all that are."""
    n, support = len(labels), np.bincount(labels, minlength=count)
    if not n or not len(probabilities.values):
        return None
    right = labels[probabilities.rows] == probabilities.classes
    starts = np.searchsorted(probabilities.classes, np.arange(count + 1))
    precisions = np.full(count, np.nan)
    each: list[tuple[np.ndarray, np.ndarray]] = []
    sums = np.zeros((2, len(GRID)))
    for c in np.flatnonzero(support):
        own = slice(starts[c], starts[c + 1])
        truth, scores, weights = _complete(right[own], probabilities.values[own], int(support[c]), n)
        precisions[c] = average_precision_score(truth, scores, sample_weight=weights)
        pair = _on_grid(truth, scores, weights)
        sums += pair
        if len(each) < DRAWN:
            each.append((pair[0], pair[1]))
    macro = sums / np.count_nonzero(support)
    micro = _on_grid(*_complete(right, probabilities.values, n, n * count))
    return Curves(
        precisions,
        {"micro": micro[0], "macro": macro[0]},
        {"micro": micro[1], "macro": macro[1]},
        {"micro": float(auc(GRID, micro[1])), "macro": float(auc(GRID, macro[1]))},
        each if np.count_nonzero(support) <= DRAWN else [],
        probabilities.whole,
    )


def _complete(
    right: np.ndarray, scores: np.ndarray, positives: int, n: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, score and weight of all n decisions: those on record, and the others, positive and negative, as two."""
    lost = positives - np.count_nonzero(right)
    others = n - len(right) - lost
    truth = np.concatenate([right, [True, False]])
    return truth, np.concatenate([scores, [-1, -1]]), np.concatenate([np.ones(len(right)), [lost, others]])


def _on_grid(truth: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Precision over recall and sensitivity over the false positive rate, (2, len(GRID))."""
    precision, recall, _ = precision_recall_curve(truth, scores, sample_weight=weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)  # of no negative, which is seen to below
        fall_out, sensitivity, _ = roc_curve(truth, scores, sample_weight=weights)
    if not np.isfinite(fall_out).all():  # no negative: every image is of this class
        fall_out = np.linspace(0, 1, len(fall_out))
    return np.array([np.interp(GRID, recall[::-1], precision[::-1]), np.interp(GRID, fall_out, sensitivity)])


def curve_figures(found: Curves | None) -> list[Figure]:
    """The two figures: every class thin, their mean (macro) and all decisions together (micro) thick."""
    if found is None:
        return []
    return [
        Figure(
            "precision-recall",
            "Precision over recall",
            "Precision over recall, one class against the rest",
            *(5.4, 3.9),
            _draw(found, 0, found.precision, "recall", "Precision over recall", None),
            {},
        ),
        Figure(
            "roc",
            "ROC",
            "True over false positive rate, one class against the rest",
            *(5.4, 3.9),
            _draw(
                found, 1, found.sensitivity, "false positive rate", "True over false positive rate (ROC)", found.area
            ),
            {},
        ),
    ]


def _draw(
    found: Curves, which: int, lines: dict[str, np.ndarray], label: str, title: str, area: dict[str, float] | None
) -> Callable[[Axes, Palette], None]:
    def draw(ax: Axes, palette: Palette) -> None:
        frame(ax, palette, title, label)
        for one in found.each:
            ax.plot(GRID, one[which], color=palette.muted, linewidth=0.6, alpha=0.45, zorder=2)
        for name, colour, style in (("micro", palette.valid, "-"), ("macro", palette.train, (0, (4, 2)))):
            text = name if area is None else f"{name}, area {area[name]:.3f}"
            ax.plot(GRID, lines[name], color=colour, linestyle=style, linewidth=1.9, label=text, zorder=3)
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1.02)
        ax.legend(loc="lower left" if which == 0 else "lower right", frameon=False, labelcolor=palette.ink, fontsize=9)

    return draw
