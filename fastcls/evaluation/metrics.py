"""Figures of one split from its probabilities: each with a 95 % interval and n. NumPy and scikit-learn only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.special import expit, logit

from fastcls.evaluation import calibration

Z = 1.959964  # the 97.5 % point of the normal distribution
WITHOUT = "accuracy_without_leaks"
MACRO = ("macro_precision", "macro_recall", "macro_f1")


def confusion(targets: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Counts (classes × classes), rows are true classes. O(n + classes²) time and memory."""
    return np.bincount(targets * classes + predictions, minlength=classes**2).reshape(classes, classes)


def figures(probabilities: np.ndarray, targets: np.ndarray, temperature: float | None = None) -> dict[str, Any]:
    """All figures of a split; probabilities (n, classes), targets (n,) class indices.

    accuracy, top5 (above five classes): Wilson score intervals. loss: mean cross-entropy (nats); brier: mean squared
    distance to the label, 0 to 2: intervals that are normal for the logarithm. macro precision, recall, F1: over the
    classes that occur, by the jackknife. ece: expected calibration error in 15 equal bins (Guo et al. 2017). With a
    temperature, loss, brier and ece again after scaling by it, as `loss_calibrated` and so on.
    """
    n, classes = probabilities.shape
    predictions = probabilities.argmax(1)
    right = predictions == targets
    losses = cross_entropy(probabilities, targets)
    out: dict[str, Any] = {"n": n, "accuracy": proportion(int(right.sum()), n)}
    if classes > 5:
        top5 = np.argpartition(probabilities, -5, axis=1)[:, -5:]
        out["top5"] = proportion(int((top5 == targets[:, None]).any(1).sum()), n)
    out["loss"] = mean(losses)
    for name, value, low, high in _macro(targets, predictions, classes):
        out[name] = figure(value, low, high, n)
    out["brier"] = mean(calibration.brier(probabilities, targets), 2.0)
    out["ece"] = figure(calibration.calibration_error(probabilities.max(1), right), None, None, n)
    if temperature is not None:
        losses, distances, confidence = (np.empty(n) for _ in range(3))
        for rows, softened in calibration.blocks(probabilities, temperature):
            losses[rows], confidence[rows] = cross_entropy(softened, targets[rows]), softened.max(1)
            distances[rows] = calibration.brier(softened, targets[rows])
        out["loss_calibrated"], out["brier_calibrated"] = mean(losses), mean(distances, 2.0)
        out["ece_calibrated"] = figure(calibration.calibration_error(confidence, right), None, None, n)
    return out


def cross_entropy(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """-log of the probability of the true class, an image each."""
    return -np.log(np.maximum(probabilities[np.arange(len(targets)), targets], calibration.SMALLEST))


def figure(value: float, low: float | None, high: float | None, n: int) -> dict[str, Any]:
    """A value with the ends of its interval and the images that it is of, as metrics.json has it."""
    return {"value": value, "low": low, "high": high, "n": n}


def mean(values: np.ndarray, most: float = np.inf) -> dict[str, Any]:
    """The mean of values from 0 to `most`, and an interval that is normal for its logarithm: no end is below 0."""
    average, n = float(values.mean()), len(values)
    if n < 2 or not average:
        return figure(average, None, None, n)
    factor = float(np.exp(Z * values.std(ddof=1) / np.sqrt(n) / average))
    return figure(average, average / factor, min(most, average * factor), n)


def proportion(successes: int, n: int) -> dict[str, Any]:
    """A share that was counted, with its score interval."""
    return figure(successes / n, *wilson(successes, n), n)


def wilson(successes: int, n: int) -> tuple[float | None, float | None]:
    """The 95 % score interval of a proportion (Wilson 1927); none where there is nothing to count."""
    if not n:
        return None, None
    share = successes / n
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def _macro(targets: np.ndarray, predictions: np.ndarray, classes: int) -> Iterator[tuple[str, float, Any, Any]]:
    """Macro precision, recall and F1 over the classes that occur: (name, value, low, high) with a 95 % interval.

    The delete-one jackknife gives the standard error (Efron and Tibshirani 1993, chapter 11); the interval is normal
    for the logit, so it stays within 0 and 1. Precision is too high on average where a class has few images, by about
    h f r / (h + f)³ with h hits, f false alarms and recall r, for which its interval's centre is corrected: without
    that it covers the truth of 200 classes of 6 images in 68 % of cases. None where nothing varies.
    """
    n = len(targets)
    support, predicted, hits = (
        np.bincount(which, minlength=classes).astype(float)
        for which in (targets, predictions, targets[targets == predictions])
    )
    present = support > 0
    scores = _scores(support, predicted, hits)
    totals = scores[:, present].sum(1)
    # what leaving one image out changes: a right one of a class, a missed one, one that is misclassified as it
    right, missed, alarm = (
        _scores(support - of, predicted - by, hits - hit) - scores for of, by, hit in ((1, 1, 1), (1, 0, 0), (0, 1, 0))
    )
    alarm[:, ~present] = 0.0  # its scores do not count
    change = np.where(targets == predictions, right[:, targets], missed[:, targets] + alarm[:, predictions])
    others = (totals[:, None] + change) / np.maximum(1, present.sum() - (support[targets] == 1))
    errors = np.sqrt((n - 1) / n * np.square(others - others.mean(1, keepdims=True)).sum(1))
    bias = hits * (predicted - hits) * scores[1] / np.maximum(1, predicted) ** 3
    centres = totals / present.sum() - [bias[present].mean(), 0, 0]
    for name, total, centre, error in zip(MACRO, totals, centres, errors, strict=True):
        low = high = None
        if error > 1e-12 and 0 < centre < 1:
            half = Z * error / (centre * (1 - centre))
            low, high = (float(expit(logit(centre) + side * half)) for side in (-1, 1))
        yield name, float(total / present.sum()), low, high


def _scores(support: np.ndarray, predicted: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """(3, classes): precision, recall and F1 of each class, 0 where there is nothing to divide by."""
    parts = ((hits, predicted), (hits, support), (2 * hits, predicted + support))
    return np.stack([np.divide(a, b, out=np.zeros(len(hits)), where=b > 0) for a, b in parts])
