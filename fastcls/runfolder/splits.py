"""splits.csv: a row an image of the run, with its split and label, and where there are groups its group.

slices.csv: a row an image too, with what a table of labels says of it besides its label: its site, its camera, a
patient's age.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from fastcls.errors import OutputError
from fastcls.runfolder import runs
from fastcls.runfolder.text import clean

FILE = "splits.csv"
COLUMNS = ("path", "split", "label")
GROUP = "group"
SLICES = "slices.csv"
OF_SLICES = ("path", "split")


def write(run: Path, rows: Iterable[Sequence[str]], groups: Mapping[str, str] | None = None) -> Path:
    """Write rows of COLUMNS into a run folder, with the group of each path, if any has one."""
    if not groups:
        return runs.write_csv(run / FILE, COLUMNS, rows)
    return runs.write_csv(run / FILE, [*COLUMNS, GROUP], ([*row, groups.get(row[0], "")] for row in rows))


def read(run: Path) -> list[tuple[str, str, str]]:
    """Rows of path (below the run's images), label and split; OutputError where the file is not that."""
    return _read(run, "path", "label", "split")


def read_groups(run: Path) -> list[tuple[str, str, str]]:
    """Rows of path, group and split, none where the run has no groups; OutputError where the file is not that."""
    return _read(run, "path", GROUP, "split")


def _read(run: Path, *columns: str) -> list[tuple[str, str, str]]:
    table = run / FILE
    try:
        with table.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            if GROUP in columns and GROUP not in header:
                return []
            pick = itemgetter(*map(header.index, columns))
            rows = [pick(cells) for cells in reader if cells]
    except (OSError, ValueError, IndexError, csv.Error) as problem:
        raise OutputError(f"{table} cannot be read: {problem}.", "Restore the file that the run wrote.") from None
    if any("\0" in path for path, _, _ in rows):
        raise OutputError(f"{table} is invalid: a path in it contains a NUL.", "Restore the file that the run wrote.")
    return rows


def write_slices(run: Path, rows: Iterable[Sequence[str]], columns: Mapping[str, Mapping[str, str]]) -> None:
    """Write a row an image, path and split of a row of COLUMNS, and the columns: title -> path -> value, if any."""
    if columns:
        cells = ([*row[:2], *(values.get(row[0], "") for values in columns.values())] for row in rows)
        runs.write_csv(run / SLICES, [*OF_SLICES, *columns], cells)


def read_slices(file: Path) -> Any:
    """A DataFrame of text: OF_SLICES, and a column a title. OSError or ValueError where the file is not that."""
    import pandas as pd

    table = pd.read_csv(
        file, dtype=str, header=None, keep_default_na=False, encoding="utf-8", encoding_errors="surrogateescape"
    )
    titles, body = [clean(title) for title in table.iloc[0]], table.iloc[1:]
    if tuple(titles[:2]) != OF_SLICES:
        raise ValueError(f"it does not start with the columns {', '.join(OF_SLICES)}")
    return body.fillna("").set_axis(titles, axis=1)
