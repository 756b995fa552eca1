"""What a path holds, for a check: images in any layout, a published dataset, a pack, or a run."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from fastcls import datasets
from fastcls.datasets import label_sets, label_table, layouts, shards
from fastcls.datasets.walk import count
from fastcls.errors import DataError, UsageError
from fastcls.runfolder import runs, splits, target
from fastcls.runfolder.target import SINGLE, Target
from fastcls.settings import shell

PETS = r"^(.+)_\d+\.jpg$"
UNDRAWN = "train or valid"  # the name of a split that is still to be drawn


@dataclass(frozen=True)
class Contents:
    """Images as rows (path, label, split); the split is empty where a validation split is still to be drawn."""

    root: Path
    layout: str
    rows: list[tuple[str, str, str]]
    notes: list[str] = field(default_factory=list)
    faults: dict[str, list[str]] = field(default_factory=dict)  # of a table of labels: what -> which rows
    further: dict[str, dict[str, str]] = field(default_factory=dict)  # other columns of it: title -> path -> value
    target: Target = SINGLE  # which says what a label names
    groups: dict[str, str] = field(default_factory=dict)  # of a run's images: path -> the group that it is in

    @property
    def sets(self) -> list[tuple[str, tuple[str, ...], str]]:
        """(path, classes, split) of every image."""
        return [(path, self.target.names(label), split) for path, label, split in self.rows]

    @property
    def labels(self) -> list[tuple[str, str]]:
        """(class, split) of every label of every image."""
        return [(name, split) for _, names, split in self.sets for name in names]


def read(
    path: str, labels: str = "", label_regex: str = "", lenient: bool = True, multi_label: str = "auto"
) -> Contents:
    """The images below `path`; DataError where there are none or nothing labels them.

    multi_label: yes, no or auto: whether an image may have several labels. lenient: wrong rows of a table of labels
    become `faults`, and are not refused.
    """
    if is_run(path):
        if labels or label_regex or multi_label != "auto":
            hint = "Omit --labels, --label-regex and --multi-label."
            raise UsageError(f"{path} is a run: its images have labels.", hint)
        return _of_run(shell.path(path))
    root = layouts.folder(path)
    if pack := shards.opened(root):
        return _of_pack(pack)
    plain = not (labels or label_regex)
    if plain and (root / "train_test_split.txt").is_file():
        rows = datasets.birds_table(root)[["path", "label", "split"]].values.tolist()
        return Contents(root, "CUB-200-2011", [(p, label, "" if s == "train" else s) for p, label, s in rows])
    if plain and (root / "annotations" / "trainval.txt").is_file() and (root / "images").is_dir():
        return _pets(root)
    found = layouts.listed(root, labels, label_regex, lenient, label_sets.wanted(multi_label))
    if not any(found.target.names(label) for _, label, _ in found.rows):
        table = f" in the table {labels}" if labels else ""
        hint = (
            "File names are looked up in this folder, with or without their suffix."
            if label_table.NO_FILE in found.faults
            else ""
        )
        wrong = f": rows with {label_table.listed(found.faults)}" if found.faults else ""
        raise DataError(f"No image in {root} has a label{table}{wrong}.", hint)
    return Contents(
        root, found.layout, found.rows, found.notes + found.left_out(), found.faults, found.further, found.target
    )


def is_run(path: str) -> bool:
    """Whether `path` is a run folder."""
    return os.path.isfile(shell.path(path) / "run.json")  # noqa: PTH113  a Path raises where it may not look


def _of_pack(pack: shards.Pack) -> Contents:
    table = pack.table()
    labels = map(pack.target.text, table["label"]) if pack.target.several else table["label"]
    rows = list(zip(table["path"], labels, table["split"], strict=True))
    return Contents(pack.root, "packed images", rows, [pack.described()], target=pack.target)


def _pets(root: Path) -> Contents:
    """Oxford-IIIT Pet with its official split."""
    found = layouts.listed(root / "images", label_regex=PETS)
    split = {name: "" if part == "train" else part for name, part in datasets.pets_split(root / "images").items()}
    rows = [(path, label, split.get(Path(path).name, "")) for path, label, _ in found.rows]
    return Contents(root, "Oxford-IIIT Pet", rows, found.notes + found.left_out())


def _of_run(folder: Path) -> Contents:
    data = runs.read_json(folder / "run.json").get("data") or {}
    table = folder / splits.FILE
    if not table.is_file() or "root" not in data:
        raise DataError(f"{folder} has no splits.csv, the list of its images.", "Pass the folder of the images.")
    root = Path(data["root"])
    if not root.is_dir():
        raise DataError(f"The images of {folder} are no longer in {root}.", "Pass the folder where they are now.")
    rows = [((root / path).as_posix(), label, split) for path, label, split in splits.read(folder)]
    layout = f"the {count(len(rows), 'image')} of the run {folder.name}"
    groups = {(root / path).as_posix(): name for path, name, _ in splits.read_groups(folder) if name}
    return Contents(root, layout, rows, target=target.of(data), groups=groups)
