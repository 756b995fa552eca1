"""Words that users of other tools type: taken where they mean the same here, else answered with what does."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
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

    verb: str
    rest: list[str]  # words that are still to be read
    options: dict[str, bool]  # of the verb and the recipe, without dashes, and whether each takes a value
    opposites: dict[str, str]  # of switches: the flag that turns each off
    notes: list[str]
    fit: bool = False  # whether it began as a call of fastai's fit methods, whose first arguments are numbers
    refused: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    strange: list[list[str]] = field(default_factory=list)  # their words, which the recipe's own check refuses
    weak: list[list[str]] = field(default_factory=list)  # words for others' words, less than the same option as typed
    knobs: dict[str, Knob] = field(default_factory=dict)  # of the recipe, by their flags
    shipped: bool = True  # whether the recipe is; one of the user's own may have networks of any name
    out: dict[str, str] = field(default_factory=dict)  # Ultralytics' project and name
    without: list[str] = field(default_factory=list)  # the words behind the verb less the strange ones
    whole: str = ""  # another command that does what is wanted
    word: str = ""  # the one that is read, a flag's as `typed`, with an "=" the `value` behind it
    typed: str = ""
    equals: str = ""
    value: str = ""

    @property
    def recipe(self) -> bool:
        """Whether it is of a verb that takes a recipe."""
        return self.verb in vocabulary.WITH_RECIPE

    def read(self) -> str:
        """The name of the next word, as other tools' tables have it; '' where it is no flag."""
        self.word = self.rest.pop(0)
        self.typed, self.equals, self.value = self.word.partition("=")
        return _name(self.word)

    @property
    def held(self) -> str:
        """What may be the flag's value."""
        return self.value if self.equals else self.rest[0] if self.rest and not self.rest[0].startswith("--") else ""

    def take(self, several: bool = False) -> list[str]:
        """What follows the flag, taken off `rest`: its value, or all words up to the next flag."""
        if self.equals:
            return [self.value]
        flags = (i for i, word in enumerate(self.rest) if word[:1] == "-" != word and not NUMBER.fullmatch(word))
        count = min(next(flags, len(self.rest)), len(self.rest) if several else 1)
        taken, self.rest[:count] = self.rest[:count], []
        return taken

    def replaced(self, word: str, by: str) -> list[str]:
        """The words that stand for another, which is noted."""
        self.notes.append(f"{word} is {by} here" if by else f"{word} is the default here")
        return by.split()

    def refuse(self, values: Sequence[str], reason: str, instead: str = "") -> list[str]:
        """Collect what is wrong with the flag; gives the words that are to be typed instead."""
        self.refused.append(f"{' '.join([self.typed, *values])}: {reason}")
        words = [word.replace("{}", (*values, "")[0]) for word in shlex.split(instead)]
        if not words or words[0].lstrip("-") not in self.options or (not values and "{" in instead):
            return []
        self.weak.append(words)
        return words

    def other(self, name: str) -> str:
        """The words of another option that a flag's value is here, '' where it is none."""
        words = vocabulary.OTHER_WORDS.get((name, self.held.lower()), "")
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
    modes = [word[5:] for word in words if word.startswith("mode=")]  # Ultralytics' task=classify mode=train
    words = [*modes[:1], *(word for word in words if not word.startswith(("mode=", "task=")))]
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
    options = {
        flag[2:]: option
        for option in verbs[verb].params
        for flag in (*option.opts, *option.secondary_opts)
        if flag.startswith("--")
    }
    opposites = {name: next(iter(option.secondary_opts), "") for name, option in options.items() if option.is_flag}
    takes = {"help": False} | {name: not option.is_flag for name, option in options.items()}
    line = Line(verb, rest, takes, opposites, notes, fit=words[0].startswith(("fit", "fine")))
    found = [verb, *_read(line)]
    if more and found.count(more[0]) > 1:  # it was given too
        place = len(found) - 1 - found[::-1].index(more[0])
        found[place : place + len(more)] = []
    line.end(found)
    if meta is not None and line.strange:
        meta[WITHOUT] = shell.command(verb, *line.without)
    return found, notes


def _is(kind: Callable[[Path], bool], word: str) -> bool:
    """Path.is_dir and its like, of any word: one that is too long for a file's name is none."""
    try:
        return kind(Path(word))
    except OSError:
        return False


def _name(word: str) -> str:
    """The name of a flag; of a dotted one, as Lightning and AutoGluon have them (trainer.max_epochs), the last part."""
    flag = word.partition("=")[0]
    return flag[2:].lower().replace("_", "-").rpartition(".")[2] if flag.startswith("--") else ""


