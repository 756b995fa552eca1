"""What the terminal shows of a run, and the copy of it that goes to log.txt.

On a terminal: rich's live progress bar. Elsewhere (a file, a pipe, CI): plain lines, one an epoch.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcls import log
from fastcls.errors import FastclsError
from fastcls.runfolder.text import visible

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress

LOG_WIDTH = 100


class Screen:
    """A terminal and its transcript.

    said: what other runs of a series have said `once` already.
    """

    def __init__(self, quiet: bool = False, said: set[str] | None = None) -> None:
        from rich.console import Console

        self.in_series = said is not None
        self.said: set[str] = set() if said is None else said

        class Terminal(Console):
            def on_broken_pipe(self) -> None:  # rich's own ends the process
                """Who read has gone, as `| tee` does at Ctrl-C: the run goes on, and log.txt has all."""
                self.quiet = True
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

        # In a notebook rich would show both, the log too, as HTML; and its kernel reports colours, as a terminal does.
        plain: dict[str, Any] = {"highlight": False, "force_jupyter": False}
        terminal = False if "ipykernel" in sys.modules else None
        self.console = Terminal(quiet=quiet or log.quiet(), soft_wrap=False, force_terminal=terminal, **plain)
        self._log = Console(file=io.StringIO(), width=LOG_WIDTH, color_system=None, force_terminal=False, **plain)

    @property
    def live(self) -> bool:
        return self.console.is_terminal

    def print(self, *parts: RenderableType, **kwargs: Any) -> None:
        """Show text or a rich table on the terminal and in the log; markup such as [b] is honoured."""
        parts = tuple(visible(part) if isinstance(part, str) else part for part in parts)
        if not self.live:
            kwargs.setdefault("soft_wrap", all(isinstance(part, str) for part in parts))
        self.console.print(*parts, **kwargs)
        self._log.print(*parts, **kwargs)

    def once(self, text: str, **kwargs: Any) -> None:
        """`print`, but on the terminal only what the series has not said yet; the log has it all."""
        text = visible(text)
        if text not in self.said:
            self.console.print(text, **kwargs)
        self.said.add(text)
        self._log.print(text, **kwargs)

    def problem(self, error: FastclsError) -> None:
        """Show an error and how to fix it."""
        self.print(f"error: {error.message}", style="red", markup=False)
        if error.hint:
            self.print(error.hint, markup=False)

    def write_log(self, path: Path) -> None:
        """Write the transcript so far, without colour."""
        from fastcls.runfolder.runs import atomic_write

        atomic_write(path, self._log.file.getvalue())  # type: ignore[attr-defined]

    def progress(self) -> Progress:
        """A progress bar for a whole run; shows nothing where there is no terminal."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        return Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.live,
            transient=True,
        )


def escape(text: object) -> str:
    """Text that rich will show as it is: class names and paths may hold brackets."""
    from rich.markup import escape as rich_escape

    return rich_escape(str(text))
