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
    "validate": "evaluate",
    "finetune": "recipe",
    "fine-tune": "recipe",
    "fit-one-cycle": "recipe",
    "leaderboard": "runs",
    "checks": "doctor",
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
    "load-best-model-at-end": (),
    "cos-lr": (),
    "no-pretrained": ("--weights", "none"),
    "fp16": ("--precision", "fp16"),
    "half": ("--precision", "fp16"),
    "bf16": ("--precision", "bf16"),
    "no-amp": ("--precision", "fp32"),
    "torchcompile": ("--compile", "default"),
    "torch-compile": ("--compile", "default"),
    "no-cuda": ("--device", "cpu"),
    "use-cpu": ("--device", "cpu"),
    "log-wandb": ("--track", "wandb"),
    "wandb": ("--track", "wandb"),
    "tensorboard": ("--track", "tensorboard"),
}
OFF = {"amp": "no-amp", "pretrained": "no-pretrained"}  # a switch that is given as false
VALUES = {
    "--precision": {"16": "fp16", "16-mixed": "fp16", "bf16-mixed": "bf16", "32": "fp32", "32-true": "fp32"},
    "--device": {"gpu": "cuda"},
    "--resume": {"True": "auto", "true": "auto"},
}
NO_VERBS = {
    "pretrain": "--weights takes what others have trained:  fastcls recipe folder --path photos --weights FILE",
    "benchmark": "fastcls export RUN --int8 --fp16 measures a network's speed, size and accuracy.",
    "embed": "fastcls predict RUN IMAGES --features -o features.parquet",
    "settings": "fastcls recipe NAME --print-config prints every knob and option.",
    **dict.fromkeys(
        ("detect", "segment", "pose", "obb", "track"),
        "fastcls classifies whole images:  fastcls predict RUN IMAGES",
    ),
}
# what does the work of a setting that others have: of training, then of verbs that read a run
ADVICE = {
    "Omit it: the classes are counted from the images.": "num-classes nc",
    "--tune head trains the head alone, --tune probe solves it on frozen features; full does that first.": "freeze "
    "freeze-epochs",
    "--arch small, base or large chooses the network, --time 20m the length of the training.": "presets",
    "fastcls search RECIPE --space KNOB=VALUES tries settings.": "hyperparameters hyperparameter-tune-kwargs",
    "The schedule is one cycle, with a warm-up; --set pct_start=0.3 is its share.": "sched scheduler lr-scheduler "
    "lr-scheduler-type warmup-epochs warmup-ratio warmup-steps min-lr lrf",
    "Decoded images are cached on disk; --cache-gb N limits them.": "cache cache-images",
    "--checkpoint-minutes N; the end of an epoch is always saved.": "save-period save-steps",
    "Omit it: every epoch is evaluated and saved, and the weights of the best one are kept.": "evaluation-strategy "
    "eval-strategy eval-steps save-strategy save-total-limit",
    "--epochs N or --time 20m; --limit N takes at most N images a class.": "max-steps num-steps",
    "--path DIR names the images; a recipe has its own dataset.": "dataset dataset-name",
    "--limit N takes at most N images a class.": "max-train-samples num-samples fraction limit-train-batches",
    "--gpus N trains on N GPUs of this machine.": "strategy distributed",
    "Where the recipe has no --wd:  --set wd=0.05": "weight-decay",
    "fastcls compare RECIPE --folds 5 holds out each image once.": "cv num-bag-folds n-folds k-fold",
    "--path DIR with the folders train/ and valid/ in it.": "val val-dir validation-dir eval-data train-split",
    "--out FOLDER names the run's folder:  --out out/exp1": "project name experiment run-name exp-name",
    "--loss label-smoothing, where the recipe has --loss.": "label-smoothing label-smoothing-factor",
    "--policy rand or trivial, where the recipe has --policy.": "aa auto-augment randaugment",
    "--jitter 0.2 changes brightness, contrast and colour, where the recipe has --jitter.": "hsv-h hsv-s hsv-v",
    "--mixup 0.4 blends pairs of images, where the recipe has --mixup.": "cutmix cutmix-alpha",
    "--ema 0.99 keeps an average of the weights, where the recipe has --ema.": "model-ema",
    "They are the recipe's:  fastcls recipe NAME --help, or --copy mine for one of your own": "item-tfms batch-tfms "
    "transform augmentations",
    "--labels TABLE: its columns are found by their titles.": "label label-column image-column-name label-column-name",
    "Every epoch is in history.csv; --track tensorboard, wandb or mlflow logs elsewhere.": "logging-dir log-dir "
    "logging-steps log-interval",
    "fastcls push RUN OWNER/NAME publishes a finished run.": "push-to-hub hub-model-id",
    "fastcls evaluate RUN PATH evaluates a finished run on further images.": "eval-checkpoint",
    "--accumulate N takes a batch in N parts; --auto-batch finds what fits.": "grad-checkpointing "
    "gradient-checkpointing",
    "Omit it: classes have the names of their folders, or those in the table.": "class-map",
    "Omit it: evaluation chooses its batch, and the head is made for your classes.": "per-device-eval-batch-size "
    "ignore-mismatched-sizes remove-unused-columns",
}
ADVICE_OF_RUNS = {
    "-o answers.csv, .jsonl or .parquet; without it they are printed.": "save save-txt save-conf save-dir csv save-csv",
    "Omit it: a GPU is used where onnxruntime has one, and every core.": "device batch-size batch bs workers "
    "num-workers half",
    "Omit it: the run knows its size and its classes.": "imgsz img-size image-size size num-classes nc class-map",
}
SHORT = {"-b": "--batch-size", "-j": "--num-workers"}  # timm's
_ADVICE, _ADVICE_OF_RUNS = (
    {name: advice for advice, names in table.items() for name in names.split()} for table in (ADVICE, ADVICE_OF_RUNS)
)
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
    words = _mode_first(words)
    if not words or words[0].startswith("-"):
        return words, []
    notes = []
    verb, rest = words[0], words[1:]
    if verb not in verbs and "_" in verb:
        verb = verb.replace("_", "-")
        notes += [f"{words[0]} is {verb} here"] * (verb in verbs)
    if verb not in verbs and verb in VERBS:
        if verb != "train":
            notes.append(f"{verb} is {VERBS[verb]} here")
        verb = VERBS[verb]
    if verb not in verbs:
        if verb in NO_VERBS:
            raise UsageError(f"There is no command {verb!r}.", NO_VERBS[verb])
        meant = did_you_mean(verb, [*verbs, *VERBS])
        raise UsageError(f"There is no command {verb!r}{meant or '.'}", "All of them:  fastcls --help")
    own = {flag[2:] for option in verbs[verb].params for flag in (*option.opts, *option.secondary_opts)} - {""}
    if verb in WITH_RECIPE:
        from fastcls.settings import configs

        rest = configs.expanded(_named(_flagged(rest), notes), own)
        switches = {
            flag[2:]: option.secondary_opts[0] if option.secondary_opts else ""
            for option in verbs[verb].params
            for flag in option.opts
            if getattr(option, "is_flag", False) and flag.startswith("--")
        }
        own |= _knobs(rest)
        return [verb, *_renamed(rest, own, switches, notes)], notes
    return [verb, *_placed(rest, verb, own, notes)], notes