def _read(line: Line) -> list[str]:
    """The words behind the verb: those that have places, then flags, under the names that they have here."""
    if not line.recipe and line.verb not in vocabulary.PLACES:
        return line.rest
    line.rest = _flagged(line.rest)
    if line.recipe:
        _find_recipe(line)
    own, theirs = line.options, vocabulary.OTHERS.get(line.verb, {})
    known = {_name(word) for word in line.rest}
    places = [names.split() for names in vocabulary.PLACES.get(line.verb, ())]
    named: dict[int, dict[int, list[str]]] = {}
    plain, found = list[str](), list[list[str]]()
    # in the order of fastai's fit_one_cycle
    numbers = [flag for flag in ("--epochs", "--lr") if line.fit and flag[2:] in own and flag[2:] not in known]
    while line.rest:
        name = line.read()
        given = line.held.lower()
        switched = given in (*TRUE, *FALSE)
        place = next((i for i, names in enumerate(places) if name in names), None)
        ours = name if name in own else theirs.get(name, "")
        if line.recipe and name not in own:
            ours = (synonyms.ours(name) or "").replace("_", "-")
        if name == "path" and "train-data" in known:  # AutoGluon's
            ours = "out"
        if line.word == "-o" and line.rest:
            found.append(["-o", line.rest.pop(0)])
        elif not name and numbers and NUMBER.fullmatch(line.word):
            found.append([numbers.pop(0), line.word])
            line.notes.append(f"{line.word} is {' '.join(found[-1])} here")
        elif not name and (line.recipe or line.word[:1] == "-" != line.word):
            found.append([line.word])
        elif not name:
            plain.append(line.word)
        elif own.get(ours) is False and switched:
            line.take()
            found.append(line.replaced(f"{line.typed} {given}", f"--{ours}" if given in TRUE else line.opposites[ours]))
        elif line.recipe and name in vocabulary.SWITCHES and name not in own and (switched or not given):
            found.append(_switch(name, line))
        elif ours in own:
            found.append(_given(ours, line))
        elif line.recipe:
            found.append(_of_training(name, ours, line, found))
        elif place is not None and (line.equals or line.rest):
            line.notes.append(f"{line.typed} is a positional argument here")
            named.setdefault(place, {})[places[place].index(name)] = line.take()
        else:
            found.append(_of_runs(name, line, len(places) - len(named) - len(plain)))
    if line.out:
        found.append(["--out", "/".join(line.out[name] for name in ("project", "name") if name in line.out)])
    if "devices" in known and ["--device", "cpu"] in found:  # Lightning's are processes there
        found = [["--processes", *words[1:]] if words[:1] == ["--gpus"] else words for words in found]
    if line.verb in ("predict", "evaluate") and 1 in named and 0 not in named and not plain:
        line.replaced("the run", "last")
        named[0] = {0: ["last"]}
    _drop_weak(line, found)
    before: list[str] = []
    for index in range(len(places)):
        believed = named[index][min(named[index])] if index in named else []
        before += believed or ([plain.pop(0)] if plain else [])
    known_here = [words for words in found if words not in line.strange]
    line.without = [*before, *plain, *chain.from_iterable(known_here)]
    return line.without if line.refused else [*before, *plain, *chain.from_iterable(found)]


def _switch(name: str, line: Line) -> list[str]:
    """The words for a switch of others, which may be given as true or false."""
    given = line.held.lower()
    taken = line.take() if given else []
    if given in FALSE and name in vocabulary.ALWAYS:
        return line.refuse(taken, "It cannot be turned off.")
    same = vocabulary.OFF.get(name, "") if given in FALSE else vocabulary.SWITCHES[name]
    line.weak.append(line.replaced(" ".join([line.typed, *taken]), same))
    return line.weak[-1]


def _of_training(name: str, ours: str, line: Line, found: list[list[str]]) -> list[str]:
    """The words for a flag that neither the verb nor the recipe has; found: those of the flags before."""
    said = vocabulary.advice(name, vocabulary.ADVICE)
    if name in vocabulary.NEVER and line.held.lower() in (*FALSE, "none", "0.0"):
        return line.replaced(" ".join([line.typed, *line.take()]), "")
    if name.removeprefix("no-") in line.options:
        return [line.word]
    if name in ("project", "name"):
        line.out[name] = " ".join(line.take(several=True))
        return line.refuse([line.out[name]], said)
    if said == vocabulary.BESIDE and _beside(found, line.held):
        line.notes.append(f"{line.typed} is part of --path here")
        line.take(several=True)
        return []
    if said:
        taken = line.take(several=True)
        line.whole = vocabulary.WHOLE.get(name, line.whole).replace("{value}", shlex.quote(" ".join(taken)))
        return line.refuse(taken, said, vocabulary.INSTEAD.get(name, ""))
    line.strange.append([line.word, *([] if line.equals else line.take(several=True))])
    meant = did_you_mean(name, [*line.options, *synonyms.names()]) or "."
    what = f"that is --{ours}, which this recipe does not have." if ours else f"there is no such setting{meant}"
    line.unknown.append(f"{' '.join(line.strange[-1])}: {what}")
    return line.strange[-1]


