"""Words that users of other tools type: taken where they mean the same here, else answered with what does."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer.core import TyperGroup

from fastcls.cli import vocabulary
from fastcls.cli.streams import refusal
from fastcls.errors import FastclsError, UsageError, did_you_mean, slip
from fastcls.log import logger
from fastcls.settings import shell, synonyms

if TYPE_CHECKING:
    from fastcls.settings.knobs import Knob

TRUE, FALSE = ("true", "yes", "1", "on"), ("false", "no", "0", "off")
VALID = ("valid", "val", "validation", "test")  # folders beside train/ that are found
NUMBER = re.compile(r"-?\d[\d.]*(e-?\d+)?")
KEY = re.compile(r"[A-Za-z_][\w.-]*")
WITHOUT = "fastcls.without"


class Verbs(TyperGroup):
    """The verbs, after the words of other tools have been translated."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        try:
            words, notes = translated(args, self.commands, ctx.meta)
        except FastclsError as error:
            raise refusal(error) from None
        if notes and not {"-q", "--quiet"}.intersection(words):
            logger.warning(f"note     {', '.join(notes)}:  {shell.command(*words)}")
        if sys.argv[1:] == args:  # what a run records as its command
            sys.argv[1:] = words
        return super().parse_args(ctx, words)


@dataclass
class Line:
    """A command line as it is read: what of it was replaced, and what is refused, with what to say."""

    options: dict[str, bool]  # of the verb and the recipe, without dashes, and whether each takes a value
    opposites: dict[str, str] = field(default_factory=dict)  # of switches: the flag that turns each off
    notes: list[str] = field(default_factory=list)
    fit: bool = False  # whether it began as a call of fastai's fit methods, whose first arguments are numbers
    refused: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    strange: list[list[str]] = field(default_factory=list)  # their words, which the recipe's own check refuses
    weak: list[list[str]] = field(default_factory=list)  # words for others' words, less than the same option as typed
    without: list[str] = field(default_factory=list)  # the command less their words
    shipped: bool = True  # whether the recipe is; one of the user's own may have networks of any name
    whole: str = ""  # another command that does what is wanted

    def replaced(self, word: str, by: str) -> None:
        self.notes.append(f"{word} is {by} here" if by else f"{word} is the default here")

    def refuse(self, word: str, values: Sequence[str], reason: str, instead: str = "") -> list[str]:
        """Collect what is wrong; gives the words that are to be typed instead."""
        self.refused.append(f"{' '.join([word.partition('=')[0], *values])}: {reason}")
        words = [word.replace("{}", (*values, "")[0]) for word in shlex.split(instead)]
        if not words or words[0].lstrip("-") not in self.options or (not values and "{" in instead):
            return []
        self.weak.append(words)
        return words

    def other(self, name: str, value: str) -> str:
        """The words of another option that a value is here, '' where it is none."""
        words = vocabulary.OTHER_WORDS.get((name, value.lower()), "")
        return words if words.partition(" ")[0][2:] in self.options else ""

    def end(self, words: list[str]) -> None:
        """UsageError with all that is refused, and the command without it."""
        if self.refused:
            lines = self.refused + self.unknown
            what = lines[0] if len(lines) == 1 else f"{len(lines)} settings are not taken:\n  " + "\n  ".join(lines)
            given = dict(pairwise(words))
            whole = self.whole.replace("{path}", shlex.quote(given.get("--path", "PHOTOS")))
            whole_words = shlex.split(whole.replace("{words}", shlex.join(words[1:])))
            raise UsageError(what, f"Instead:  {shell.command(*(whole_words or words))}")


