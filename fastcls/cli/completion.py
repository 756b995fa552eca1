"""What a shell offers when Tab is pressed: recipes, runs, knobs and their choices, networks. Nothing imports torch."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand

from fastcls.cli.app import with_parameters
from fastcls.errors import FastclsError

if TYPE_CHECKING:
    from fastcls.settings.knobs import Knob

Offered = Iterable[str | tuple[str, str]]  # words, or (word, help); typer keeps those that begin as what was typed


def among(*words: str) -> Callable[[], Offered]:
    """One of a few words."""
    return lambda: words


def several(*words: str) -> Callable[[str], Offered]:
    """Some of a few words, with commas between them."""

    def offer(incomplete: str) -> Offered:
        before, comma, _ = incomplete.rpartition(",")
        taken = before.split(",")
        return [before + comma + word for word in words if word not in taken]

    return offer


def recipes(incomplete: str) -> Offered:
    """Names of recipes; of files the shell knows itself."""
    from fastcls.settings import sources

    is_path = incomplete.startswith((".", "~")) or "/" in incomplete
    return [] if is_path else sources.available()


def runs(incomplete: str) -> Offered:
    """`last`, the recipes that have runs, and, once a slash is typed, the runs themselves."""
    from fastcls.runfolder import runs as folders

    found = folders.listing()
    if "/" in incomplete:
        return [name for run in found for name in (f"{run.parent.name}/{run.name}", str(run))]
    return ["last", *sorted({run.parent.name for run in found})] if found else []


def recipes_or_runs(incomplete: str) -> Offered:
    return sorted({*recipes(incomplete), *runs(incomplete)} - {"last"})


def architectures(incomplete: str) -> Offered:
    """small, base, large and torchvision's networks; timm's once something is typed: it has more than a thousand."""
    from fastcls.models import zoo

    own = [*zoo.WORDS, *zoo.names("torchvision")]
    if not incomplete:
        return own
    others = [name for name in zoo.names("timm") if name not in own]
    return [*own, *others, *(zoo.TIMM + name for name in zoo.names("timm"))]


def weights(incomplete: str) -> Offered:
    return ["imagenet", "none", *runs(incomplete)]


def stores() -> Offered:
    """Of decoded images, as `fastcls cache` lists them."""
    from fastcls.images import cache

    return ["all", "measurements", *(store["name"] for store in cache.listing())]


def option(flags: str, help: str, default: Any = ..., offers: Any = None, **further: Any) -> Any:
    """An option by its flags and, behind these, what it takes, which is a switch where that is nothing.

    '--split valid|test' offers its words to the shell; others have `offers`. `further`: of typer's own.
    """
    names = list(takewhile(lambda word: word.startswith("-"), flags.split()))
    metavar = flags.partition(names[-1])[2].strip() or None
    if default is ...:
        default = "" if metavar else False
    if metavar and not offers and re.fullmatch(r"[a-z][\w-]*(\|[a-z][\w-]*)+", metavar):
        offers = among(*metavar.split("|"))
    return typer.Option(default, *names, metavar=metavar, help=help, autocompletion=offers, **further)


def argument(metavar: str, help: str, default: Any = ..., offers: Any = None) -> Any:
    """An argument, which may be left out where it has a default; offers: its words, to the shell."""
    return typer.Argument(default, metavar=metavar, help=help, show_default=bool(default), autocompletion=offers)


RUN = argument("RUN", "A run folder, a recipe's name (its newest run), 'last' or hf://OWNER/NAME.", offers=runs)
LABEL_REGEX = option(
    "--label-regex PATTERN", "Regular expression whose first group is the label in a file name, e.g. '(.+)_\\d+'."
)
MULTI_LABEL = option(
    "--multi-label yes|no|auto",
    "Whether an image may have several labels, or none; auto decides by the labels.",
    "auto",
)
RECIPE = argument("RECIPE", "A recipe's name, or a file: ./mine.py", offers=recipes)


class TakesKnobs(TyperCommand):
    """A verb that takes a recipe: when Tab is pressed, the recipe's knobs are options of it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta["words"] = list(args)
        return super().parse_args(ctx, args)

    def get_params(self, ctx: Any) -> list[Any]:
        own = super().get_params(ctx)
        if not ctx.resilient_parsing:
            return own
        return [*own, *_options_of(next((w for w in ctx.meta.get("words", []) if not w.startswith("-")), ""))]


def _options_of(recipe: str) -> list[Any]:
    """The knobs of a recipe as options of a command; none where there is no such recipe."""
    from fastcls.settings import sources

    try:
        knobs = sources.find(recipe).knobs
    except FastclsError:
        return []

    def with_knobs(**_: object) -> None: ...

    kind, types = inspect.Parameter.KEYWORD_ONLY, {"bool": bool}
    parameters = [
        inspect.Parameter(knob.name, kind, default=_option(knob), annotation=types.get(knob.kind, str))
        for knob in knobs
    ]
    app = typer.Typer(add_completion=False)
    app.command()(with_parameters(with_knobs, parameters))
    return [option for option in typer.main.get_command(app).params if option.name != "help"]  # type: ignore[attr-defined]


def _option(knob: Knob) -> Any:
    if knob.kind == "bool":
        return option(f"{knob.flag}/--no-{knob.flag[2:]}", knob.help)
    by_name = {"arch": architectures, "weights": weights}
    values = among(*map(str, knob.choices)) if knob.choices else by_name.get(knob.name)
    return option(f"{knob.flag} VALUE", knob.help, offers=values)
