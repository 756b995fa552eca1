"""Whether new images look like old ones: class shares, measurements of the pictures, a network's features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fastcls.evaluation import grouped
from fastcls.evaluation.slices import holm

MOST = 1000  # images of each side that are compared
FEWEST = 20
DRAWS, DRAWS_OF_GROUPS = 9999, 1999
BLOCK = 4_000_000  # numbers that are drawn at once
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
    codes: tuple[np.ndarray, np.ndarray] | None = None,
    matched_codes: tuple[np.ndarray, np.ndarray] | None = None,
) -> list[Gap]:
    """What two samples, old and new, were compared by, and how surely they differ.

    labels: of all images. measured: numbers by name, features (n, d): of `matched` images. Numbers are compared by the
    test of Kolmogorov and Smirnov, class shares by drawing both samples from one urn, features by a classifier that is
    to tell the samples apart (Lopez-Paz and Oquab 2017). codes, matched_codes: the group of each image, where there are
    any: whole groups are drawn, those that the classifier has seen are not asked of it, and images count as the
    independent ones that their groups are worth.
    """
    from scipy.stats import binomtest

    found = {SHARES: Gap(SHARES, _shares(*labels) if codes is None else _shares_of_groups(labels, codes))}
    for name, (old, new) in measured.items():
        found[name] = Gap(name, _differ(old, new, matched_codes), float(np.median(old)), float(np.median(new)))
    if features is not None and (hits := told_apart(*features, matched_codes)) is not None:
        worth = grouped.effect(hits.astype(float), None if matched_codes is None else np.concatenate(matched_codes))
        right, n = round(hits.sum() / worth), round(len(hits) / worth)
        p = float(binomtest(right, n, alternative="greater").pvalue)
        found[FEATURES] = Gap(FEATURES, p, 0.5, float(hits.mean()))
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


def _shares_of_groups(labels: tuple[np.ndarray, np.ndarray], codes: tuple[np.ndarray, np.ndarray]) -> float:
    """As `_shares`, by draws of as many of the groups as are new."""
    _, of = np.unique(np.concatenate(labels), return_inverse=True)
    units = [np.unique(own, return_inverse=True)[1] for own in codes]
    olds = int(units[0].max()) + 1
    unit = np.concatenate([units[0], olds + units[1]])
    counts = np.zeros((int(unit.max()) + 1, int(of.max()) + 1))
    np.add.at(counts, (unit, of), 1)
    total, n, news = counts.sum(0), counts.sum(), len(counts) - olds

    def distances(drawn: np.ndarray) -> np.ndarray:
        expected = total * drawn.sum(1, keepdims=True) / n
        return (np.square(drawn - expected) / (expected * (1 - expected / total))).sum(1)

    own = distances(counts[None, olds:].sum(1))[0]
    rng, step, above = np.random.default_rng(0), max(1, BLOCK // len(counts)), 0
    for start in range(0, DRAWS_OF_GROUPS, step):
        ranks = rng.random((min(step, DRAWS_OF_GROUPS - start), len(counts))).argsort(1)
        above += int((distances((ranks < news) @ counts) >= own - 1e-9).sum())
    return (1 + above) / (1 + DRAWS_OF_GROUPS)


def _differ(old: np.ndarray, new: np.ndarray, codes: tuple[np.ndarray, np.ndarray] | None) -> float:
    """The p-value of Kolmogorov and Smirnov's test, over groups of as many images as these are worth by their ranks."""
    from scipy.stats import ks_2samp, kstwo, rankdata

    test = ks_2samp(old, new)
    if codes is None:
        return float(test.pvalue)
    ranks = np.split(rankdata(np.concatenate([old, new])), [len(old)])
    a, b = (len(rank) / grouped.effect(rank, own) for rank, own in zip(ranks, codes, strict=True))
    return float(kstwo.sf(test.statistic, max(1, round(a * b / (a + b)))))


def told_apart(
    old: np.ndarray, new: np.ndarray, codes: tuple[np.ndarray, np.ndarray] | None = None
) -> np.ndarray | None:
    """Of as many images of each side whether a classifier puts them on the right one, cross-validated.

    None where there are too few groups to leave some of each side out.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, side = np.concatenate([old, new]).astype(np.float64), np.repeat([0, 1], [len(old), len(new)])
    most = min(COMPONENTS, x.shape[1], len(x) // 4)
    fewer = PCA(most, random_state=0).fit_transform(x)  # knows nothing of the sides
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    kind, count = StratifiedKFold, FOLDS
    if codes is not None:
        kind, count = StratifiedGroupKFold, min(FOLDS, *(len(np.unique(own)) for own in codes))
        if count < 2:
            return None
    folds = kind(count, shuffle=True, random_state=0)
    groups = None if codes is None else np.concatenate(codes)
    return cross_val_predict(model, fewer, side, groups=groups, cv=folds) == side
