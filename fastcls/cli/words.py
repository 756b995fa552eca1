"""Words that users of other tools type: taken where they mean the same here, else answered with what does."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from typer.core import TyperGroup

from fastcls.cli.streams import refusal
from fastcls.errors import FastclsError, UsageError, did_you_mean
from fastcls.log import logger
from fastcls.settings import shell, synonyms

VERBS = {
    "train": "recipe",
    "fit": "recipe",
    "infer": "predict",
    "inference": "predict",
    "val": "evaluate",
    "eval": "evaluate",
    "test": "evaluate",
    "tune": "search",
    "hpo": "search",
    "list": "recipes",
    "list-models": "models",
    "ls": "runs",
    "ui": "serve",
    "gui": "serve",
}
WITH_RECIPE = ("recipe", "compare", "search", "lr-find")
# what other tools name by a flag and we by its place: of each place the names
RUN = ("model", "weights", "checkpoint", "ckpt", "run")
PLACES = {
    "predict": (RUN, ("source", "input", "images", "data", "data-dir", "path")),
    "evaluate": (RUN, ("data", "data-dir", "path", "source")),
    "export": (RUN,),
    "report": (RUN,),
}
OTHERS = {  # of verbs without a recipe
    "predict": {"output": "out", "output-dir": "out", "conf": "threshold", "topk": "top-k", "augment": "tta"},
    "export": {"output": "out", "output-dir": "out"},
}
# switches, and the words that do the same; nothing where it is so anyway
SWITCHES: dict[str, tuple[str, ...]] = {
    "amp": (),
    "pretrained": (),
    "do-train": (),
    "do-eval": (),
    "plots": (),
    "deterministic": (),
    "cos-lr": (),
    "no-pretrained": ("--weights", "none"),
    "fp16": ("--precision", "fp16"),
    "half": ("--precision", "fp16"),
    "bf16": ("--precision", "bf16"),
    "no-amp": ("--precision", "fp32"),
    "torchcompile": ("--compile", "default"),
    "log-wandb": ("--track", "wandb"),
    "wandb": ("--track", "wandb"),
    "tensorboard": ("--track", "tensorboard"),
}
OFF = {"amp": "no-amp", "pretrained": "no-pretrained"}  # a switch that is given as false
VALUES = {
    "--precision": {"16": "fp16", "16-mixed": "fp16", "bf16-mixed": "bf16", "32": "fp32", "32-true": "fp32"},
    "--device": {"gpu": "cuda"},
}
ADVICE = {
    "num-classes": "Omit it: the classes are counted from the images.",
    "nc": "Omit it: the classes are counted from the images.",
    "freeze": "--tune head trains the head alone, --tune probe solves it on frozen features.",
    "presets": "--arch small, base or large chooses the network, --time 20m the length of the training.",
    "sched": "The schedule is one cycle; --set pct_start=0.3 and the like change it.",
    "lr-scheduler": "The schedule is one cycle; --set pct_start=0.3 and the like change it.",
    "warmup-epochs": "The schedule is one cycle, with a warm-up; --set pct_start=0.3 is its share.",
    "cache": "Decoded images are cached on disk; --cache-gb N limits them.",
    "save-period": "--checkpoint-minutes N; the end of an epoch is always saved.",
    "save-steps": "--checkpoint-minutes N; the end of an epoch is always saved.",
    "dataset": "--path DIR names the images; a recipe has its own dataset.",
    "dataset-name": "--path DIR names the images; a recipe has its own dataset.",
    "max-train-samples": "--limit N takes at most N images a class.",
    "num-samples": "--limit N takes at most N images a class.",
    "strategy": "--gpus N trains on N GPUs of this machine.",
    "weight-decay": "Where the recipe has no --wd:  --set wd=0.05",
    "cv": "fastcls compare RECIPE --seeds 5 trains it five times, on five splits.",
    "val-dir": "--path DIR with the folders train/ and valid/ in it.",
    "validation-dir": "--path DIR with the folders train/ and valid/ in it.",
    "eval-data": "--path DIR with the folders train/ and valid/ in it.",
}
SHORT = {"-b": "--batch-size", "-j": "--num-workers"}  # timm's
TRUE, FALSE = ("true", "yes", "1"), ("false", "no", "0")


class Verbs(TyperGroup):
    """The verbs, after the words of other tools have been translated."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        try:
            words, notes = translated(args, self.commands)
        except FastclsError as error:
            raise refusal(error) from None
        if notes and not {"-q", "--quiet"}.intersection(words):
            logger.warning(f"note     {', '.join(notes)}:  {shell.command(*words)}")
        if sys.argv[1:] == args:  # what a run records as its command
            sys.argv[1:] = words
        return super().parse_args(ctx, words)


