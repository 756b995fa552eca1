"""Which images a command line names: files, folders, patterns, tables of paths, a list on standard input."""

from __future__ import annotations

import contextlib
import csv
import glob
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from operator import attrgetter
from pathlib import Path

from fastcls.datasets.label_table import FILE_COLUMNS
from fastcls.datasets.walk import is_image, some
from fastcls.errors import DataError

TABLES = {".csv", ".tsv"}


def collect(arguments: Sequence[str]) -> Iterator[str]:
    """Image files, as they are found, from every kind of argument.

    A file; a folder (searched through, sorted); a pattern such as 'photos/**/*.jpg' (the images that it matches); a
    .csv or .tsv file with a column of paths; '-' (a path a line on standard input). DataError at once where an
    argument names nothing, a folder or pattern without an image, or a table without paths.
    """
    for argument in arguments:
        path = Path(argument).expanduser()
        if argument == "-":
            continue
        if is_pattern(argument):
            if next(_matching(argument), None) is None:
                raise DataError(f"{argument}: no image matches this pattern.", "** stands for any number of folders.")
        elif not path.exists():
            raise DataError(f"{argument}: no such file or folder.", "Name image files or folders.")
        elif path.is_dir():
            if next(_below(path), None) is None:
                raise DataError(f"{argument}: there are no images in this folder.", "Name a folder that holds some.")
        elif path.suffix.lower() in TABLES:
            if not path.is_file():
                raise DataError(f"{argument} is a pipe or a device, not a table.", "- reads standard input.")
            next(_listed(path), None)
    return chain.from_iterable(map(_files, arguments))


def is_pattern(argument: str) -> bool:
    """Whether an argument is a pattern of file names, and not the name of an existing file."""
    return argument != "-" and glob.has_magic(argument) and not Path(argument).expanduser().exists()


def _files(argument: str) -> Iterator[str]:
    path = Path(argument).expanduser()
    if argument == "-":
        yield from (line.rstrip("\n") for line in sys.stdin if line.strip())
    elif is_pattern(argument):
        yield from _matching(argument)
    elif path.is_dir():
        yield from _below(path)
    elif path.suffix.lower() in TABLES:
        yield from _listed(path)
    else:
        yield str(path)


def _below(folder: str | Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        found = sorted(entries, key=attrgetter("name"))
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            with contextlib.suppress(PermissionError):
                yield from _below(entry.path)
        elif is_image(entry.name) and not entry.name.startswith("."):
            yield str(Path(entry.path))


def _matching(pattern: str) -> Iterator[str]:
    every = sorted(glob.glob(str(Path(pattern).expanduser()), recursive=True))  # noqa: PTH207  it takes absolute ones
    return (name for name in every if is_image(name) and Path(name).is_file())


def _listed(table: Path) -> Iterator[str]:
    """The paths in a table, each as it is found from here, else beside the table."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            rows = csv.reader(file, delimiter=max(",;\t", key=first.count), strict=True)
            header = [cell.strip() for cell in next(rows, [])]
            column, titled = _column(table, header)
            for row in rows if titled else chain([header], rows):
                if name := row[column].strip() if len(row) > column else "":
                    beside = os.path.join(table.parent, name)  # noqa: PTH118  os.path takes names too long to be there
                    yield beside if not os.path.exists(name) and os.path.exists(beside) else name  # noqa: PTH110
    except OSError as problem:
        raise DataError(f"{table} cannot be read: {problem.strerror or problem}.", "Name a table of paths.") from None
    except (csv.Error, UnicodeDecodeError) as problem:
        raise DataError(f"{table} is no CSV file in UTF-8: {problem}.", "Save it as CSV, in UTF-8.") from None


def _column(table: Path, header: list[str]) -> tuple[int, bool]:
    """Which column holds the paths, and whether the first row is a row of titles."""
    titles = [cell.lower() for cell in header]
    for title in FILE_COLUMNS:
        if title in titles:
            return titles.index(title), True
    for column, cell in enumerate(header):
        if is_image(cell):
            return column, False
    raise DataError(
        f"{table} has no column of paths: its first row is {some([repr(cell) for cell in header]) or 'empty'}.",
        f"Call the column of paths {FILE_COLUMNS[0]!r} (or {', '.join(FILE_COLUMNS[1:5])}).",
    )