def translated(
    words: Sequence[str], verbs: Mapping[str, Any], meta: dict[str, Any] | None = None
) -> tuple[list[str], list[str]]:
    """The words as we have them, and what was replaced; UsageError where the right words are known but not the same.

    meta: of the command's context; WITHOUT is there what remains of the command without settings that nobody knows.
    """
    words = [{"-h": "--help", **vocabulary.SHORT}.get(word, word) for word in words]
    match words:
        case ["help", *rest]:
            words = [*rest, "--help"]
        case ["classify", *rest]:
            words = rest
    words = _mode_first(words)
    if not words or words[0].startswith("-"):
        return words, []
    notes: list[str] = []
    verb, rest, more = words[0], words[1:], list[str]()
    if verb not in verbs and "_" in verb:
        verb = verb.replace("_", "-")
        notes += [f"{words[0]} is {verb} here"] * (verb in verbs)
    if verb in ("train", "fit") and rest[:1] == ["resume"]:
        notes.append(f"{verb} resume is resume here")
        verb, rest = "resume", rest[1:]
    if verb not in verbs and verb in vocabulary.VERBS:
        if verb != "train":
            notes.append(f"{verb} is {vocabulary.VERBS[verb]} here")
        verb, *more = vocabulary.VERBS[verb].split()
        rest += more
    if verb not in verbs:
        if verb in vocabulary.NO_VERBS:
            raise UsageError(f"There is no command {verb!r}.", vocabulary.NO_VERBS[verb])
        meant = did_you_mean(verb, [*verbs, *vocabulary.VERBS])
        raise UsageError(f"There is no command {verb!r}{meant or '.'}", "All of them:  fastcls --help")
    line = Line(
        {"help": False} | {flag[2:]: not option.is_flag for option in verbs[verb].params for flag in _flags(option)},
        {
            option.opts[-1][2:]: next(iter(option.secondary_opts), "")
            for option in verbs[verb].params
            if _switch(option)
        },
        notes,
        words[0].startswith(("fit", "fine")),
    )
    found = [verb, *(_trained(rest, verb, line) if verb in vocabulary.WITH_RECIPE else _placed(rest, verb, line))]
    if more and found.count(more[0]) > 1:  # it was given too
        place = len(found) - 1 - found[::-1].index(more[0])
        found[place : place + len(more)] = []
    line.end(found)
    if meta is not None and line.strange:
        meta[WITHOUT] = shell.command(*line.without)
    return found, notes


def _is(kind: Callable[[Path], bool], word: str) -> bool:
    """Path.is_dir and its like, of any word: one that is too long for a file's name is none."""
    try:
        return kind(Path(word))
    except OSError:
        return False


def _flags(option: Any) -> list[str]:
    return [flag for flag in (*option.opts, *option.secondary_opts) if flag.startswith("--")]


def _switch(option: Any) -> bool:
    return bool(getattr(option, "is_flag", False) and _flags(option))


def _parts(word: str) -> tuple[str, str, str]:
    """The name of a flag, as other tools' tables have it, the "=" and the value behind it.

    Of a dotted name, as Lightning and AutoGluon have them (trainer.max_epochs), the last part.
    """
    flag, equals, value = word.partition("=")
    name = flag[2:].lower().replace("_", "-").rpartition(".")[2] if flag.startswith("--") else ""
    return name, equals, value


def _values(rest: list[str], equals: str, value: str, several: bool = True) -> list[str]:
    """What follows a flag, taken off `rest`: its value, or all words up to the next flag."""
    if equals:
        return [value]
    count = next((i for i, word in enumerate(rest) if word.startswith("-") and not NUMBER.fullmatch(word)), len(rest))
    count = count if several else min(count, 1)
    taken, rest[:count] = rest[:count], []
    return taken


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
        if equals and KEY.fullmatch(key) and not before.startswith("-") and not _is(Path.exists, word):
            found += [f"--{key}", value]
        else:
            found.append(word)
    return found


# ------------------------------------------------------------------ verbs with a recipe


def _trained(words: Sequence[str], verb: str, line: Line) -> list[str]:
    """The words of a verb that takes a recipe: the recipe, then its knobs and the options under our names."""
    from fastcls.settings import configs

    words = _flagged(words)
    for place, word in enumerate(words):
        if synonyms.ours(_parts(word)[0]) == "config":
            typed, equals, value = word.partition("=")
            line.replaced(typed, "--config")
            words[place] = f"--config{equals}{value}"
    words = configs.expanded(_named(words, verb, line), line.options)
    knobs = _knobs(words)
    line.shipped = not (words and words[0].endswith(".py"))
    line.options |= {name: True for name in knobs}
    flags = _renamed(words, knobs, line)
    line.without = [verb, *(word for flag in flags if flag not in line.strange for word in flag)]
    return [word for flag in flags for word in flag]


