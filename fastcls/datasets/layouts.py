"""Images of your own: recognise how they are laid out, and list path, label and split.

class folders        <class>/…                          a validation split is drawn from them
split folders        train/<class>/… valid/<class>/…    optionally test/<class>/…, or <class>/train/…
one folder           labels from the file names, by a regular expression
a table              a CSV file of file names and labels, read by `label_table`
"""

from __future__ import annotations

import errno
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastcls.datasets import label_sets, shards
from fastcls.datasets.buckets import is_address
from fastcls.datasets.splits import check_splits, draw_validation, split_of
from fastcls.datasets.walk import Found, count, is_image, is_text, listing, names, slashes, some, unread, walked
from fastcls.errors import OF_SYSTEM, DataError, UsageError, did_you_mean
from fastcls.runfolder import hub
from fastcls.settings import options, shell

if TYPE_CHECKING:
    from pandas import DataFrame

SLICE = "slice:"  # how the name of a column begins that says more of an image, its site or camera
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".gz", ".xz", ".bz2", ".7z", ".rar")
_HOW = (
    "Sort the images into one folder per class, pass a table of file names and labels as --labels, or take "
    "the labels from the file names with --label-regex."
)


def find(
    path: str | Path,
    *,
    labels: str = "",
    label_regex: str = "",
    valid_pct: float | None = 0.2,
    seed: int | None = None,
    multi_label: str = "auto",
) -> DataFrame:
    """List the images under `path` with columns `path` (absolute), `label` and `split`, all text.

    `split` is train, valid or test. If the layout has no validation split, `valid_pct` of each class is drawn with
    `seed` (by default the run's own); with None it stays empty, for `data.split`. `attrs['layout']` is the recognised
    layout, `attrs['root']` the folder, `attrs['notes']` a list of notes for the user. A further column TITLE of a table
    of labels becomes `slice:TITLE`.
    multi_label: whether an image may have several labels, or none: 'yes', 'no', or 'auto' to decide by the labels. If
    so, `label` contains lists of labels, and `attrs['target']` is 'multi-label'.
    """
    import pandas as pd

    if pack := shards.opened(path):
        if labels or label_regex:
            raise UsageError(f"{path} contains packed images, which have labels.", "Omit --labels and --label-regex.")
        return pack.table()
    if valid_pct is not None and not 0 < valid_pct < 1:
        raise UsageError(f"A validation share of {valid_pct} is not between 0 and 1.", "Give 0.2, for example.")
    root = folder(path)
    found = listed(root, labels, label_regex, multi=label_sets.wanted(multi_label))
    if len(classes := {name for label in {row[1] for row in found.rows} for name in found.target.names(label)}) == 1:
        raise DataError(f"All {len(found.rows):,} images in {root} are of one class, {classes.pop()!r}.", _HOW)
    if found.rows and not classes:
        raise DataError(f"No image in {root} has a label.", "Add labels to the table.")
    df = pd.DataFrame(found.rows, columns=["path", "label", "split"])
    if found.target.several:
        df["label"] = df["label"].map(found.target.names)
    for title, values in found.further.items():
        df[f"{SLICE}{title}"] = df["path"].map(values).fillna("")
    found.rows = []  # a million rows take 160 MB
    if valid_pct is not None:
        found.notes += draw_validation(df, valid_pct, options.current().seed if seed is None else seed)
        check_splits(df, root)
    if found.target.several:
        df["label"] = df["label"].map(list)  # fastai's transforms go into tuples
    df.attrs.update({"target": found.target.kind} if found.target.several else {})
    df.attrs.update(layout=found.layout, notes=found.notes + found.left_out(), root=str(root))
    return df


def listed(
    path: str | Path,
    labels: str = "",
    label_regex: str = "",
    lenient: bool = False,
    multi: label_sets.MultiLabel = "auto",
) -> Found:
    """The images under `path` as they are: nothing is drawn, and nothing of classes and splits is refused.

    multi: whether an image may have several labels; the label of a row is then `target.text` of them. lenient: wrong
    rows of a table of labels are collected in `faults` and not refused.
    """
    if labels and label_regex:
        raise UsageError(
            "--labels and --label-regex exclude each other: labels come from a table or from the file names, not both.",
            "Use only one of them.",
        )
    root, found = folder(path), Found(lenient=lenient)
    if labels:
        from fastcls.datasets import label_table

        label_table.read(labels, root, found, multi)
    elif label_regex:
        if multi == "yes":
            raise UsageError(
                "--multi-label yes: --label-regex takes a single label from each file name.",
                "Pass a table of labels as --labels, or put copies of a file into several class folders.",
            )
        _from_file_names(root, label_regex, found)
    else:
        _from_folders(root, found)
        label_sets.merge_folders(found, multi)
    return found


# ---------------------------------------------------------------------------- where the images are


