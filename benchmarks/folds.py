"""How often intervals over folds contain the truth, by simulation: python -m benchmarks.folds [--draws 600]

Nearest-centroid classifiers on Gaussian classes, and the difference between one and another that sees fewer features:
Nadeau and Bengio's interval over the folds, and one over the images. The truth is the mean accuracy, on 20,000 new
images, of classifiers that were trained on as many images as a fold's.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import pandas as pd

from fastcls.comparison.differences import Run, difference, of_folds
from fastcls.evaluation.metrics import Z, proportion

# images, features, classes, spread of the classes
CASES = ((200, 5, 4, 0.6), (200, 50, 4, 0.3), (1000, 20, 10, 0.4), (500, 50, 10, 0.35), (150, 10, 3, 1.2))
PLANS = ((5, 1), (5, 3), (10, 1))  # folds, repeats
FEWER = (0.6, 0.9)  # of the features, which the second classifier sees
TRUTHS = 60  # draws that the truth is the mean of


class Problem:
    """Gaussian classes, and the two classifiers."""

    def __init__(self, rng: np.random.Generator, features: int, classes: int, spread: float, fewer: float) -> None:
        self.rng, self.centres = rng, rng.normal(size=(classes, features)) * spread
        self.kept = int(features * fewer)
        self.new = self.draw(20_000)

    def draw(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        y = np.arange(n) % len(self.centres)
        return self.centres[y] + self.rng.normal(size=(n, self.centres.shape[1])), y

    def right(self, x: np.ndarray, y: np.ndarray, to: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """(2, n): which of `to` the two classifiers, trained on x and y, classify rightly."""
        means = np.stack([x[y == label].mean(0) for label in range(len(self.centres))])
        both = []
        for part in (slice(None), slice(self.kept)):
            distance = np.square(means[:, part]).sum(1) - 2 * to[0][:, part] @ means[:, part].T
            both.append(distance.argmin(1) == to[1])
        return np.stack(both).astype(float)

    def folds(self, y: np.ndarray, k: int) -> np.ndarray:
        found = np.empty(len(y), int)
        for label in range(len(self.centres)):
            own = np.flatnonzero(y == label)
            found[self.rng.permutation(own)] = np.arange(len(own)) % k
        return found


def covered(problem: Problem, n: int, k: int, repeats: int, draws: int) -> tuple[float, float, float, float]:
    """Shares of intervals that contain the truth: of the accuracy over folds and images, of the difference likewise."""
    truths, found = [], []
    for draw in range(draws):
        x, y = problem.draw(n)
        values, out = [], np.zeros((2, n))
        for _ in range(repeats):
            fold = problem.folds(y, k)
            for held in (fold == one for one in range(k)):
                right = problem.right(x[~held], y[~held], (x[held], y[held]))
                values.append(right.mean(1))
                out[:, held] += right / repeats
        if draw < TRUTHS:
            held = problem.folds(y, k) == 0
            truths.append(problem.right(x[~held], y[~held], problem.new).mean(1))
        accuracies = [float(a) for a, _ in values]
        gap = out[0] - out[1]
        of_images, half = proportion(round(out[0].sum()), n), Z * np.sqrt(gap.var(ddof=1) / n)
        found.append((*of_folds(accuracies, 1 / (k - 1), n), of_images["low"], of_images["high"]))
        over = difference(*(runs(values, out, side, fold) for side in (0, 1)))
        found[-1] += (over.low, over.high, gap.mean() - half, gap.mean() + half)
    accuracy, other = np.mean(truths, axis=0)
    bounds = np.array(found)
    truth = (accuracy, accuracy, accuracy - other, accuracy - other)
    shares = [float(((bounds[:, 2 * i] <= t) & (t <= bounds[:, 2 * i + 1])).mean()) for i, t in enumerate(truth)]
    return shares[0], shares[1], shares[2], shares[3]


def runs(values: list[np.ndarray], out: np.ndarray, side: int, fold: np.ndarray) -> list[Run]:
    """The runs of one classifier, a fold each; what each image gets is the mean of all repeats."""
    k = int(fold.max()) + 1
    held = [pd.Series(out[side, fold == one], np.flatnonzero(fold == one).astype(str)) for one in range(k)]
    return [
        Run(i // k, float(value[side]), partial(held.__getitem__, i % k), f"{i % k + 1}/{k}", 1 / (k - 1))
        for i, value in enumerate(values)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=600)
    draws = parser.parse_args().draws
    rng = np.random.default_rng(0)
    print("images features classes spread folds repeats fewer | accuracy: folds images | difference: folds images")
    for n, features, classes, spread in CASES:
        for k, repeats in PLANS:
            for fewer in FEWER:
                problem = Problem(rng, features, classes, spread, fewer)
                shares = covered(problem, n, k, repeats, draws)
                print(n, features, classes, spread, k, repeats, fewer, "|", *(f"{share:.3f}" for share in shares))


if __name__ == "__main__":
    main()
