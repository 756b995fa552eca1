"""What a case of bad input is, and the good dataset that it spoils.

A case is made in `photos`, mostly of six pictures each of a cat and a dog. What `make` returns is what a careful reader
would make of it: {path below photos: label}, or {path: 'label split'} where the user drew the splits.
"""

from __future__ import annotations

import functools
import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

Outcome = Literal["right", "warned", "skipped", "refused"]
Rows = dict[str, str]
SIDE, EACH = 8, 6
OUTCOMES = {
    "right": "read as a careful reader would, pixel for pixel and label for label",
    "warned": "the same, and the user is told",
    "skipped": "left out and listed; the rest is trained on",
    "refused": "an error that says what, where and how to mend it, before the first step",
}
KINDS = {
    "image": "An image file",
    "folder": "A folder of images",
    "table": "A table of labels",
    "name": "A name",
    "knob": "A setting",
}


@dataclass(frozen=True)
class Case:
    """One bad input: `what` it is, the declared outcome, and a part of what the user `says` reads."""

    kind: str
    name: str
    what: str
    outcome: Outcome
    says: str
    make: Callable[[Path], Rows | None]
    words: tuple[str, ...] = ()  # of the command, further ones
    code: int = 3  # the exit code where it is refused
    pixels: Callable[[], np.ndarray] | None = None  # of photos/cat/odd.*, as a careful reader would have them
    file: str = ""  # that image


CASES: list[Case] = []


def case(kind: str, name: str, what: str, outcome: Outcome, says: str = "", **more: Any) -> Callable[..., Any]:
    """Put the function below into the table."""

    def add(make: Callable[[Path], Rows | None]) -> Callable[[Path], Rows | None]:
        CASES.append(Case(kind, name, what, outcome, says, make, **more))
        return make

    return add


# ---------------------------------------------------------------------------- pictures


@functools.cache
def grain(seed: int, width: int = SIDE, height: int = SIDE) -> np.ndarray:
    """(height, width, 3) of a picture unlike that of any other seed: smooth, so that JPEG keeps it."""
    small = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    """Of a copy: Pillow notes how an image was last encoded in the image, and another format stumbles over it."""
    buffer = io.BytesIO()
    if "append_images" in options:
        options["append_images"] = [frame.copy() for frame in options["append_images"]]
    (image.copy() if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


@functools.cache
def plain(label: str, number: int) -> bytes:
    return encoded(grain(zlib.crc32(f"{label} {number}".encode())))


def write(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


def plant(photos: Path, folder: str, label: str = "", count: int = EACH, split: str = "") -> Rows:
    """So many pictures in a folder; their rows."""
    label = label or folder.rpartition("/")[2]
    for number in range(count):
        write(photos / folder / f"{number}.png", plain(folder, number))
    return {f"{folder}/{number}.png": (f"{label} {split}" if split else label) for number in range(count)}


def two(photos: Path) -> Rows:
    """The good dataset that most cases spoil."""
    return plant(photos, "cat") | plant(photos, "dog")