def _named(words: list[str], verb: str, line: Line) -> list[str]:
    """With the recipe first, `folder` where images are given and no recipe; a folder of images as --path."""
    from fastcls.settings import sources

    count = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    places, rest = words[:count], words[count:]
    if not places and len(rest) > 2 and not rest[-2].startswith("-") and _is(Path.is_dir, rest[-1]):  # torchvision's
        places = [rest.pop()]
    if verb == "compare" or (len(places) == 1 and not NUMBER.fullmatch(places[0]) and not _is(Path.is_dir, places[0])):
        return words
    recipe = places[:1] if places and (places[0] in sources.available() or places[0].endswith(".py")) else []
    if not recipe and places and not NUMBER.fullmatch(places[0]) and not _is(Path.is_dir, places[0]):
        return words
    for place in reversed(places[len(recipe) :]):
        if not NUMBER.fullmatch(place):
            line.replaced(place, f"--path {place}")
        rest = [place, *rest] if NUMBER.fullmatch(place) else ["--path", place, *rest]
    names = [_parts(word)[0] for word in rest]
    if not recipe and any("path" in (name, synonyms.ours(name)) for name in names):
        line.notes.append("the recipe for images of your own is folder")
        recipe = ["folder"]
    if not recipe and rest and not {"help", "config"}.intersection(names):
        line.refused.append("Which recipe to train is not named; folder is the one for images of your own.")
        recipe = ["folder", "--path", "PHOTOS"]
    return [*recipe, *rest]


def _knobs(words: Sequence[str]) -> dict[str, Knob]:
    """The knobs of the recipe that is named first, by their flags; none where there is no such recipe."""
    from fastcls.settings import sources

    if not words or words[0].startswith("-"):
        return {}
    try:
        knobs = sources.find(words[0]).knobs
    except FastclsError:
        return {}
    return {knob.flag[2:]: knob for knob in knobs}


def _renamed(words: Sequence[str], knobs: Mapping[str, Knob], line: Line) -> list[list[str]]:
    """Flags that neither the verb nor the recipe has, under the names that they have here; each with its values."""
    rest, own = list(words), line.options
    found = list[list[str]]()
    out: dict[str, str] = {}
    names = {_parts(word)[0] for word in words}
    # in the order of fastai's fit_one_cycle
    numbers = [flag for flag in ("--epochs", "--lr") if line.fit and flag[2:] in own and flag[2:] not in names]
    while rest:
        word = rest.pop(0)
        name, equals, value = _parts(word)
        typed = word.partition("=")[0]
        ours = name if name in own else (synonyms.ours(name) or "").replace("_", "-")
        if name == "path" and "train-data" in names:  # AutoGluon's
            ours = "out"
        held = value if equals else rest[0] if rest and not rest[0].startswith("--") else ""
        given = held.lower()
        switched = given in (*TRUE, *FALSE)
        if not name:
            numbered = NUMBER.fullmatch(word) and found[-1:] != [["-o"]] and numbers
            found.append([numbers.pop(0), word] if numbered else [word])
            line.notes += [f"{word} is {' '.join(found[-1])} here"] if numbered else []
        elif ours in line.opposites and switched:
            _values(rest, equals, value, several=False)
            switch = f"--{ours}" if given in TRUE else line.opposites[ours]
            line.replaced(f"{typed} {given}", switch)
            found.append([switch] if switch else [])
        elif name in vocabulary.SWITCHES and name not in own and (switched or not given):
            taken = _values(rest, equals, value, several=False) if switched else []
            if given in FALSE and name in vocabulary.ALWAYS:
                line.refuse(typed, taken, "It cannot be turned off.")
                continue
            same = vocabulary.OFF.get(name, ()) if given in FALSE else vocabulary.SWITCHES[name]
            line.replaced(" ".join([typed, *taken]), " ".join(same))
            line.weak.append(list(same))
            found.append(line.weak[-1])
        elif name in vocabulary.NEVER and ours not in own and (given in (*FALSE, "none", "0.0")):
            line.replaced(" ".join([typed, *_values(rest, equals, value, several=False)]), "")
        elif ours in own:
            knob = knobs.get(ours)
            takes = own[ours] and (knob is None or knob.kind != "bool" or switched or bool(NUMBER.fullmatch(given)))
            taken = _values(rest, equals, value, several=ours == "size") if takes else []
            found.append(_given(typed, ours, taken, equals, knob, line))
        elif name.removeprefix("no-") in own:
            found.append([word])
        elif name in ("project", "name"):
            out[name] = " ".join(_values(rest, equals, value))
            line.refuse(typed, [out[name]], vocabulary.BY_NAME[name])
        elif (
            name in vocabulary.BY_NAME
            and vocabulary.BY_NAME[name] == vocabulary.BY_NAME["val"]
            and _beside(found, held)
        ):
            line.notes.append(f"{typed} is part of --path here")
            _values(rest, equals, value)
        elif name in vocabulary.BY_NAME:
            taken = _values(rest, equals, value)
            line.whole = vocabulary.WHOLE.get(name, line.whole).replace("{value}", shlex.quote(" ".join(taken)))
            found.append(line.refuse(typed, taken, vocabulary.BY_NAME[name], vocabulary.INSTEAD_BY_NAME.get(name, "")))
        else:
            found.append([word, *([] if equals else _values(rest, equals, value))])
            meant = did_you_mean(name, [*own, *synonyms.names()]) or "."
            what = f"that is --{ours}, which this recipe does not have." if ours else f"there is no such setting{meant}"
            line.unknown.append(f"{' '.join(found[-1])}: {what}")
            line.strange.append(found[-1])
    if out:
        found.append(["--out", "/".join(out[name] for name in ("project", "name") if name in out)])
    if "devices" in names and ["--device", "cpu"] in found:  # Lightning's are processes there
        found = [["--processes", *words[1:]] if words[:1] == ["--gpus"] else words for words in found]
    given_flags = [words[0] for words in found if words and not any(words is weak for weak in line.weak)]
    for weak in line.weak:
        if weak and weak[0] != "--set" and weak[0] in given_flags:
            weak.clear()
        given_flags += weak[:1]
    return [words for words in found if not (line.refused and words in line.strange)]


