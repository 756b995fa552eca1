"""splits.csv: a row an image of the run, with its split and label, and where there are groups its group."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path

from fastcls.errors import OutputError
from fastcls.runfolder import runs

FILE = "splits.csv"
COLUMNS = ("path", "split", "label")


def write(run: Path, rows: Iterable[Sequence[str]], groups: Mapping[str, str] | None = None) -> Path:
    """Write rows of COLUMNS into a run folder, with the group of each path, if any has one."""
    if not groups:
        return runs.write_csv(run / FILE, COLUMNS, rows)
    return runs.write_csv(run / FILE, [*COLUMNS, "group"], ([*row, groups.get(row[0], "")] for row in rows))


def read(run: Path) -> list[tuple[str, str, str]]:
    """Rows of path (below the run's images), label and split; OutputError where the file is not that."""
    table = run / FILE
    try:
        with table.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            pick = itemgetter(*(header.index(name) for name in ("path", "label", "split")))
            rows = [pick(cells) for cells in reader if cells]
    except (OSError, ValueError, IndexError, csv.Error) as problem:
        raise OutputError(f"{table} cannot be read: {problem}.", "Take the file that the run wrote.") from None
    if any("\0" in path for path, _, _ in rows):
        raise OutputError(f"{table} cannot be right: a path in it holds a NUL.", "Take the file that the run wrote.")
    return rows
