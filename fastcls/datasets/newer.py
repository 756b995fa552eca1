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
        there = f"Available: {', '.join(columns)}." if columns else "Pass a table with this column as --labels."
        raise UsageError(f"--split-by {column}: there is no such column{did_you_mean(column, list(columns))}", there)
    texts = pd.Series([str(value).strip() for value in columns[column]])
    numbers = pd.to_numeric(texts, errors="coerce")
    found_dates, unclear = dates(texts)
    found = numbers if numbers.notna().sum() >= found_dates.notna().sum() else found_dates
    if (lost := found.isna()).any():
        rows = [f"{below(paths[i], root)} {texts[i]!r}" for i in lost.to_numpy().nonzero()[0]]
        raise DataError(
            f"The column {column!r} is not a date or number for {len(rows):,} of {len(paths):,} images: {some(rows)}.",
            "Use 2026-07-14, 2026-07-14 10:15 or a number, or remove these images from the table.",
        )
    if found is found_dates and unclear.any():
        raise DataError(
            f"The column {column!r} has ambiguous dates: {some(list(texts[unclear]))}.",
            "Write them as 2026-07-14: year, month, day.",
        )
    if found.nunique() == 1:
        raise DataError(f"The column {column!r} has one value, {texts[0]!r}, for all {count(len(paths), 'image')}.")
    return found


def dates(texts: pd.Series) -> tuple[pd.Series, pd.Series]:
    """The date of each text, with or without a time, NaT where it is none; and which could be read in two ways.

    What pandas reads, and dates as cameras write them: 2024:01:31 10:00:00. A time without a day is no date. Where day
    or month come first, a day above 12 shows the order of the column.
    """
    import pandas as pd

    plain = texts.str.replace(r"^(\d{4})[:_](\d\d)[:_](\d\d)(?!\d)", r"\1-\2-\3", regex=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of dates whose day and month could change places
        found, other = (
            pd.to_datetime(plain, errors="coerce", format="mixed", utc=True, dayfirst=first) for first in (False, True)
        )
    parts = plain.str.extract(r"^(\d{1,2})([./-])(\d{1,2})\2\d{2,4}(?!\d)")
    above = [(pd.to_numeric(parts[i]) > 12).any() for i in (0, 2)]
    if parts.notna().all(axis=None) and above[0] != above[1]:
        found = other = other if above[0] else found
    no_day = (found.dt.year < 1000) | plain.str.match(r"\d{1,2}:\d\d")  # pandas adds the year 1, or today
    unclear = found.notna() & (found != other) & ~plain.str.match(r"\d{4}\D")  # a year in front leaves one way
    return found.mask(no_day), unclear & ~no_day


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
        raise DataError(f"Splitting by {column!r} leaves no older images: the newest are grouped with all others.")
    start = (sizes - share * len(times)).abs().idxmin()
    late = latest >= start
    tied = int((latest == start).sum())
    ties = f" {tied:,} of them have the first of these times and stay together." if tied > 1 else ""
    return late.tolist(), (
        f"{count(int(late.sum()), 'image')} of {len(times):,} are the newest by {column!r}, from {_shown(start)} on, "
        f"and are the test split ({late.mean():.1%} for {share:.1%}).{ties}"
    )


def _shown(moment: object) -> str:
    import pandas as pd

    if isinstance(moment, pd.Timestamp):
        return f"{moment:%Y-%m-%d}" if moment == moment.normalize() else f"{moment:%Y-%m-%d %H:%M:%S}"
    return f"{moment:g}"
