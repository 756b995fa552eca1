"""slices.csv: what a table of labels says of an image besides its label: its site, its camera, a patient's age."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastcls.runfolder import runs
from fastcls.runfolder.text import clean

FILE = "slices.csv"
FIRST = ("path", "split")


def write(run: Path, rows: Sequence[tuple[str, str]], columns: Mapping[str, Mapping[str, str]]) -> None:
    """Write a row an image, (path below the run's images, split), and the columns: title -> path -> value, if any."""
    if columns:
        cells = ([*row, *(values.get(row[0], "") for values in columns.values())] for row in rows)
        runs.write_csv(run / FILE, [*FIRST, *columns], cells)


def read(file: Path) -> Any:
    """A DataFrame of text: FIRST, and a column a title. OSError or ValueError where the file is not that."""
    import pandas as pd

    table = pd.read_csv(
        file, dtype=str, header=None, keep_default_na=False, encoding="utf-8", encoding_errors="surrogateescape"
    )
    titles, body = [clean(title) for title in table.iloc[0]], table.iloc[1:]
    if tuple(titles[:2]) != FIRST:
        raise ValueError(f"it does not begin with the columns {', '.join(FIRST)}")
    return body.fillna("").set_axis(titles, axis=1)
