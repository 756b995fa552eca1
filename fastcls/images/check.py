"""Images looked at before the first training step: which files are not images, and which are damaged."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fastcls.errors import DataError, DownloadError
from fastcls.machine import host

T = TypeVar("T")
P = TypeVar("P")
# what Pillow raises for damaged files, one format or another
UNREADABLE = (OSError, SyntaxError, ValueError, RuntimeError, EOFError, struct.error)
NAMED = 5  # broken files that an error lists


def refuse_broken(paths: Sequence[str], decode: bool = False) -> None:
    """DataError that names the first few files that `broken` finds."""
    if found := broken(paths, decode):
        raise broken_images(list(found.values()), len(paths))


def broken(paths: Sequence[str], decode: bool = False) -> dict[str, str]:
    """The files that are not images, each with a line that says why.

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

    with ThreadPoolExecutor(host.cores() if decode else 1) as pool:  # decoding alone releases Python's lock
        found = pool.map(lambda path: read_or_reason(path, look), paths)
        return {path: line for path, line in zip(paths, found, strict=True) if line}


def read_or_reason(path: str, read: Callable[[str], T]) -> T | str:
    """`read(path)`, or where that is not an image, or a damaged one, a line with its path and the reason."""
    try:
        return reading(path, read)
    except DownloadError:  # nothing is wrong with the image
        raise
    except DataError as problem:
        return problem.message


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
        f"{len(lines)} of {total} images cannot be read:\n  {listed}",
        "Fix or remove these files, or skip them with --skip-bad, then run the command again.",
    )


def reason(problem: Exception) -> str:
    """Why an image cannot be read, in words without its path."""
    from PIL import UnidentifiedImageError

    if isinstance(problem, UnidentifiedImageError):
        return "not an image"
    return getattr(problem, "strerror", None) or str(problem).split(" <")[0] or type(problem).__name__
