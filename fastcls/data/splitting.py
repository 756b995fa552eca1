"""Splits of a run: drawn by class, in whole groups where there are groups, as the table has them, or in folds."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np
import pandas as pd

from fastcls.data import copies
from fastcls.datasets import groups, newer, shards, splits
from fastcls.datasets.layouts import SLICE
from fastcls.datasets.walk import common_root, count, some
from fastcls.errors import DataError, UsageError
from fastcls.runfolder.target import names_of
from fastcls.settings import options

NEWEST = 0.2  # share of the images
COPIES = "near copies"  # what images are grouped by where nothing is named


def split(
    table: pd.DataFrame,
    valid_pct: float = 0.2,
    test_pct: float = 0.0,
    group: str = "",
    split_by: str = "",
    newest: float = NEWEST,
) -> pd.DataFrame:
    """Fill the empty splits of a table of path, label and split, seeded by the run and stratified by class.

    valid_pct, test_pct: shares of each class. group: a column of the table, or a regular expression over the path below
    the folder of images; images of a group stay on one side, and it becomes the column `group`. An existing split stays
    as it is; groups on both sides of it become a note. Without groups, near copies of an image are kept together.
    split_by: a column of dates or numbers; the `newest` share of the images becomes the test split.
    """
    if "pack" in table.attrs:
        _refuse_another(table, test_pct, group, split_by)
        return table
    table = table.copy()
    several = any(isinstance(label, list) for label in table["label"])
    if several:
        table["label"] = table["label"].map(tuple)
    notes, root = list(table.attrs.get("notes", [])), table.attrs.get("root", "")
    empty = table["split"] == ""
    _check_shares(valid_pct, test_pct)
    group = group or (groups.COLUMN if groups.COLUMN in table else "")
    if test_pct and (table["split"] == "test").any():
        raise UsageError(f"--test-pct {test_pct}: {root} already has a test split.", "Leave it out.")
    if test_pct and not empty.any():
        raise UsageError(f"--test-pct {test_pct}: {root} already has a split.", "Leave it out.")
    if split_by and (test_pct or not empty.all()):
        own = f"--test-pct {test_pct} draws one" if test_pct else f"{root} already has a split"
        raise UsageError(f"--split-by {split_by} chooses the test split, but {own}.", "Use only one of them.")
    if newest != NEWEST and not split_by:
        notes.append(f"--newest {newest} needs --split-by COLUMN, which gives the order.")
    by, columns = "", _columns(table)
    if group:
        table[groups.COLUMN], by = groups.named(group, table["path"].tolist(), root, columns)
    together = None
    if not group and empty.any() and options.current().keep_copies_together:
        together = copies.together(table["path"].tolist())
        if any(together):
            table[groups.COLUMN], by = together, COPIES
    if split_by:
        order = newer.moments(split_by, columns, table["path"].tolist(), root)
        late, note = newer.newest(order, newest, table[groups.COLUMN].tolist() if by else None, split_by)
        table.loc[late, "split"] = "test"
        notes.append(note)
    notes += splits.draw_validation(table, valid_pct, options.current().seed, test_pct, together)
    splits.check_splits(table, root)
    if group:
        notes += _of_groups(table, by, drawn=bool(empty.any()))
    if several:
        table["label"] = table["label"].map(list)  # fastai's transforms go into tuples
    table.attrs |= {"notes": notes, "groups": by}
    return table


def _refuse_another(table: pd.DataFrame, test_pct: float, group: str, split_by: str) -> None:
    """UsageError where a split is asked for that packed images, which have theirs, were not packed with."""
    for flag, given in (("--test-pct", test_pct), ("--group", group), ("--split-by", split_by)):
        if given:
            raise UsageError(
                f"{flag} {given}: the images in {table.attrs['root']} were split when they were packed.",
                "Omit it, or pass it to  fastcls pack  and pack them again.",
            )


def _check_shares(valid_pct: float, test_pct: float = 0.0) -> None:
    if not 0 < valid_pct < 1:
        raise UsageError(f"A validation share of {valid_pct} is not between 0 and 1.", "Give 0.2, for example.")
    if not 0 <= test_pct < 1 - valid_pct:
        raise UsageError(
            f"Shares of {valid_pct} for validation and {test_pct} for test leave no images to train on.",
            "Give --valid-pct 0.2 --test-pct 0.2, for example.",
        )


def _of_groups(table: pd.DataFrame, by: str, drawn: bool) -> list[str]:
    """What the user should see of groups and splits."""
    names, splits_of = table[groups.COLUMN], table["split"]
    both = groups.straddling(names.tolist(), splits_of.tolist())
    sizes = [
        f"{own.nunique():,} ({count(len(own), 'image')}) in {part}"
        for part in ("train", "valid", "test")
        if len(own := names[splits_of == part])
    ]
    notes = [f"{count(names.nunique(), 'group')} by {by}: {', '.join(sizes)}."]
    if both:
        notes.append(
            f"{count(len(both), 'group')} of {names.nunique():,} with images on both sides of the split of the "
            f"data: {some(both)}. Metrics on them are too high."
        )
    every, validated = (
        {name for label in labels for name in names_of(label)}
        for labels in (table["label"], table["label"][splits_of == "valid"])
    )
    if drawn and (missing := sorted(every - validated)):
        classes = count(len(missing), "class")
        notes.append(f"{classes} without an image in valid, because there are too few groups: {some(missing)}.")
    return notes


def _columns(table: pd.DataFrame) -> dict[str, list[str]]:
    """The further columns of a table, by title."""
    columns = {str(title).removeprefix(SLICE): table[title].tolist() for title in table}
    return {title: values for title, values in columns.items() if title not in ("path", "split", "label")}


class Splitter:
    """A splitter for a DataBlock; after it split, `groups` says to which group each file belongs."""

    def __init__(self, draw: Callable[[Any], tuple[list[int], list[int], dict[str, str]]]) -> None:
        self.draw = draw
        self.groups: dict[str, str] = {}

    def __call__(self, items: Any) -> tuple[list[int], list[int]]:
        train, valid, self.groups = self.draw(items)
        return train, valid


def stratified(
    label: Callable[[Any], Hashable] | str, valid_pct: float = 0.2, group: Callable[[Any], Hashable] | str = ""
) -> Callable[[Any], Any]:
    """A splitter that holds out `valid_pct` of the items, stratified by their label, seeded by the run's seed.

    label: a function of an item, or a column of the table; lists of labels are stratified label by label. group: the
    same, or a regular expression over the files' paths; items of a group stay together. Without groups, near copies of
    an image do.
    """
    _check_shares(valid_pct)

    def draw(items: Any) -> tuple[list[int], list[int], dict[str, str]]:
        own = items[label] if isinstance(label, str) else map(label, items)
        labels = plain(own)
        seed, of = options.current().seed, {}
        if group:
            paths = paths_of(items)
            names = _names(items, group, paths)
            valid, _ = groups.divide(labels, names, valid_pct, 0.0, seed)
            of = dict(zip(paths, names, strict=True))
        else:
            together = copies_of(items)
            valid = splits.hold_out(labels, valid_pct, seed, together)
            if any(together):
                of = dict(zip(paths_of(items), together, strict=True))
        held = set(valid)
        return [i for i in range(len(items)) if i not in held], sorted(valid), of

    return Splitter(draw)


def plain(labels: Iterable[Any]) -> list[str | tuple[str, ...]]:
    """The class of each item as text, or, of lists, sets and vectors of 0 and 1, its labels."""
    values = [_listed(label) for label in labels]
    if _are_vectors(values):
        return [tuple(str(at) for at, flag in enumerate(value) if flag) for value in values]
    return [value if isinstance(value, str) else tuple(map(str, value)) for value in values]


def _listed(label: Any) -> Any:
    """A class as text; of several labels, or of a vector, a list."""
    label = label.tolist() if hasattr(label, "tolist") else label
    if isinstance(label, str | bytes) or not isinstance(label, Collection):
        return str(label)
    return sorted(map(str, label)) if isinstance(label, Set) else list(label)


def _are_vectors(values: Sequence[Any]) -> bool:
    """Whether these are vectors of 0 and 1, a place a label: in a list of names no name would be there twice."""
    if not values or any(isinstance(value, str) or len(value) != len(values[0]) for value in values):
        return False
    numbers = all(not isinstance(flag, str) and flag in (0, 1) for value in values for flag in value)
    return numbers and any(len(set(value)) < len(value) for value in values)


def paths_of(items: Any) -> list[str]:
    """The file of each item, as text."""
    return [str(item) for item in (items["path"] if isinstance(items, pd.DataFrame) and "path" in items else items)]


def copies_of(items: Any) -> list[str]:
    """The group of copies that each item is in; none for items that are no files, or where copies may be parted."""
    paths = paths_of(items) if options.current().keep_copies_together else []
    are_files = all(os.path.isfile(path) or shards.found(path) for path in paths)  # noqa: PTH113  a Path takes longer
    return copies.together(paths) if paths and are_files else []


def _names(items: Any, group: Callable[[Any], Hashable] | str, paths: Sequence[str]) -> list[str]:
    if not isinstance(group, str):
        return [str(name) for name in map(group, items)]
    columns: Mapping[str, Any] = {str(title): items[title] for title in items} if hasattr(items, "columns") else {}
    return groups.named(group, paths, common_root(paths), columns)[0]


def by_column(table: pd.DataFrame) -> tuple[Any, Any]:
    """A splitter for tables with a `split` column of 'train' and 'valid'; gives lists, or slices of packed images."""
    if "pack" in table.attrs:  # in this order, so that no row is copied
        train, valid = ((table["split"] == name).sum() for name in ("train", "valid"))
        return slice(0, train), slice(train, train + valid)
    column = table["split"].to_numpy()
    return [i for i, s in enumerate(column) if s == "train"], [i for i, s in enumerate(column) if s == "valid"]


def positions(split: Any, n: int) -> Sequence[int]:
    """The positions of a split of n items, which is a list of them or a slice."""
    return range(n)[split] if isinstance(split, slice) else split


def picked(items: Any, places: Sequence[int] | np.ndarray) -> Any:
    """The items at these positions, of a table or a list."""
    return items.iloc[places] if hasattr(items, "iloc") else [items[i] for i in places]


def groups_of(items: Any, splitter: Any) -> dict[str, str]:
    """The group of each file, where items are a table with a column of groups or the splitter drew groups."""
    if isinstance(items, pd.DataFrame) and {"path", groups.COLUMN} <= set(items.columns):
        return dict(zip(items["path"].astype(str), items[groups.COLUMN].astype(str), strict=True))
    return dict(getattr(splitter, "groups", {}))


# ------------------------------------------------------------------ folds


def folded(splitter: Callable[[Any], Any], label: Callable[[Any], Any], fold: tuple[int, int]) -> Splitter:
    """A splitter that holds out a fold of what another splits into training and validation images.

    Stratified by class and seeded by the run's seed. Groups stay whole: those that the data or the other splitter have,
    else near copies. label: of an item. DataError where a class has fewer images, or groups, than there are folds.
    """
    k, n = fold

    def draw(items: Any) -> tuple[list[int], list[int], dict[str, str]]:
        places = np.array(sorted(int(i) for split in splitter(items) for i in positions(split, len(items))))
        own = picked(items, places)
        of, paths = groups_of(own, splitter), paths_of(own)
        names = [of.get(path, "") for path in paths] if of else copies_of(own) or [""] * len(paths)
        rows = (row for _, row in own.iterrows()) if hasattr(own, "iterrows") else own
        labels = [names_of(given) for given in plain(map(label, rows))]
        held = places[divide(labels, names, n, options.current().seed) == k - 1]
        of = dict(zip(paths, names, strict=True)) if any(names) else {}
        return np.setdiff1d(places, held).tolist(), held.tolist(), of

    return Splitter(draw)


def divide(labels: Sequence[Sequence[str]], names: Sequence[str], n: int, seed: int) -> np.ndarray:
    """(images,) the fold of each image, 0 … n-1, stratified by the rarest of its labels; groups of a name stay whole.

    names: of each image's group, empty where it is alone: of copies, which go where the first of them goes.
    """
    kept = "group" if names and all(names) else "image"
    unit = [name or (i,) for i, name in enumerate(names)]
    owners: dict[str, set[Any]] = defaultdict(set)
    sizes: Counter[str] = Counter()
    for own, name in zip(labels, unit, strict=True):
        for label in own:
            owners[label].add(name)
            sizes[label] += 1
    if few := {label: len(own) for label, own in owners.items() if len(own) < n}:
        shown = [f"{label} ({count(number, kept)})" for label, number in sorted(few.items(), key=lambda one: one[1])]
        least = min(few.values())
        fewer = f"Use {least} folds, or add" if least > 1 else "Add"
        raise DataError(
            f"{n} folds need {n} {kept}s of every class, and {count(len(few), 'class')} of {len(owners):,} "
            f"have fewer: {some(shown)}.",
            f"{fewer} images to these classes, or remove them.",
        )
    rarest = [min(own, key=lambda label: (sizes[label], label), default="") for own in labels]
    if kept == "group":
        return groups.kfold(rarest, [str(name) for name in unit], n, seed)
    from sklearn.model_selection import StratifiedKFold

    first = {name: i for i, name in reversed(list(enumerate(unit)))}
    names_in_order = sorted(first, key=first.__getitem__)
    strata = np.unique([rarest[first[name]] for name in names_in_order], return_inverse=True)[1]
    fold_of: dict[Any, int] = {}
    for fold, (_, held) in enumerate(StratifiedKFold(n, shuffle=True, random_state=seed % 2**32).split(strata, strata)):
        fold_of |= {names_in_order[i]: fold for i in held}
    return np.array([fold_of[name] for name in unit])
