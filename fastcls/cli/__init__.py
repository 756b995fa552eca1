"""The command line: one module a verb, each importing what it needs when it runs."""

import sys

from fastcls import __version__
from fastcls.cli import doctor, lr_find, predict, recipe, recipes, report, runs  # noqa: F401  they register verbs
from fastcls.cli.app import app


def main() -> None:
    """The `fastcls` command."""
    if sys.argv[1:] == ["--version"]:  # an option of the root would have typer import pydantic at every start
        print(f"fastcls {__version__}")
    else:
        app(prog_name="fastcls")
