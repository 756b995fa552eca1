"""The space of a search, checked against the recipe's knobs: values, or ranges of numbers.

As typed: NAME=LOW..HIGH[:log|:int|:step=N] or NAME=a,b,c. Whatever is wrong with any of them is reported at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from fastcls.errors import KnobError, did_you_mean
from fastcls.settings.knobs import Knob, as_text, knob_of, listed, refuse_naming, separate, value_of

SUFFIXES = ("log", "int", "step=")


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`: their logarithm where `log`, in steps of `step` where that is given."""

    low: float
    high: float
    log: bool = False
    step: float | None = None


@dataclass(frozen=True)
class Dimension:
    """What one knob may be in a search: one of `choices`, or a number from `low` to `high`."""

    knob: Knob
    choices: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    log: bool = False
    step: float | None = None

    @property
    def name(self) -> str:
        return self.knob.name

    @property
    def whole(self) -> bool:
        """Whether it is a range of integers."""
        return not self.choices and self.knob.kind == "int"

    def __str__(self) -> str:
        """As one would type it."""
        if self.choices:
            return f"{self.name}={('/' if self.knob.kind == 'list' else ',').join(map(as_text, self.choices))}"
        ends = f"{self.name}={as_text(self.low)}..{as_text(self.high)}"
        return ends + (":log" if self.log else "") + (f":step={as_text(self.step)}" if self.step is not None else "")

    def stored(self, value: Any) -> Any:
        """A knob's value as a study keeps it: lists, which no study has, as text."""
        return as_text(value) if isinstance(value, tuple) else value

    def value(self, stored: Any) -> Any:
        """The knob's value that a study keeps as `stored`."""
        return self.knob.parse(stored) if self.knob.kind == "list" else stored

    def __contains__(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        return self.step is None or (_exact(value) - _exact(self.low)) % _exact(self.step) == 0


def parse(texts: Sequence[str], knobs: Sequence[Knob], fixed: Mapping[str, Any]) -> tuple[Dimension, ...]:
    """The dimensions of `--space` options; see `dimensions`."""
    return dimensions([(text.partition("=")[0], text) for text in texts], knobs, fixed)


def dimensions(
    space: Sequence[tuple[str, Any]], knobs: Sequence[Knob], fixed: Mapping[str, Any]
) -> tuple[Dimension, ...]:
    """The dimensions of names with what is searched of each: a Range, a list of values, or text as one types it.

    fixed: the knobs that have a value of their own and are not searched. KnobError names all that is wrong, with all.
    """
    if not space:
        raise KnobError("--space: no knob to search.", "Give at least one, such as  --space lr=1e-4..1e-2:log")
    by_name = {knob.name: knob for knob in knobs}
    problems: list[str] = []
    found: dict[str, Dimension] = {}
    for name, given in space:
        where = f"--space {given if isinstance(given, str) else f'{name}={given}'}"
        _, equals, text = given.partition("=") if isinstance(given, str) else ("", "=", "")
        knob = knob_of(where, name, equals, by_name, problems)
        if knob is None:
            continue
        if knob.name == "path":
            problems.append(f"{where}: cannot be searched, because trials on different images are not comparable")
        elif knob.name in found:
            problems.append(f"{where}: {knob.name} is given twice")
        elif knob.name in fixed:
            problems.append(f"{where}: {knob.flag} {as_text(fixed[knob.name])} fixes it; remove one of the two")
        if isinstance(given, Range) or (".." in text and knob.kind != "str"):
            found[knob.name] = _range(where, knob, given if isinstance(given, Range) else text, problems)
        else:
            values = [word.strip() for word in separate(knob, text)] if isinstance(given, str) else listed(given)
            found[knob.name] = _choices(where, knob, values, problems)
    refuse_naming(problems, knobs)
    return tuple(found.values())


def _choices(where: str, knob: Knob, given: list[Any], problems: list[str]) -> Dimension:
    before = len(problems)
    values = tuple(dict.fromkeys(value_of(where, knob, value, problems) for value in given))
    if len(problems) == before and len(values) < 2:
        range_too = f" or a range, {knob.name}=LOW..HIGH" if knob.kind in ("int", "float") else ""
        single = f"; for a single value use  {knob.flag} {as_text(given[0])}" if given else ""
        problems.append(f"{where}: a search needs at least two values{range_too}{single}")
    return Dimension(knob, values)


def _range(where: str, knob: Knob, given: Range | str, problems: list[str]) -> Dimension:
    before = len(problems)
    if knob.kind not in ("int", "float"):
        problems.append(f"{where}: {knob.name} ({knob.allowed}) cannot have a range; list its values")
        return Dimension(knob)
    if isinstance(given, str):
        ends, *suffixes = given.split(":")
        log, steps = "log" in suffixes, [suffix[5:] for suffix in suffixes if suffix.startswith("step=")]
        steps += ["1"] if "int" in suffixes else []
        for suffix in suffixes:
            if suffix not in ("log", "int") and not suffix.startswith("step="):
                close = did_you_mean(suffix, SUFFIXES)
                problems.append(f"{where}: unknown suffix :{suffix}; expected :log, :int or :step=N{close}")
        low, high = (value_of(where, knob, end.strip(), problems) for end in ends.split("..", 1))
        if "int" in suffixes and any(isinstance(end, float) and end % 1 for end in (low, high)):
            problems.append(f"{where}: a range of integers must begin and end with integers")
    else:
        log = value_of(where, Knob("log", "", "bool", False), given.log, problems)
        steps = [] if given.step is None else [str(given.step)]
        low, high = (value_of(where, knob, end, problems) for end in (given.low, given.high))
    step = _step(where, knob, steps[0], problems) if steps else None
    if len(problems) > before:
        return Dimension(knob)
    if low is None or high is None:
        problems.append(f"{where}: a range cannot end at none; list values instead, as in  {knob.name}=none,0.1")
    elif low >= high:
        turned = f"; write {knob.name}={as_text(high)}..{as_text(low)}" if low > high else ""
        problems.append(f"{where}: the end of the range must be above its start{turned}")
    elif log and low <= 0:
        problems.append(f"{where}: a logarithmic range must start above 0")
    elif log and step is not None and not (knob.kind == "int" and step == 1):
        problems.append(f"{where}: a logarithmic range cannot have steps; remove :log or the step")
    elif step is not None and (rest := (_exact(high) - _exact(low)) % _exact(step)):
        end = as_text(type(high)(_exact(high) - rest))
        problems.append(f"{where}: steps of {as_text(step)} do not reach {as_text(high)}; end it at {end}")
    if step == 1 and knob.kind == "int":
        step = None  # integers have it anyway
    return Dimension(knob, (), low, high, log, step)


def _step(where: str, knob: Knob, text: str, problems: list[str]) -> float | None:
    try:
        step = int(text) if knob.kind == "int" else float(text)
    except ValueError:
        step = 0
    if not 0 < step < float("inf"):
        kind = "an integer" if knob.kind == "int" else "a number"
        problems.append(f"{where}: the step must be {kind} above 0, not {text!r}")
        return None
    return step


def _exact(number: float) -> Fraction:
    """A number as it was typed: 0.1 is a tenth."""
    return Fraction(str(number))
