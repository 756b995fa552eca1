"""The command line: one module a verb, each importing what it needs when it runs."""

import errno
import os
import signal
import sys

import typer

from fastcls.cli import (  # noqa: F401  they register verbs
    cache,
    check,
    compare,
    doctor,
    evaluate,
    export,
    import_,
    lr_find,
    models,
    pack,
    predict,
    recipe,
    recipes,
    report,
    resume,
    runs,
    search,
    serve,
    streams,
)
from fastcls.cli.app import app
from fastcls.machine import ranks, stop
from fastcls.version import __version__


def main() -> None:
    """The `fastcls` command."""
    streams.prepare()
    if ranks.world() > 1:
        from fastcls.machine import launch

        launch.follow()
        launch.hush()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # again when no one listens: Python's last steps would print it
    try:
        with stop.listening():
            try:
                _answer()
            finally:
                sys.stdout.flush()
    except stop.Stopped as end:
        sys.exit(end.code)
    except OSError as problem:
        if problem.filename is not None or problem.errno not in (errno.EPIPE, errno.ENOSPC):
            raise
        # Python would flush what is left once more, and complain of it once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if problem.errno == errno.EPIPE:  # who reads, `| head` say, has seen enough
            sys.exit(1)
        print(f"error: standard output or a file cannot be written: {problem.strerror}.", file=sys.stderr)
        sys.exit(4)


def _answer() -> None:
    """Do what the command line says."""
    # typer's parser imports pydantic (50 ms) for any option, --help included; what needs no parser gets none
    try:
        match sys.argv[1:]:
            case ["--version" | "-V" | "version"]:
                print(f"fastcls {__version__}")
            case ["recipes"]:
                recipes.recipes(as_json=False)
            case ["recipe", name, "--help"]:
                print(recipe.help_of(name, typer.main.get_command(app).commands["recipe"]))  # type: ignore[attr-defined]
            case _:
                app(prog_name="fastcls")
    except typer.Exit as end:
        sys.exit(end.exit_code)
