"""The logger `fastcls`: what is worth knowing beside a command's results goes to standard error.

In Python `logging.getLogger("fastcls").setLevel("ERROR")` silences it and the output of trainings, "DEBUG" adds
details; the command line has -q and -v.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Iterator
from typing import Any

logger = logging.getLogger("fastcls")


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what standard error is at that moment: a notebook replaces it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:  # type: ignore[override]
        return sys.stderr


def set_up() -> None:
    """Once: messages from INFO on, as they are. A handler that somebody added before stays the only one."""
    if not logger.handlers:
        logger.addHandler(_Handler())
        logger.setLevel(logging.INFO)
        logger.propagate = False


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Meanwhile libraries neither print nor log."""
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


def quiet() -> bool:
    """Whether nothing but errors is wanted."""
    return logger.getEffectiveLevel() >= logging.ERROR


def status(text: str) -> None:
    """On standard output, unless nothing but errors is wanted."""
    if not quiet():
        print(text, flush=True)


@contextlib.contextmanager
def at(verbose: bool, silent: bool) -> Iterator[None]:
    """Inside, as much as -v or -q wants; with -v a line has its time."""
    before, form = logger.level, logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S") if verbose else None
    handlers = [handler for handler in logger.handlers if isinstance(handler, _Handler)]
    if verbose or silent:
        logger.setLevel(logging.DEBUG if verbose else logging.ERROR)
    for handler in handlers:
        handler.setFormatter(form)
    try:
        yield
    finally:
        logger.setLevel(before)
        for handler in handlers:
            handler.setFormatter(None)


set_up()
