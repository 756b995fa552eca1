"""What to run: a recipe, and the words that were typed behind it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from fastcls.errors import KnobError
from fastcls.settings import shell
from fastcls.settings.options import Options

if TYPE_CHECKING:
    from fastcls.settings.request import Request
    from fastcls.settings.sources import RecipeSource

# of a verb that takes a recipe: words that it does not know are the recipe's knobs
TAKES_KNOBS = {"allow_extra_args": True, "ignore_unknown_options": True}


def build(ctx: typer.Context, source: RecipeSource, words: list[str], options: Options, extra: list[str]) -> Request:
    """The request that words add up to, the command's own flags among the names that are offered for a wrong one."""
    from fastcls.settings.knobs import words_to_values
    from fastcls.settings.request import requested

    own_flags = [flag for parameter in ctx.command.params for flag in parameter.opts if flag.startswith("--")]
    pairs = {}
    for text in extra:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise KnobError(f"--set {text}: this is no KEY=VALUE.", "Write, for example,  --set wd=0.05")
        pairs[key.strip()] = value
    values, problems = words_to_values(words, source.knobs)
    return requested(source, values, options, pairs, own_flags, problems)


def command_line(verb: str) -> str:
    """The command as the user typed it, to be recorded and shown."""
    words = sys.argv[sys.argv.index(verb) :] if verb in sys.argv else [verb]
    return shell.command(*words)
