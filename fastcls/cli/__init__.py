"""The command line: one module a verb, each importing what it needs when it runs."""

from fastcls.cli import doctor, lr_find, predict, recipe, recipes, report, runs  # noqa: F401  they register verbs
from fastcls.cli.app import app


def main() -> None:
    """The `fastcls` command."""
    app(prog_name="fastcls")
