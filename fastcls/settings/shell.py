"""Commands of fastcls as a shell takes them, to be recorded, shown and typed."""

from __future__ import annotations

import os
import shlex
from pathlib import Path


def path(name: str | os.PathLike[str]) -> Path:
    """A path as typed: ~ is the home folder, and the name of nobody, `~x`, stays a name (Path.expanduser raises)."""
    return Path(os.path.expanduser(name))  # noqa: PTH111


def command(*words: object) -> str:
    """'fastcls WORDS', whatever characters they hold."""
    return shlex.join(["fastcls", *map(str, words)])
