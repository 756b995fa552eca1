"""Knobs: the settings of a recipe, read from the signatures in its source without running it.

Problems with what was given for them are collected, so that all of them are reported together.
"""

from __future__ import annotations

import ast
import io
import math
import numbers
import os
import reprlib
import tokenize
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastcls.errors import KnobError, RecipeError, did_you_mean, slip
from fastcls.settings import synonyms

REQUIRED = object()  # the default of a knob that has none
SCALARS = {"str": str, "int": int, "float": float}
# what knobs of these names may be, in every recipe, and the options of runs
_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "1 or more": (
        lambda value: value >= 1,
        "epochs bs size valid_size grow_from filters widths hidden convs kernel limit accumulate patience",
    ),
    "0 or more": (
        lambda value: value >= 0,
        "freeze_epochs wd mixup cutmix pad rotate extend_epochs pictures workers cache_gb checkpoint_minutes",
    ),
    "from 0 to 4294967295": (lambda value: 0 <= value < 2**32, "seed"),
    "from 0 to below 1": (lambda value: 0 <= value < 1, "dropout smoothing drop_path ema warmup test_pct"),
    "from 0 to 1": (lambda value: 0 <= value <= 1, "flip translate jitter erase cutout"),
    "above 0": (lambda value: value > 0, "lr div clip"),
    "between 0 and 1": (lambda value: 0 < value < 1, "valid_pct newest"),
    "above 0 and at most 1": (lambda value: 0 < value <= 1, "min_scale"),
}
RANGES = {name: (within, words) for words, (within, names) in _RANGES.items() for name in names.split()}
MAY_BE_EMPTY = "hidden"  # the list of ranges that stands for something without a member: no hidden layer
TRUE, FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


@dataclass(frozen=True)
class Knob:
    """One setting of one stage."""

    name: str
    stage: str  # 'get_learner' or 'fit'
    kind: str  # 'str', 'int', 'float', 'bool', 'choice' or 'list'
    default: Any
    help: str = ""
    choices: tuple[Any, ...] = ()
    item: str = ""  # of a 'list': the kind of its items
    optional: bool = False  # whether 'none' is a value

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def allowed(self) -> str:
        """What the knob accepts, in words."""
        words = {
            "str": "text",
            "int": "an integer",
            "float": "a number",
            "bool": "true or false",
            "choice": ", ".join(map(str, self.choices)),
            "list": "comma-separated values",
        }[self.kind]
        if self.name in RANGES and self.kind in ("int", "float", "list"):
            words += f", {RANGES[self.name][1]}"
        return words + (" or none" if self.optional else "")

    def take(self, given: Any) -> Any:
        """The knob's value for a Python value, or for text as one would type it; ValueError where it takes neither."""
        given = plain(given)
        return self.parse(given) if isinstance(given, str) else self._checked(self._converted(given))

    def parse(self, text: str) -> Any:
        """The value that `text` stands for; ValueError where it stands for none, or for one out of range."""
        return self._checked(self._value(text))

    def _checked(self, value: Any) -> Any:
        parts = value if isinstance(value, tuple) else (value,)
        within = RANGES.get(self.name, (lambda _: True, ""))[0]
        for part in parts:
            most = math.inf if isinstance(part, float) else 10**18  # of which libraries make 64 bits
            if isinstance(part, (int, float)) and not (abs(part) < most and within(part)):  # which NaN is not either
                raise ValueError(value)
            if isinstance(part, str) and "\0" in part:  # no file system and no shell has it
                raise ValueError(value)
        if not parts and self.name in RANGES and self.name != MAY_BE_EMPTY:
            raise ValueError(value)
        return value

    def _converted(self, given: Any) -> Any:
        """A Python value in the knob's type."""
        if given is None and self.optional:
            return None
        if self.kind == "list" and isinstance(given, Iterable) and not isinstance(given, (bytes, Mapping)):
            return tuple(_scalar(self.item, item) for item in given)
        if self.kind == "choice" and isinstance(given, (int, float)) and given in self.choices:
            return given
        if self.kind == "bool" and isinstance(given, bool):
            return given
        return _scalar(self.kind, given)

    def _value(self, text: str) -> Any:
        if self.optional and text.lower() == "none":
            return None
        if self.kind == "list":
            convert = SCALARS[self.item]
            return tuple(convert(part.strip()) for part in text.split(",") if part.strip())
        if self.kind == "bool":
            if text.lower() in TRUE | FALSE:
                return text.lower() in TRUE
            raise ValueError(text)
        if self.kind == "choice":
            for choice in self.choices:
                if str(choice) == text:
                    return choice
            raise ValueError(text)
        return SCALARS[self.kind](text)


