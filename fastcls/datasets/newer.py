"""Images in the order of their time: the newest are kept for the end, as new pictures come after the old ones."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastcls.datasets.walk import below, count, some
from fastcls.errors import DataError, UsageError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd


def moments(column: str, columns: Mapping[str, Sequence[str]], paths: Sequence[str], root: str | Path) -> pd.Series:
    """The time of each image, all numbers or all dates; errors name the rows that have none.

    columns: those of the table of labels, by title.
    """
    import pandas as pd

    if column not in columns:
        there = f"There are: {', '.join(columns)}." if columns else "Name a table that has it with --labels."
        raise UsageError(f"--split-by {column}: there is no such column{did_you_mean(column, list(columns))}", there)
    texts = pd.Series([str(value).strip() for value in columns[column]])
    numbers = pd.to_numeric(texts, errors="coerce")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of dates whose day and month could change places: refused below
        dates = pd.to_datetime(texts, errors="coerce", format="mixed", utc=True)
        other = pd.to_datetime(texts, errors="coerce", format="mixed", utc=True, dayfirst=True)
    found = numbers if numbers.notna().sum() >= dates.notna().sum() else dates
    if (lost := found.isna()).any():
        rows = [f"{below(paths[i], root)} {texts[i]!r}" for i in lost.to_numpy().nonzero()[0]]
        raise DataError(
            f"The column {column!r} is no date or number for {len(rows):,} of {len(paths):,} images: {some(rows)}.",
            "Fill it in, as 2026-07-14, 2026-07-14 10:15 or a number, or leave these images out of the table.",
        )
    unclear = texts[((dates != other) & ~texts.str.match(r"\d{4}\D")).to_numpy()]  # a year in front leaves one way
    if found is dates and len(unclear):
        raise DataError(
            f"The column {column!r} has dates that can be read in two ways: {some(list(unclear))}.",
            "Write them as 2026-07-14: year, month, day.",
        )
    if found.nunique() == 1:
        raise DataError(f"The column {column!r} has one value, {texts[0]!r}, for all {count(len(paths), 'image')}.")
    return found


def newest(times: pd.Series, share: float, groups: Sequence[str] | None, column: str) -> tuple[list[bool], str]:
    """Which images are the newest, about this share of them, and a sentence for the user.

    Images of one time stay on one side: the cut is where the share comes out best. groups: a name for each image, empty
    where it is alone; those of one name stay together, where its newest image is.
    """
    import pandas as pd

    if not 0 < share < 1:
        raise UsageError(f"A share of {share} of newest images is not between 0 and 1.", "Give 0.2, for example.")
    latest = times
    if groups is not None:
        names = pd.Series([name or f"\0{i}" for i, name in enumerate(groups)])
        latest = times.groupby(names.to_numpy()).transform("max")
    sizes = latest.value_counts().sort_index(ascending=False).cumsum()[:-1] if latest.nunique() > 1 else None
    if sizes is None:
        raise DataError(f"No cut by {column!r} leaves older images: the newest belong together with all others.")
    start = (sizes - share * len(times)).abs().idxmin()
    late = latest >= start
    tied = int((latest == start).sum())
    ties = f" {tied:,} of them are of the first of these times and stay together." if tied > 1 else ""
    return late.tolist(), (
        f"{count(int(late.sum()), 'image')} of {len(times):,} are the newest by {column!r}, from {_shown(start)} on, "
        f"and are the test split ({late.mean():.1%} for {share:.1%}).{ties}"
    )


def _shown(moment: object) -> str:
    import pandas as pd

    if isinstance(moment, pd.Timestamp):
        return f"{moment:%Y-%m-%d}" if moment == moment.normalize() else f"{moment:%Y-%m-%d %H:%M:%S}"
    return f"{moment:g}"
