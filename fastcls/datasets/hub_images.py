"""`--path hf://datasets/OWNER/NAME`: a dataset of the Hugging Face Hub as class folders, read by `datasets`."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fastcls.datasets.archives import MAX_BYTES, building, locked
from fastcls.datasets.downloads import cache_dir
from fastcls.datasets.splits import SPLIT_NAMES
from fastcls.datasets.walk import is_image, some
from fastcls.errors import DataError, DownloadError, EnvironmentProblem
from fastcls.log import logger
from fastcls.machine import extras
from fastcls.runfolder import hub
from fastcls.settings import options

TAIL = 12  # letters of a commit in a folder's name
SIGNATURES = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"RIFF": ".webp", b"BM": ".bmp"}
TEXTS = ("label", "labels", "class", "category")  # columns that name a class in words
SPLITS = SPLIT_NAMES | {"dev": "valid"}


def folder(text: str) -> Path:
    """The images of `hf://datasets/OWNER/NAME[@REVISION]` as files: CLASS/, or train/, valid/ and test/ of them.

    Made once in the cache of datasets; the bytes of every image are the Hub's. UsageError where there is no such
    dataset, DataError where it has no images with one label each, DownloadError where the Hub is not reached.
    """
    name = hub.parsed(text, hub.DATASETS)
    stem = name.repository.replace("/", "--")
    home = cache_dir() / "hub"
    extras.require(f"--path {text}", "datasets")
    try:
        with hub.reached(text, DownloadError):
            from huggingface_hub import HfApi

            found = HfApi().dataset_info(name.repository, revision=name.revision, files_metadata=True)
            commit, size = str(found.sha), sum(file.size or 0 for file in found.siblings or [])
    except DownloadError:
        kept = sorted(home.glob(f"{stem}--*"), key=lambda path: path.stat().st_mtime)
        if not kept or name.revision:
            raise
        options.note(f"The Hub cannot be reached; using the copy of {text} in {kept[-1]}.")
        return kept[-1]
    target = home / f"{stem}--{commit[:TAIL]}"
    with locked(target):
        if not target.is_dir():
            _refuse_large(text, size, target.parent)
            logger.info(f"Reading {text} into {target}, once")
            with building(target) as part:
                _write(text, name.repository, commit, part)
    return target


def _refuse_large(text: str, size: int, home: Path) -> None:
    """DataError where a dataset would fill the disk; it is there twice, as it was downloaded and as files."""
    free = shutil.disk_usage(home).free
    if size > MAX_BYTES or 2 * size > free:
        raise DataError(
            f"{text} has {size / 1e9:,.1f} GB; {free / 1e9:,.1f} GB are free, and the limit is {MAX_BYTES >> 30} GiB.",
            "Download a part of it, and pass its folder as --path.",
        )


def _write(text: str, repository: str, commit: str, into: Path) -> None:
    """A file an image; labels that are missing are left out, and so are splits that are none of ours."""
    import datasets

    datasets.disable_progress_bars()
    try:
        parts = datasets.load_dataset(repository, revision=commit)  # streamed, images come decoded
        known = {str(split): SPLITS[str(split)] for split in parts if str(split) in SPLITS}
        if others := [str(split) for split in parts if str(split) not in known]:
            options.note(f"{text}: the splits {some(others)} are left out.")
        if not known:
            raise DataError(f"{text} has no split train, valid or test.", f"It has {some([*map(str, parts)])}.")
        several, counts = len(set(known.values())) > 1, Counter[str]()
        for split, ours in known.items():
            place = into / ours if several else into
            for number, (label, suffix, data) in enumerate(_images(text, parts[split])):
                if not label:
                    counts["unlabelled"] += 1
                    continue
                (place / label).mkdir(parents=True, exist_ok=True)
                (place / label / f"{split}-{number:07d}{suffix}").write_bytes(data)
                counts["images"] += 1
    except (DataError, EnvironmentProblem, OSError, ImportError):
        raise
    except Exception as problem:  # datasets raises many kinds: an unknown format, several configurations, bad files
        why = (str(problem).strip().splitlines() or [""])[0][:200]
        raise DataError(
            f"{text} cannot be read by datasets: {type(problem).__name__}: {why}",
            "Download it and pass a folder of it as --path.",
        ) from None
    if counts["unlabelled"]:
        options.note(f"{text}: {counts['unlabelled']:,} images without a label are left out.")
    if not counts["images"]:
        raise DataError(f"{text} has no image with a label.", "Choose another dataset.")


def _images(text: str, rows: Any) -> Iterator[tuple[str, str, bytes]]:
    """(label, suffix, bytes) of every image of a split; an empty label where there is none."""
    import datasets

    image, label, names = _columns(text, rows.features)
    for row in rows.cast_column(image, datasets.Image(decode=False)).select_columns([image, label]):
        held, value = row[image] or {}, row[label]
        data = held.get("bytes") or (_read(held["path"]) if held.get("path") else b"")
        suffix = Path(str(held.get("path") or "")).suffix.lower()
        if not is_image(f"x{suffix}"):
            suffix = next((known for begin, known in SIGNATURES.items() if data.startswith(begin)), ".jpg")
        if names is not None:
            value = names[value] if value is not None and 0 <= value < len(names) else ""
        label_text = str("" if value is None else value).strip()
        yield re.sub(r"^\.+|[\x00-\x1f/\\]", "_", label_text), suffix, data  # as a folder's name


def _columns(text: str, features: Mapping[str, Any] | None) -> tuple[str, str, list[str] | None]:
    """The columns of images and labels, and the classes where labels are numbers of them."""
    import datasets

    found = features or {}
    images = [name for name, feature in found.items() if isinstance(feature, datasets.Image)]
    classes = {name: feature.names for name, feature in found.items() if isinstance(feature, datasets.ClassLabel)}
    words = [name for name in TEXTS if getattr(found.get(name), "dtype", "") == "string"]
    labels = [*classes, *words]
    label = "label" if "label" in labels else labels[0] if len(labels) == 1 else ""
    if len(images) != 1 or not label:
        columns = some([f"{name} ({type(feature).__name__})" for name, feature in found.items()]) or "none"
        raise DataError(
            f"{text}: expected one column of images and one of classes; its columns are {columns}.",
            "For several labels per image, or another layout, download it and pass its folder and table.",
        )
    return images[0], label, classes.get(label)


def _read(place: str) -> bytes:
    """An image that the dataset names by its place on the Hub."""
    import fsspec

    with fsspec.open(place, "rb") as stream:
        return bytes(stream.read())
