"""The options that every training verb shares, and the request they and the knobs add up to."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fastcls.errors import KnobError, did_you_mean
from fastcls.options import Options, choices

if TYPE_CHECKING:
    from fastcls.request import Request
    from fastcls.sources import RecipeSource


def _one_of(option: str) -> str:
    return "|".join(choices(option))


class Settings:
    """Options of every run, declared once."""

    seed: Any = typer.Option(42, "--seed", metavar="N", help="Seeds the split, the initial weights, the augmentation.")
    limit: Any = typer.Option(
        None, "--limit", metavar="N", help="At most N images a class in each split, for a quick try."
    )
    workers: Any = typer.Option(None, "--workers", metavar="N", help="Loader processes  [default: by the cores]")
    device: Any = typer.Option("auto", "--device", metavar=_one_of("device"), help="Where to compute.")
    precision: Any = typer.Option("auto", "--precision", metavar=_one_of("precision"), help="Number format.")
    keep: Any = typer.Option(
        "best", "--keep", metavar=_one_of("keep"), help="End with the best epoch's weights (on valid) or the last's."
    )
    extra: Any = typer.Option(
        [], "-o", metavar="KEY=VALUE", help="Any further keyword of the fastai functions that the recipe calls."
    )


def run_options(seed: int, limit: int | None, workers: int | None, device: str, precision: str, keep: str) -> Options:
    """Options with every closed set of values checked; one KnobError names all that are wrong."""
    problems = []
    for name, value in (("device", device), ("precision", precision), ("keep", keep)):
        known = choices(name)
        if value not in known:
            problems.append(f"--{name} {value}: takes {', '.join(known)}{did_you_mean(value, known)}")
    for name, number, least in (("limit", limit, 1), ("workers", workers, 0), ("seed", seed, 0)):
        if number is not None and number < least:
            problems.append(f"--{name} {number}: takes a whole number from {least}")
    if problems:
        raise KnobError("wrong settings:\n  " + "\n  ".join(problems))
    return Options(seed, limit, workers, device, precision, keep)  # type: ignore[arg-type]


def build_request(
    ctx: typer.Context, source: RecipeSource, options: Options, extra: list[str], out: str, command: str
) -> Request:
    """Knobs from the words that typer left over, `-o` pairs split; nothing heavy is imported."""
    from fastcls.knobs import parse_words
    from fastcls.request import Request

    own_flags = [flag for parameter in ctx.command.params for flag in parameter.opts if flag.startswith("--")]
    knobs = parse_words(ctx.args, source.knobs, own_flags)
    pairs = {}
    for text in extra:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise KnobError(f"-o {text}: this is no KEY=VALUE.", "Write, for example,  -o wd=0.05")
        pairs[key.strip()] = value
    return Request(source, knobs, options, pairs, Path(out).expanduser() if out else None, command)


def command_line(verb: str) -> str:
    """The command as the user typed it, to be recorded and shown."""
    words = sys.argv[sys.argv.index(verb) :] if verb in sys.argv else [verb]
    return shlex.join(["fastcls", *words])
