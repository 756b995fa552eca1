"""Commands of fastcls as a shell takes them, to be recorded, shown and typed."""

from __future__ import annotations

import os
import shlex
from pathlib import Path


def path(name: str | os.PathLike[str]) -> Path:
    """A path as typed: ~ is the home folder, and the name of nobody, `~x`, stays a name (Path.expanduser raises)."""
    return Path(os.path.expanduser(name))  # noqa: PTH111


def flags(**options: object) -> list[str]:
    """Options by their names in Python as words; those that are empty are left out, of a list each item has its own."""
    words: list[str] = []
    for name, given in options.items():
        for value in given if isinstance(given, list | tuple) else [given]:
            if value not in (None, "", False):
                words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return words


def command(*words: object) -> str:
    """'fastcls WORDS', whatever characters they hold."""
    return shlex.join(["fastcls", *map(str, words)])
