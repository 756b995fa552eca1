"""The command line: one module a verb, each importing what it needs when it runs."""

import errno
import gc
import os
import signal
import sys

from fastcls.cli import guard, labels, streams
from fastcls.errors import EnvironmentProblem
from fastcls.machine import ranks, stop
from fastcls.version import __version__


def main() -> None:
    """The `fastcls` command."""
    try:
        _run()
    except SystemExit as end:
        if "fastcls.datasets.buckets" in sys.modules and isinstance(end.code, int):
            sys.modules["fastcls.datasets.buckets"].leave(end.code)
        raise


def _run() -> None:
    streams.prepare()
    if ranks.launched():
        from fastcls.machine import launch

        launch.follow()
        try:
            launch.hush()
        except EnvironmentProblem as problem:  # before anyone could tell which rank this is
            print(f"error: {problem.message}\n{problem.hint}", file=sys.stderr)
            sys.exit(problem.exit_code)
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
            sys.exit(guard.UNREAD)
        print(f"error: standard output or a file cannot be written: {problem.strerror}.", file=sys.stderr)
        sys.exit(4)


def _answer() -> None:
    """Do what the command line says, with no more imported than that needs."""
    words = sys.argv[1:]
    try:
        prediction = labels.plain(words)
        if prediction is not None:
            gc.disable()  # imports leave nothing to collect; `labels` enables it again
            guard.guarded(labels.write, *prediction)
        elif words in (["--version"], ["-V"], ["version"]):
            print(f"fastcls {__version__}")
        else:
            _parse(words)
    except Exception as end:
        if "typer" not in sys.modules:
            raise
        from typer import Exit

        if not isinstance(end, Exit):
            raise
        sys.exit(end.exit_code)


def _parse(words: list[str]) -> None:
    """Do what the command line says; typer's parser imports pydantic for any option, and what needs none gets none."""
    from fastcls.cli.verbs import app, recipe, recipes

    match words:
        case ["recipes"]:
            recipes.recipes(as_json=False)
        case ["recipe", name, "--help"]:
            from typer.main import get_command

            print(recipe.help_of(name, get_command(app).commands["recipe"]))  # type: ignore[attr-defined]
        case _:
            app(prog_name="fastcls")
