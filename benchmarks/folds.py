"""How often intervals over folds contain the truth, and what the folds of a probe cost.

python -m benchmarks.folds [--draws 600]                          the former, by simulation
python -m benchmarks.folds --cost PETS WEIGHTS              the latter, and a bare pass, in CPU time

Nearest-centroid classifiers on Gaussian classes, and the difference between one and another that sees fewer features:
the intervals of a comparison, and those over the images alone. The truth is the mean accuracy, on 20,000 new images,
of classifiers that were trained on as many images as a fold's.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial

import numpy as np
import pandas as pd

from fastcls.comparison.differences import Run, _half_over_images, difference, of_folds
from fastcls.evaluation.metrics import proportion

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
        sides = [runs(values, out, side, fold) for side in (0, 1)]
        images, over = proportion(round(out[0].sum()), n), difference(*sides)
        half = _half_over_images(*sides)
        found.append((*of_folds(sides[0]), images["low"], images["high"]))
        found[-1] += (over.low, over.high, over.value - half, over.value + half)
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


NETWORK = "tf_efficientnet_lite0"


def cost(pets: str, weights: str) -> None:
    """CPU seconds of five folds of the pets that are not for the end, with everything, and of the network on all pets.

    The pass is over decoded images, in a process of its own, without imports: before the folds, and after them.
    """
    passes = [_processor(["-m", "benchmarks.folds", "--pass", pets, weights], count=False)]
    with tempfile.TemporaryDirectory() as out:
        words = ["compare", "pets-resnet50", "--path", pets, "--arch", NETWORK, "--weights", weights, "--tune", "probe"]
        words += ["--folds", "5", "--precision", "fp32", "--split", "official", "--no-test", "--out", f"{out}/folds"]
        spent = _processor(["-m", "fastcls", *words], count=True)
    passes.append(_processor(["-m", "benchmarks.folds", "--pass", pets, weights], count=False))
    print(f"folds {spent:.0f} s, bare pass {passes[0]:.0f} and {passes[1]:.0f} s: {2 * spent / sum(passes):.2f} times")


def _processor(words: list[str], count: bool) -> float:
    """Seconds of the processor that this Python process took, or that it says a part of it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = subprocess.run([sys.executable, *words], check=True, stdout=subprocess.PIPE, text=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime if count else float(said.split()[-1])


def bare_pass(pets: str, weights: str) -> float:
    """CPU seconds of the network on every image, decoded before."""
    import torch

    from fastcls import recipe

    learn = recipe("pets-resnet50").get_learner(path=pets, arch=NETWORK, weights=weights, valid_pct=0.5)
    network = learn.model.eval()
    spent = 0.0
    loaders = [learn.dls.valid, learn.dls.valid.new(learn.dls.train_ds)]
    with torch.no_grad():
        for loader in loaders:
            for batch in loader:
                started = time.process_time()
                network(batch[0].as_subclass(torch.Tensor))
                spent += time.process_time() - started
    assert sum(loader.n for loader in loaders) == 1470
    return spent


def main() -> None:
    if sys.argv[1:2] == ["--cost"]:
        return cost(*sys.argv[2:])
    if sys.argv[1:2] == ["--pass"]:
        return print(bare_pass(*sys.argv[2:]))
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