def _beside(found: list[list[str]], valid: str) -> bool:
    """Whether the images to validate on are beside those of --path, photos/train; it becomes the folder of both."""
    path = next((words for words in found if words[:1] == ["--path"] and len(words) > 1), ["", ""])
    both = Path(path[1]).parent
    if Path(path[1]).name != "train" or not valid or Path(valid).parent != both or Path(valid).name not in VALID:
        return False
    path[1] = str(both)
    return True


def _given(typed: str, ours: str, taken: list[str], equals: str, knob: Knob | None, line: Line) -> list[str]:
    """A flag of ours, with the value that it has here for the one that was typed."""
    given = " ".join(taken)
    chosen = knob is not None and given in map(str, knob.choices)
    value = given if chosen or typed == "--gpus" else vocabulary.VALUES.get(ours, {}).get(given.lower(), given)
    reason, instead = _refused(ours, given) if line.shipped or ours != "arch" else ("", "")
    if reason:
        line.whole = vocabulary.WHOLE.get(ours, line.whole)
        return line.refuse(typed, taken, reason, instead)
    if other := line.other(ours, given):
        line.replaced(f"{typed} {given}", other)
        return other.split()
    if knob is not None and not chosen and given.lower() in knob.choices:
        value = given.lower()
    if knob is not None and knob.kind == "bool" and NUMBER.fullmatch(given) and given not in ("0", "1"):
        if float(given) != 0.5 and float(given):  # a probability
            return line.refuse(typed, taken, f"--{ours} is on or off here, for half of the images.", f"--{ours}")
        value = "true" if float(given) else "false"
    if ours == "size" and len(sides := re.findall(r"\d+", given)) > 1:
        sides = sides[-2:]  # after the channels
        if len(set(sides)) > 1:
            return line.refuse(typed, taken, "Images are square here.", f"--size {max(sides, key=int)}")
        value = sides[0]
    if ours == "weights" and "imagenet1k" in given.lower():  # torchvision's
        value = "imagenet"
    if ours == "time" and re.fullmatch(r"\d*\.\d+", given):  # Ultralytics'
        value = f"{given}h"
    if ours == "time" and re.fullmatch(r"\d+(:\d+){0,3}", given):
        parts = zip(reversed(given.split(":")), (1, 60, 3600, 86400), strict=False)
        value = f"{sum(int(part) * unit for part, unit in parts)}s"
    flag = f"--{ours}"
    if given and not value:
        line.replaced(f"{typed} {given}", "")
        return []
    found = [f"{flag}={given}"] if equals else [flag, *taken]
    if value != given:
        line.replaced(f"{typed} {given}".strip(), f"{flag} {value}")
        found = [flag, value]
    elif typed != flag:
        line.replaced(typed, flag)
    if taken and knob is not None and (knob.name, value) != ("epochs", "auto"):
        try:
            knob.take(value)
        except ValueError:
            line.unknown.append(f"{typed} {given}: takes {knob.allowed}.")
            line.strange.append(found)
    return found


