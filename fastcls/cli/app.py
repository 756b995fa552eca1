"""The typer application, and what every verb has in common: its exit codes."""

from __future__ import annotations

import errno
import functools
import inspect
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer

from fastcls import log
from fastcls.cli import streams
from fastcls.cli.streams import refusal
from fastcls.cli.words import Verbs
from fastcls.errors import FastclsError, OutputError, UsageError
from fastcls.machine import extras, ranks
from fastcls.machine.stop import Stopped
from fastcls.settings import shell

HOW_MUCH = [  # of what is worth knowing besides a command's results
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=bool)
    for name, default in (
        ("verbose", typer.Option(False, "-v", "--verbose", help="Details, and where an error comes from.")),
        ("quiet", typer.Option(False, "-q", "--quiet", help="Errors alone; of a training its run folder.")),
    )
]
# what a file system answers of a name it is given: no bug, whichever line asked
REFUSALS = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
FOR_SEVERAL = ("recipe", "resume")  # the verbs that several processes can do together

# rich help costs 0.2 s of imports at every start; plain help costs none
app = typer.Typer(
    cls=Verbs,
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="""Train image classifiers with fastai, and learn the truth about them.

    \b
    fastcls recipes                          what there is to train
    fastcls recipe digits-cnn                train the smallest; there is nothing to download
    fastcls recipe folder --path photos      train on your own images
    fastcls predict last new -o labels.csv   label images with the newest run
    fastcls COMMAND --help                   how a command is used

    Exit codes: 0 done, 2 a wrong command line, knob or recipe, 3 images or labels, 4 a file or run folder that
    can't be written or read, 5 the installation, 6 training broke down, 130 Ctrl-C, 143 SIGTERM.""",
)


def with_parameters(function: Callable[..., None], parameters: Sequence[inspect.Parameter]) -> Callable[..., None]:
    """Typer reads these off the function in place of its own."""
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return function


def chosen(name: str, done: bool = True) -> Path:
    """The run folder that a user named; where 'last' or a recipe's name was given, which one that is is said.

    done: of several the newest that ended well.
    """
    from fastcls.runfolder import runs

    folder = runs.find(name, done)
    if folder != shell.path(name):
        log.logger.info(f"run      {folder}")
    return folder


def progress(done_what: str, of_what: str) -> Callable[[int, int], None]:
    """A line that counts, on a terminal."""

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty() and not log.quiet():
            line = f"\r{done_what} {done:,} of {total:,} {of_what}"
            print(line, end="\n" * (done == total), file=sys.stderr, flush=True)

    return show


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """Turn our errors into a message and an exit code; anything else is a bug and keeps its traceback.

    Adds -v and -q, which every verb takes.
    """

    @functools.wraps(function)
    def guarded(*args: Any, verbose: bool = False, quiet: bool = False, **kwargs: Any) -> None:
        if verbose and quiet:
            raise refusal(UsageError("-v and -q exclude each other."))
        with log.at(verbose, quiet):
            _guarded(function, *args, **kwargs)

    of_its_own = inspect.signature(function).parameters.values()
    return with_parameters(guarded, [*of_its_own, *HOW_MUCH])


def _guarded(function: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    warnings.filterwarnings("ignore", module=r"PIL(\.|$)")  # of odd metadata: what matters is said of the image
    streams.prepare()
    try:
        if ranks.world() > 1 and function.__name__ not in FOR_SEVERAL:
            hint = f"Several processes can only do  fastcls {' or '.join(FOR_SEVERAL)}."
            raise UsageError(f"{ranks.world()} processes were started; each would do the same.", hint)
        function(*args, **kwargs)
    except FastclsError as error:
        log.logger.debug("where that came from:", exc_info=error)
        raise refusal(error) from None
    except Stopped as stop:
        raise typer.Exit(stop.code) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except EOFError as problem:  # click would answer it with "Aborted!" and nothing else
        raise RuntimeError("a file or a stream ended too early") from problem
    except ImportError as problem:
        missing = extras.unimportable(problem)
        if missing is None:
            raise
        raise refusal(missing) from None
    except OSError as problem:
        if problem.errno not in REFUSALS or problem.filename is None:
            raise
        raise refusal(OutputError(f"{str(problem.filename)[:200]}: {problem.strerror}.")) from None
