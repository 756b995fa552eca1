"""What verbs print: plain aligned tables, and with --json one JSON document, everything else on standard error."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fastcls.runfolder.text import visible


def table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int = 0) -> str:
    """Lines of a table; the widest columns are wrapped until it fits, never inside a word: names, figures, paths.

    rich's tables cost 0.1 s of imports at every start.
    """
    header, *rows = ([visible(cell) for cell in row] for row in (header, *rows))
    width = width or shutil.get_terminal_size((100, 24)).columns
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    least = [max([12, *(len(word) for cell in column for word in cell.split())]) for column in columns]
    while sum(widths) + 2 * (len(widths) - 1) > width:
        wider = [(w, at) for at, w in enumerate(widths) if w > least[at]]
        if not wider:
            break
        widths[max(wider)[1]] -= 1
    lines = []
    for row in (header, ["─" * w for w in widths], *rows):
        cells = [
            textwrap.wrap(cell, w, break_long_words=False, break_on_hyphens=False) or [""]
            for cell, w in zip(row, widths, strict=True)
        ]
        for i in range(max(map(len, cells))):
            parts = [(cell[i] if i < len(cell) else "").ljust(w) for cell, w in zip(cells, widths, strict=True)]
            lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


@contextlib.contextmanager
def document(wanted: bool) -> Iterator[Callable[[Any], None]]:
    """Meanwhile what is printed goes to standard error, if a document is wanted; yields what prints that."""
    out = sys.stdout

    def show(value: Any) -> None:
        if wanted:
            print(json.dumps(_plain(value), indent=1, ensure_ascii=False), file=out, flush=True)

    with contextlib.redirect_stdout(sys.stderr if wanted else out):
        yield show


def _plain(value: Any) -> Any:
    """With null for what is not finite, which JSON has no word for, and text for what it does not know."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float) else str(value)
