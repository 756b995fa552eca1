"""The options that every training verb shares, and the request they and the knobs add up to."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fastcls import durations, tracking
from fastcls.errors import KnobError, did_you_mean
from fastcls.options import TRACKERS, Options, choices

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
    workers: Any = typer.Option(None, "--workers", metavar="N", help="Loader workers  [default: by the cores]")
    device: Any = typer.Option("auto", "--device", metavar=_one_of("device"), help="Where to compute.")
    precision: Any = typer.Option("auto", "--precision", metavar=_one_of("precision"), help="Number format.")
    cache_gb: Any = typer.Option(
        20.0, "--cache-gb", metavar="GB", help="What decoded images may take on disk; 0 decodes them every epoch."
    )
    accumulate: Any = typer.Option(1, "--accumulate", metavar="N", help="Sum the gradients of N batches, then step.")
    clip: Any = typer.Option(None, "--clip", metavar="NORM", help="Largest norm of the gradient.")
    compile: Any = typer.Option("off", "--compile", metavar=_one_of("compile"), help="torch.compile, and its mode.")
    fused: Any = typer.Option(True, "--fused/--no-fused", help="Step all parameters in one kernel.")
    channels_last: Any = typer.Option(
        True, "--channels-last/--no-channels-last", help="Memory format of convolutional networks."
    )
    patience: Any = typer.Option(
        None, "--patience", metavar="N", help="Stop training after N epochs without a better one."
    )
    keep: Any = typer.Option(
        "best", "--keep", metavar=_one_of("keep"), help="End with the best epoch's weights (on valid) or the last's."
    )
    best_by: Any = typer.Option(
        "", "--best-by", metavar="METRIC", help="Which figure on valid says what is best  [default: the first metric]"
    )
    test: Any = typer.Option(True, "--test/--no-test", help="Evaluate the test split at the end.")
    checkpoint_minutes: Any = typer.Option(
        5.0, "--checkpoint-minutes", metavar="N", help="Save so often inside an epoch; its end is always saved."
    )
    track: Any = typer.Option(
        "", "--track", metavar="NAMES", help=f"Track the run with any of {', '.join(TRACKERS)}; commas between them."
    )
    extra: Any = typer.Option(
        [], "-o", metavar="KEY=VALUE", help="Any further keyword of the fastai functions that the recipe calls."
    )


RUN_OPTIONS = [name for name in vars(Settings) if not name.startswith("_") and name != "extra"]


def run_options(**given: Any) -> Options:
    """Options with every value checked; one KnobError names all that are wrong."""
    problems = []
    for name in ("device", "precision", "keep", "compile"):
        known = choices(name)
        if name in given and given[name] not in known:
            problems.append(f"--{name} {given[name]}: takes {', '.join(known)}{did_you_mean(given[name], known)}")
    least = {"limit": 1, "workers": 0, "seed": 0, "accumulate": 1, "cache_gb": 0, "clip": 0, "patience": 1}
    least["checkpoint_minutes"] = 0
    for name in least.keys() & given.keys():
        number = given[name]
        if number is not None and (number < least[name] or number != number or (name == "clip" and number == 0)):
            kind = "a number" if name in ("cache_gb", "clip", "checkpoint_minutes") else "a whole number"
            above = "above" if name == "clip" else "from"
            problems.append(f"--{name.replace('_', '-')} {number}: takes {kind} {above} {least[name]}")
    given["seconds"] = seconds(given.pop("time", ""), problems)
    track = tracking.names(given.get("track", ""))
    for name in track:
        if name not in TRACKERS:
            problems.append(f"--track {name}: takes {', '.join(TRACKERS)}{did_you_mean(name, TRACKERS)}")
    if problems:
        raise KnobError("wrong settings:\n  " + "\n  ".join(sorted(problems)))
    tracking.refuse_missing(track)
    return Options(**{**given, "track": ",".join(track)})


def seconds(text: str, problems: list[str]) -> float | None:
    """What `--time` asks for, None where it is not given; what is no time is added to the problems."""
    if text and not durations.seconds(text):
        problems.append(f"--time {text}: takes hours, minutes, seconds, as in 2h, 20m, 1h30m or 45s")
    return durations.seconds(text) if text else None


def build_request(
    ctx: typer.Context, source: RecipeSource, options: Options, extra: list[str], out: str, command: str
) -> Request:
    """What to run, by the words that typer left over."""
    request = build(ctx, source, ctx.args, options, extra)
    return replace(request, out=Path(out).expanduser() if out else None, command=command)


def build(ctx: typer.Context, source: RecipeSource, words: list[str], options: Options, extra: list[str]) -> Request:
    """The request that words add up to, the command's own flags among the names that are offered for a wrong one."""
    own_flags = [flag for parameter in ctx.command.params for flag in parameter.opts if flag.startswith("--")]
    return request_of(source, words, options, extra, own_flags)


def request_of(
    source: RecipeSource, words: list[str], options: Options, extra: list[str], own_flags: list[str]
) -> Request:
    """Knobs from words, `-o` pairs split; nothing heavy is imported."""
    from fastcls.knobs import parse_words
    from fastcls.request import Request

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
    return shlex.join(["fastcls", *words])
