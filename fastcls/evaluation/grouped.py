"""Intervals over groups: images of one patient or burst are right or wrong together, and say less than as many alone.

Every interval keeps its centre and its scale and widens by the design effect: how much more the mean varies when whole
groups are drawn than when images are (Kish 1965). A proportion is the score interval of as many independent images as
the groups are worth (Franco, Little, Louis and Slud 2019); quantiles are Student's, of as many groups less one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.special import expit, logit, stdtrit

from fastcls.evaluation import calibration, metrics
from fastcls.runfolder.predictions import GROUP

BLOCK = 1000  # groups that are left out at a time


def codes_of(names: Sequence[str] | None) -> np.ndarray | None:
    """A number for each name's group, one of its own where it is empty; None where every image is alone, or unknown."""
    if names is None:
        return None
    place: dict[object, int] = {}
    codes = [place.setdefault(name or (i,), len(place)) for i, name in enumerate(names)]
    return np.array(codes) if len(place) < len(codes) else None


def codes_in(table: Any) -> np.ndarray | None:
    """`codes_of` the images of a table of predictions; None where it knows of no groups."""
    return codes_of(table[GROUP].tolist()) if GROUP in table else None


def within(codes: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    """The groups of some of the images, where there are any."""
    return None if codes is None else codes[rows]


def effect(values: np.ndarray, codes: np.ndarray | None) -> float:
    """The variance of the mean when groups are drawn, over that when images are; at least 1, and 1 without groups.

    Where no value differs from another, nothing says how alike a group's images are: then all of them are one.
    """
    if codes is None:
        return 1.0
    n, count = len(values), len(np.unique(codes))
    alone = values.var(ddof=1) / n if n > 1 else 0.0
    if count < 2 or not alone > 0:
        return n / max(1, count)
    sums = np.bincount(codes, values - values.mean())
    return max(1.0, float(count / (count - 1) * np.square(sums).sum() / n**2 / alone))


def quantile(codes: np.ndarray | None) -> float:
    """The 97.5 % point of Student's t for these groups, in place of the normal distribution's; that without groups."""
    return metrics.Z if codes is None else float(stdtrit(max(1, len(np.unique(codes)) - 1), 0.975))


def proportion(right: np.ndarray, codes: np.ndarray | None) -> tuple[float, float]:
    """The 95 % interval of the share that is right, over groups where there are any; of one image at least."""
    return metrics.score(float(right.mean()), len(right) / effect(right.astype(float), codes), quantile(codes))


def half_width(values: np.ndarray, codes: np.ndarray | None) -> float:
    """Half of the 95 % interval of a mean, over groups where there are any; infinite for a single image."""
    if len(values) < 2:
        return np.inf
    return float(quantile(codes) * np.sqrt(effect(values, codes) * values.var(ddof=1) / len(values)))


def area(known: np.ndarray, others: np.ndarray, codes: np.ndarray | None) -> tuple[float, float, float]:
    """How often a score of `others` is above one of `known`, the area under the ROC curve, and its 95 % interval.

    codes: the groups of the known ones. The variance is that of both samples' means of pairs (DeLong et al. 1988), over
    groups as Obuchowski 1997 has it; the interval is the score interval of as many independent pairs.
    """
    above, below = _share_below(others, known), 1 - _share_below(known, others)
    value, t = float(above.mean()), quantile(codes)
    count = min(len(others), len(known) if codes is None else len(np.unique(codes)))
    error = np.hypot(half_width(above, None) / metrics.Z, half_width(below, codes) / t)
    worth = value * (1 - value) / error**2 if error > 0 else count
    return value, *metrics.score(value, max(1.0, min(worth, len(known) * len(others))), t)


def _share_below(values: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The share of `scores` below each value, equal ones by half."""
    order = np.sort(scores)
    places = np.searchsorted(order, values, "left") + np.searchsorted(order, values, "right")
    return places / 2 / len(order)


def widen(
    figures: dict[str, Any],
    probabilities: np.ndarray,
    targets: np.ndarray,
    temperature: float | None,
    codes: np.ndarray,
) -> None:
    """Have the figures of `metrics.figures` of these images their intervals over groups, and say over how many."""
    t = quantile(codes)
    right = (probabilities.argmax(1) == targets).astype(float)
    shares = {"accuracy": right}
    if "top5" in figures:
        best = np.argpartition(probabilities, -5, axis=1)[:, -5:]
        shares["top5"] = (best == targets[:, None]).any(1).astype(float)
    figures |= {name: share(values, codes) for name, values in shares.items()}
    means = {"loss": metrics.cross_entropy(probabilities, targets), "brier": calibration.brier(probabilities, targets)}
    if temperature is not None:
        losses, distances, _ = metrics.scaled(probabilities, targets, temperature)
        means |= {"loss_calibrated": losses, "brier_calibrated": distances}
    for name, values in means.items():
        figures[name] = mean(values, codes, 2.0 if name.startswith("brier") else np.inf)
    errors = _macro_errors(probabilities.argmax(1), targets, probabilities.shape[1], codes)
    for name, error in zip(metrics.MACRO, errors, strict=True):
        one = figures[name]
        if one["low"] is not None and one["low"] > 0 and one["high"] < 1:
            low, high = logit(one["low"]), logit(one["high"])
            centre, half = expit((low + high) / 2), (high - low) / 2
            wide = max(half, t * error / (centre * (1 - centre)))
            one["low"], one["high"] = (float(expit((low + high) / 2 + side * wide)) for side in (-1, 1))
    say(figures, codes)


def share(right: np.ndarray, codes: np.ndarray | None) -> dict[str, Any]:
    """The share that is right as metrics.json has it, its interval over groups where there are any."""
    found = metrics.figure(float(right.mean()), *proportion(right, codes), len(right))
    return found if codes is None else {**found, "groups": len(np.unique(codes))}


def mean(values: np.ndarray, codes: np.ndarray | None, most: float = np.inf) -> dict[str, Any]:
    """The mean of values from 0 to `most`, an image each, as metrics.json has it."""
    n = len(values)
    deviation = float(values.std(ddof=1)) if n > 1 else 0.0
    wider = float(np.sqrt(effect(values, codes)) * quantile(codes) / metrics.Z)
    return metrics.mean(float(values.mean()), deviation * wider, n, most)


def say(figures: Mapping[str, Any], codes: np.ndarray) -> None:
    """Note in all figures with an interval over how many groups it is."""
    count = len(np.unique(codes))
    for one in figures.values():
        if isinstance(one, dict) and one.get("low") is not None:
            one["groups"] = count


def _macro_errors(predictions: np.ndarray, targets: np.ndarray, classes: int, codes: np.ndarray) -> np.ndarray:
    """The standard errors of macro precision, recall and F1 by the delete-one-group jackknife."""
    _, codes = np.unique(codes, return_inverse=True)
    count = int(codes.max()) + 1
    parts = [(targets, slice(None)), (predictions, slice(None)), (targets, predictions == targets)]
    whole = np.stack([np.bincount(which[at], minlength=classes) for which, at in parts]).astype(float)
    found = np.empty((3, count))
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[order], np.arange(0, count + BLOCK, BLOCK))
    for block, (start, end) in enumerate(pairwise(ends)):
        rows, first = order[start:end], block * BLOCK
        size = min(BLOCK, count - first)
        left = []
        for total, (which, at) in zip(whole, parts, strict=True):
            mask = np.ones(len(rows), bool) if isinstance(at, slice) else at[rows]
            place = (codes[rows][mask] - first) * classes + which[rows][mask]
            left.append(total - np.bincount(place, minlength=size * classes).reshape(size, classes))
        support, predicted, hits = left
        present = np.maximum(1, (support > 0).sum(1))
        pairs = ((hits, predicted), (hits, support), (2 * hits, predicted + support))
        for i, (a, b) in enumerate(pairs):
            shares = np.divide(a, b, out=np.zeros_like(a), where=(b > 0) & (support > 0))
            found[i, first : first + size] = shares.sum(1) / present
    return np.sqrt((count - 1) / count * np.square(found - found.mean(1, keepdims=True)).sum(1))
