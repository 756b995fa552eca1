"""Plain aligned tables that wrap in the terminal's width (rich's cost 0.1 s of imports at every start)."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence

from fastcls.runfolder.text import visible


def table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int = 0) -> str:
    """Lines of a table; the widest columns are wrapped until it fits, but never a first one of single words: names."""
    header, *rows = ([visible(cell) for cell in row] for row in (header, *rows))
    width = width or shutil.get_terminal_size((100, 24)).columns
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    first = int(all(" " not in row[0] for row in rows) and len(widths) > 1)
    while sum(widths) + 2 * (len(widths) - 1) > width and max(widths[first:]) > 12:
        widths[widths.index(max(widths[first:]), first)] -= 1
    lines = []
    for row in (header, ["─" * w for w in widths], *rows):
        cells = [textwrap.wrap(cell, w) or [""] for cell, w in zip(row, widths, strict=True)]
        for i in range(max(map(len, cells))):
            parts = [(cell[i] if i < len(cell) else "").ljust(w) for cell, w in zip(cells, widths, strict=True)]
            lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)
