"""Plain aligned tables that wrap in the terminal's width (rich's cost 0.1 s of imports at every start)."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence

from fastcls.runfolder.text import visible


def table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int = 0) -> str:
    """Lines of a table; the widest columns are wrapped until it fits, never inside a word: names, figures, paths."""
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
