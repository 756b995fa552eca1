"""Which images a command line names: files, folders, patterns, tables of paths, a list on standard input."""

from __future__ import annotations

import codecs
import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from fastcls.datasets.walk import VIDEOS, composed, frames, is_image, listing, some, unread, walked
from fastcls.errors import DataError
from fastcls.settings import options, shell

TABLES = {".csv", ".tsv"}


def collect(arguments: Sequence[str], by_shard: bool = False) -> Iterator[str]:
    """Image files, as they are found, from every kind of argument.

    A file; a folder (searched through, sorted); packed images, a folder of them or an address; a pattern such as
    'photos/**/*.jpg' (the images that it matches); a .csv or .tsv file with a column of paths; '-' (a path a line on
    standard input). DataError at once where an argument names nothing, a folder or pattern without an image, or a table
    without paths. by_shard: packed images in the order of their shards, not of their names.
    """
    return chain.from_iterable([_files(argument, by_shard) for argument in arguments])


def is_pattern(argument: str) -> bool:
    """Whether an argument is a pattern of file names, and not the name of an existing file."""
    return argument != "-" and glob.has_magic(argument) and not shell.path(argument).exists()


def _files(argument: str, by_shard: bool) -> Iterator[str]:
    """The images that an argument names, the first of them looked for at once."""
    path = shell.path(argument)
    if not argument:  # a shell's variable that is not set would be the folder where one is
        raise DataError("A path is empty.", "Give image files or folders; the current folder is  .")
    if argument == "-":
        return _on_standard_input()
    if is_pattern(argument):
        problem = f"{argument}: no image matches this pattern."
        return _begun(_matching(argument), problem, lambda: "** stands for any number of folders.")
    if not path.is_file():
        from fastcls.datasets import shards  # here and below: files alone need not wait for what reads packs and tables

        if (pack := shards.opened(argument)) is not None:
            return map(pack.path, pack.by_shard() if by_shard else range(len(pack)))
    if not path.exists():
        raise DataError(f"{argument}: no such file or folder.", "Give image files or folders.")
    if path.is_dir():

        def hint() -> str:
            return unread(Path(file).suffix.lower() for file in walked(path)) or "Give a folder with images."

        return _begun(filter(is_image, walked(path)), f"{argument}: there are no images in this folder.", hint)
    if path.suffix.lower() in VIDEOS:
        raise DataError(
            f"{argument} is a video; only images can be predicted.",
            f"Extract one frame per second:  {frames(argument)}",
        )
    if path.suffix.lower() not in TABLES:
        return iter([str(path)])
    if not path.is_file():
        raise DataError(f"{argument} is a pipe or a device, not a table.", "Use - to read standard input.")
    return _listed(path)


def _begun(names: Iterator[str], problem: str, hint: Callable[[], str]) -> Iterator[str]:
    """The same names, of which there is one at least."""
    first = next(names, None)
    if first is None:
        raise DataError(problem, hint())
    return chain([first], names)


def _on_standard_input() -> Iterator[str]:
    """A path a line, however another system or program ends its lines: CR LF, a byte order mark, `find -print0`."""
    if sys.stdin is None:
        raise DataError(
            "Standard input is closed, so there is no list to read.", "Give the images, or pipe a list to -."
        )
    lines = sys.stdin.buffer
    first = lines.readline().removeprefix(codecs.BOM_UTF8)
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        names: Iterable[str] = (first + lines.read()).decode("utf-16", errors="replace").splitlines()
    elif b"\0" in first:
        names = map(os.fsdecode, (first + lines.read()).split(b"\0"))
    else:
        names = (os.fsdecode(line).rstrip("\r\n") for line in chain([first], lines))
    return (name for name in names if name.strip())


def _matching(pattern: str) -> Iterator[str]:
    every = sorted(glob.glob(str(shell.path(pattern)), recursive=True))  # noqa: PTH207  it takes absolute ones
    return (name for name in every if is_image(name) and Path(name).is_file())


def _listed(table: Path) -> Iterator[str]:
    """The paths in a table, each as it is found from here, else beside the table, with its suffix or without."""
    from fastcls.datasets.label_table import posix, rows_of

    notes: list[str] = []
    rows = [row for _, row in rows_of(table, notes, strict=True)]
    for text in notes:
        options.note(text)
    column, titled = _column(table, rows)
    stems: dict[Path, dict[str, str]] = {}
    named = (posix(row[column]) for row in rows[titled:] if len(row) > column)
    return (_place(name, (Path(name), table.parent / name), stems) for name in named if name)


def _place(name: str, places: Sequence[Path], stems: dict[Path, dict[str, str]]) -> str:
    for place in places:
        if os.path.exists(place):  # noqa: PTH110  which takes names too long to be there
            return str(place)
    for place in places:
        folder = place.parent
        if folder not in stems:
            files = listing(folder)[0] if os.path.isdir(folder) else []  # noqa: PTH112
            stems[folder] = {composed(Path(file).stem): file for file in files if is_image(file)}
            stems[folder] |= {composed(Path(file).name): file for file in files}
        if found := stems[folder].get(composed(place.name)):
            return found
    return name


def _column(table: Path, rows: list[list[str]]) -> tuple[int, bool]:
    """Which column holds the paths, by its title or by what it holds, and whether the first row is one of titles."""
    from fastcls.datasets.label_table import FILE_COLUMNS

    header = rows[0] if rows else []
    titles = [cell.lower() for cell in header]
    for title in FILE_COLUMNS:
        if title in titles:
            return titles.index(title), True
    for titled, row in enumerate(rows[:2]):
        for column, cell in enumerate(row):
            if is_image(cell):
                return column, bool(titled)
    raise DataError(
        f"{table} has no column of paths: its first row is {some([repr(cell) for cell in header]) or 'empty'}.",
        f"Name the column of paths {FILE_COLUMNS[0]!r} (or {', '.join(FILE_COLUMNS[1:5])}).",
    )
