"""How far two settings' accuracies lie apart, and what chance would explain: over seeds, over images, over both."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, variance
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from fastcls.evaluation import grouped
from fastcls.evaluation.metrics import Z, score
from fastcls.runfolder.predictions import GROUP

LEVEL = 0.95  # of every interval
Z_POWER = 0.841621  # the 80 % point of the normal distribution
PAIRS = 3  # seeds in common from which on they are pairs: fewer differences say too little of their spread


@dataclass(frozen=True)
class Run:
    """A run's seed, its accuracy, and which images it classified rightly: booleans by path, read where needed.

    fold: which images were held out, with the run's seed; share: how many of them for each that was trained on.
    """

    seed: int
    accuracy: float
    right: Callable[[], pd.Series]
    fold: str = ""
    share: float = 0.0


@dataclass(frozen=True)
class Difference:
    """Of two mean accuracies, with its 95 % interval (None where there is none) and what that is over."""

    value: float
    low: float | None = None
    high: float | None = None
    over: str = ""  # 'images', 'seeds', 'seeds and images'

    @property
    def shown(self) -> bool:
        """Whether chance hardly explains it."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high

    def text(self, scale: float = 100, digits: int = 2) -> str:
        """'+1.20 (-0.31 to +2.71)', in percentage points or as it is scaled; the value alone without an interval."""
        value, *ends = (
            None if one is None else f"{round(one * scale, digits) or 0.0:+.{digits}f}"
            for one in (self.value, self.low, self.high)
        )
        return str(value) if None in ends else f"{value} ({ends[0]} to {ends[1]})"


@dataclass(frozen=True)
class McNemar:
    """Two networks on the same images: how many each alone gets right, and how likely that is if they were equal."""

    images: int
    only_first: int
    only_second: int
    p: float
    groups: int | None = None  # of images that belong together, where there are groups
    effect: float = 1.0  # of which the variance of the difference is so many times that of as many single images


def difference(ours: Sequence[Run], baseline: Sequence[Run]) -> Difference | None:
    """Mean accuracy less the baseline's, over all runs of both, so that it is the difference of the figures shown.

    Folds: paired where both have the same, and no narrower than over the images, for folds may come out alike by
    chance; rather too wide than too narrow.
    Single runs: over the images; it says nothing of other seeds. Several: the spread over seeds, of pairs where both
    have the same three seeds or more, else pooled over both settings; where all runs were evaluated on the same images,
    their luck is added. Student's t, its degrees of freedom by Satterthwaite 1946.
    """
    from scipy import stats

    sides = [[run.accuracy for run in runs] for runs in (ours, baseline)]
    if not all(sides) or not all(map(math.isfinite, sides[0] + sides[1])):
        return None
    value = fmean(sides[0]) - fmean(sides[1])
    if len(ours) + len(baseline) > 2 and all(run.fold for run in (*ours, *baseline)):
        return _of_folds(value, ours, baseline)
    rights = [[run.right() for run in runs] for runs in (ours, baseline)]
    if len(ours) == len(baseline) == 1:
        return _single(value, rights[0][0], rights[1][0])
    among, freedom = _over_seeds(ours, baseline)
    images = _over_images(*rights)
    total = among + images
    if not total:
        return Difference(value)
    degrees = total**2 * freedom / among**2 if among else math.inf
    half = float(stats.t.ppf((1 + LEVEL) / 2, degrees)) * math.sqrt(total)
    return _bounded(value, value - half, value + half, "seeds and images" if images else "seeds")


def of_folds(folds: Sequence[Run]) -> tuple[float, float] | None:
    """The 95 % interval of a mean accuracy over folds, which may be repeated; None of fewer than two different ones.

    The score interval over the images, or groups, of all folds (Bayle et al. 2020), of as many fewer images as the
    folds of a repeat differ by more than their images explain: then the networks differ, too.
    """
    mean = fmean(run.accuracy for run in folds)
    right = _shares(folds)
    if len({(run.seed, run.fold) for run in folds}) < 2 or right.empty or not math.isfinite(mean):
        return None
    codes = _codes(right, right.index)
    images = len(right) / grouped.effect(right.to_numpy(float), codes)
    repeats = [[run.accuracy for run in folds if run.seed == seed] for seed in {run.seed for run in folds}]
    among = fmean(variance(values) / len(values) if len(values) > 1 else 0.0 for values in repeats)
    return score(mean, min(images, mean * (1 - mean) / among if among else images), grouped.quantile(codes))


