"""The official split of Oxford-IIIT Pet, from the lists in annotations/ beside its images/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastcls.errors import DataError
from fastcls.settings import options


def pets_split(images_folder: Path) -> dict[str, str]:
    """The official split, file name -> 'train' or 'test'; empty where the annotations are not there."""
    lists = {"train": "trainval.txt", "test": "test.txt"}
    files = {split: Path(images_folder).parent / "annotations" / name for split, name in lists.items()}
    if not all(file.is_file() for file in files.values()):
        return {}
    lines = [(split, line.split()) for split, file in files.items() for line in file.read_text().splitlines()]
    return {f"{fields[0]}.jpg": split for split, fields in lines if fields and not fields[0].startswith("#")}


def pets_parts(files: Sequence[Path], split: str) -> tuple[list[Path], list[Path] | None]:
    """Of the images of `pets()` those to train on, and the published test images; split 'random': all, and None.

    Images that neither published list names are left out, with a note. DataError where the lists are not there.
    """
    if split == "random":
        return list(files), None
    listed = pets_split(files[0].parent)
    if not listed:
        raise DataError(
            f"{files[0].parent.parent / 'annotations'} holds no trainval.txt and test.txt, the official split.",
            "Unpack annotations.tar.gz beside images/, or give --split random.",
        )
    parts = {part: [file for file in files if listed.get(file.name) == part] for part in ("train", "test")}
    if missing := len(listed) - sum(map(len, parts.values())):
        options.note(f"Images of the official split that are not there: {missing:,} of {len(listed):,}.")
    if others := sum(file.name not in listed for file in files):
        options.note(f"Images in neither list of the official split, left out: {others:,}.")
    return parts["train"], parts["test"]
