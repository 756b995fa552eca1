"""Images that belong together, a patient's, a site's, a burst's: which they are, and splits that never part them.

A group is named by a column of the table, or by a regular expression over the path below the folder of images, whose
first group, or else whose whole match, is the name.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastcls.datasets.walk import below, composed, count, some
from fastcls.errors import DataError, UsageError, did_you_mean
from fastcls.runfolder.target import names_of

COLUMN = "group"  # of a table: the name of each image's group; empty for an image that is alone
_PLAIN = re.compile(r"[\w -]+")  # what is rather the name of a column than a pattern
_MOST_FOLDS, _DRAWS = 20, 10
_PATTERN = r"Put the group in parentheses, e.g. '(patient\d+)'; the pattern is searched for in the path below {}."


def named(
    group: str, paths: Sequence[str], root: str | Path, columns: Mapping[str, Sequence[str]]
) -> tuple[list[str], str]:
    """The group of each path, and in words what they are groups by.

    columns: those of the table of labels, by title. UsageError or DataError, with counts, where some have no group, or
    all the same one.
    """
    found, by = known(group, paths, root, columns)
    if lost := [path for path, name in zip(paths, found, strict=True) if not name]:
        if group in columns:
            raise DataError(
                f"{by.capitalize()} is empty for {len(lost):,} of {count(len(paths), 'image')}: {_some(lost, root)}.",
                "Fill it in; give an image that belongs to no group a name of its own.",
            )
        how_many = f"{len(lost):,} of {len(paths):,} paths" if len(lost) < len(paths) else "any path"
        raise DataError(
            f"The pattern '{group}' of --group does not match {how_many}: {_some(lost, root)}.",
            "Every image needs a group. " + _PATTERN.format(root),
        )
    if len(set(found)) == 1:
        raise DataError(
            f"All {count(len(paths), 'image')} are in one group, {found[0]!r}, by {by}, so none can be held out.",
            "Choose a column or a pattern that separates what will be new in new images: patients, sites, days.",
        )
    return found, by


def known(
    group: str, paths: Sequence[str], root: str | Path, columns: Mapping[str, Sequence[str]]
) -> tuple[list[str], str]:
    """As `named`, but empty where an image has no group. UsageError where `group` is no column and no pattern."""
    if group in columns:
        import pandas as pd

        texts = ("" if pd.isna(value) else composed(str(value).strip()) for value in columns[group])
        return list(texts), f"the column {group!r}"
    if _PLAIN.fullmatch(group):
        there = f"Available: {', '.join(columns)}. " if columns else "There is no table with further columns. "
        raise UsageError(
            f"--group {group}: besides path, label and split there is no such column"
            f"{did_you_mean(group, list(columns))}",
            there + _PATTERN.format(root),
        )
    return _matched(group, paths, root), f"the pattern '{group}'"


def _matched(pattern: str, paths: Sequence[str], root: str | Path) -> list[str]:
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"--group {pattern}: neither a column nor a regular expression: {error}.",
            r"Escape ( ) [ ] { } + * ? . | ^ $ with \ to match the character itself: 'site\(\d+\)'.",
        ) from error
    matches = (regex.search(below(path, root)) for path in paths)
    return [composed((match[1] if regex.groups else match[0]) or "") if match else "" for match in matches]


def _some(paths: Sequence[str], root: str | Path) -> str:
    return some(below(path, root) for path in paths)


def divide(
    labels: Sequence[str | Sequence[str]],
    groups: Sequence[str],
    valid: float,
    test: float,
    seed: int,
) -> tuple[list[int], list[int]]:
    """Positions of validation and test images: about these shares of the images and of each class, in whole groups.

    Folds of scikit-learn's StratifiedGroupKFold, by the rarest of an image's labels; several folds are one split where
    its share says so. DataError where a class has one group alone, which could be on one side alone.
    """
    import numpy as np

    groups_of: dict[str, set[str]] = defaultdict(set)
    sizes: Counter[str] = Counter()
    for label, group in zip(labels, groups, strict=True):
        for name in names_of(label):
            groups_of[name].add(group)
            sizes[name] += 1
    if single := sorted(name for name, own in groups_of.items() if len(own) == 1):
        shown = [f"{name} ({count(sizes[name], 'image')}, all of {min(groups_of[name])!r})" for name in single]
        raise DataError(
            f"{count(len(single), 'class')} of {len(groups_of):,} have a single group, which can be trained on or "
            f"held out, but not both: {some(shown)}.",
            "Add images of other groups, or remove these classes.",
        )
    rarest = [min(names_of(label), key=lambda name: (sizes[name], name), default="") for label in labels]
    n, for_valid, for_test = _folds(valid, test, min(len(set(groups)), max(Counter(rarest).values())))
    codes = {name: i for i, name in enumerate(sorted(groups_of))}
    has = np.zeros((len(labels), len(codes)), bool)
    for row, label in enumerate(labels):
        has[row, [codes[name] for name in names_of(label)]] = True
    wanted = np.outer([valid, test], has.sum(0))
    best: tuple[float, list[int], list[int]] | None = None
    for attempt in range(_DRAWS):
        folds = kfold(rarest, groups, n, seed + attempt)
        for first in range(n):
            turned = (folds - first) % n
            splits = [np.flatnonzero(turned < for_valid)]
            splits.append(np.flatnonzero((turned >= for_valid) & (turned < for_valid + for_test)))
            counts = np.stack([has[at].sum(0) for at in splits])
            if (counts.sum(0) == has.sum(0)).any() or not len(splits[0]) or (test and not len(splits[1])):
                continue  # a class would have nothing to be trained on
            off = float(np.abs(counts - wanted).sum() + (counts[0] == 0).sum())
            if best is None or off < best[0]:
                best = (off, splits[0].tolist(), splits[1].tolist())
        if best is not None:
            return best[1], best[2]
    few = sorted(groups_of, key=lambda label: (len(groups_of[label]), label))[:3]
    counted = ", ".join(f"{label} ({len(groups_of[label])} groups)" for label in few)
    raise DataError(
        f"The {len(set(groups)):,} groups cannot be divided so that every class has images to train on: {counted}.",
        "Hold out a smaller share, or add images of other groups.",
    )


def _folds(valid: float, test: float, most: int) -> tuple[int, int, int]:
    """How many folds, and how many of them are for validation and for test, so that the shares come out best."""

    def cost(n: int) -> tuple[float, int]:
        v, t = parts(n)
        return round(abs(v / n - valid) + abs(t / n - test), 6), n

    def parts(n: int) -> tuple[int, int]:
        return max(1, round(valid * n)), max(1, round(test * n)) if test else 0

    possible = [n for n in range(2, min(_MOST_FOLDS, most) + 1) if sum(parts(n)) < n]
    if not possible:
        splits = "training, validation and test" if test else "training and validation"
        raise DataError(f"{count(most, 'group')} cannot be divided into {splits}.", "Add images of other groups.")
    n = min(possible, key=cost)
    return (n, *parts(n))


def kfold(labels: Sequence[str], groups: Sequence[str], n: int, seed: int) -> Any:
    """(images,) the fold of each image, 0 … n-1, whole groups and about the same share of each class in every one."""
    import numpy as np
    from sklearn.model_selection import StratifiedGroupKFold

    number = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    codes = np.array([number[group] for group in groups])
    targets = np.unique(np.asarray(labels, object).astype(str), return_inverse=True)[1]
    folds = np.zeros(len(codes), int)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        drawn = StratifiedGroupKFold(n, shuffle=True, random_state=seed % 2**32).split(codes, targets, codes)
        for fold, (_, held) in enumerate(drawn):
            folds[held] = fold
    return folds


def straddling(groups: Sequence[str], splits: Sequence[str]) -> list[str]:
    """The groups that have images in several splits."""
    sides: dict[str, set[str]] = defaultdict(set)
    for group, split in zip(groups, splits, strict=True):
        if group:
            sides[group].add(split)
    return [group for group, own in sides.items() if len(own) > 1]
