"""Images looked at before the first training step: which files are not images, and which are damaged."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import TypeVar

from fastcls.errors import DataError

T = TypeVar("T")
P = TypeVar("P")
# what Pillow raises for damaged files, one format or another
UNREADABLE = (OSError, SyntaxError, ValueError, RuntimeError, EOFError, struct.error)
NAMED = 5  # broken files that an error lists


def refuse_broken(paths: Sequence[str], decode: bool = False) -> None:
    """DataError that names the first few files that are not images.

    Looks at the head of every file (some 50 µs each); with `decode`, at every pixel, which also finds
    truncated files.
    """
    from PIL import Image

    from fastcls.images import decode as decoding

    def look(path: str) -> None:
        if decode:
            decoding.decode(path)
            return
        with decoding.opened(path) as file, Image.open(file) as image:
            decoding.refuse_unusable(image)

    broken = []
    for path in paths:
        try:
            reading(path, look)
        except DataError as problem:
            broken.append(problem.message)
    if broken:
        raise broken_images(broken, len(paths))


def reading(path: P, read: Callable[[P], T]) -> T:
    """`read(path)`; DataError with the path and the reason where that is not an image, or a damaged one."""
    from PIL import Image

    try:
        return read(path)
    except (*UNREADABLE, Image.DecompressionBombError) as problem:
        raise DataError(f"{path}: {reason(problem)}") from problem


def broken_images(lines: list[str], total: int) -> DataError:
    """One error for all images that could not be read, a line each."""
    more = [f"and {len(lines) - NAMED} more"] if len(lines) > NAMED else []
    listed = "\n  ".join(lines[:NAMED] + more)
    return DataError(
        f"{len(lines)} of {total} images cannot be read:\n  {listed}", "Fix or remove these files, then start again."
    )


def reason(problem: Exception) -> str:
    """Why an image cannot be read, in words without its path."""
    from PIL import UnidentifiedImageError

    if isinstance(problem, UnidentifiedImageError):
        return "not an image"
    return getattr(problem, "strerror", None) or str(problem).split(" <")[0] or type(problem).__name__
