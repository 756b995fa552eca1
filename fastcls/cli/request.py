"""What to run: a recipe, and the words that were typed behind it."""

from __future__ import annotations

import sys
from dataclasses import replace
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
    own_flags = [flag for parameter in ctx.command.params for flag in parameter.opts if flag.startswith("--")]
    return request_of(source, words, options, extra, own_flags)


def request_of(
    source: RecipeSource, words: list[str], options: Options, extra: list[str], own_flags: list[str]
) -> Request:
    """Knobs from words, `-o` pairs split; nothing heavy is imported."""
    from fastcls.settings.knobs import parse_words
    from fastcls.settings.request import Request

    words, auto = _auto_epochs(words)
    if auto or options.seconds is not None:
        asked = "--epochs auto" if auto else "--time"
        if not any(knob.name == "epochs" for knob in source.stage("fit")):
            raise KnobError(f"{asked}: the fit of {source.name} has no knob `epochs`.")
        if options.seconds is not None and (auto or any(word.partition("=")[0] == "--epochs" for word in words)):
            raise KnobError("--time chooses the epochs, and --epochs is given too.", "Give one of them.")
        options = replace(options, auto_epochs=auto)
    knobs = parse_words(words, source.knobs, own_flags)
    pairs = {}
    for text in extra:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise KnobError(f"-o {text}: this is no KEY=VALUE.", "Write, for example,  -o wd=0.05")
        pairs[key.strip()] = value
    return Request(source, knobs, options, pairs)


def _auto_epochs(words: list[str]) -> tuple[list[str], bool]:
    """The words without `--epochs auto`, and whether that was among them."""
    for i in range(len(words)):
        for asked in (["--epochs=auto"], ["--epochs", "auto"]):
            if words[i : i + len(asked)] == asked:
                return words[:i] + words[i + len(asked) :], True
    return words, False


def command_line(verb: str) -> str:
    """The command as the user typed it, to be recorded and shown."""
    words = sys.argv[sys.argv.index(verb) :] if verb in sys.argv else [verb]
    return shell.command(*words)
