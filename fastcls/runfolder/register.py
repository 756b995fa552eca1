"""Every run of a user, wherever it was written: a list of folders, the newest last, in the state folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from fastcls.runfolder import inside

MOST = 10_000  # folders that are remembered


def _file() -> Path:
    import platformdirs

    return Path(platformdirs.user_state_dir("fastcls")) / "runs.txt"


def add(folder: Path) -> None:
    """Remember a run folder. A state folder that cannot be written costs `last` its memory, never the run."""
    with contextlib.suppress(OSError):
        file = _file()
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists() and not file.is_file():  # a named pipe would be waited for
            return
        with file.open("a", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(str(folder.absolute()).replace("\n", "\\n") + "\n")


def newest_first() -> Iterator[Path]:
    """The folders that are still there, each once."""
    lines: list[str] = []
    with contextlib.suppress(OSError, inside.Foreign), inside.opened(_file()) as stream:
        lines = stream.read().decode("utf-8", "surrogateescape").split("\n")[-MOST:]
    for line in dict.fromkeys(reversed(lines)):
        if line and (Path(line) / "run.json").is_file():
            yield Path(line)