def translated(words: Sequence[str], verbs: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The words as we have them, and what was replaced; UsageError where the right words are known but not the same."""
    words = [{"-h": "--help", **SHORT}.get(word, word) for word in words]
    match words:
        case ["help", *rest]:
            words = [*rest, "--help"]
        case ["classify", *rest]:
            words = rest
    if not words or words[0].startswith("-"):
        return words, []
    notes = []
    verb, rest = words[0], words[1:]
    if verb not in verbs and verb in VERBS:
        if verb != "train":
            notes.append(f"{verb} is {VERBS[verb]} here")
        verb = VERBS[verb]
    if verb not in verbs:
        meant = did_you_mean(verb, [*verbs, *VERBS])
        raise UsageError(f"There is no command {verb!r}{meant or '.'}", "All of them:  fastcls --help")
    own = {flag[2:] for option in verbs[verb].params for flag in (*option.opts, *option.secondary_opts)} - {""}
    if verb in WITH_RECIPE:
        from fastcls.settings import configs

        rest = configs.expanded(_named(_flagged(rest), notes), own)
        own |= _knobs(rest)
        return [verb, *_renamed(rest, own, notes)], notes
    return [verb, *_placed(rest, verb, own, notes)], notes


def _parts(word: str) -> tuple[str, str, str]:
    """The name of a flag, as other tools' tables have it, the "=" and the value behind it."""
    flag, equals, value = word.partition("=")
    return flag[2:].lower().replace("_", "-") if flag.startswith("--") else "", equals, value


def _flagged(words: Sequence[str]) -> list[str]:
    """data=photos epochs=3, as Ultralytics has them, as flags."""
    found: list[str] = []
    for index, word in enumerate(words):
        key, equals, value = word.partition("=")
        before = words[index - 1] if index else ""
        if before == "-o" and equals and key.isidentifier():
            raise UsageError(f"-o {word}: -o is the folder or file to write.", f"--set {word}")
        if equals and key.isidentifier() and not before.startswith("-") and not Path(word).exists():
            if key not in ("task", "mode"):
                found += [f"--{key}", value]
        else:
            found.append(word)
    return found


def _named(words: list[str], notes: list[str]) -> list[str]:
    """With the recipe `folder` where images are given and no recipe."""
    names = [_parts(word)[0] for word in words]
    if words and words[0].startswith("--") and any("path" in (name, synonyms.ours(name)) for name in names):
        notes.append("the recipe for images of your own is folder")
        return ["folder", *words]
    return words


def _knobs(words: Sequence[str]) -> set[str]:
    """The flags of the recipe that is named first; none where there is no such recipe."""
    from fastcls.settings import sources

    if not words or words[0].startswith("-"):
        return set()
    try:
        knobs = sources.find(words[0]).knobs
    except FastclsError:
        return set()
    return {knob.flag[2:] for knob in knobs}


def _renamed(words: Sequence[str], own: Collection[str], notes: list[str]) -> Iterator[str]:
    """Flags that neither the verb nor the recipe has, under the names that they have here."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = _parts(word)
        flag = f"--{name}"
        if not name or name in own or name.removeprefix("no-") in own:
            yield word
        elif (ours := (synonyms.ours(name) or "").replace("_", "-")) in own:
            notes.append(f"{word.partition('=')[0]} is --{ours} here")
            flag = f"--{ours}"
            yield flag + equals + value
        elif name in SWITCHES:
            given = value or (rest.pop(0) if rest and rest[0].lower() in (*TRUE, *FALSE) else "true")
            name = OFF.get(name, "") if given.lower() in FALSE else name
            same = SWITCHES.get(name, ())
            notes.append(f"{word.partition('=')[0]} is {' '.join(same) or 'no switch'} here")
            yield from same
        elif name in ADVICE:
            raise UsageError(f"{word}: there is no such setting.", ADVICE[name])
        else:
            yield word
        if not rest or equals:
            continue
        same_value = f"{rest[0]}s" if flag == "--time" and rest[0].isdigit() else VALUES.get(flag, {}).get(rest[0])
        if same_value:
            notes.append(f"{rest.pop(0)} is {same_value} here")
            yield same_value


def _placed(words: Sequence[str], verb: str, own: Collection[str], notes: list[str]) -> list[str]:
    """Flags of what has a place here in their places, others under our names."""
    places: dict[int, list[str]] = {}
    found: list[str] = []
    rest = _flagged(words) if verb in PLACES else list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = _parts(word)
        place = next((i for i, names in enumerate(PLACES.get(verb, ())) if name in names and name not in own), None)
        ours = OTHERS.get(verb, {}).get(name)
        if place is not None and (equals or rest):
            notes.append(f"{word.partition('=')[0]} is given by its place")
            places.setdefault(place, []).append(value if equals else rest.pop(0))
        elif verb == "export" and name == "format" and (equals or rest):
            found.append(f"--{value if equals else rest.pop(0)}")
            notes.append(f"--format is {found[-1]} here")
        elif ours and name not in own:
            notes.append(f"{word.partition('=')[0]} is --{ours} here")
            found.append(f"--{ours}{equals}{value}")
        else:
            found.append(word)
    return [*(word for place in sorted(places) for word in places[place]), *found]