def plain(given: Any) -> Any:
    """What was given; a single number of numpy's, pandas' or torch's as Python's own."""
    return given.item() if getattr(given, "shape", None) == () else given


def listed(values: Any) -> list[Any]:
    """The values of a knob; one alone is a value, not the letters of a text."""
    alone = isinstance(values, (str, bytes, Mapping)) or not isinstance(plain(values), Iterable)
    return [values] if alone else list(values)


def _scalar(kind: str, given: Any) -> Any:
    """A text (or a path), an integer or a number of its kind; ValueError for anything else."""
    given = plain(given)
    if kind == "str" and isinstance(given, (str, bytes, os.PathLike)):
        return os.fsdecode(given)
    wanted = {"int": numbers.Integral, "float": numbers.Real}.get(kind)
    if wanted is None or isinstance(given, bool) or not isinstance(given, wanted):
        raise ValueError(given)
    try:
        return SCALARS[kind](given)
    except OverflowError:  # a float of so large an integer
        raise ValueError(given) from None


def shown(given: Any) -> str:
    """What was given, for a message: a text as it is, all else as Python writes it, in short."""
    text = given if isinstance(given, str) else reprlib.repr(plain(given))
    return f"<{type(given).__name__}>" if "\n" in text and text is not given else text


def refuse(problems: Sequence[str], hint: str = "") -> None:
    """KnobError with all of these problems, if there are any."""
    if problems:
        what = "1 wrong setting" if len(problems) == 1 else f"{len(problems)} wrong settings"
        raise KnobError(f"{what}:\n  " + "\n  ".join(problems), hint)


def taken(knob: Knob, given: Any, allowed: str, problems: list[str]) -> Any:
    """The value that a text or a Python value stands for, or None and a problem: what is `allowed`."""
    try:
        return knob.take(given)
    except ValueError:
        close = did_you_mean(str(given), map(str, knob.choices))
        problems.append(f"{knob.flag} {shown(given)}: expected {allowed}{close}")


