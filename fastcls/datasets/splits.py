"""The validation split: drawn by class where there is none, and compared with the training classes."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from fastcls.datasets import groups, label_sets
from fastcls.datasets.walk import count, some
from fastcls.errors import DataError
from fastcls.runfolder.target import names_of

if TYPE_CHECKING:
    from pandas import DataFrame

SPLIT_NAMES = {"train": "train", "training": "train", "test": "test", "testing": "test"} | dict.fromkeys(
    ("valid", "val", "validation"), "valid"
)
# as archives call them: seg_train, Training_set, val images
_FOLDER = re.compile(rf"(?:seg[ _-])?({'|'.join(SPLIT_NAMES)})(?:[ _-]?(?:set|data|images|imgs|split))?", re.I)


def split_of(folder: str) -> str:
    """The split that a folder of this name is: train, valid or test; empty for any other name."""
    named = _FOLDER.fullmatch(folder)
    return SPLIT_NAMES[named[1].lower()] if named else ""


def draw_validation(
    df: DataFrame, valid_pct: float, seed: int, test_pct: float = 0.0, copies: Sequence[str] | None = None
) -> list[str]:
    """Give every row whose split is empty to train, valid or, with a share for it, test; returns notes for the user.

    Stratified by class. A class with a single image stays in train. The share is raised where it would leave fewer
    validation images than there are classes, so that small sets with many classes can be split too. With a column
    `group`, whole groups are drawn; copies: small ones, by the name of each row's, empty where it is alone.
    """
    import numpy as np
    import pandas as pd

    drawn = df.index[df["split"] == ""]
    if not len(drawn):
        return []
    labels: list[Any] = df.loc[drawn, "label"].tolist()
    if isinstance(labels[0], str):
        codes, names = pd.factorize(df.loc[drawn, "label"])
        labels = np.asarray(names, object)[codes].tolist()  # a text a class, not a text a row
    df.loc[drawn, "split"] = "train"
    if copies is None and groups.COLUMN in df:
        valid, test = groups.divide(labels, df.loc[drawn, groups.COLUMN].tolist(), valid_pct, test_pct, seed)
        df.loc[drawn[valid], "split"], df.loc[drawn[test], "split"] = "valid", "test"
        return []
    of = dict(zip(df.index, copies, strict=True)) if copies else {}
    if test_pct:
        held = hold_out(labels, test_pct, seed, [of[row] for row in drawn] if of else None)
        df.loc[drawn[held], "split"] = "test"
        drawn = drawn[(df.loc[drawn, "split"] == "train").to_numpy()]
        valid_pct /= 1 - test_pct
    rest = labels if not test_pct else df.loc[drawn, "label"].tolist()
    held = hold_out(rest, valid_pct, seed, [of[row] for row in drawn] if of else None)
    df.loc[drawn[held], "split"] = "valid"
    sizes: Counter[str] = Counter()
    for label, size in Counter(labels).items():  # of a million images there are few different ones
        sizes.update(dict.fromkeys(names_of(label), size))
    single = [name for name, size in sizes.items() if size == 1]
    return [f"{count(len(single), 'class')} with a single image, kept in train: {some(single)}."] if single else []


def hold_out(labels: Sequence[Any], share: float, seed: int, copies: Sequence[str] | None = None) -> list[int]:
    """Positions of a stratified sample: `share` of the labels, at least one a class on average, never a single.

    Of tuples of labels by iterative stratification: about as large a share of the images with each label.
    copies: a name each; those of one name are held out together or not at all. Empty: it is alone.
    """
    import numpy as np
    from sklearn.model_selection import train_test_split

    if copies is not None and any(copies):
        return _hold_out_whole(labels, share, seed, copies)
    if any(isinstance(label, tuple | list) for label in labels):
        return label_sets.hold_out([names_of(label) for label in labels], share, seed)
    number = {label: n for n, label in enumerate(sorted(set(labels), key=str))}
    strata = np.fromiter(map(number.__getitem__, labels), np.int32, len(labels))
    sizes = np.bincount(strata)
    many = np.flatnonzero(sizes[strata] > 1)
    if not len(many):
        raise DataError(
            "Every class has a single image, so none can be held out for validation.",
            "Add images to the classes.",
        )
    classes = int((sizes > 1).sum())
    held_out = min(max(round(len(many) * share), classes), len(many) - classes)
    _, valid = train_test_split(many, test_size=held_out, random_state=seed, stratify=strata[many])
    found: list[int] = np.sort(valid).tolist()
    return found


def _hold_out_whole(labels: Sequence[Any], share: float, seed: int, copies: Sequence[str]) -> list[int]:
    """As `hold_out` of the first of each name, and all others of that name with it."""
    members: dict[Hashable, list[int]] = defaultdict(list)
    for place, name in enumerate(copies):
        members[name or place].append(place)
    units = list(members.values())
    held = [units[i] for i in hold_out([labels[unit[0]] for unit in units], share, seed)]
    trained = Counter(name for label in labels for name in names_of(label))
    trained.subtract(name for unit in held for place in unit for name in names_of(labels[place]))
    kept = [unit for unit in held if all(trained[name] for place in unit for name in names_of(labels[place]))]
    return sorted(place for unit in kept for place in unit)  # copies of several labels may have taken the last of one


def check_splits(df: DataFrame, where: object) -> None:
    """DataError for a split that training or evaluation could not use; what is merely odd the audit finds."""
    by_split = {
        split: {name for label in rows["label"].unique() for name in names_of(label)}
        for split, rows in df.groupby("split", sort=False)
    }
    trained = by_split.get("train", set())
    if "train" not in by_split:
        raise DataError(f"{where} has no training images.", "Assign some rows or a folder to train.")
    for split in ("valid", "test"):
        if unknown := sorted(by_split.get(split, set()) - trained):
            raise DataError(
                f"{count(len(unknown), 'class')} of the {split} split in {where} without training images: "
                f"{some(unknown)}.",
                "The network could never predict them: add training images, or correct the spelling.",
            )
