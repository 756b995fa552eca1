"""Walk a folder of images: what counts as visible, what counts as an image, and in which order."""

from __future__ import annotations

import os
import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastcls.errors import OF_SYSTEM, DataError
from fastcls.runfolder.target import SINGLE, Target

# What is read, under the names such files usually have.
IMAGE_SUFFIXES = frozenset(
    f".{kind}"
    for kind in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "gif", "webp", "tif", "tiff", "bmp", "dib"),
        *("ppm", "pgm", "pbm", "pnm", "tga", "jp2", "avif", "heic", "heif"),
    )
)
# pictures that cameras and editors write and that are not read
UNREAD = frozenset(f".{kind}" for kind in ("dng", "cr2", "cr3", "nef", "arw", "orf", "rw2", "psd", "svg", "jxl"))
VIDEOS = frozenset(
    f".{kind}" for kind in ("mp4", "m4v", "mov", "avi", "mkv", "webm", "mpg", "mpeg", "wmv", "flv", "mts", "3gp")
)
WRITTEN = (("run.json", "splits.csv"), ("compare.json", "compare.html"))  # by what a folder is known to be ours
LITTER = frozenset({"__macosx", "thumbs.db", "desktop.ini"})


@dataclass
class Found:
    """The rows (path, label, split) recognised so far; an empty split is still to be drawn."""

    layout: str = ""
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)  # files that are not images, by suffix
    unnamed: list[str] = field(default_factory=list)  # images whose names are not text
    pipes: list[str] = field(default_factory=list)  # what is neither a file nor a folder
    lenient: bool = False  # whether wrong rows of a table of labels are collected in `faults` instead of refused
    faults: dict[str, list[str]] = field(default_factory=dict)  # what is wrong -> which rows or files
    further: dict[str, dict[str, str]] = field(default_factory=dict)  # other columns of a table -> file -> value
    target: Target = SINGLE  # which says what the labels of the rows name

    def left_out(self) -> list[str]:
        """Notes on what was found and is not an image that can be used."""
        notes = []
        if self.skipped:
            kinds = ", ".join(f"{suffix or 'no suffix'} {n:,}" for suffix, n in self.skipped.most_common(4))
            left_out = f"{count(self.skipped.total(), 'file')} left out because they are not images: {kinds}."
            notes.append(f"{left_out} {unread(self.skipped)}".rstrip())
        if self.unnamed:
            broken = some(os.fsencode(name).decode(errors="replace") for name in self.unnamed)
            notes.append(f"{count(len(self.unnamed), 'image')} left out because their names are not UTF-8: {broken}.")
        if self.pipes:
            found = some(self.pipes)
            notes.append(f"{len(self.pipes):,} left out that are pipes, sockets or devices: {found}.")
        return notes


def natural(name: str) -> tuple[list[str | int], str]:
    """A sort key that puts img2 before img10."""
    parts = re.split(r"(\d+)", name.lower())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def is_image(name: str) -> bool:
    """Whether a file of this name is an image, going by its suffix."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122, a Path each is ten times slower


def file_size(path: str) -> int:
    """Bytes of a file, packed or not; 0 where it is gone."""
    from fastcls.datasets import shards

    try:
        return shards.stamp(path)[0]
    except OSError:
        return 0


def composed(name: str) -> str:
    """A name with its accents as one character each: macOS lists é as e and an accent, tables have é."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def unread(suffixes: Iterable[str]) -> str:
    """What to do about pictures of formats that are not read, and videos; nothing where there are none."""
    suffixes = set(suffixes)
    said = []
    if kinds := sorted(UNREAD & suffixes):
        said.append(f"{', '.join(kinds)} images are not supported: convert them to JPEG or PNG.")
    if kinds := sorted(VIDEOS & suffixes):
        said.append(f"Videos ({', '.join(kinds)}) are not supported: extract frames from each:  {frames('VIDEO')}")
    return " ".join(said)


def frames(video: str) -> str:
    """The command that saves one picture a second of a video."""
    stem, _ = os.path.splitext(video)  # noqa: PTH122
    return shlex.join(["ffmpeg", "-i", video, "-vf", "fps=1", f"{stem}_%05d.jpg"])


def is_text(name: str) -> bool:
    """Whether a name can be written to a table; one in a broken encoding cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def slashes(path: str) -> str:
    """A path as tables write it, with slashes on every system."""
    return path if os.sep == "/" else path.replace(os.sep, "/")  # a Path a file would take ten times as long


def listing(folder: str | Path, pipes: list[str] | None = None) -> tuple[list[str], list[str]]:
    """The visible files and folders right inside `folder`, as paths, each in natural order; without run folders.

    A link that leads nowhere is a file, since the user should see that an image is missing. What could not be read to
    an end, a pipe or a device, goes into `pipes`.
    """
    kinds: dict[str, list[tuple[tuple[list[str | int], str], str]]] = {"file": [], "folder": [], "pipe": []}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower() in LITTER:
                    continue
                if (kind := _kind(entry)) != "folder" or not _is_written(entry.path):
                    kinds[kind].append((natural(entry.name), entry.path))
    except OSError as error:
        raise DataError(
            f"{folder} cannot be read: {error.strerror or error}.", OF_SYSTEM.get(error.errno or 0, "")
        ) from error
    files, folders, others = ([path for _, path in sorted(found)] for found in kinds.values())
    if pipes is not None:
        pipes += others
    return files, folders


def _is_written(folder: str) -> bool:
    """Whether fastcls wrote a folder: a run's figures are no images of whoever trains where the images are."""
    return any(all(os.path.isfile(f"{folder}/{name}") for name in names) for names in WRITTEN)  # noqa: PTH113


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_dir():
            return "folder"
        return "file" if entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists()) else "pipe"
    except OSError:  # a link to itself
        return "file"


def walked(folder: str | Path, pipes: list[str] | None = None) -> Iterator[str]:
    """Every visible file below `folder`; links to folders are followed, but never round in a circle."""
    waiting = [(str(folder), frozenset(map(_identity, Path(folder).absolute().parents)))]
    while waiting:
        inner, above = waiting.pop()
        here = _identity(inner)
        if here in above:
            continue
        own, folders = listing(inner, pipes)
        yield from own
        waiting += [(name, above | {here}) for name in reversed(folders)]


def _identity(folder: str | Path) -> tuple[int, int]:
    status = os.stat(folder)  # noqa: PTH116  a Path takes longer
    return status.st_dev, status.st_ino


def count(n: int, thing: str) -> str:
    """'1 image', '2,000 images', '3 classes'."""
    return f"{n:,} {thing if n == 1 else thing + ('es' if thing.endswith('s') else 's')}"


def some(items: Iterable[str], show: int = 3) -> str:
    """The first few of `items`, and how many more there are."""
    every = list(items)
    more = f" and {len(every) - show:,} more" if len(every) > show else ""
    return ", ".join(every[:show]) + more


def below(path: str, root: str | Path) -> str:
    """A file's name below the folder of images; the whole of it where it is elsewhere."""
    return Path(path).relative_to(root).as_posix() if Path(path).is_relative_to(root) else path


def names(folders: Iterable[Path]) -> str:
    """'train/, val/': the first few folders by name."""
    return some((f"{folder.name}/" for folder in folders), 5)


def common_root(paths: Sequence[str]) -> Path:
    """The deepest folder that holds all `paths`."""
    folders = {os.path.dirname(path) for path in paths}  # noqa: PTH120  a Path a file would take seconds for a million
    return Path(os.path.commonpath(map(os.path.abspath, folders))) if folders else Path.cwd()
