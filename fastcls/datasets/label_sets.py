"""Several labels an image: whether a table or a tree of folders holds them, and how they are separated.

What is found by looking must not break names such as 'golden retriever' or 'tench, Tinca tinca' apart: parts of cells
are labels only where they recombine, so that there are fewer of them than of cells, and appear in several places.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from fastcls.datasets.walk import Found, count, file_size
from fastcls.errors import DataError, UsageError
from fastcls.runfolder.target import MULTI

MultiLabel = Literal["yes", "no", "auto"]
COLUMNS = ("labels", "tags", "classes", "categories", "targets", "attributes")  # titles of columns of several labels
SEPARATORS = {"|": "'|'", ";": "';'", ",": "commas", " ": "spaces"}
STRONG = "|;"  # rarely part of a name
LIST = "a list"
ROWS = "rows"  # a row a label
YES, NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "-1", "-1.0", "false", "no")
MOSTLY = 0.9  # of the cells of a column of 0 and 1: others are mistakes in it
SHARED, SHARE = 3, 0.05  # files under several classes, at least: fewer are mistakes


def wanted(multi_label: str) -> MultiLabel:
    """yes, no or auto; UsageError for anything else."""
    if multi_label not in ("yes", "no", "auto"):
        raise UsageError(f"--multi-label {multi_label}: expected yes, no or auto.")
    return multi_label  # type: ignore[return-value]


@dataclass(frozen=True)
class Scheme:
    """How the cells of a column hold labels; several: whether an image may have more or fewer than one."""

    several: bool
    separator: str = ""

    @property
    def said(self) -> str:
        """For the user: how the labels of a cell are separated."""
        if not self.several:
            return ""
        how = {LIST: "a list in each cell", ROWS: "one row each"}.get(self.separator)
        return f"several labels per image, {how or f'separated by {SEPARATORS[self.separator]}'}"

    def names(self, cell: str) -> tuple[str, ...]:
        """The labels in a cell, sorted; ValueError where it is no list of names."""
        if not self.several:
            return (cell,)
        if self.separator == LIST:
            return tuple(sorted(set(_list(cell)))) if cell else ()
        parts = [cell] if self.separator == ROWS else cell.split(self.separator)
        return tuple(sorted({part.strip() for part in parts} - {""}))


def scheme(cells: Sequence[str], title: str, multi: MultiLabel, repeats: bool) -> Scheme:
    """How the cells of a column of labels are to be read; repeats: whether files have several rows."""
    if multi == "no":
        return Scheme(False)
    different = Counter(cell for cell in cells if cell)
    lists = sum(n for cell, n in different.items() if cell.startswith("[") and cell.endswith("]"))
    if lists and lists >= MOSTLY * different.total():
        return Scheme(True, LIST)
    plural = title.lower() in COLUMNS
    found = next((mark for mark in SEPARATORS if _recombine(list(different), mark, plural)), None)
    if found is not None:
        return Scheme(True, found)
    if multi == "auto":
        return Scheme(False)
    marks = [mark for mark in SEPARATORS if any(mark in cell for cell in different)]
    if marks and (marks[0] in STRONG or not repeats):
        return Scheme(True, marks[0])
    return Scheme(True, ROWS)


def _recombine(cells: Sequence[str], mark: str, plural: bool) -> bool:
    """Whether the parts of different cells are labels that are put together anew, and not words of names."""
    parts = [[part.strip() for part in cell.split(mark)] for cell in cells]
    if max(map(len, parts), default=0) < 2 or any(len(set(own)) < len(own) or "" in own for own in parts):
        return False
    places: dict[str, set[int]] = defaultdict(set)
    for own in parts:
        for place, name in enumerate(own):
            places[name].add(place)
    pairs = [frozenset(own) for own in parts if len(own) > 1]
    if len(pairs) >= 2 * len(set(pairs)):  # 'dog grass' and 'grass dog'
        return True
    alone = {own[0] for own in parts if len(own) == 1}
    moving = any(len(found) > 1 for found in places.values())  # ranks of a taxonomy keep their places
    fewer = len(places) <= len(cells) - (mark not in STRONG)
    sure = mark in STRONG or places.keys() <= alone or 2 * len(places) <= len(cells) * (2 if plural else 1)
    return moving and fewer and sure


def _list(cell: str) -> list[str]:
    """The names in a cell such as ["a", "b"], as JSON or Python writes it."""
    try:
        found = json.loads(cell)
    except ValueError:
        try:
            found = ast.literal_eval(cell)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            raise ValueError(cell) from None
    if not isinstance(found, list) or not all(isinstance(name, str | int) for name in found):
        raise ValueError(cell)
    return [text for name in found if (text := str(name).strip())]


def hold_out(labels: Sequence[tuple[str, ...]], share: float, seed: int) -> list[int]:
    """Positions of about `share` of the images, as large a share of those with each label (Sechidis et al. 2011).

    A function of the labels, in order, and the seed. A label's only image is not held out.
    """
    import numpy as np
    from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit

    number = {name: at for at, name in enumerate(sorted({name for own in labels for name in own}))}
    flags = np.zeros((len(labels), len(number)), int)
    for row, own in enumerate(labels):
        flags[row, [number[name] for name in own]] = 1
    kept = np.flatnonzero(~(flags[:, flags.sum(0) == 1]).any(1))
    if len(kept) < 2:
        raise DataError("Too few images to hold any out for validation.", "Add images with each label.")
    size = min(max(round(len(kept) * share), 1), len(kept) - 1)
    splitter = MultilabelStratifiedShuffleSplit(1, test_size=size, random_state=seed)
    _, valid = next(splitter.split(kept, flags[kept]))
    valid = kept[valid]
    left = flags.sum(0) - flags[valid].sum(0)
    found: list[int] = np.sort(valid[~flags[valid][:, left == 0].any(1)]).tolist()
    return found


# ------------------------------------------------------------------ columns of 0 and 1


def indicators(columns: Sequence[int], rows: Sequence[Sequence[str]]) -> list[int]:
    """Those of `columns` that hold 0 and 1 nearly everywhere; one alone says nothing."""

    def holds(column: int) -> bool:
        cells = [row[column].lower() for row in rows if column < len(row)]
        return bool(cells) and sum(cell in YES or cell in NO for cell in cells) >= MOSTLY * len(cells)

    found = [column for column in columns if holds(column)]
    return found if len(found) > 1 else []


def flagged(cells: Sequence[str], titles: Sequence[str]) -> tuple[str, ...]:
    """The titles of the columns with a 1, sorted; ValueError for a cell that is neither 0 nor 1."""
    for cell in cells:
        if cell.lower() not in YES + NO:
            raise ValueError(cell)
    return tuple(sorted({title for cell, title in zip(cells, titles, strict=True) if cell.lower() in YES}))


# ------------------------------------------------------------------ one file under several classes


def merge_folders(found: Found, multi: MultiLabel) -> None:
    """Make one row of the same file, by name and content, under several classes, if images may have several."""
    if multi == "no":
        return
    copies = _copies(found.rows)
    distinct = len(found.rows) - sum(len(rows) - 1 for rows in copies)
    shared = f"{count(len(copies), 'file')} of {distinct:,} under several classes"
    if multi == "auto" and (len(copies) < SHARED or len(copies) < SHARE * distinct or not _vary(found.rows, copies)):
        return
    labels = {rows[0]: {found.rows[row][1] for row in rows} for rows in copies}
    dropped = {row for rows in copies for row in rows[1:]}
    found.rows = [
        (path, MULTI.text(labels.get(row, {label})), split)
        for row, (path, label, split) in enumerate(found.rows)
        if row not in dropped
    ]
    found.target = MULTI
    found.layout += f", {shared}: several labels per image"


def _vary(rows: Sequence[tuple[str, str, str]], copies: Sequence[Sequence[int]]) -> bool:
    """Whether files are under sets of classes of which neither holds the other: copies of a folder's files are not."""
    copied = {at for own in copies for at in own}
    sets = {frozenset(rows[at][1] for at in own) for own in copies}
    sets |= {frozenset([label]) for at, (_, label, _) in enumerate(rows) if at not in copied}
    falling = sorted(sets, key=len, reverse=True)
    return any(not less <= more for more, less in pairwise(falling))


def _copies(rows: Sequence[tuple[str, str, str]]) -> list[list[int]]:
    """Positions of rows of one split whose files have one name and one content, under several classes."""
    names: dict[tuple[str, str], list[int]] = defaultdict(list)
    for at, (path, _, split) in enumerate(rows):
        names[os.path.basename(path), split].append(at)  # noqa: PTH119  a Path each is ten times slower
    found: list[list[int]] = []
    for alike in names.values():
        if len(alike) < 2:
            continue
        sizes: dict[int, list[int]] = defaultdict(list)
        for at in alike:
            sizes[file_size(rows[at][0])].append(at)
        contents: dict[bytes, list[int]] = defaultdict(list)
        for size, own in sizes.items():
            for at in own if size and len(own) > 1 else ():  # files of no bytes are no images
                contents[_digest(rows[at][0])].append(at)
        found += [own for own in contents.values() if len({rows[at][1] for at in own}) > 1]
    return found


def _digest(path: str) -> bytes:
    try:
        return hashlib.sha256(Path(path).read_bytes()).digest()
    except OSError:
        return path.encode()  # its own, so that it is no copy
