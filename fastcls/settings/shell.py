"""Commands, paths and lengths of time as people type them in a shell, and as they are recorded and shown."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

NUMBER = r"(\d+(?:\.\d*)?)"
TAKEN = "hours, minutes, seconds, as in 2h, 20m, 1h30m or 45s"


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


def seconds(text: str) -> float:
    """The seconds of '1h30m', '20m' or '45s'; 0 for what is no such time."""
    match = re.fullmatch(f"(?:{NUMBER}h)?(?:{NUMBER}m)?(?:{NUMBER}s)?", text.strip())
    parts = match.groups() if match else ()
    return sum(float(part or 0) * unit for part, unit in zip(parts, (3600.0, 60.0, 1.0), strict=False))


def lasting(seconds: float) -> str:
    """'0.4 s', '12 s', '3.5 min' or '2.1 h'."""
    minutes = seconds / 60
    if minutes < 1:
        return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.1f} s"
    return f"{minutes:.1f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
