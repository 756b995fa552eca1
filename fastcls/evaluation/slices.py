"""Accuracy in parts of the images: by site, by camera, by age, by whatever else a table says of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from fastcls.datasets import newer
from fastcls.evaluation import grouped

FEWEST = 5  # images of a value, below which it is left out
BINS, MOST = 4, 10  # by the quantiles of a column of more different numbers or dates than these
SAME_KIND = 0.9  # of the values of a column, from which on it is one of numbers or dates: the others are "unknown" say
EMPTY = "(empty)"
LEVEL = 0.05


@dataclass(frozen=True)
class Slice:
    """The images of one value of a column, how many are classified rightly, and of all others the share that is.

    low, high: the 95 % interval of its accuracy. expected: the accuracy that the others have on its classes. p: that of
    a difference to the others, corrected for how many slices were looked at.
    """

    column: str
    value: str
    n: int
    right: int
    low: float
    high: float
    others: float
    expected: float | None
    p: float

    @property
    def accuracy(self) -> float:
        return self.right / self.n

    @property
    def shown(self) -> bool:
        """Whether chance hardly explains the difference to the others."""
        return self.p < LEVEL


def slices(
    right: np.ndarray, labels: np.ndarray, columns: pd.DataFrame, codes: np.ndarray | None = None
) -> tuple[list[Slice], list[str]]:
    """The slices, those that are shown to be worse than the rest first, then by accuracy; and what was left out.

    right (n,) booleans; labels (n,); columns: text, a row an image. A value is compared with the rest by Fisher's exact
    test, all of them corrected after Holm 1979; of a column of two values the two tests are one. codes (n,): the group
    of each image; then images count as the independent ones that their groups are worth.
    """
    from scipy.stats import fisher_exact

    found: list[tuple[Hashable, Slice]] = []
    notes: list[str] = []
    tests: dict[Hashable, float] = {}
    for at, title in enumerate(columns):
        column = str(title)
        values, note = _values(columns.iloc[:, at])
        counts = values.value_counts()
        few = counts[counts < FEWEST]
        if len(few):
            note += f" {len(few):,} of its values with fewer than {FEWEST} images are left out."
        if note:
            notes.append(f"{column}:{note}")
        for value, n in counts[counts >= FEWEST].items() if len(counts) > 1 else ():
            own = (values == value).to_numpy()
            hits, rest = int(right[own].sum()), right[~own]
            test: Hashable = column if len(counts) == 2 else (column, value)
            table = [[hits, n - hits], [int(rest.sum()), int((~rest).sum())]]
            if codes is not None:
                for side, at_side in zip(table, (own, ~own), strict=True):
                    worth = grouped.effect(right[at_side].astype(float), codes[at_side])
                    side[:] = [round(count / worth) for count in side]
            tests[test] = float(fisher_exact(table).pvalue)
            of_class = pd.Series(rest).groupby(labels[~own]).mean()
            expected = pd.Series(labels[own]).map(of_class).mean()
            low, high = grouped.proportion(right[own], grouped.within(codes, own))
            usual = None if np.isnan(expected) else float(expected)
            found.append((test, Slice(column, str(value), int(n), hits, low, high, float(rest.mean()), usual, 1.0)))
    corrected = holm(tests)
    rows = [replace(one, p=corrected[test]) for test, one in found]
    return sorted(rows, key=lambda one: (not (one.shown and one.accuracy < one.others), one.accuracy)), notes


def _values(texts: pd.Series) -> tuple[pd.Series, str]:
    """The value of each image, that of numbers and dates one of a few ranges; and why there is none, or nothing."""
    known = texts[texts != ""]
    different = known.nunique()
    if different > MOST and (ranges := _ranges(known)) is not None:
        return ranges.reindex(known.index).fillna(known).reindex(texts.index).fillna(EMPTY), ""
    if different > len(texts) / 2:
        return texts.iloc[:0], f" {different:,} different values in {len(texts):,} images, too many for slices."
    if texts.nunique() < 2:
        return texts.iloc[:0], f" the same value, {(texts.iloc[0] or EMPTY)!r}, for all images."
    return texts.where(texts != "", EMPTY), ""


def _ranges(known: pd.Series) -> pd.Series | None:
    """The range that a number or a date is in, nothing of any other text; None where these are too many.

    Dates of a few days are these days; of a single day, its hours.
    """
    numbers = pd.to_numeric(known, errors="coerce").replace([np.inf, -np.inf], np.nan)
    if numbers.notna().mean() >= SAME_KIND:
        return _quarters(numbers.dropna(), "{:.10g}".format)
    dates, unclear = newer.dates(known)
    if unclear.any():
        return None
    form = "{:%Y-%m-%d}"
    if dates.isna().all():
        dates = pd.to_datetime(known, errors="coerce", format="mixed").where(known.str.match(r"\d{1,2}:\d\d"))
        form = "{:%H:%M:%S}"
    moments = dates.dropna()
    if len(moments) < SAME_KIND * len(known):
        return None
    days = moments.dt.normalize()
    if days.nunique() == 1:
        form = "{:%H:%M:%S}"
    elif days.nunique() <= MOST:
        return days.map("{:%Y-%m-%d}".format)
    else:
        moments = days
    return _quarters(moments, form.format)


def _quarters(found: pd.Series, text: Callable[[object], str]) -> pd.Series:
    """The names of BINS ranges of about as many values each; of two where nearly all are one value, the ends."""
    bins = pd.qcut(found, BINS, labels=False, duplicates="drop")
    if bins.nunique() < 2:
        bins = found > found.min() if found.median() == found.min() else found == found.max()
    ends = found.groupby(bins).agg(["min", "max"])
    names = {at: text(low) if low == high else f"{text(low)} to {text(high)}" for at, low, high in ends.itertuples()}
    return bins.map(names)


def holm(tests: Mapping[Hashable, float]) -> dict[Hashable, float]:
    """p-values corrected for how many there are (Holm 1979): one below 0.05 by chance in at most 5 % of families."""
    corrected, least = {}, 0.0
    for i, (name, p) in enumerate(sorted(tests.items(), key=lambda item: item[1])):
        corrected[name] = least = max(least, min(1.0, p * (len(tests) - i)))
    return corrected
