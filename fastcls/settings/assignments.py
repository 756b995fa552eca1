"""KNOB=VALUE as typed after an option: the knob that it names, its value, or what is wrong with it.

Problems are collected, so that all of them are told together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastcls.errors import KnobError, did_you_mean
from fastcls.settings.knobs import Knob


def knob_of(where: str, name: str, equals: str, knobs: Mapping[str, Knob], problems: list[str]) -> Knob | None:
    """The knob before the "=", or a problem. where: what was typed, for the message."""
    name = name.strip().removeprefix("--").replace("-", "_")
    if not equals:
        problems.append(f"{where}: this is no KNOB=VALUE")
    elif name not in knobs:
        problems.append(f"{where}: no such knob{did_you_mean(name, knobs)}")
    else:
        return knobs[name]
    return None


def value_of(where: str, knob: Knob, text: str, problems: list[str]) -> Any:
    """The value that a text stands for, or None and a problem."""
    try:
        return knob.parse(text)
    except ValueError:
        close = did_you_mean(text, map(str, knob.choices)) if knob.kind == "choice" else ""
        problems.append(f"{where}: {knob.name} takes {knob.allowed}, not {text!r}{close}")
        return None


def separate(knob: Knob, text: str) -> list[str]:
    """The values of a,b,c; those of lists, which hold commas, are parted by "/"."""
    return text.split("/" if knob.kind == "list" else ",")


def refuse(problems: Sequence[str], knobs: Iterable[Knob]) -> None:
    """KnobError if there are problems; it names the knobs, and apart from them the options, that there are."""
    if problems:
        flags: dict[bool, list[str]] = {True: [], False: []}
        for knob in knobs:
            flags[knob.stage == "options"].append(knob.flag[2:])
        known = f"The knobs: {', '.join(flags[False])}" + (
            f"; options: {', '.join(flags[True])}" if flags[True] else ""
        )
        raise KnobError("wrong settings:\n  " + "\n  ".join(problems), known)