def _refused(ours: str, value: str) -> tuple[str, str]:
    """What to say of a value that others give a setting of this name, and we do not, and the words to give instead."""
    if ours == "valid-pct" and value.isalpha():  # timm's name of a split
        return "Folders named train/, valid/ and test/ are found as they are; --valid-pct 0.2 draws a split.", ""
    if ours in ("device", "gpus") and "," in value:
        count = len(re.findall(r"\d+", value))
        return f"--gpus {count} trains on several GPUs.", f"--gpus {count}"
    if ours == "gpus" and value in ("auto", "-1", "all"):
        return "--gpus N trains on N GPUs of this machine; without it a run takes one.", ""
    if ours == "resume" and ("checkpoint" in value or value.endswith(synonyms.PICKLES)):
        return "A run is continued by its folder:  fastcls resume RUN", ""
    converted = Path(value).with_suffix(".safetensors") if value.endswith(synonyms.PICKLES) else None
    first = f"If you trust who made it, first  {shell.command('import', value, '--trust-pickle')}"
    if ours == "weights" and converted and not _is(Path.exists, value):  # else its own check says more
        return f"Pickles are not read. {first}", f"--weights {shlex.quote(str(converted))}"
    if ours == "arch" and (network := _network(value)) is not None:
        if not network:
            return "Networks are torchvision's and timm's:  fastcls models PART_OF_A_NAME  lists them.", ""
        if converted and _is(Path.is_file, value):
            return (
                f"A file of weights, of  --arch {network}  perhaps. {first}",
                f"--arch {network} --weights {converted}",
            )
        return f"Networks are torchvision's and timm's; the nearest is {network}.", f"--arch {network}"
    return "", ""


def _network(name: str) -> str | None:
    """The network here that is nearest to one of Transformers, LightlyTrain or Ultralytics, '' where none is near.

    None for a name that is not of their form.
    """
    plain = name.removeprefix("torchvision/").removeprefix("timm/").lower()
    foreign = (
        "/" in plain
        or "-" in plain
        or plain.endswith((*synonyms.PICKLES, ".yaml"))
        or plain.startswith(("yolo", "dinov"))
    )
    if not foreign or plain.startswith((".", "~", "hf-hub:", "hf_hub:", "local-dir:")) or _is(Path.is_dir, name):
        return None
    from fastcls.models import zoo

    known = {re.sub("[^a-z0-9]", "", word): f"timm/{word}" for word in zoo.names("timm")}
    known |= {re.sub("[^a-z0-9]", "", word): word for word in zoo.names("torchvision")}
    if yolo := re.match(r"yolo.*?([nsmlx])(-cls)?(\.\w+)?$", plain.rpartition("/")[2]):
        return {"n": "small", "s": "small", "l": "large", "x": "large"}.get(yolo[1], "base")
    if dino := re.search(r"dinov?([23])\W*(?:vit)?-?([tsblg])", plain):
        size = {"t": "small", "s": "small", "b": "base"}.get(dino[2], "large")
        return known.get(f"vit{size}patch{14 if dino[1] == '2' else 16}dinov{dino[1]}", "base")
    if found := known.get(re.sub("[^a-z0-9]", "", plain)):
        return found
    parts = re.split("[-_]", re.sub(r"\.(pt|pth|ckpt|pkl|bin|tar|yaml)$", "", plain.rpartition("/")[2]))
    for count in range(len(parts), 0, -1):
        if found := known.get(re.sub("[^a-z0-9]", "", "".join(parts[:count]))):
            return found
    return known.get(slip("".join(parts), known), "")


