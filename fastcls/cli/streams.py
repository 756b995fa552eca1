"""Standard input and output as every verb finds them: open, whatever closed them, and with all names printable."""

from __future__ import annotations

import codecs
import io
import os
import sys

from fastcls.errors import FastclsError
from fastcls.machine import ranks
from fastcls.runfolder.text import visible

PLAIN = {"─": "-", "–": "-", "…": "...", "×": "x", "±": "+-"}  # of our own tables and sentences
RAW = range(0xDC80, 0xDD00)  # how Python keeps the bytes of a file's name that is no UTF-8


def prepare() -> None:
    """Open what is closed (cron, daemons, `>&-`) on nothing; let output take what its encoding has no letters for."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # in this order they get their numbers
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115  until the process ends
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        sys.stdout.reconfigure(errors="fastcls")


def ended(code: int) -> Exception:
    """What to raise for the command to end with this code."""
    from typer import Exit  # which takes as long to import as NumPy, and a prediction needs no parser

    return Exit(code)


def refusal(error: FastclsError) -> Exception:
    """Print an error and how to fix it; gives the exit to raise."""
    print(visible(f"{ranks.name()}error: {error.message}"), file=sys.stderr)
    if error.hint:
        print(visible(error.hint), file=sys.stderr)
    return ended(error.exit_code)


def _substitute(problem: UnicodeError) -> tuple[bytes, int]:
    """Bytes of a file's name go out as they are; of letters that the encoding has not, something like them."""
    if not isinstance(problem, UnicodeEncodeError):
        raise problem
    letters = problem.object[problem.start : problem.end]
    return b"".join(map(_bytes, letters)), problem.end


def _bytes(letter: str) -> bytes:
    if ord(letter) in RAW:
        return bytes([ord(letter) - 0xDC00])
    return PLAIN.get(letter, letter).encode("ascii", "backslashreplace")


codecs.register_error("fastcls", _substitute)
