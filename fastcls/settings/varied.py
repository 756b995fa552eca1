"""What a comparison can vary: the knobs of its recipe, and the options that change what is learned, or how fast."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fastcls.errors import KnobError
from fastcls.settings import options, shell
from fastcls.settings.knobs import Knob, knob_of, separate, value_of
from fastcls.settings.request import Request

OPTIONS = (
    "limit",
    "device",
    "precision",
    "accumulate",
    "clip",
    "compile",
    "fused",
    "channels_last",
    "patience",
    "keep",
    "best_by",
)
AUTO = "auto"  # of the epochs: as many as pay


class _Epochs(Knob):
    """The epochs of a recipe, which --epochs auto leaves open."""

    @property
    def allowed(self) -> str:
        return f"{super().allowed}, or {AUTO}"

    def parse(self, text: str) -> Any:
        return AUTO if text == AUTO else super().parse(text)


class _Time(Knob):
    """--time, which is kept as it was typed."""

    @property
    def allowed(self) -> str:
        return f"{shell.TAKEN}, or none"

    def parse(self, text: str) -> Any:
        if text != "none" and not shell.seconds(text):
            raise ValueError(text)
        return None if text == "none" else text


def settings(request: Request) -> dict[str, Knob]:
    """Everything that can be varied, by its name; its default is the request's. A recipe's knob hides an option."""
    own = {knob.name: _knob(request, knob) for knob in request.source.knobs}
    others: list[Knob] = [options.as_knob(name, getattr(request.options, name)) for name in OPTIONS]
    if isinstance(own.get("epochs"), _Epochs):
        seconds = request.options.seconds
        others.append(_Time("time", "options", "str", seconds and f"{seconds:g}s", optional=True))
    return own | {other.name: other for other in others if other.name not in own}


def applied(request: Request, values: Mapping[str, Any]) -> Request:
    """The request with these values in place of its own; KnobError where two of them choose the epochs."""
    own = {knob.name for knob in request.source.knobs}
    knobs = {name: value for name, value in values.items() if name in own}
    chosen = {name: value for name, value in values.items() if name not in own}
    if "epochs" in knobs:
        chosen["auto_epochs"] = knobs["epochs"] == AUTO
        if chosen["auto_epochs"]:
            del knobs["epochs"]  # it goes on from as many as the request has
    if "time" in chosen:
        if "epochs" in values:
            both = f"time={chosen['time']} epochs={values['epochs']}"
            raise KnobError(f"{both}: the time chooses the epochs.", "Vary only one of them.")
        chosen["seconds"] = shell.seconds(chosen.pop("time") or "") or None
    knobs = {**request.knobs, **knobs}
    if chosen.get("seconds"):
        knobs.pop("epochs", None)
    return replace(request, knobs=knobs, options=replace(request.options, **chosen))


def _knob(request: Request, knob: Knob) -> Knob:
    default = request.knobs.get(knob.name, knob.default)
    if (knob.name, knob.stage, knob.kind) != ("epochs", "fit", "int"):
        return replace(knob, default=default)
    default = AUTO if request.options.auto_epochs else default
    return _Epochs(knob.name, knob.stage, knob.kind, default, knob.help, optional=knob.optional)


# ------------------------------------------------------------------ as typed


def values(texts: Sequence[str], knobs: Mapping[str, Knob], problems: list[str]) -> dict[str, list[Any]]:
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
