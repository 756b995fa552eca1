"""What to run: a recipe, its knobs, the options and where to write. Made without torch, run with it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastcls.settings.options import Options
from fastcls.settings.sources import RecipeSource


@dataclass
class Request:
    """A recipe, the knobs that were given, the options, and `-o` keywords that are still unchecked."""

    source: RecipeSource
    knobs: Mapping[str, Any] = field(default_factory=dict)
    options: Options = field(default_factory=Options)
    extra: Mapping[str, str] = field(default_factory=dict)
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