def _parts(word: str) -> tuple[str, str, str]:
    """The name of a flag, as other tools' tables have it, the "=" and the value behind it."""
    flag, equals, value = word.partition("=")
    return flag[2:].lower().replace("_", "-") if flag.startswith("--") else "", equals, value


def _mode_first(words: Sequence[str]) -> list[str]:
    """Ultralytics' task=classify mode=train as the verb in front."""
    modes = [word[5:] for word in words if word.startswith("mode=")]
    return [*modes[:1], *(word for word in words if not word.startswith(("mode=", "task=")))]


def _flagged(words: Sequence[str]) -> list[str]:
    """data=photos epochs=3, as Ultralytics has them, as flags."""
    found: list[str] = []
    for index, word in enumerate(words):
        key, equals, value = word.partition("=")
        before = words[index - 1] if index else ""
        if before == "-o" and equals and key.isidentifier():
            raise UsageError(f"-o {word}: -o is the folder or file to write.", f"--set {word}")
        if equals and key.isidentifier() and not before.startswith("-") and not Path(word).exists():
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


def _renamed(
    words: Sequence[str], own: Collection[str], switches: Mapping[str, str], notes: list[str]
) -> Iterator[str]:
    """Flags that neither the verb nor the recipe has, under the names that they have here.

    switches: of the verb, which take no True or False, and the flag that is the opposite of each, if there is one.
    """
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = _parts(word)
        flag = f"--{name}"
        ours = name if name in own else (synonyms.ours(name) or "").replace("_", "-")
        given = value or (rest[0] if rest else "")
        if ours in switches and not equals and given.lower() in (*TRUE, *FALSE):
            rest.pop(0)
            own_switch = f"--{ours}" if given.lower() in TRUE else switches[ours]
            notes.append(f"{word} {given} is {own_switch or 'so anyway'} here")
            yield from [own_switch] * bool(own_switch)
        elif ours in own and (reason := _refused(ours, given)):
            raise UsageError(f"{word.partition('=')[0]} {given}: not taken here.", reason)
        elif not name or name in own or name.removeprefix("no-") in own:
            yield word
        elif ours in own:
            notes.append(f"{word.partition('=')[0]} is --{ours} here")
            flag = f"--{ours}"
            yield flag + equals + value
        elif name in SWITCHES:
            given = value or (rest.pop(0) if rest and rest[0].lower() in (*TRUE, *FALSE) else "true")
            name = OFF.get(name, "") if given.lower() in FALSE else name
            same = SWITCHES.get(name, ())
            notes.append(f"{word.partition('=')[0]} is {' '.join(same) or 'no switch'} here")
            yield from same
        elif name in _ADVICE:
            raise UsageError(f"{word.partition('=')[0]}: there is no such setting.", _ADVICE[name])
        else:
            yield word
        if not rest or equals:
            continue
        same_value = f"{rest[0]}s" if flag == "--time" and rest[0].isdigit() else VALUES.get(flag, {}).get(rest[0])
        if same_value:
            notes.append(f"{rest.pop(0)} is {same_value} here")
            yield same_value


def _refused(ours: str, value: str) -> str:
    """What to say instead of a value that others give a setting of this name, and we do not; '' for all others."""
    if ours == "valid-pct" and value.isalpha():  # timm's name of a split
        return "Folders named train/, valid/ and test/ are found as they are; --valid-pct 0.2 draws a split."
    if ours == "device" and "," in value:
        return f"--gpus {len(value.split(','))} trains on several GPUs."
    if ours == "resume" and "checkpoint" in value:
        return "A run is continued by its folder:  fastcls resume RUN"
    if ours == "arch" and value.lower().startswith("yolo"):
        return "There are torchvision's and timm's networks:  fastcls models --suggest PHOTOS"
    return ""


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
        elif verb in PLACES and name in _ADVICE_OF_RUNS and name not in own:
            raise UsageError(f"{word.partition('=')[0]}: there is no such option.", _ADVICE_OF_RUNS[name])
        else:
            found.append(word)
    return [*(word for place in sorted(places) for word in places[place]), *found]
