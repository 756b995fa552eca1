"""Whether new images look like old ones: class shares, measurements of the pictures, a network's features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fastcls.evaluation.slices import holm

MOST = 1000  # images of each side that are compared
FEWEST = 20
DRAWS = 9999
FOLDS, COMPONENTS = 5, 100
SHARES, FEATURES = "class shares", "features"


@dataclass(frozen=True)
class Gap:
    """One thing that two samples of images were compared by; p is corrected for how many there were (Holm).

    old, new: medians; of FEATURES chance, and how often a classifier tells on which side an image is; else None.
    """

    name: str
    p: float
    old: float | None = None
    new: float | None = None

    @property
    def shown(self) -> bool:
        """Whether chance hardly explains it."""
        return self.p < 0.05


def matched(old: np.ndarray, new: np.ndarray, most: int = MOST) -> tuple[np.ndarray, np.ndarray]:
    """Positions in two arrays of labels, as many of each class on both sides, so that no class makes a difference."""
    rng = np.random.default_rng(0)
    pairs: list[np.ndarray] = []
    for name in np.intersect1d(old, new):
        sides = [rng.permutation(np.flatnonzero(side == name)) for side in (old, new)]
        n = min(map(len, sides))
        pairs.append(np.stack([side[:n] for side in sides], axis=1))
    both = rng.permutation(np.concatenate(pairs))[:most] if pairs else np.empty((0, 2), int)
    return both[:, 0], both[:, 1]


def gaps(
    labels: tuple[np.ndarray, np.ndarray],
    measured: Mapping[str, tuple[np.ndarray, np.ndarray]],
    features: tuple[np.ndarray, np.ndarray] | None,
) -> list[Gap]:
    """What two samples, old and new, were compared by, and how surely they differ.

    labels: of all images. measured: numbers by name, features (n, d): of `matched` images. Numbers are compared by the
    test of Kolmogorov and Smirnov, class shares by drawing both samples from one urn, features by a classifier that is
    to tell the samples apart (Lopez-Paz and Oquab 2017).
    """
    from scipy.stats import ks_2samp

    found = {SHARES: Gap(SHARES, _shares(*labels))}
    for name, (old, new) in measured.items():
        found[name] = Gap(name, float(ks_2samp(old, new).pvalue), float(np.median(old)), float(np.median(new)))
    if features is not None:
        right, n = told_apart(*features)
        from scipy.stats import binomtest

        found[FEATURES] = Gap(FEATURES, float(binomtest(right, n, alternative="greater").pvalue), 0.5, right / n)
    corrected = holm({name: gap.p for name, gap in found.items()})
    return [Gap(gap.name, corrected[name], gap.old, gap.new) for name, gap in found.items()]


def _shares(old: np.ndarray, new: np.ndarray) -> float:
    """The p-value of as different class shares, by DRAWS of the new images from all of both."""
    _, codes = np.unique(np.concatenate([old, new]), return_inverse=True)
    total = np.bincount(codes)
    expected = total * len(new) / len(codes)
    drawn = np.random.default_rng(0).multivariate_hypergeometric(total, len(new), size=DRAWS, method="marginals")
    distances = (np.square(drawn - expected) / expected).sum(1)
    own = (np.square(np.bincount(codes[len(old) :], minlength=len(total)) - expected) / expected).sum()
    return float(1 + (distances >= own - 1e-9).sum()) / (1 + DRAWS)


def told_apart(old: np.ndarray, new: np.ndarray) -> tuple[int, int]:
    """How many images a classifier puts on the right side, cross-validated, of as many of each: (right, n)."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, side = np.concatenate([old, new]).astype(np.float64), np.repeat([0, 1], [len(old), len(new)])
    most = min(COMPONENTS, x.shape[1], len(x) // 4)
    fewer = PCA(most, random_state=0).fit_transform(x)  # knows nothing of the sides
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    return int((cross_val_predict(model, fewer, side, cv=folds) == side).sum()), len(x)
