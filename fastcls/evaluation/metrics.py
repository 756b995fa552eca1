"""Figures of one split from its probabilities: each with a 95 % interval and n. NumPy and scikit-learn only."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastcls.evaluation import calibration

Z = 1.959964  # the 97.5 % point of the normal distribution
RESAMPLES = 200


def confusion(targets: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Counts (classes × classes), rows are true classes. O(n + classes²) time and memory."""
    return np.bincount(targets * classes + predictions, minlength=classes**2).reshape(classes, classes)


def figures(
    probabilities: np.ndarray, targets: np.ndarray, temperature: float | None = None, seed: int = 0
) -> dict[str, Any]:
    """All figures of a split; probabilities (n, classes), targets (n,) class indices.

    accuracy, top5 (above five classes): Wilson score intervals. loss: mean cross-entropy (nats) ± normal
    interval. macro precision, recall, F1: over the classes that occur, percentile bootstrap over images.
    brier: mean squared distance to the label, 0 to 2. ece: expected calibration error in 15 equal bins (Guo et al.
    2017). With a temperature, loss, brier and ece again after scaling by it, as `loss_calibrated` and so on.
    """
    n, classes = probabilities.shape
    predictions = probabilities.argmax(1)
    right = predictions == targets
    losses = cross_entropy(probabilities, targets)
    out: dict[str, Any] = {"n": n, "accuracy": _proportion(int(right.sum()), n)}
    if classes > 5:
        top5 = np.argpartition(probabilities, -5, axis=1)[:, -5:]
        out["top5"] = _proportion(int((top5 == targets[:, None]).any(1).sum()), n)
    out["loss"] = _mean(losses)
    for name, value, low, high in _macro(targets, predictions, classes, seed):
        out[name] = _figure(value, low, high, n)
    out["brier"] = _mean(calibration.brier(probabilities, targets))
    out["ece"] = _figure(calibration.calibration_error(probabilities.max(1), right), None, None, n)
    if temperature is not None:
        losses, distances, confidence = (np.empty(n) for _ in range(3))
        for rows, softened in calibration.blocks(probabilities, temperature):
            losses[rows], confidence[rows] = cross_entropy(softened, targets[rows]), softened.max(1)
            distances[rows] = calibration.brier(softened, targets[rows])
        out["loss_calibrated"], out["brier_calibrated"] = _mean(losses), _mean(distances)
        out["ece_calibrated"] = _figure(calibration.calibration_error(confidence, right), None, None, n)
    return out


def cross_entropy(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """-log of the probability of the true class, an image each."""
    return -np.log(np.clip(probabilities[np.arange(len(targets)), targets], 1e-12, None))


def _figure(value: float, low: float | None, high: float | None, n: int) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": n}


def _mean(values: np.ndarray) -> dict[str, Any]:
    """A mean and its normal interval."""
    mean, n = float(values.mean()), len(values)
    error = float(Z * values.std(ddof=1) / np.sqrt(n)) if n > 1 else None
    return _figure(mean, None if error is None else mean - error, None if error is None else mean + error, n)


def _proportion(successes: int, n: int) -> dict[str, Any]:
    return _figure(successes / n, *wilson(successes, n), n)


def wilson(successes: int, n: int) -> tuple[float | None, float | None]:
    """The 95 % score interval of a proportion (Wilson 1927); none where there is nothing to count."""
    if not n:
        return None, None
    share = successes / n
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def _macro(
    targets: np.ndarray, predictions: np.ndarray, classes: int, seed: int
) -> list[tuple[str, float, float, float]]:
    names = ("macro_precision", "macro_recall", "macro_f1")
    values = _macro_of(targets, predictions, classes)
    rng = np.random.default_rng(seed)
    samples = np.array(
        [
            _macro_of(targets[pick], predictions[pick], classes)
            for pick in (rng.integers(0, len(targets), len(targets)) for _ in range(RESAMPLES))
        ]
    )
    low, high = np.percentile(samples, [2.5, 97.5], axis=0)
    bounds = zip(values, low.tolist(), high.tolist(), strict=True)
    return [(name, *row) for name, row in zip(names, bounds, strict=True)]


def _macro_of(targets: np.ndarray, predictions: np.ndarray, classes: int) -> tuple[float, float, float]:
    """Macro precision, recall and F1 over the classes that occur among the targets, in O(n + classes)."""
    support, predicted, hits = (
        np.bincount(which, minlength=classes) for which in (targets, predictions, targets[targets == predictions])
    )
    present = support > 0
    precision = np.divide(hits, predicted, out=np.zeros(len(hits)), where=predicted > 0)
    recall = np.divide(hits, support, out=np.zeros(len(hits)), where=present)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros(len(hits)), where=total > 0)
    return float(precision[present].mean()), float(recall[present].mean()), float(f1[present].mean())
