"""Walk a folder of images: what counts as visible, what counts as an image, and in which order."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from fastcls.errors import DataError

# What Pillow reads without plug-ins, under the names such files usually have.
IMAGE_SUFFIXES = frozenset(
    f".{kind}"
    for kind in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "gif", "webp", "tif", "tiff", "bmp", "dib"),
        *("ppm", "pgm", "pbm", "pnm", "tga", "jp2", "avif"),
    )
)
LITTER = frozenset({"__macosx", "thumbs.db", "desktop.ini"})


@dataclass
class Found:
    """The rows (path, label, split) recognised so far; an empty split is still to be drawn."""

    layout: str = ""
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)  # files that are no images, by suffix
    lenient: bool = False  # whether wrong rows of a table of labels are collected in `faults` instead of refused
    faults: dict[str, list[str]] = field(default_factory=dict)  # what is wrong -> which rows or files

    def left_out(self) -> list[str]:
        """A note on the files that are no images, if there are any."""
        if not self.skipped:
            return []
        kinds = ", ".join(f"{suffix or 'no suffix'} {n:,}" for suffix, n in self.skipped.most_common(4))
        return [f"{count(self.skipped.total(), 'file')} left out that are not images: {kinds}."]


def natural(name: str) -> tuple[list[str | int], str]:
    """A sort key that puts img2 before img10."""
    parts = re.split(r"(\d+)", name.lower())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def is_image(name: str) -> bool:
    """Whether a file of this name is an image, going by its suffix."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122, a Path each is ten times slower


def is_text(name: str) -> bool:
    """Whether a name can be written to a table; one in a broken encoding cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def listing(folder: str | Path) -> tuple[list[str], list[str]]:
    """The visible files and folders right inside `folder`, as paths, each in natural order."""
    try:
        with os.scandir(folder) as entries:
            visible = [(natural(entry.name), entry.path, entry.is_dir()) for entry in entries if _seen(entry.name)]
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}.") from error
    visible.sort()
    return [path for _, path, inner in visible if not inner], [path for _, path, inner in visible if inner]


def files_below(folder: str | Path, above: tuple[tuple[int, int], ...] = ()) -> list[str]:
    """Every visible file below `folder`; links to folders are followed, but never round in a circle."""
    status = Path(folder).stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return []
    files, folders = listing(folder)
    return files + [file for inner in folders for file in files_below(inner, (*above, here))]


def _seen(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in LITTER


def count(n: int, thing: str) -> str:
    """'1 image', '2,000 images', '3 classes'."""
    return f"{n:,} {thing if n == 1 else thing + ('es' if thing.endswith('s') else 's')}"


def some(items: Iterable[str], show: int = 3) -> str:
    """The first few of `items`, and how many more there are."""
    every = list(items)
    more = f" and {len(every) - show:,} more" if len(every) > show else ""
    return ", ".join(every[:show]) + more


def names(folders: Iterable[Path]) -> str:
    """'train/, val/': the first few folders by name."""
    return some((f"{folder.name}/" for folder in folders), 5)