def as_text(value: Any) -> str:
    """A knob's value as one would type it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("#").strip() for t in tokens if t.type == tokenize.COMMENT}


def _kind(annotation: ast.expr | None, default: Any) -> dict[str, Any]:
    """Kind, choices and optionality that an annotation (or, without one, a default) declares."""
    if annotation is None:
        kind = type(default).__name__
        return {"kind": kind if kind in (*SCALARS, "bool") else "str"}
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):  # int | None
        sides = [s for s in (annotation.left, annotation.right) if ast.unparse(s) != "None"]
        if len(sides) == 1:
            return {**_kind(sides[0], default), "optional": True}
    if isinstance(annotation, ast.Subscript):
        outer = ast.unparse(annotation.value).rsplit(".", 1)[-1]
        inner = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        if outer == "Literal":
            return {"kind": "choice", "choices": tuple(ast.literal_eval(e) for e in inner)}
        if outer == "Optional":
            return {**_kind(inner[0], default), "optional": True}
        if outer in ("list", "tuple", "List", "Tuple") and ast.unparse(inner[0]) in SCALARS:
            return {"kind": "list", "item": ast.unparse(inner[0])}
    name = ast.unparse(annotation)
    if name in (*SCALARS, "bool"):
        return {"kind": name}
    if name in ("Path", "pathlib.Path"):
        return {"kind": "str"}
    raise ValueError(name)


def read_knobs(function: ast.FunctionDef, source: str, skip: int = 0) -> list[Knob]:
    """The knobs of a stage: its parameters after the first `skip`, each with its comment as help."""
    comments = _comments(source)
    args = [*function.args.posonlyargs, *function.args.args]
    defaults = [None] * (len(args) - len(function.args.defaults)) + list(function.args.defaults)
    pairs = list(zip(args, defaults, strict=True))[skip:]
    pairs += list(zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True))
    knobs = []
    for arg, default in pairs:
        try:
            value = REQUIRED if default is None else ast.literal_eval(default)
        except ValueError:
            raise RecipeError(
                f"{function.name}: the default of `{arg.arg}` (line {arg.lineno}) is {ast.unparse(default)!r}, "  # type: ignore[arg-type]
                "which is not a plain value.",
                "Use a number, a string, True, False, None or a tuple of these.",
            ) from None
        try:
            kind = _kind(arg.annotation, value)
        except ValueError as problem:
            raise RecipeError(
                f"{function.name}: `{arg.arg}` (line {arg.lineno}) has the type {problem}, which is not supported.",
                "Use str, int, float, bool, Literal[...], list[...], tuple[...] or one of these | None.",
            ) from None
        optional = kind.pop("optional", False) or value is None
        help = comments.get(arg.lineno, "")
        knobs.append(Knob(arg.arg, function.name, default=value, help=help, optional=optional, **kind))
    return knobs


def words_to_values(words: Sequence[str], knobs: Iterable[Knob]) -> tuple[dict[str, Any], list[str]]:
    """What command-line words give to which name, as text (switches: bool), and what is wrong with the words.

    Names that are no knob's are among them: `checked` reports those.
    """
    by_flag = {knob.flag: knob for knob in knobs}
    negations = {"--no-" + flag[2:]: knob for flag, knob in by_flag.items() if knob.kind == "bool"}
    values: dict[str, Any] = {}
    problems: list[str] = []
    rest = list(words)
    while rest:
        word, equals, value = rest.pop(0).partition("=")
        flag = word.replace("_", "-")
        if flag in negations and not equals:
            values[negations[flag].name] = False
            continue
        knob = by_flag.get(flag)
        if knob is None:
            if word.startswith("--"):
                values[word[2:]] = value if equals else rest.pop(0) if rest and not rest[0].startswith("--") else ""
            else:
                problems.append(f"{word}: value without a knob")
            continue
        if not equals:
            if knob.kind == "bool" and (not rest or rest[0].lower() not in TRUE | FALSE):
                value = "true"
            elif rest and not rest[0].startswith("--"):
                value = rest.pop(0)
            else:
                problems.append(f"{flag}: needs a value ({knob.allowed})")
                values[knob.name] = None
                continue
        if not value and not knob.default and knob.kind == "str":  # a shell's variable that is not set
            problems.append(f"{flag}: empty; omit it, or give {knob.allowed}")
        values[knob.name] = value
    return values, problems


def checked(
    given: Mapping[str, Any], knobs: Iterable[Knob], other_flags: Iterable[str] = (), problems: Iterable[str] = ()
) -> dict[str, Any]:
    """The values of knobs, given as Python values or as text; every wrong one is reported in a single KnobError.

    None is not given, where a knob does not take it. other_flags: flags that exist beside the knobs, offered as the
    nearest right name. problems: what is known to be wrong already.
    """
    by_name = {knob.name: knob for knob in knobs}
    by_flag = {knob.flag: knob for knob in by_name.values()}
    values: dict[str, Any] = {}
    problems = list(problems)
    for name, value in given.items():
        knob, flag = by_name.get(name), "--" + name.replace("_", "-")
        if knob is None:
            known = [*by_flag, *other_flags]
            other = synonyms.ours(name) or synonyms.ours(slip(flag, synonyms.names())) or ""
            ours = f"--{other.replace('_', '-')}"
            meant = did_you_mean(flag, known) or (f"; did you mean {ours!r}?" if ours in known else "")
            problems.append(f"{flag}: no such knob{meant}")
            continue
        if value is None and not knob.optional:
            continue
        values[name] = taken(knob, value, knob.allowed, problems)
    problems += [
        f"{knob.flag}: required ({knob.help or knob.allowed})"
        for knob in by_flag.values()
        if knob.default is REQUIRED and given.get(knob.name) is None
    ]
    refuse(problems, f"The knobs: {', '.join(by_flag) or 'none'}")
    return values


# ------------------------------------------------------------------ KNOB=VALUE, as typed after an option


def knob_of(where: str, name: str, equals: str, knobs: Mapping[str, Knob], problems: list[str]) -> Knob | None:
    """The knob before the "=", or a problem. where: what was typed, for the message."""
    name = name.strip().removeprefix("--").replace("-", "_")
    if not equals:
        problems.append(f"{where}: not of the form KNOB=VALUE")
    elif name not in knobs:
        problems.append(f"{where}: no such knob{did_you_mean(name, knobs)}")
    else:
        return knobs[name]
    return None


def value_of(where: str, knob: Knob, given: Any, problems: list[str]) -> Any:
    """The value that a text or a Python value stands for, or None and a problem."""
    try:
        return knob.take(given)
    except ValueError:
        close = did_you_mean(str(given), map(str, knob.choices))
        said = repr(given) if isinstance(given, str) else shown(given)
        problems.append(f"{where}: {knob.name} must be {knob.allowed}, not {said}{close}")
        return None


def separate(knob: Knob, text: str) -> list[str]:
    """The values of a,b,c; those of lists, which hold commas, are parted by "/"."""
    return text.split("/" if knob.kind == "list" else ",")


def refuse_naming(problems: Sequence[str], knobs: Iterable[Knob]) -> None:
    """KnobError if there are problems; it names the knobs, and apart from them the options, that there are."""
    flags: dict[bool, list[str]] = {True: [], False: []}
    for knob in knobs:
        flags[knob.stage == "options"].append(knob.flag[2:])
    options = f"; options: {', '.join(flags[True])}" if flags[True] else ""
    refuse(problems, f"The knobs: {', '.join(flags[False])}{options}")
