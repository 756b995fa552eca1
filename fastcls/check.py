"""Images looked at before the first training step: which of them are none, and which are damaged."""

from __future__ import annotations

from collections.abc import Sequence

from fastcls.errors import DataError


def refuse_broken(paths: Sequence[str], decode: bool = False) -> None:
    """Refuse files that are no images; DataError names the first few.

    Looks at the head of every file (some 50 µs each); with `decode`, at every pixel, which also finds
    truncated files.
    """
    from PIL import Image

    broken = []
    for path in paths:
        try:
            with Image.open(path) as image:
                if decode:
                    image.load()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as problem:
            broken.append(f"{path}: {_reason(problem)}")
    if broken:
        raise DataError(
            f"{len(broken)} of {len(paths)} images cannot be read:\n  {_first(broken)}",
            "Mend or remove these files, then start again.",
        )


def _first(lines: list[str], count: int = 5) -> str:
    more = [f"and {len(lines) - count} more"] if len(lines) > count else []
    return "\n  ".join(lines[:count] + more)


def _reason(problem: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(problem, UnidentifiedImageError):
        return "not an image"
    return getattr(problem, "strerror", None) or str(problem)
