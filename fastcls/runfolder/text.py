"""Values out of files that may hold anything, as text and numbers that a page can show."""

from __future__ import annotations

import math
import re
from typing import Any

LABEL = 22  # characters of a class name in a figure
# what a terminal obeys instead of showing it, but for line ends and tabs: controls, separators, turns of direction
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def visible(text: object) -> str:
    """Text for a terminal, with control characters shown as `\\x1b`: names and records may hold any."""
    return CONTROLS.sub(lambda found: ascii(found[0])[1:-1], str(text))


def clean(value: Any) -> str:
    """Any value as one line of text that HTML, SVG and UTF-8 can all carry."""
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    text = "".join(c if c.isprintable() or c in "\u200c\u200d" else " " for c in text)
    return " ".join(text.split())


def shorten(text: str, length: int = LABEL) -> str:
    """`text` with its middle left out where it is long: beginnings and ends tell names apart."""
    if len(text) <= length:
        return text
    tail = (length - 1) // 3
    return f"{text[: length - 1 - tail].rstrip()}…{text[-tail:].lstrip()}"


def number(value: Any) -> float | None:
    """`value` as a finite float, else None."""
    if isinstance(value, bool):
        return None
    try:
        result = float(value)
    except (TypeError, ValueError):
        return None
    return result if math.isfinite(result) else None