def _of_runs(name: str, line: Line, needed: int) -> list[str]:
    """The words for a flag that a verb without a recipe has not; needed: words that still have places to go to."""
    held, given = line.held, line.held.lower()
    switched = given in (*TRUE, *FALSE)
    if line.verb == "export" and name == "format" and given:
        taken, kind = line.take(), given.replace("-", "_")
        option = vocabulary.FORMATS.get(kind, "--onnx")
        if kind in vocabulary.FORMATS and kind not in vocabulary.UNLIKE:
            return line.replaced(line.typed, option)
        line.refuse(taken, vocabulary.UNLIKE.get(kind, "It is not written; many converters read ONNX."))
        return option.split()
    if other := line.other(name):
        return line.replaced(" ".join([line.typed, *line.take()]), other)
    if said := vocabulary.advice(name, vocabulary.ADVICE_OF_RUNS):
        alone = name in vocabulary.ALONE and not switched and not line.equals
        taken = [] if alone else line.take(several=needed <= 0 and not switched)
        if given in FALSE and taken:
            return line.replaced(" ".join([line.typed, *taken]), "")
        return line.refuse(taken, said)
    words = sum(not word.startswith("-") for word in line.rest)
    spared = words <= needed and not line.equals and not switched and not NUMBER.fullmatch(held)
    taken = [] if spared else line.take(several=needed <= 0)
    return line.refuse(taken, f"there is no such option{did_you_mean(name, line.options) or '.'}")


def _drop_weak(line: Line, found: list[list[str]]) -> None:
    """Clear the words for others' words where the same option is given too."""
    given = [words[0] for words in found if words and not any(words is weak for weak in line.weak)]
    for weak in line.weak:
        if weak and weak[0] != "--set" and weak[0] in given:
            weak.clear()
        given += weak[:1]


# ------------------------------------------------------------------ the recipe


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


def _find_recipe(line: Line) -> None:
    """Put the recipe in front, and read its knobs and the settings of a --config."""
    from fastcls.settings import configs, sources

    for place, word in enumerate(line.rest):
        if synonyms.ours(_name(word)) == "config":
            typed, equals, value = word.partition("=")
            line.replaced(typed, "--config")
            line.rest[place] = f"--config{equals}{value}"
    words = line.rest = configs.expanded(_named(line.rest, line), line.options)
    if words and not words[0].startswith("-"):
        line.shipped = not words[0].endswith(".py")
        try:
            line.knobs = {knob.flag[2:]: knob for knob in sources.find(words[0]).knobs}
        except FastclsError:
            return
        line.options |= dict.fromkeys(line.knobs, True)


def _named(words: list[str], line: Line) -> list[str]:
    """With the recipe first, `folder` where images are given and no recipe; a folder of images as --path."""
    from fastcls.settings import sources

    def is_place(word: str) -> bool:
        return bool(NUMBER.fullmatch(word)) or _is(Path.is_dir, word)

    count = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    places, rest = words[:count], words[count:]
    if not places and len(rest) > 2 and not rest[-2].startswith("-") and _is(Path.is_dir, rest[-1]):  # torchvision's
        places = [rest.pop()]
    if line.verb == "compare" or (len(places) == 1 and not is_place(places[0])):
        return words
    recipe = places[:1] if places and (places[0] in sources.available() or places[0].endswith(".py")) else []
    if places and not recipe and not is_place(places[0]):
        return words
    for place in reversed(places[len(recipe) :]):
        if not NUMBER.fullmatch(place):
            line.replaced(place, f"--path {place}")
        rest = [place, *rest] if NUMBER.fullmatch(place) else ["--path", place, *rest]
    names = [_name(word) for word in rest]
    if not recipe and any("path" in (name, synonyms.ours(name)) for name in names):
        line.notes.append("the recipe for images of your own is folder")
        recipe = ["folder"]
    if not recipe and rest and not {"help", "config"}.intersection(names):
        line.refused.append("Which recipe to train is not named; folder is the one for images of your own.")
        recipe = ["folder", "--path", "PHOTOS"]
    return [*recipe, *rest]


def _beside(found: list[list[str]], valid: str) -> bool:
    """Whether the images to validate on are beside those of --path, photos/train; it becomes the folder of both."""
    path = next((words for words in found if words[:1] == ["--path"] and len(words) > 1), ["", ""])
    both = Path(path[1]).parent
    if Path(path[1]).name != "train" or not valid or Path(valid).parent != both or Path(valid).name not in VALID:
        return False
    path[1] = str(both)
    return True


