"""What is remembered in the state folder: every run, wherever it was written, and the files that verbs wrote.

A state folder that cannot be written costs the memory, never the run.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from fastcls.errors import OutputError
from fastcls.runfolder import inside

RUNS, OUTPUTS = "runs.txt", "outputs.txt"  # a line each, the newest last
MOST = 10_000  # lines that are remembered


def _file(name: str) -> Path:
    import platformdirs

    return Path(platformdirs.user_state_dir("fastcls")) / name


def _remember(name: str, line: str) -> None:
    with contextlib.suppress(OSError):
        file = _file(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists() and not file.is_file():  # a named pipe would be waited for
            return
        with file.open("a", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(line.replace("\n", "\\n") + "\n")


def _remembered(name: str) -> list[str]:
    with contextlib.suppress(OSError, inside.Foreign), inside.opened(_file(name)) as stream:
        return stream.read().decode("utf-8", "surrogateescape").split("\n")[-MOST:]
    return []


def add(folder: Path) -> None:
    """Remember a run folder."""
    _remember(RUNS, str(folder.absolute()))


def newest_first() -> Iterator[Path]:
    """The run folders that are still there, each once."""
    for line in dict.fromkeys(reversed(_remembered(RUNS))):
        if line and os.path.isfile(f"{line}/run.json"):  # noqa: PTH113  a Path raises where it may not look
            yield Path(line)


def _state(file: Path) -> str:
    """A file as it is now: a line that changes with it."""
    found = file.stat()
    return f"{found.st_size} {found.st_mtime_ns} {os.path.realpath(file)}".replace("\n", "\\n")


def wrote(file: Path) -> Path:
    """Remember a file that the user named for output, so that the next call may replace it."""
    _remember(OUTPUTS, _state(file))
    return file


def refuse_others(file: Path, option: str) -> None:
    """OutputError where a file is there that no verb has written, or that was changed since."""
    if file.is_file() and file.stat().st_size and _state(file) not in _remembered(OUTPUTS):
        raise OutputError(
            f"{option} {file}: this file exists, and was not written by fastcls or was changed since.",
            "Choose another file, or remove it.",
        )
