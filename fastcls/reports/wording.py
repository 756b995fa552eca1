"""Numbers, times and names as the page spells them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from markupsafe import Markup, escape

from fastcls.runfolder.text import clean, number

SPACE = "\u202f"  # narrow, unbroken: between a number and its unit


def percent(value: float | None, digits: int = 1, unit: bool = True) -> str:
    if value is None:
        return "–"
    return f"{value * 100:.{digits}f}" + (f"{SPACE}%" if unit else "")


def headline(name: str) -> str:
    """A metric as a heading; a first word that has capitals of its own, mAP say, keeps them."""
    text = name.replace("_", " ")
    first = text.split(" ")[0]
    return text[:1].upper() + text[1:] if first == first.lower() else text


def points(value: float) -> str:
    """A difference of two shares."""
    return f"{value * 100:.1f}{SPACE}points"


def duration(seconds: Any) -> str:
    value = number(seconds)
    if value is None or value < 0:
        return "unknown"
    if value < 60:
        return f"{value:.1f}{SPACE}s" if value < 10 else f"{value:.0f}{SPACE}s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}{SPACE}h {minutes:02}{SPACE}min"
    return f"{minutes}{SPACE}min {rest}{SPACE}s"


def moment(text: Any) -> str:
    """An ISO time for people, or the text itself where it is none."""
    try:
        when = datetime.fromisoformat(str(text))
    except ValueError:
        return clean(text or "")
    return f"{when.day} {when:%B %Y, %H:%M} {when.tzname() or ''}".strip()


def soft(name: str) -> Markup:
    """A name that may break after its punctuation, as `scottish_terrier` cannot by itself."""
    return Markup(re.sub(r"([_/.\-])(?=\w)", r"\1<wbr>", str(escape(name))))


def times(sizes: Any, sign: str = " × ") -> str:
    """Sizes of a shape or a kernel: 3 × 3."""
    if isinstance(sizes, list | tuple):
        return sign.join(clean(size) for size in sizes)
    return "" if sizes is None else clean(sizes)


def receptive_field(pixels: Any) -> str:
    """[7, 7] is 7, 'whole image' itself, and what is not known a dash."""
    if isinstance(pixels, list | tuple) and len(set(map(str, pixels))) == 1:
        pixels = pixels[0]
    return times(pixels) or "—"


def grouped(value: Any) -> str:
    exact = number(value)
    return "–" if exact is None else f"{exact:,.0f}"


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, its first column to the left, the others to the right."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join("| " + " | ".join(clean(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
