"""KNOB=VALUE as typed after an option: the knob that it names, its value, or what is wrong with it.

Problems are collected, so that all of them are reported together.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastcls.errors import did_you_mean
from fastcls.settings.knobs import Knob, shown
from fastcls.settings.knobs import refuse as refuse_all


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
        close = did_you_mean(str(given), map(str, knob.choices)) if knob.kind == "choice" else ""
        said = repr(given) if isinstance(given, str) else shown(given)
        problems.append(f"{where}: {knob.name} must be {knob.allowed}, not {said}{close}")
        return None


def separate(knob: Knob, text: str) -> list[str]:
    """The values of a,b,c; those of lists, which hold commas, are parted by "/"."""
    return text.split("/" if knob.kind == "list" else ",")


def varied_values(texts: Sequence[str], knobs: Mapping[str, Knob], problems: list[str]) -> dict[str, list[Any]]:
    """--vary norm=none,batch: the values of each knob. Lists, which hold commas, are separated by "/"."""
    found: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, rest = text.partition("=")
        knob = knob_of(f"--vary {text}", name, equals, knobs, problems)
        if knob is not None:
            found.setdefault(knob.name, []).extend(
                value_of(f"--vary {text}", knob, value, problems) for value in separate(knob, rest)
            )
    return found


def setting(text: str, knobs: Mapping[str, Knob], problems: list[str]) -> dict[str, Any]:
    """--setting 'norm=batch kernel=3': several knobs that change together."""
    found: dict[str, Any] = {}
    try:
        words = shlex.split(text)
    except ValueError as problem:  # a quotation that does not end
        problems.append(f"--setting {text}: {str(problem).lower()}")
        return {}
    if not words:
        problems.append("--setting '': no knob given")
    for word in words:
        name, equals, value = word.partition("=")
        knob = knob_of(f"--setting {word}", name, equals, knobs, problems)
        if knob is None:
            continue
        if knob.name in found:
            problems.append(f"--setting {text}: {knob.name} is given twice")
        found[knob.name] = value_of(f"--setting {word}", knob, value, problems)
    return found


def refuse(problems: Sequence[str], knobs: Iterable[Knob]) -> None:
    """KnobError if there are problems; it names the knobs, and apart from them the options, that there are."""
    flags: dict[bool, list[str]] = {True: [], False: []}
    for knob in knobs:
        flags[knob.stage == "options"].append(knob.flag[2:])
    options = f"; options: {', '.join(flags[True])}" if flags[True] else ""
    refuse_all(problems, f"The knobs: {', '.join(flags[False])}{options}")