def _images(folder: str | Path, found: Found) -> list[str]:
    """The image files anywhere below `folder`; other files are counted."""
    files = list(walked(folder, pipes=found.pipes))
    images = list(filter(is_image, files))
    if len(images) < len(files):
        found.skipped.update(Path(file).suffix.lower() for file in files if not is_image(file))
    named = list(filter(is_text, images))
    if len(named) < len(images):
        found.unnamed += [file for file in images if not is_text(file)]
    return named


def folder(path: str | Path) -> Path:
    """The folder called `path`, absolute, or that of a dataset of the Hub; DataError where it is none."""
    if not str(path):
        raise DataError("No folder of images was given.", "Pass it as --path.")
    if str(path).startswith(hub.DATASETS):
        from fastcls.datasets import hub_images

        return hub_images.folder(str(path))
    if is_address(path) and (pack := shards.opened(path)):
        return pack.root
    root = Path(os.path.abspath(shell.path(path)))  # noqa: PTH100, a link stays the name the user gave
    if root.is_dir():
        try:
            os.stat(f"{root}/.")  # noqa: PTH116  a Path drops the dot, without which nobody is refused
        except PermissionError as problem:
            raise DataError(f"{root} cannot be read: {problem.strerror}.", OF_SYSTEM[errno.EACCES]) from None
        return root
    if not root.exists():
        beside = [entry.name for entry in root.parent.iterdir()] if root.parent.is_dir() else []
        guess = did_you_mean(root.name, beside) or "."
        raise DataError(f"The folder {root} does not exist{guess}", "Pass the folder of images as --path.")
    hint = "Pass the folder with the images as --path."
    if root.name.lower().endswith(ARCHIVE_SUFFIXES):
        hint = "It looks like an archive: unpack it and pass its folder as --path."
    elif root.suffix.lower() in (".csv", ".tsv", ".txt"):
        hint = f"For a table of labels, pass the folder of images as --path, and --labels {root.name}."
    raise DataError(f"{root} is a file, not a folder of images.", hint)


# ---------------------------------------------------------------------------- labels from folders


def _from_folders(root: Path, found: Found) -> None:
    top, root = root, _unwrapped(root)
    if root != top:
        found.notes.append(f"Using {root.relative_to(top).as_posix()}/, the only folder in {top}.")
    parts, folders = _split_folders(root), listing(root)[1]
    if "train" in parts:
        _from_splits(root, parts, found)
        return
    if parts and len(parts) == len(folders):
        raise DataError(
            f"{root} has {names(parts.values())} but no train/ folder.", "Pass the folder that contains train/."
        )
    for split, folder in parts.items():
        found.notes.append(
            f"{folder.name}/ is next to class folders, without a train/ folder, and was left out: move the "
            f"class folders into train/ to use it as the {split} split, or rename it if it is a class."
        )
    if not parts and _from_split_classes(folders, found):
        return
    found.rows = _class_rows(root, "", found, leave=parts.values())
    if not found.rows:
        raise _unlabelled(root)
    found.layout = count(len({label for _, label, _ in found.rows}), "class folder")


def _unwrapped(root: Path) -> Path:
    """Where the data begins, below folders that hold one folder and nothing else, as unpacked archives do."""
    inner = root
    while not _split_folders(inner):
        files, folders = listing(inner)
        if len(folders) > 1:
            break
        if not folders or any(map(is_image, files)):
            return root
        inner = Path(folders[0])
    return inner


def _from_splits(root: Path, parts: dict[str, Path], found: Found) -> None:
    for split in ("train", "valid"):
        if split not in parts:
            continue
        rows = _class_rows(parts[split], split if "valid" in parts else "", found)
        if not rows:
            loose = _images(parts[split], Found())
            what = "images but no class folders" if loose else "no images"
            name = "training" if split == "train" else "validation"
            raise DataError(f"The {name} folder {parts[split]} contains {what}.", _HOW)
        found.rows += rows
    classes = {label for _, label, _ in found.rows}
    if "test" in parts:
        unseen = Found()
        rows = _class_rows(parts["test"], "test", unseen)
        if classes.isdisjoint(label for _, label, _ in rows):  # images, or test/images/ and the like
            left = count(len(_images(parts["test"], Found())), "image")
            found.notes.append(f"{parts['test'].name}/ has no class folders: its {left} left out as unlabelled.")
            parts = {split: folder for split, folder in parts.items() if split != "test"}
        else:
            found.rows += rows
            found.notes += unseen.notes
            found.skipped += unseen.skipped
    if others := [name for name in map(Path, listing(root)[1]) if not split_of(name.name)]:
        found.notes.append(f"Left out {names(others)} next to {parts['train'].name}/.")
    found.layout = f"{names(parts.values())} with {count(len(classes), 'class folder')}"


def _from_split_classes(folders: list[str], found: Found) -> bool:
    """<class>/train/…, <class>/valid/…: whether every class folder is divided so; then its rows are found."""
    parts = {name: _split_folders(Path(name)) for name in folders}
    if not parts or not all("train" in each and len(each) == len(listing(name)[1]) for name, each in parts.items()):
        return False
    drawn = any("valid" in each for each in parts.values())
    for name, each in parts.items():
        for split, folder in each.items():
            rows = [(slashes(image), Path(name).name, split) for image in _images(folder, found)]
            found.rows += [(*row[:2], "") for row in rows] if split == "train" and not drawn else rows
    found.layout = f"{count(len(parts), 'class folder')}, split inside"
    return bool(found.rows)


