"""Precision-recall and ROC curves, one class against the rest; scikit-learn does the counting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

from fastcls.reports.figures import Figure, Palette, frame
from fastcls.runfolder.predictions import Probabilities

Decisions = tuple[np.ndarray, np.ndarray, np.ndarray | None]  # of one class against the rest: truth, scores, weights
GRID = np.linspace(0, 1, 501)
DRAWN = 40  # classes whose own curves are drawn, thin; above, only micro and macro


@dataclass(frozen=True)
class Curves:
    """Average precision of each class (NaN where it has no image, or all of them), and curves, (2, len(GRID)):
    precision at the recalls of GRID, and the true at the false positive rates of GRID."""

    average_precision: np.ndarray  # (classes,)
    micro: np.ndarray
    macro: np.ndarray
    each: list[np.ndarray]  # of every class with an image, where these are not too many to be drawn
    whole: bool


def curves(labels: np.ndarray, probabilities: Probabilities, count: int) -> Curves | None:
    """labels (n,): class indices. A probability that is not on record counts as nothing, below all that are."""
    n, support = len(labels), np.bincount(labels, minlength=count)
    if not n or count < 2 or not len(probabilities.values):
        return None
    right = labels[probabilities.rows] == probabilities.classes
    starts = np.searchsorted(probabilities.classes, np.arange(count + 1))

    def of_class(c: int) -> Decisions:
        own = slice(starts[c], starts[c + 1])
        return _complete(right[own], probabilities.values[own], int(support[c]), n)

    return ranking(support, n, of_class, _complete(right, probabilities.values, n, n * count), probabilities.whole)


def ranking(
    support: np.ndarray, n: int, of_class: Callable[[int], Decisions], together: Decisions, whole: bool = True
) -> Curves:
    """The curves of n images, of which each class has its support, by the decisions on each class and on all."""
    precisions, sums = np.full(len(support), np.nan), np.zeros((2, len(GRID)))
    each: list[np.ndarray] = []
    ranked = np.flatnonzero((support > 0) & (support < n))  # where all images are of a class there is nothing to rank
    for c in ranked.tolist():
        truth, scores, weights = of_class(c)
        precisions[c] = average_precision_score(truth, scores, sample_weight=weights)
        own = _on_grid(truth, scores, weights)
        sums += own
        if len(ranked) <= DRAWN:
            each.append(own)
    return Curves(precisions, _on_grid(*together), sums / max(len(ranked), 1), each, whole)


def _complete(right: np.ndarray, scores: np.ndarray, positives: int, n: int) -> Decisions:
    """Truth, score and weight of all n decisions: those on record, and the others, positive and negative, as two."""
    lost = positives - np.count_nonzero(right)
    others = n - len(right) - lost
    truth = np.concatenate([right, [True, False]])
    return truth, np.concatenate([scores, [-1, -1]]), np.concatenate([np.ones(len(right)), [lost, others]])


def _on_grid(truth: np.ndarray, scores: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Precision over recall and sensitivity over the false positive rate, (2, len(GRID))."""
    precision, recall, _ = precision_recall_curve(truth, scores, sample_weight=weights)
    fall_out, sensitivity, _ = roc_curve(truth, scores, sample_weight=weights)
    return np.array([np.interp(GRID, recall[::-1], precision[::-1]), np.interp(GRID, fall_out, sensitivity)])


def curve_figures(found: Curves | None) -> list[Figure]:
    """The two figures: every class thin, their mean (macro) and all decisions together (micro) thick."""
    if found is None or np.isnan(found.average_precision).all():
        return []
    roc = "True over false positive rate (ROC)"
    return [
        _figure(found, 0, "precision-recall", "Precision over recall", "recall"),
        _figure(found, 1, "roc", roc, "false positive rate"),
    ]


def _figure(found: Curves, which: int, name: str, title: str, xlabel: str) -> Figure:
    def draw(ax: Axes, palette: Palette) -> None:
        frame(ax, palette, title, xlabel)
        for one in found.each:
            ax.plot(GRID, one[which], color=palette.muted, linewidth=0.6, alpha=0.45, zorder=2)
        for what, curve, colour, style in (
            ("micro", found.micro[which], palette.valid, "-"),
            ("macro", found.macro[which], palette.train, (0, (4, 2))),
        ):
            label = f"{what}, area {auc(GRID, curve):.3f}" if which else what
            ax.plot(GRID, curve, color=colour, linestyle=style, linewidth=1.9, label=label, zorder=3)
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1.02)
        ax.legend(loc="lower right" if which else "lower left", frameon=False, labelcolor=palette.ink, fontsize=9)

    return Figure(name, title, f"{title}, one class against the rest", 5.4, 3.9, draw)
