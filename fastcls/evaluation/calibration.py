"""Whether confidence can be believed: temperature scaling, reliability, Brier score, coverage. NumPy and SciPy only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from fastcls.runfolder.target import SINGLE, Target

SMALLEST = float(np.finfo(np.float32).tiny)  # a probability below this counts as this: its logarithm is finite
HOTTEST = 20.0  # temperatures are sought between this and its reciprocal
FITTED_ON = 20_000_000  # probabilities that a temperature is fitted on: more change its third digit
BLOCK = 4_000_000  # probabilities softened at once, which bounds the memory


def fit_temperature(probabilities: np.ndarray, targets: np.ndarray, seed: int = 0) -> float:
    """The T for which softmax(log p / T) has the least cross-entropy (Guo et al. 2017, section 4.2).

    probabilities (n, classes), targets (n,) class indices. Above 1 the network was too sure of itself. 1 where no
    finite temperature is best: every answer right, or none.
    """
    from scipy.special import logsumexp  # 0.6 s that a plain `fastcls predict` need not wait for

    right = probabilities.argmax(1) == targets
    if right.all() or not right.any():
        return 1.0
    most = max(1, FITTED_ON // probabilities.shape[1])
    if len(targets) > most:
        picked = np.sort(np.random.default_rng(seed).choice(len(targets), most, replace=False))
        probabilities, targets = probabilities[picked], targets[picked]
    logits = SINGLE.logits(probabilities)
    own = logits[np.arange(len(targets)), targets]
    return best_temperature(lambda inverse: np.mean(logsumexp(logits * inverse, axis=1) - own * inverse))


def best_temperature(loss: Callable[[float], float]) -> float:
    """The T, between HOTTEST and its reciprocal, for which loss(1 / T) is least."""
    from scipy.optimize import minimize_scalar

    edge = np.log(HOTTEST)
    found = minimize_scalar(lambda logarithm: loss(np.exp(-logarithm)), bounds=(-edge, edge), method="bounded")
    return float(np.exp(found.x))


def blocks(
    probabilities: np.ndarray, temperature: float, target: Target = SINGLE
) -> Iterator[tuple[slice, np.ndarray]]:
    """The target's `softened`, a block of rows at a time: for splits whose probabilities fill the memory already."""
    step = max(1, BLOCK // probabilities.shape[1])
    for start in range(0, len(probabilities), step):
        rows = slice(start, start + step)
        yield rows, target.softened(probabilities[rows], temperature)


def brier(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The squared distance of each image's probabilities to its label, 0 to 2 (Brier 1950)."""
    own = probabilities[np.arange(len(targets)), targets].astype(float)
    return np.einsum("ij,ij->i", probabilities, probabilities, dtype=float) - 2 * own + 1


def binned(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> np.ndarray:
    """(3, bins): of each equal range of confidence the images, the sum of their confidence, and how many are right."""
    place = np.clip((confidence * bins).astype(int), 0, bins - 1)
    return np.stack([np.bincount(place, weights, bins) for weights in (None, confidence, right)])


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error: |accuracy - confidence|, averaged over the images of each range (Guo et al. 2017)."""
    return error_of(binned(confidence, right))


def error_of(bins: np.ndarray) -> float:
    """The same of what `binned` gives, or of sums of it."""
    counts, sure, hits = bins
    return float(np.abs(hits - sure).sum() / max(1, counts.sum()))


def honest_errors(confidence: np.ndarray, effect: float = 1.0, draws: int = 200, seed: int = 0) -> tuple[float, float]:
    """The calibration error of a network whose confidence is its accuracy, on as many images: mean and 95 % quantile.

    It is not 0, for each range of confidence is an average of few images. By simulation; above 20,000 images, on a part
    of them, from which the error of all follows, for it falls with the root of their number. effect: images that one
    by itself is worth, where they come in groups.
    """
    rng = np.random.default_rng(seed)
    most = 20_000
    part = confidence if len(confidence) <= most else rng.choice(confidence, most, replace=False)
    errors = [calibration_error(part, rng.random(len(part)) < part) for _ in range(draws)]
    scale = np.sqrt(effect * len(part) / max(1, len(confidence)))
    return float(np.mean(errors) * scale), float(np.quantile(errors, 0.95) * scale)


def coverage(confidence: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answering above a threshold only: thresholds, falling; the share of images answered; of those the share right."""
    order = np.argsort(-confidence, kind="stable")
    thresholds, hits = confidence[order], np.cumsum(right[order])
    last = np.append(thresholds[1:] != thresholds[:-1], True)  # images of one confidence are answered together
    answered = np.arange(1, len(order) + 1)
    return thresholds[last], answered[last] / len(order), hits[last] / answered[last]


def fewest(accuracy: float, risk: float = 0.05) -> int:
    """So many images, all of them right, are the least of which `threshold_for` can say that accuracy."""
    n = 1
    while n < (least := math.ceil(_enough(accuracy, n, risk)[1])):
        n = least
    return n


def _enough(accuracy: float, n: int, risk: float) -> tuple[float, float]:
    """Of n images: the risk of each step of `threshold_for`, and how many, all of them right, it needs for one."""
    each = risk / math.ceil(math.log2(n + 1))
    return each, math.log(each) / math.log(accuracy)


def threshold_for(
    accuracy: float, confidence: np.ndarray, right: np.ndarray, risk: float = 0.05, effect: float = 1.0
) -> tuple[float, float] | None:
    """(threshold, share answered): above it new images like these have that accuracy; None if none can be said.

    What is found is wrong in at most a share `risk` of cases. Source: Geifman and El-Yaniv 2017, "Selective
    classification for deep neural networks", algorithm 1: a binary search, each step held to a one-sided exact bound
    (Clopper and Pearson 1934) at `risk` over the number of steps. effect: images that one by itself is worth, where
    they come in groups (`grouped.effect`).
    """
    n = len(confidence)
    if not n:
        return None
    from scipy.special import betaincinv

    thresholds, answered, rightly = coverage(confidence, right)
    counts = np.rint(answered * n)
    each, least = _enough(accuracy, n, risk)
    least *= effect
    low, high, found = int(np.searchsorted(counts, least)), len(counts) - 1, None
    while low <= high:
        middle = (low + high) // 2
        hits, images = np.rint(rightly[middle] * counts[middle]) / effect, counts[middle] / effect
        if betaincinv(hits, images - hits + 1, each) >= accuracy:
            found, low = (float(thresholds[middle]), float(answered[middle])), middle + 1
        else:
            high = middle - 1
    return found