def _corrected(values: Sequence[float], share: float) -> float:
    """The variance of a mean over folds, whose networks share most of their images.

    share: images held out for each that was trained on. Source: Nadeau and Bengio 2003, equation 9; of repeated
    cross-validation Bouckaert and Frank 2004.
    """
    return (1 / len(values) + share) * variance(values)


def _of_folds(value: float, ours: Sequence[Run], baseline: Sequence[Run]) -> Difference:
    sides = [{(run.seed, run.fold): run.accuracy for run in runs} for runs in (ours, baseline)]
    if min(map(len, sides)) < 2:
        return Difference(value)
    share = max(run.share for run in (*ours, *baseline))
    if sides[0].keys() == sides[1].keys():
        total = _corrected([sides[0][key] - sides[1][key] for key in sides[0]], share)
    else:
        total = sum(_corrected(list(side.values()), share) for side in sides)
    half = float(stdtrit(min(map(len, sides)) - 1, (1 + LEVEL) / 2)) * math.sqrt(total)
    half = max(half, _half_over_images(ours, baseline))
    return _bounded(value, value - half, value + half, "folds")


def _half_over_images(ours: Sequence[Run], baseline: Sequence[Run]) -> float:
    """Half of the interval of the difference over the images, or groups, that both were evaluated on; 0 of none."""
    shares = [_shares(side) for side in (ours, baseline)]
    gap = (shares[0] - shares[1]).dropna()
    if gap.empty:
        return 0.0
    _, low, high = images_interval(_counted(gap, shares[0]))
    return (high - low) / 2


def _counted(gap: pd.Series, right: pd.Series) -> McNemar:
    """How much of a difference, an image each, is for either side, over the groups of `right` where there are any."""
    counted = McNemar(len(gap), round(-gap[gap < 0].sum()), round(gap[gap > 0].sum()), 1.0)
    return _over_groups(counted, gap, _codes(right, gap.index))


def _shares(folds: Sequence[Run]) -> pd.Series:
    """How many of the networks that were evaluated on an image classify it rightly, and the images' groups."""
    rights = [run.right() for run in folds]
    found = pd.concat(rights).groupby(level=0).mean()
    found.attrs[GROUP] = {path: name for right in rights for path, name in right.attrs.get(GROUP, {}).items()}
    return found


def _over_seeds(ours: Sequence[Run], baseline: Sequence[Run]) -> tuple[float, int]:
    """The variance of the difference that other seeds would make, and its degrees of freedom."""
    ours, baseline = (sorted(runs, key=lambda run: run.seed) for runs in (ours, baseline))
    if len(ours) >= PAIRS and [run.seed for run in ours] == [run.seed for run in baseline]:
        gaps = [one.accuracy - other.accuracy for one, other in zip(ours, baseline, strict=True)]
        return variance(gaps) / len(gaps), len(gaps) - 1
    freedom = len(ours) + len(baseline) - 2
    sums = [sum((run.accuracy - fmean(r.accuracy for r in runs)) ** 2 for run in runs) for runs in (ours, baseline)]
    return sum(sums) / freedom * (1 / len(ours) + 1 / len(baseline)), freedom


def _over_images(ours: Sequence[pd.Series], baseline: Sequence[pd.Series]) -> float:
    """The variance of the difference that other images would make; 0 where the runs' images vary with their seeds."""
    paths = {frozenset(right.index) for right in (*ours, *baseline)}
    if len(paths) > 1:
        return 0.0
    shares = [pd.concat(list(side), axis=1).mean(axis=1) for side in (ours, baseline)]
    gap = shares[0] - shares[1]
    if len(gap) < 2:
        return 0.0
    codes = _codes(ours[0], gap.index)
    wider = 1.0 if codes is None or not gap.any() else grouped.effect(gap.to_numpy(float), codes)
    return float(gap.var(ddof=1) / len(gap)) * wider


def _codes(right: pd.Series, paths: pd.Index) -> np.ndarray | None:
    """The groups of these images, where the run knows of groups."""
    names = right.attrs.get(GROUP)
    return grouped.codes_of([names.get(path, "") for path in paths]) if names else None