def _split_folders(root: Path) -> dict[str, Path]:
    """The folders named train, valid and test or the like, in that order."""
    parts: dict[str, Path] = {}
    for folder in map(Path, listing(root)[1]):
        if split := split_of(folder.name):
            if split in parts:
                both = names([parts[split], folder])
                raise DataError(f"{root} has two folders for one split: {both}.", "Keep or rename one.")
            parts[split] = folder
    return {split: _inner(parts[split], split) for split in ("train", "valid", "test") if split in parts}


def _inner(folder: Path, split: str) -> Path:
    """The folder of a split itself, where an archive has one of the same name around it: train/train/<class>."""
    files, folders = listing(folder)
    if len(folders) == 1 and split_of(Path(folders[0]).name) == split and not any(map(is_image, files)):
        return _inner(Path(folders[0]), split)
    return folder


def _class_rows(root: Path, split: str, found: Found, leave: Iterable[Path] = ()) -> list[tuple[str, str, str]]:
    """The images in the class folders of `root`; what is odd there becomes a note."""
    rows: list[tuple[str, str, str]] = []
    empty, nested = [], 0
    files, folders = listing(root)
    for folder in map(Path, folders):
        if folder in leave:
            continue
        images = _images(folder, found)
        if not images:
            empty.append(folder)
        nested += bool(images) and Path(images[-1]).parent != folder  # files come before folders
        name = folder.name  # one text for all rows
        rows += [(slashes(image), name, split) for image in images]
    if rows and empty:
        found.notes.append(f"{names(empty)} in {root} without images: ignored.")
    if nested:
        found.notes.append(f"{count(nested, 'class folder')} in {root} with subfolders: read as one class each.")
    if rows and (loose := sum(map(is_image, files))):
        found.notes.append(f"{count(loose, 'image')} next to the class folders in {root} left out.")
    return rows


def _pattern(names: Sequence[str]) -> str:
    """The pattern of cat_001.jpg, dog-7.jpg or cat.0.jpg, if all names have one and it finds classes; or nothing."""
    for sign in ("_", "-", r"\."):
        pattern = rf"(.+){sign}\d+"
        labels = [match[1] for name in names if (match := re.search(pattern, name))]
        if len(labels) == len(names) and 1 < len(set(labels)) <= len(labels) / 2:
            return pattern
    return ""


def _unlabelled(root: Path) -> DataError:
    """The error for a folder without class folders: images without labels, or no images at all."""
    files = list(walked(root))
    images = list(filter(is_image, files))
    tables = [file.name for file in map(Path, listing(root)[0]) if file.suffix.lower() in (".csv", ".tsv")]
    if images:
        hint = f"Does {tables[0]} have them? --labels {tables[0]}" if tables else _HOW
        if pattern := _pattern([Path(image).name for image in images]):
            hint = f"Do the file names have them? --label-regex {shlex.quote(pattern)}"
        return DataError(f"{root} contains {count(len(images), 'image')} without labels.", hint)
    if not files:
        return DataError(f"{root} contains no files.", "Pass the folder with the images.")
    held = some([Path(file).relative_to(root).as_posix() for file in files])
    packed = [file for file in files if file.lower().endswith(ARCHIVE_SUFFIXES)]
    hint = f"Unpack {Path(packed[0]).name} and pass its folder." if packed else "Pass the folder with the images."
    hint = unread(Path(file).suffix.lower() for file in files) or hint
    return DataError(f"{root} contains no images. It contains {held}.", hint)


# ---------------------------------------------------------------------------- labels from file names


def _from_file_names(root: Path, pattern: str, found: Found) -> None:
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"The label pattern {pattern!r} is not a valid regular expression: {error}.") from error
    if not regex.groups:
        raise UsageError(
            f"The label pattern {pattern!r} has no group for the label.",
            r"Put the label in parentheses: '^(.+)_\d+\.jpg$'",
        )
    parts = _split_folders(root)
    areas = parts if "train" in parts else {"": root}
    strays: list[str] = []
    for split, folder in areas.items():
        split = "" if split == "train" and "valid" not in parts else split
        for image in map(Path, _images(folder, found)):
            match = regex.search(image.name)
            if match and match.group(1):
                found.rows.append((image.as_posix(), match.group(1), split))
            else:
                strays.append(image.name)
    if not found.rows and not strays:
        raise _unlabelled(root)
    if not found.rows:
        raise DataError(
            f"No file name in {root} matches the label pattern {pattern!r}; the files are {some(strays)}.",
            "The first group of the pattern is the label; only the file name is searched.",
        )
    if strays:
        found.notes.append(
            f"{count(len(strays), 'image')} left out because the pattern does not match: {some(strays)}."
        )
    found.layout = f"labels from the file names by '{pattern}'"
