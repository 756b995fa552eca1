"""Values out of files that may hold anything, as text and numbers that a page can show."""

from __future__ import annotations

import math
from typing import Any


def clean(value: Any) -> str:
    """Any value as one line of text that HTML, SVG and UTF-8 can all carry."""
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    text = "".join(c if c.isprintable() or c in "\u200c\u200d" else " " for c in text)
    return " ".join(text.split())


def number(value: Any) -> float | None:
    """`value` as a finite float, else None."""
    if isinstance(value, bool):
        return None
    try:
        result = float(value)
    except (TypeError, ValueError):
        return None
    return result if math.isfinite(result) else None
