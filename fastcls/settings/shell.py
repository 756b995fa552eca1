"""Commands of fastcls as a shell takes them, to be recorded, shown and typed."""

from __future__ import annotations

import shlex


def command(*words: object) -> str:
    """'fastcls WORDS', whatever characters they hold."""
    return shlex.join(["fastcls", *map(str, words)])
