"""Slices of a split: accuracy by what a table of labels says of the images, as rows and a sentence."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from fastcls.evaluation import grouped
from fastcls.evaluation.slices import Slice, slices
from fastcls.reports.wording import percent
from fastcls.runfolder.run import Run
from fastcls.runfolder.text import clean

NAMED = 3


@dataclass(frozen=True)
class Slices:
    """The slices, worst first, and what was left out."""

    rows: list[Slice]
    notes: list[str]

    @property
    def sentence(self) -> str:
        """Which slices are worse than the rest, as far as so many that were looked at can show."""
        if not self.rows:
            return "No column has values to compare."
        looked = f"Of {len(self.rows):,} slices"
        worse = [row for row in self.rows if row.shown and row.accuracy < row.others]
        if not worse:
            return f"{looked} none is worse than the rest by more than chance explains, given how many were tested."
        named = "; ".join(
            f"{row.column} = {row.value}: {percent(row.accuracy)} ({percent(row.low, unit=False)} to "
            f"{percent(row.high)}) of {row.n:,} images, {percent(row.others)} of the others"
            for row in worse[:NAMED]
        )
        are = "is" if len(worse) == 1 else "are"
        more = f"; and {len(worse) - NAMED:,} more" if len(worse) > NAMED else ""
        return f"{looked} {len(worse):,} {are} worse than the rest by more than chance explains: {named}{more}."


def of_split(files: Run, split: str) -> Slices | None:
    """The slices of a split's images; None where nothing is known of them but their labels."""
    known = files.slices
    table = files.predictions[(files.predictions["split"] == split) & (files.predictions["label"] != "")]
    if known.empty or table.empty:
        return None
    own = known[known["split"] == split].drop_duplicates("path").set_index("path").iloc[:, 1:].map(clean)
    columns = own.reindex(table["path"]).fillna("")
    right = (table["label"] == table["prediction"]).to_numpy()
    codes = grouped.codes_in(table)
    rows, notes = slices(right, table["label"].to_numpy(), columns.reset_index(drop=True), codes)
    return Slices(rows, [clean(note) for note in notes])


def frame(found: Slices | None) -> pd.DataFrame:
    """A row a slice, worst first."""
    names = ["column", "value", "n", "accuracy", "low", "high", "others", "expected", "p", "shown"]
    rows = [[getattr(row, name) for name in names] for row in (found.rows if found else ())]
    return pd.DataFrame(rows, columns=names)
