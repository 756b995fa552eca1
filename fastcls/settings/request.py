"""What to run: a recipe, its knobs, the options and where to write. Made without torch, run with it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fastcls.errors import KnobError
from fastcls.settings.knobs import checked
from fastcls.settings.options import Options
from fastcls.settings.sources import RecipeSource

AUTO = "auto"  # of the epochs: more than the recipe's own for as long as they pay


def requested(
    source: RecipeSource,
    given: Mapping[str, Any],
    options: Options,
    extra: Mapping[str, Any],
    other_flags: Iterable[str] = (),
    problems: Iterable[str] = (),
) -> Request:
    """A request of these knobs, options and further keywords, checked without importing anything heavy.

    given: Python values, or text as one would type it; `epochs` may be 'auto'. KnobError names every wrong one.
    """
    given = dict(given)
    if auto := str(given.get("epochs")) == AUTO:
        del given["epochs"]
    if auto or options.seconds is not None:
        asked = f"--epochs {AUTO}" if auto else "--time"
        if not any(knob.name == "epochs" for knob in source.stage("fit")):
            raise KnobError(f"{asked}: the fit of {source.name} has no knob `epochs`.")
        if options.seconds is not None and (auto or "epochs" in given):
            raise KnobError("--time and --epochs exclude each other: --time chooses the epochs.", "Use one of them.")
        options = replace(options, auto_epochs=auto)
    return Request(source, checked(given, source.knobs, other_flags, problems), options, dict(extra))


@dataclass
class Request:
    """A recipe, the knobs that were given, the options, and `--set` keywords that are still unchecked."""

    source: RecipeSource
    knobs: Mapping[str, Any] = field(default_factory=dict)
    options: Options = field(default_factory=Options)
    extra: Mapping[str, Any] = field(default_factory=dict)
    out: Path | None = None
    command: str = ""
    auto_batch: Mapping[str, Any] = field(default_factory=dict)  # how `bs` was found, for the record

    def stage(self, name: str) -> dict[str, Any]:
        """The knobs of a stage: the recipe's defaults with the given values over them."""
        return {knob.name: self.knobs.get(knob.name, knob.default) for knob in self.source.stage(name)}

    def words_without(self, *options: str) -> list[str]:
        """The words of the command, less these options and their values."""
        words: list[str] = []
        given = iter(shlex.split(self.command))
        for word in given:
            if word in options:
                next(given, None)
            elif word.partition("=")[0] not in options:
                words.append(word)
        return words
