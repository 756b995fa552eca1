"""A run's request, read back from its folder: the same recipe, knobs and options once more."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from fastcls.errors import FastclsError, OutputError, UsageError
from fastcls.runfolder import runs
from fastcls.settings import shell, sources
from fastcls.settings.knobs import REQUIRED, as_text
from fastcls.settings.options import DECLARED, Options
from fastcls.settings.request import Request

BY_HAND = "by hand"  # what run.json names as the recipe of a Learner that `fastcls.save` was given

RESOLVED = ("device", "precision", "workers")  # recorded as the machine decided them


def recipe_file(run: Path, record: Mapping[str, Any]) -> Path:
    """The run's recipe.py; UsageError for a run that was made without a recipe."""
    if record.get("recipe") == BY_HAND:
        raise UsageError(
            f"{run} was saved from a Learner and has no recipe to rebuild it.",
            "Continue its training, or predict with it, in Python; its model.onnx needs no recipe.",
        )
    return run / "recipe.py"


def request(run: Path, trust: bool) -> Request:
    """What the run was asked for. Its recipe.py is run only where `trust` says so, or where it is the installed one."""
    record = runs.read_json(run / "run.json")
    try:
        held = recipe_file(run, record).read_text(encoding="utf-8")
    except OSError as problem:
        raise OutputError(f"{run} has no readable recipe.py: {problem.strerror}.") from None
    source, found = _source(run, str(record.get("recipe", "")), held, trust), knobs(record)
    if lost := [knob.flag for knob in source.knobs if knob.default is REQUIRED and found.get(knob.name) is None]:
        raise OutputError(
            f"{run}/run.json has no value of {', '.join(lost)}, which its recipe needs.",
            "Restore the file from a copy, or start a new run.",
        )
    return Request(
        source=source,
        knobs=found,
        options=options(record),
        extra=record.get("extra") or {},
        out=run,
        command=str(record.get("command", "")),
    )


def moved(request: Request, path: str) -> Request:
    """The same request, with its images in another folder; UsageError where its recipe has no knob for that."""
    if "path" not in request.knobs:
        raise UsageError(f"--path {path}: the recipe {request.source.name!r} has no knob `path`.", "Omit it.")
    place = (
        path if "://" in path else str(shell.path(path).absolute())
    )  # a run is resumed from the folder where it was started
    words = [*request.words_without("--path"), "--path", place]
    return replace(request, knobs={**request.knobs, "path": place}, command=shlex.join(words))


def texts(run: Path) -> dict[str, str]:
    """The files that `request` reads, by name."""
    return {name: (run / name).read_text(encoding="utf-8") for name in ("run.json", "recipe.py")}


def given(run: Path, record: Mapping[str, Any]) -> list[str]:
    """The settings that are not the defaults of the recipe and of every run, as one would type them."""
    try:
        defaults = sources.read(run / "recipe.py").defaults()
    except FastclsError:
        return []
    found = {name: value for name, value in knobs(record).items() if defaults.get(name, value) != value}
    chosen, plain = record.get("options") or {}, Options()
    found |= {
        name: chosen[name]
        for name in DECLARED
        if name in chosen and name not in RESOLVED and chosen[name] != getattr(plain, name)
    }
    return [f"--{name.replace('_', '-')} {as_text(value)}" for name, value in found.items()]


def knobs(record: Mapping[str, Any]) -> dict[str, Any]:
    """The knobs of all stages."""
    given = {name: value for stage in record["knobs"].values() for name, value in stage.items()}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def options(record: Mapping[str, Any]) -> Options:
    """The options that the run had, those that it chose itself as it chose them."""
    known = {f.name for f in fields(Options)} & set(record["options"])
    return Options(**{name: record["options"][name] for name in known})


def _source(run: Path, name: str, held: str, trust: bool) -> sources.RecipeSource:
    try:
        installed = sources.find(name)
    except FastclsError:
        installed = None
    if installed is not None and installed.source == held:
        return installed
    if not trust:
        what = "different now" if installed is not None else "not installed"
        raise UsageError(
            f"{run}: the recipe {name!r} it was trained with is {what}, and the copy in the run folder is code.",
            f"Read {run / 'recipe.py'}; if you trust it, add --trust.",
        )
    return replace(sources.read(run / "recipe.py"), name=name)


@contextlib.contextmanager
def entered(record: Mapping[str, Any]) -> Iterator[None]:
    """Meanwhile be in the folder that the run was started in, which relative paths among its knobs start from."""
    here, folder = Path.cwd(), record.get("folder")
    if folder and Path(folder).is_dir():
        os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)
