"""Read a table of labels: a CSV file with a column of file names, one of labels and perhaps one of splits."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from fastcls.datasets import label_sets
from fastcls.datasets.splits import SPLIT_NAMES
from fastcls.datasets.walk import Found, composed, count, is_image, is_text, slashes, some, walked
from fastcls.errors import DataError
from fastcls.runfolder.target import MULTI, SINGLE
from fastcls.settings import options, shell

FILE_COLUMNS = ("path", "file", "filename", "file_name", "image", "image_id", "id", "name")
LABEL_COLUMNS = ("label", "class", "target", "category", "species", "breed")
SPLIT_COLUMNS = ("split", "set", "is_valid", "subset")
NO_COLUMN, NO_LABEL, NO_FILE = "too few columns", "no label", "a file that is missing"
OUTSIDE, SEVERAL = "a file name outside the folder of images", "a file name that several files share"
SKIPPED = {NO_COLUMN, NO_LABEL, NO_FILE, OUTSIDE, SEVERAL}  # by --skip-bad; contradictions are for the user to decide
NAMED = 5  # rows that are left out, of each kind
_YES_NO = dict.fromkeys(("1", "true", "yes"), "valid") | dict.fromkeys(("0", "false", "no"), "train")


def read(labels: str, root: Path, found: Found, multi: label_sets.MultiLabel = "auto") -> None:
    """Add to `found` a row for each image that the table `labels` names, below `root`, and its `further` columns.

    multi: whether an image may have several labels; 'auto' finds out by looking.
    """
    file = _locate(labels, root)
    rows = rows_of(file, found.notes)
    if rows and len(rows[0][1]) < 2:
        raise DataError(
            f"The table {file} has only one column, starting with {rows[0][1][0][:60]!r}.",
            "Give a CSV file with a column of file names and a column of labels, separated by commas.",
        )
    files = _Files(root, file.parent)
    columns, body = _columns(file, rows, files)
    reader = _labels(columns, body, multi)
    found.target = MULTI if reader.several else SINGLE
    further = {at: found.further.setdefault(title, {}) for at, title in columns.others.items()}
    seen: dict[str, tuple[str, str]] = {}
    again: list[tuple[str, str, str]] = []  # rows that name a file once more, otherwise
    problems: dict[str, list[str]] = defaultdict(list)
    good, joined = 0, set()
    for number, cells in body:
        if len(cells) <= max(columns.file, *columns.labels, columns.split or 0):
            problems[NO_COLUMN].append(f"row {number}")
            continue
        name, split = cells[columns.file], ""
        try:
            label = reader.read(cells)
        except ValueError as problem:
            problems[reader.fault].append(f"{str(problem)!r} in row {number}")
            continue
        if columns.split is not None:
            split = columns.splits.get(cells[columns.split].lower(), "")
            if not split:
                text = f"{cells[columns.split]!r} in row {number}"
                problems["a split other than train, valid or test"].append(text)
        places = files.find(name)
        if not label and not reader.several:
            problems[NO_LABEL].append(f"row {number}")
        elif files.leaves(name):
            problems[OUTSIDE].append(name)
        elif len(places) > 1:
            problems[SEVERAL].append(name)
        elif not places:
            problems[NO_FILE].append(name or f"row {number}")
        elif seen.setdefault(places[0], (label, split)) != (label, split):
            if reader.scheme.separator == label_sets.ROWS and seen[places[0]][1] == split:
                good += 1
                joined.add(places[0])
                both = {*MULTI.names(seen[places[0]][0]), *MULTI.names(label)}
                seen[places[0]] = MULTI.text(both), split
                continue
            problems["a file listed before with another label or split"].append(name)
            again.append((places[0], label, split))
        else:
            good += 1
            for at, values in further.items():
                values[slashes(places[0])] = cells[at] if at < len(cells) else ""
    if not seen and not problems:
        raise DataError(f"The table {file} has no rows.", "It needs one row per image: file name, label.")
    if options.current().skip_bad and seen and not found.lenient:
        for what in [what for what in problems if what in SKIPPED]:
            lost = problems.pop(what)
            left_out = f"{len(lost):,} of {len(body):,} rows of {file.name} left out, {what}: {some(lost, NAMED)}."
            found.notes.append(left_out)
    found.faults |= problems
    if problems and not found.lenient:
        raise DataError(
            f"The table {file} has rows with {listed(problems, len(body))}.",
            f"Correct or remove them{', or skip them with --skip-bad' * (problems.keys() <= SKIPPED)}. "
            f"File names are looked up in {root}, with or without their suffix.",
        )
    if (repeated := good - len(seen)) and not joined:
        found.notes.append(f"{count(repeated, 'duplicate row')} of {file.name} dropped.")
    if unlisted := [os.path.relpath(image, root) for image in files.images if image not in seen]:
        left_out = f"{count(len(unlisted), 'image')} not listed in {file.name} left out: {some(unlisted)}."
        found.notes.append(left_out)
    named = [(path, label, split) for path, (label, split) in seen.items()] + again
    draws = columns.split is not None and not any(split == "valid" for _, _, split in named)
    found.rows = [(slashes(path), label, "" if draws and split == "train" else split) for path, label, split in named]
    said = f"; {reader.said}" if reader.said else ""
    found.layout = f"the table {file.name}: {columns.description}{said}"
    if reader.several:
        bare = sum(not label for label, _ in seen.values())
        held = {name for label, _ in seen.values() for name in MULTI.names(label)}
        if absent := [title for title in columns.titles if len(columns.labels) > 1 and title not in held]:
            found.notes.append(f"{count(len(absent), 'label')} without an image left out: {some(absent)}.")
        without = f"; {count(bare, 'image')} without a label" if bare else ""
        found.notes.append(f"{file.name}: {reader.said}{without}.")


def listed(problems: Mapping[str, Sequence[str]], rows: int = 0) -> str:
    """What is wrong with a table, how often, of so many rows, and some of them."""
    of = f" of {rows:,}" if rows else ""
    return "; ".join(f"{what} ({len(which):,}{of}): {some(which)}" for what, which in problems.items())


def _locate(labels: str, root: Path) -> Path:
    given = shell.path(labels)
    for file in (root / given, given.absolute()):
        if file.is_file():
            if file.suffix.lower() in (".xlsx", ".xls", ".ods"):
                raise DataError(f"{file} is a spreadsheet, not a CSV file.", "Save it as CSV.")
            return file
    if (root / given).is_dir() or given.is_dir():
        raise DataError(f"--labels {labels} is a folder, not a table.", "Give a CSV file of file names and labels.")
    near = [file.name for file in root.iterdir() if file.suffix.lower() in (".csv", ".tsv")]
    raise DataError(
        f"The table of labels {labels} is neither in {root} nor in the current folder.",
        f"{root} contains {some(sorted(near))}." if near else "Give a CSV file of file names and labels.",
    )


def rows_of(file: Path, notes: list[str], strict: bool = False) -> list[tuple[int, list[str]]]:
    """The rows of a table, numbered from 1, cells stripped, whatever its encoding and delimiter.

    strict: a quote that is never closed is an error. DataError where the file is no table.
    """
    try:
        data = file.read_bytes()
    except OSError as problem:
        raise DataError(
            f"The table {file} cannot be read: {problem.strerror or problem}.", "Choose another table."
        ) from None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = data.decode("utf-16", errors="replace")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("cp1252", errors="replace")
            notes.append(f"{file.name} is not UTF-8: read as Windows-1252.")
    if "\0" in text:
        raise DataError(f"The table {file} is not a CSV file: it contains bytes that are not text.", "Save it as CSV.")

    def parsed(delimiter: str) -> Iterator[list[str]]:
        return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=strict)

    def fits(delimiter: str) -> tuple[bool, int]:
        """How well: every row as long as the first, then how many columns."""
        widths = [len(row) for row in islice(parsed(delimiter), 100) if row]
        return (len(set(widths)) == 1 and widths[0] > 1, max(widths, default=0))

    excels = re.match(r"\ufeff?\"?sep=([,;\t])\"?[ \t;,]*\r?\n", text, re.IGNORECASE)  # Excel's own line above a table
    if excels:
        text = text[excels.end() :]
    try:
        delimiter = excels.group(1) if excels else max(",;\t", key=fits)
        every = enumerate(parsed(delimiter), start=2 if excels else 1)
        return [(number, [cell.strip() for cell in row]) for number, row in every if any(map(str.strip, row))]
    except csv.Error as error:
        raise DataError(f"The table {file} is not a CSV file: {error}.", "Save it as CSV.") from error


class _Files:
    """The files below the folder of images, found by path, by name, or by either without its suffix."""

    def __init__(self, root: Path, table_folder: Path) -> None:
        self.bases = [str(root), str(table_folder)]
        self.root = str(root)
        self.by_path: dict[str, list[str]] = defaultdict(list)
        self.by_name: dict[str, list[str]] = defaultdict(list)
        files = list(walked(root))
        self.images = [file for file in files if is_image(file) and is_text(file)]
        for file in files:
            self.by_path[composed(file)].append(file)
            self.by_name[composed(os.path.basename(file))].append(file)  # noqa: PTH119, a Path each is ten times slower
        for image in self.images:
            path = composed(image)
            stem, name = os.path.splitext(path)[0], os.path.basename(path)  # noqa: PTH119, PTH122
            if stem not in self.by_path or composed(self.by_path[stem][0]) != stem:
                self.by_path[stem].append(image)
            self.by_name[os.path.splitext(name)[0]].append(image)  # noqa: PTH122

    def find(self, name: str) -> list[str]:
        """The files that `name` may mean: none, one, or several when it is ambiguous."""
        if not name or self.leaves(name):
            return []
        name = posix(name)
        for base in self.bases:
            path = os.path.normpath(os.path.join(base, name))  # noqa: PTH118
            if places := self.by_path.get(composed(path)):
                return [path] if path in places else places
        return self.by_name.get(composed(name), []) if "/" not in name else []

    def leaves(self, name: str) -> bool:
        """Whether `name` leads out of the folder of images."""
        place = os.path.normpath(os.path.join(self.root, posix(name)))  # noqa: PTH118
        return not (place + os.sep).startswith(self.root.rstrip(os.sep) + os.sep)


def posix(name: str) -> str:
    """A name in a table with slashes, where Windows wrote it."""
    return name.replace("\\", "/") if "/" not in name else name


@dataclass
class _Columns:
    """Which column holds what."""

    file: int
    labels: list[int]  # one, or those of 0 and 1
    split: int | None
    splits: dict[str, str]
    description: str
    others: dict[int, str]  # their titles; without one a column has nothing to be called by
    titles: list[str]  # of `labels`


@dataclass
class _Labels:
    """How the cells of a row become a label, as text; ValueError, with the cell, where they are none."""

    columns: _Columns
    scheme: label_sets.Scheme
    said: str = ""

    @property
    def several(self) -> bool:
        """Whether an image may have more or fewer labels than one."""
        return self.scheme.several

    @property
    def fault(self) -> str:
        """What a cell is that cannot be read."""
        if len(self.columns.labels) > 1:
            return "a cell other than 0 or 1" if self.several else "not exactly one 1, without --multi-label yes"
        return "a cell that is not a list of labels"

    def read(self, cells: list[str]) -> str:
        """The label of a row."""
        own = [cells[column] for column in self.columns.labels]
        if len(own) == 1:
            names = self.scheme.names(own[0])
        else:
            names = label_sets.flagged(own, self.columns.titles)
            if not self.several and len(names) != 1:
                raise ValueError(" ".join(own)[:60])
        return MULTI.text(names) if self.several else names[0]


def _labels(columns: _Columns, body: list[tuple[int, list[str]]], multi: label_sets.MultiLabel) -> _Labels:
    """How the labels are to be read."""
    whole = [cells for _, cells in body if len(cells) > max(columns.file, *columns.labels)]
    if len(columns.labels) > 1:
        several = multi != "no"
        if multi == "auto":
            flags = [[cells[column].lower() in label_sets.YES for column in columns.labels] for cells in whole]
            several = any(sum(own) != 1 for own in flags)
        how = f"{len(columns.labels)} columns of 0 and 1"
        said = f"several labels per image, from {how}" if several else f"one class per image, from {how}"
        return _Labels(columns, label_sets.Scheme(several), said)
    cells = [cells[columns.labels[0]] for cells in whole]
    named = [cells[columns.file] for cells in whole]
    found = label_sets.scheme(cells, columns.titles[0], multi, repeats=len(set(named)) < len(named))
    return _Labels(columns, found, found.said)


def _columns(
    file: Path, rows: list[tuple[int, list[str]]], files: _Files
) -> tuple[_Columns, list[tuple[int, list[str]]]]:
    """Find the columns by their names, else by what they hold; returns them and the rows below the header."""
    if not rows:
        raise DataError(f"The table {file} is empty.", "It needs one row per image: file name, label.")
    head = rows[0][1]
    if any(is_image(cell) or files.find(cell) for cell in head):
        if len(head) != 2:
            raise DataError(
                f"The table {file} has {len(head)} columns and no header.",
                "Put the column names in its first row: file, label and, if there is one, split.",
            )
        at = 0 if is_image(head[0]) or files.find(head[0]) else 1
        text = f"no header, files in column {at + 1}, labels in column {2 - at}"
        return _Columns(at, [1 - at], None, {}, text, {}, [""]), rows
    body = rows[1:]
    titles = [title.lower() for title in head]
    if twice := sorted({title for title in head if title and head.count(title) > 1}):
        raise DataError(f"The table {file} has several columns titled {some(twice)}.", "Rename or remove all but one.")

    def named(wanted: tuple[str, ...], *taken: int) -> list[int]:
        return [titles.index(name) for name in wanted if name in titles and titles.index(name) not in taken]

    def holds_files(column: int) -> bool:
        cells = [row[column] for _, row in body[:50] if column < len(row)]
        return any(is_image(cell) or files.find(cell) for cell in cells)

    likely = named(FILE_COLUMNS)
    by_content = [column for column in range(len(titles)) if column not in likely and holds_files(column)]
    at = next((column for column in likely if holds_files(column)), (by_content + likely + [-1])[0])
    split = next(iter(named(SPLIT_COLUMNS, at)), None)
    others = [column for column in range(len(titles)) if column not in (at, split)]
    labels = named((*LABEL_COLUMNS, *label_sets.COLUMNS), at, -1 if split is None else split)[:1]
    if not labels:
        labels = others if len(others) == 1 else label_sets.indicators(others, [row for _, row in body])
    labels = [column for column in labels if head[column]]
    if at < 0 or not labels:
        missing = "file names" if at < 0 else "labels"
        raise DataError(
            f"No column of {file} is recognised as the {missing}; its columns are {', '.join(head)}.",
            f"Name the columns {', '.join(FILE_COLUMNS[:3])} … and {', '.join(LABEL_COLUMNS[:3])} …, or use a column "
            "of 0 and 1 per label.",
        )
    where = repr(head[labels[0]]) if len(labels) == 1 else f"{count(len(labels), 'column')} of 0 and 1"
    text = f"files in column {head[at]!r}, labels in {where}"
    text += f", split in {head[split]!r}" if split is not None else ""
    splits = SPLIT_NAMES | {"dev": "valid"}
    if split is not None and titles[split] == "is_valid":
        splits |= _YES_NO
    further = {column: head[column] for column in others if column not in labels and head[column]}
    return _Columns(at, labels, split, splits, text, further, [head[column] for column in labels]), body