# ------------------------------------------------------------------ values


def _given(ours: str, line: Line) -> list[str]:
    """A flag of ours, with the value that it has here for the one that was typed."""
    knob, other, takes = line.knobs.get(ours), line.other(ours), line.options[ours]
    if knob is not None and knob.kind == "bool":
        takes = line.held.lower() in (*TRUE, *FALSE) or bool(NUMBER.fullmatch(line.held))
    taken = line.take(several=line.recipe and ours == "size") if takes else []
    typed, flag, given = line.typed, f"--{ours}", " ".join(taken)
    chosen = knob is not None and given in map(str, knob.choices)
    value = given if chosen or typed == "--gpus" else vocabulary.VALUES.get(ours, {}).get(given.lower(), given)
    reason, instead = _refused(ours, given) if line.recipe and (line.shipped or ours != "arch") else ("", "")
    if reason:
        line.whole = vocabulary.WHOLE.get(ours, line.whole)
        return line.refuse(taken, reason, instead)
    if other:
        return line.replaced(f"{typed} {given}", other)
    if knob is not None and not chosen and given.lower() in knob.choices:
        value = given.lower()
    if knob is not None and knob.kind == "bool" and NUMBER.fullmatch(given) and given not in ("0", "1"):
        if float(given) != 0.5 and float(given):  # a probability
            return line.refuse(taken, f"{flag} is on or off here, for half of the images.", flag)
        value = "true" if float(given) else "false"
    if ours == "size" and len(sides := re.findall(r"\d+", given)) > 1:
        value = sides[-1]  # after the channels
        if value != sides[-2]:
            return line.refuse(taken, "Images are square here.", f"--size {max(sides[-2:], key=int)}")
    if ours == "weights" and "imagenet1k" in given.lower():  # torchvision's
        value = "imagenet"
    if ours == "time" and re.fullmatch(r"\d*\.\d+", given):  # Ultralytics'
        value = f"{given}h"
    if ours == "time" and re.fullmatch(r"\d+(:\d+){0,3}", given):
        parts = zip(reversed(given.split(":")), (1, 60, 3600, 86400), strict=False)
        value = f"{sum(int(part) * unit for part, unit in parts)}s"
    if line.verb == "export" and ours == "out" and Path(given).suffix in vocabulary.EXPORTED:
        value = str(Path(given).with_suffix(""))
    if given and not value:
        return line.replaced(f"{typed} {given}", "")
    found = [f"{flag}={line.value}"] if line.equals else [flag, *taken]
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
    if ours != "arch" or (network := _network(value)) is None:
        return "", ""
    if not network:
        return "Networks are torchvision's and timm's:  fastcls models PART_OF_A_NAME  lists them.", ""
    if converted and _is(Path.is_file, value):
        said = f"A file of weights, of  --arch {network}  perhaps. {first}"
        return said, f"--arch {network} --weights {converted}"
    return f"Networks are torchvision's and timm's; the nearest is {network}.", f"--arch {network}"


def _network(name: str) -> str | None:
    """The network here that is nearest to one of Transformers, LightlyTrain or Ultralytics, '' where none is near.

    None for a name that is not of their form.
    """
    short = name.removeprefix("torchvision/").removeprefix("timm/").lower()
    foreign = re.search("[/-]", short) or short.startswith(("yolo", "dinov"))
    foreign = foreign or short.endswith((*synonyms.PICKLES, ".yaml"))
    if not foreign or short.startswith((".", "~", "hf-hub:", "hf_hub:", "local-dir:")) or _is(Path.is_dir, name):
        return None
    from fastcls.models import zoo

    def letters(text: str) -> str:
        return re.sub("[^a-z0-9]", "", text)

    known = {letters(word): f"timm/{word}" for word in zoo.names("timm")}
    known |= {letters(word): word for word in zoo.names("torchvision")}
    last = short.rpartition("/")[2]
    if yolo := re.match(r"yolo.*?([nsmlx])(-cls)?(\.\w+)?$", last):
        return {"n": "small", "s": "small", "l": "large", "x": "large"}.get(yolo[1], "base")
    if dino := re.search(r"dinov?([23])\W*(?:vit)?-?([tsblg])", short):
        size = {"t": "small", "s": "small", "b": "base"}.get(dino[2], "large")
        return known.get(f"vit{size}patch{14 if dino[1] == '2' else 16}dinov{dino[1]}", "base")
    parts = re.split("[-_]", re.sub(r"\.(pt|pth|ckpt|pkl|bin|tar|yaml)$", "", last))
    for begin in (short, *("".join(parts[:count]) for count in range(len(parts), 0, -1))):
        if found := known.get(letters(begin)):
            return found
    return known.get(slip("".join(parts), known), "")
