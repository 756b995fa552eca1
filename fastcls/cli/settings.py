"""What was typed of a run: the options of every run, from their one declaration, and a recipe's knobs."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from fastcls.cli import completion
from fastcls.cli.app import with_parameters
from fastcls.cli.completion import option
from fastcls.cli.streams import refusal
from fastcls.cli.words import WITHOUT
from fastcls.errors import KnobError, UsageError
from fastcls.plugins import tracking
from fastcls.settings import shell
from fastcls.settings.options import DECLARED, TRACKERS, TYPES, Options, checked, choices

if TYPE_CHECKING:
    from fastcls.settings.request import Request
    from fastcls.settings.sources import RecipeSource

# of a verb that takes a recipe: words that it does not know are the recipe's knobs
TAKES_KNOBS = {"allow_extra_args": True, "ignore_unknown_options": True}
EXTRA = option("--set KEY=VALUE", "Any keyword argument of the fastai functions that the recipe calls.", [])


@dataclass(frozen=True)
class Settings:
    """What was typed of them."""

    given: dict[str, Any]
    extra: list[str]  # `--set` pairs

    def options(self, time: str = "", **chosen: Any) -> Options:
        """The options, `chosen` ones in place of what was typed; one KnobError names all that are wrong."""
        found = checked({**self.given, **chosen}, time)
        tracking.refuse_missing(tracking.names(found.track))
        return found


def takes_settings(only: Collection[str] = (), without: Collection[str] = ()) -> Callable[[Callable], Callable]:
    """The verb's parameter `settings` becomes the options of runs, `only` these or all `without` some, and --set."""
    names = [name for name in DECLARED if (name in only if only else name not in without)]

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def with_settings(**words: Any) -> None:
            settings = Settings({name: words.pop(name) for name in names}, words.pop("extra"))
            function(**words, settings=settings)

        own = inspect.signature(function, eval_str=True)
        parameters = []
        for parameter in own.parameters.values():
            parameters += _declared(names) if parameter.name == "settings" else [parameter]
        return with_parameters(with_settings, parameters)

    return decorate


def _declared(names: Collection[str]) -> list[inspect.Parameter]:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    options = [
        inspect.Parameter(name, kind, default=_option(name), annotation=str if choices(name) else TYPES[name])
        for name in names
    ]
    return [*options, inspect.Parameter("extra", kind, default=EXTRA, annotation=list[str])]


def _option(name: str) -> Any:
    declared, flag = DECLARED[name], f"--{name.replace('_', '-')}"
    if TYPES[name] in (bool, bool | None):
        flag += f"/--no-{flag[2:]}"
    takes = "|".join(choices(name)) or declared.metadata["metavar"]
    offers = completion.several(*TRACKERS) if name == "track" else None
    callback = _refuse_empty if declared.default == "" else None
    return option(f"{flag} {takes}", declared.metadata["help"], declared.default, offers, callback=callback)


def _refuse_empty(context: typer.Context, parameter: typer.CallbackParam, value: str) -> str:
    """A shell's variable that is not set: without an answer its run would have no checkpoints, say."""
    source = context.get_parameter_source(str(parameter.name))
    if not value and source is not None and source.name == "COMMANDLINE":
        raise refusal(UsageError(f"{parameter.opts[0]}: empty; omit it, or give {parameter.metavar}."))
    return value


def build(ctx: typer.Context, source: RecipeSource, words: list[str], options: Options, extra: list[str]) -> Request:
    """The request that words add up to, the command's own flags among the names that are offered for a wrong one."""
    from fastcls.settings.knobs import words_to_values
    from fastcls.settings.request import requested

    own_flags = [flag for parameter in ctx.command.params for flag in parameter.opts if flag.startswith("--")]
    pairs = {}
    for text in extra:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise KnobError(f"--set {text}: not of the form KEY=VALUE.", "Example:  --set wd=0.05")
        pairs[key.strip()] = value
    values, problems = words_to_values(words, source.knobs)
    try:
        return requested(source, values, options, pairs, own_flags, problems)
    except KnobError as problem:
        if WITHOUT in ctx.meta and "did you mean" not in problem.message:
            problem.hint += f"\nWithout them:  {ctx.meta[WITHOUT]}"
        raise


def command_line(verb: str) -> str:
    """The command as the user typed it, to be recorded and shown."""
    words = sys.argv[sys.argv.index(verb) :] if verb in sys.argv else [verb]
    return shell.command(*words)