def _single(value: float, ours: pd.Series, baseline: pd.Series) -> Difference:
    """Of two runs: paired where they were evaluated on the same images, else as of two samples.

    Source of the latter: Agresti and Caffo 2000, which adds a hit and a miss to each.
    """
    if not len(ours) or not len(baseline):
        return Difference(value)
    if set(ours.index) == set(baseline.index):
        test = _counted(ours.astype(int) - baseline.reindex(ours.index).astype(int), ours)
        return _bounded(value, *images_interval(test)[1:], "groups" if test.groups else "images")
    shares = [(right.sum() + 1, len(right) + 2) for right in (ours, baseline)]
    middle = shares[0][0] / shares[0][1] - shares[1][0] / shares[1][1]
    spread = math.sqrt(sum(k / n * (1 - k / n) / n for k, n in shares))
    half = Z * spread
    return _bounded(value, middle - half, middle + half, "images")


def _bounded(value: float, low: float, high: float, over: str) -> Difference:
    """An interval without differences that no two accuracies have."""
    return Difference(value, max(-1.0, low), min(1.0, high), over)


def independent(ours: Mapping[str, Any], baseline: Mapping[str, Any]) -> Difference:
    """Of two figures of metrics.json on other images each, from their intervals.

    Source: Zou and Donner 2008 (MOVER); of two accuracies this is Newcombe 1998, method 10.
    """
    value = ours["value"] - baseline["value"]
    if any(figure.get(end) is None for figure in (ours, baseline) for end in ("low", "high")):
        return Difference(value)
    below = math.hypot(ours["value"] - ours["low"], baseline["high"] - baseline["value"])
    above = math.hypot(ours["high"] - ours["value"], baseline["value"] - baseline["low"])
    return Difference(value, value - below, value + above, "images")


def paired(first: pd.DataFrame, second: pd.DataFrame) -> McNemar | None:
    """The exact McNemar test of two tables of path, label and prediction; None where they share no image.

    Source: McNemar 1947; exact, as a binomial test of the images that only one of them gets right.
    """
    from scipy import stats

    both = first.merge(second, on="path", suffixes=("_a", "_b"))
    both = both[both["label_a"] == both["label_b"]]
    if both.empty:
        return None
    right_a, right_b = both["prediction_a"] == both["label_a"], both["prediction_b"] == both["label_b"]
    only_a, only_b = int((right_a & ~right_b).sum()), int((~right_a & right_b).sum())
    p = float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    test = McNemar(len(both), only_a, only_b, p)
    codes = grouped.codes_in(both.rename(columns={f"{GROUP}_a": GROUP}))
    return _over_groups(test, right_b.astype(int) - right_a.astype(int), codes)


def _over_groups(test: McNemar, gap: pd.Series, codes: np.ndarray | None) -> McNemar:
    """The test of images that belong together: McNemar's statistic over the design effect, by Student's t."""
    if codes is None:
        return test
    count = len(np.unique(codes))
    apart = test.only_first + test.only_second
    wider = grouped.effect(gap.to_numpy(float), codes) if apart else 1.0
    root = abs(test.only_second - test.only_first) / math.sqrt(apart * wider) if apart else 0.0
    p = max(test.p, 2 * float(stdtr(max(1, count - 1), -root)))
    return replace(test, p=p, groups=count, effect=wider)


def needed(test: McNemar) -> int | None:
    """Images on which a difference as large is shown in 80 % of cases; None where there is no difference.

    Source: Connor 1987, for McNemar's test at 5 %, two-sided, from the shares of images that only one gets right.
    """
    apart, gap = test.only_first + test.only_second, abs(test.only_second - test.only_first)
    if not gap:
        return None
    share, value = apart / test.images, gap / test.images
    return math.ceil(test.effect * (Z * math.sqrt(share) + Z_POWER * math.sqrt(share - value**2)) ** 2 / value**2)


def images_interval(test: McNemar) -> tuple[float, float, float]:
    """Difference in accuracy, second less first, and its 95 % interval over the images, or over their groups.

    Source: Agresti and Min 2005, for paired proportions: half a picture is added to each cell of the 2 × 2 table.
    """
    first, second, n = test.only_first + 0.5, test.only_second + 0.5, test.images + 2
    middle = (second - first) / n
    half = Z * math.sqrt(test.effect * (first + second - (second - first) ** 2 / n)) / n
    if test.groups:
        half *= float(stdtrit(max(1, test.groups - 1), (1 + LEVEL) / 2)) / Z
    return (test.only_second - test.only_first) / test.images, middle - half, middle + half
