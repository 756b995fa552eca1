"""The validation split: drawn by class where there is none, and compared with the training classes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastcls.datasets import label_sets
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


def draw_validation(df: DataFrame, valid_pct: float, seed: int) -> list[str]:
    """Give every row whose split is empty to train or valid, by class; returns notes for the user.

    A class with a single image stays in train. The share is raised where it would leave fewer validation
    images than there are classes, so that small sets with many classes can be split too.
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
    valid = hold_out(labels, valid_pct, seed)
    df.loc[drawn, "split"] = "train"
    df.loc[drawn[valid], "split"] = "valid"
    sizes: Counter[str] = Counter()
    for label, size in Counter(labels).items():  # of a million images there are few different ones
        sizes.update(dict.fromkeys(names_of(label), size))
    single = [name for name, size in sizes.items() if size == 1]
    return [f"{count(len(single), 'class')} with a single image, kept in train: {some(single)}."] if single else []


def hold_out(labels: Sequence[Any], share: float, seed: int) -> list[int]:
    """Positions of a stratified sample: `share` of the labels, at least one a class on average, never a single.

    Of tuples of labels by iterative stratification: about as large a share of the images with each label.
    """
    import numpy as np
    from sklearn.model_selection import train_test_split

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


def check_splits(df: DataFrame, where: object) -> None:
    """DataError for a split that training or evaluation could not use; what is merely odd the audit finds."""
    by_split = {
        split: {name for label in rows["label"].unique() for name in names_of(label)}
        for split, rows in df.groupby("split", sort=False)
    }
    trained = by_split.get("train", set())
    if "train" not in by_split:
        raise DataError(f"{where} has no training images.", "Give some rows or a folder to train.")
    for split in ("valid", "test"):
        if unknown := sorted(by_split.get(split, set()) - trained):
            raise DataError(
                f"{count(len(unknown), 'class')} of the {split} split in {where} without training images: "
                f"{some(unknown)}.",
                "The network could never predict them: add training images, or correct the spelling.",
            )