# ------------------------------------------------------------------ other verbs


def _spared(rest: list[str], equals: str, value: str, needed: int) -> list[str]:
    """The values of a flag that is not taken; so many of the words behind it are needed for the places."""
    words = sum(not word.startswith("-") for word in rest)
    plainly = rest[:1] and (NUMBER.fullmatch(rest[0]) or rest[0].lower() in (*TRUE, *FALSE))
    if not equals and needed > 0 and words <= needed and not plainly:
        return []
    return _values(rest, equals, value, several=needed <= 0)


def _placed(words: Sequence[str], verb: str, line: Line) -> list[str]:
    """Flags of what has a place here in their places, others under our names."""
    if verb not in vocabulary.PLACES:
        return list(words)
    rest, own, places = _flagged(words), line.options, vocabulary.PLACES[verb]
    named: dict[int, dict[int, list[str]]] = {}
    plain, found = list[str](), list[str]()
    while rest:
        word = rest.pop(0)
        name, equals, value = _parts(word)
        typed = word.partition("=")[0]
        ours = name if name in own else vocabulary.OTHERS.get(verb, {}).get(name, "")
        held = value if equals else rest[0] if rest else ""
        given, needed = held.lower(), len(places) - len(named) - len(plain)
        place = next((i for i, names in enumerate(places) if name in names), None)
        if not name:
            short = word == "-o" and rest
            (found if short or (word.startswith("-") and word != "-") else plain).append(word)
            found += [rest.pop(0)] if short else []
        elif ours and not own[ours] and given in (*TRUE, *FALSE):
            _values(rest, equals, value, several=False)
            switch = f"--{ours}" if given in TRUE else line.opposites.get(ours, "")
            line.replaced(f"{typed} {given}", switch)
            found += [switch] if switch else []
        elif verb == "export" and ours == "out" and Path(held).suffix in vocabulary.EXPORTED:
            _values(rest, equals, value, several=False)
            line.replaced(f"{typed} {held}", f"--out {Path(held).with_suffix('')}")
            found += ["--out", str(Path(held).with_suffix(""))]
        elif ours:
            if typed != f"--{ours}":
                line.replaced(typed, f"--{ours}")
            found += [f"--{ours}={value}"] if equals else [f"--{ours}"]
            found += [rest.pop(0)] if own[ours] and not equals and rest else []
        elif place is not None and (equals or rest):
            line.notes.append(f"{typed} is a positional argument here")
            named.setdefault(place, {})[places[place].index(name)] = _values(rest, equals, value, several=False)
        elif verb == "export" and name == "format" and given:
            taken = _values(rest, equals, value, several=False)
            option, said = vocabulary.FORMATS.get(
                given.replace("-", "_"), ("--onnx", "It is not written; many converters read ONNX.")
            )
            if said:
                line.refuse(typed, taken, said)
            else:
                line.replaced(typed, option)
            found += option.split()
        elif other := line.other(name, held):
            line.replaced(" ".join([typed, *_values(rest, equals, value, several=False)]), other)
            found.append(other)
        elif name in vocabulary.BY_NAME_OF_RUNS:
            switched = given in (*TRUE, *FALSE)
            one = switched or name not in vocabulary.ALONE
            taken = _values(rest, equals, value, several=needed <= 0 and not switched) if one or equals else []
            if given in FALSE and taken:
                line.replaced(" ".join([typed, *taken]), "")
            else:
                line.refuse(typed, taken, vocabulary.BY_NAME_OF_RUNS[name])
        else:
            taken = _spared(rest, equals, value, needed)
            line.refused.append(f"{' '.join([typed, *taken])}: there is no such option{did_you_mean(name, own) or '.'}")
    if verb in ("predict", "evaluate") and 1 in named and 0 not in named and not plain:
        line.replaced("the run", "last")
        named[0] = {0: ["last"]}
    before: list[str] = []
    for index in range(len(places)):
        believed = min(named[index]) if index in named else None
        before += named[index][believed] if believed is not None else [plain.pop(0)] if plain else []
    return [*before, *plain, *found]
