"""The one rule for everything in a run folder: files and folders of its own, nothing that leads out of it or waits.

A run folder may come from a third party. `check` looks through all of it before anything in it is read, written or
deleted; a link into the folder itself is allowed (trackers make some). `opened` is how its files are opened.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from fastcls.errors import OutputError

LARGEST = {".csv": 4_000_000_000, ".png": 100_000_000, ".py": 1_000_000}  # bytes; JSON has its own bound
KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
OWN = "Restore the run's own file, or remove it."


class Foreign(OutputError, ValueError):
    """A run folder holds what does not belong into one."""


def check(folder: Path) -> None:
    """Foreign where a link leads out of a run folder, an entry is neither file nor folder, or a file is too large."""
    home = os.path.realpath(folder)
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            try:
                status = path.lstat()
            except FileNotFoundError:  # a run that trains meanwhile replaces its files
                continue
            if stat.S_ISLNK(status.st_mode):
                target = os.path.realpath(path)
                if not Path(target).is_relative_to(home):
                    raise Foreign(f"{path} is a link to {target}, outside the run folder.", OWN)
            elif kind := KINDS.get(stat.S_IFMT(status.st_mode)):
                raise Foreign(f"{path} is {kind}, not a file.", OWN)
            elif status.st_size > (most := LARGEST.get(path.suffix, status.st_size)):
                raise Foreign(f"{path} is larger than {most // 1_000_000:,} MB.", OWN)


def opened(file: str | Path) -> BinaryIO:
    """A regular file, open for reading; Foreign for what might wait for ever."""
    stream = open(file, "rb", opener=_without_waiting)  # noqa: SIM115  who calls it closes it
    if kind := KINDS.get(stat.S_IFMT(os.fstat(stream.fileno()).st_mode)):
        stream.close()
        raise Foreign(f"{file} is {kind}, not a file.", OWN)
    return stream


def _without_waiting(name: str, flags: int) -> int:
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))
