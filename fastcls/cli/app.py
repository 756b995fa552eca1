"""The typer application, and what it adds to every verb."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer

from fastcls import log
from fastcls.cli import guard
from fastcls.cli.streams import refusal
from fastcls.cli.words import Verbs
from fastcls.errors import UsageError

HOW_MUCH = [  # of what is worth knowing besides a command's results
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=bool)
    for name, default in (
        ("verbose", typer.Option(False, "-v", "--verbose", help="Print details, and the traceback of an error.")),
        ("quiet", typer.Option(False, "-q", "--quiet", help="Print errors only; after training, the run folder.")),
    )
]

JSON: Any = typer.Option(
    False, "--json", help="Print one JSON document to standard output, and everything else to standard error."
)

# rich help costs 0.2 s of imports at every start; plain help costs none
app = typer.Typer(
    cls=Verbs,
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="""Train image classifiers with fastai, and learn the truth about them.

    \b
    fastcls recipes                          list the recipes
    fastcls recipe digits-cnn                train the smallest; nothing to download
    fastcls recipe folder --path photos      train on your own images
    fastcls predict last new -o labels.csv   label images with the newest run
    fastcls COMMAND --help                   show the options of a command

    Exit codes: 0 success, 2 wrong command line, knob or recipe, 3 images or labels, 4 a file or run folder
    cannot be written or read, 5 installation, 6 training failed, 130 Ctrl-C, 143 SIGTERM.""",
)


def with_parameters(function: Callable[..., None], parameters: Sequence[inspect.Parameter]) -> Callable[..., None]:
    """Typer reads these off the function in place of its own."""
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return function


def progress(done_what: str, of_what: str) -> Callable[[int, int], None]:
    """A line that counts, on a terminal."""

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty() and not log.quiet():
            line = f"\r{done_what} {done:,} of {total:,} {of_what}"
            print(line, end="\n" * (done == total), file=sys.stderr, flush=True)

    return show


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """A verb that ends as `guard` says, with -v and -q, which every verb takes."""

    @functools.wraps(function)
    def guarded(*args: Any, verbose: bool = False, quiet: bool = False, **kwargs: Any) -> None:
        if verbose and quiet:
            raise refusal(UsageError("-v and -q exclude each other."))
        with log.at(verbose, quiet):
            guard.guarded(function, *args, **kwargs)

    of_its_own = inspect.signature(function).parameters.values()
    return with_parameters(guarded, [*of_its_own, *HOW_MUCH])
