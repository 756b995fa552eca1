"""Recipes as text: where they lie, what their docstrings claim, which knobs their stages have.

Nothing here runs a recipe or imports torch, so listing, help and a mistyped knob answer at once.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from fastcls.errors import RecipeError, nearest
from fastcls.settings import shell
from fastcls.settings.knobs import Knob, read_knobs
from fastcls.settings.options import Options

STAGES = {"get_learner": 0, "fit": 1}  # stage -> leading parameters that are not knobs (fit's `learn`)
FIELDS = ("Claim", "Data", "Network", "Needs", "Run", "Source")
RESERVED = {field.name for field in fields(Options)} | {"out", "dry_run", "show", "copy", "help", "resume", "time"}
RESERVED |= {"gpus", "processes", "auto_batch", "set", "config", "print_config", "overwrite"}
EXTENSIBLE = ("transfer_learner", "Learner", "fine_tune", "fit_one_cycle", "fit_flat_cos", "fit")
BUILDERS = {  # ours -> the fastai functions behind
    "transfer_learner": ("transfer_learner", "Learner"),
    "learner": ("Learner",),
    "fit_schedule": ("fit_one_cycle", "fit_flat_cos", "fit"),
}


@dataclass(frozen=True)
class RecipeSource:
    """A recipe file, read and checked but not run."""

    name: str
    path: Path
    source: str
    title: str
    fields: dict[str, str]
    knobs: tuple[Knob, ...]

    @property
    def claim(self) -> str:
        return self.fields.get("Claim", "not measured yet")

    @property
    def shipped(self) -> bool:
        """Whether this is a recipe of fastcls, found by its name alone."""
        return self.path.parent == recipes_folder().resolve()

    def stage(self, name: str) -> list[Knob]:
        return [knob for knob in self.knobs if knob.stage == name]

    def defaults(self) -> dict[str, Any]:
        return {knob.name: knob.default for knob in self.knobs}

    @cached_property
    def extensible(self) -> list[str]:
        """The functions that this recipe calls and that `--set` can give further keywords."""
        called = {
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            for node in ast.walk(ast.parse(self.source))
            if isinstance(node, ast.Call)
        }
        called.update(*(BUILDERS[name] for name in called & set(BUILDERS)))
        return [name for name in EXTENSIBLE if name in called]


def recipes_folder() -> Path:
    """The folder of named recipes: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).parents[1]
    checkout = package.parent / "recipes"
    return checkout if (package.parent / "pyproject.toml").is_file() and checkout.is_dir() else package / "recipes"


def available() -> list[str]:
    """The names of all recipes that ship with fastcls."""
    return sorted(file.stem for file in recipes_folder().glob("*.py"))


def find(name: str) -> RecipeSource:
    """The recipe of that name, or in that file (`./mine.py`)."""
    if name.endswith(".py") or "/" in name or "\\" in name:
        path = shell.path(name)
        if path.is_dir():
            hint = f"To train on the images in it:  {shell.command('recipe', 'folder', '--path', name)}"
            raise RecipeError(f"{name} is a folder, not a recipe.", hint)
        if not path.is_file():
            raise RecipeError(
                f"There is no recipe file {name}.", "Create one:  fastcls recipe digits-cnn --copy mine.py"
            )
        return read(path)
    names = available()
    if name not in names:
        close = nearest(name, names, 3)
        hint = f"Did you mean {' or '.join(close)}?" if close else f"Available: {', '.join(names)}."
        raise RecipeError(f"There is no recipe {name!r}.", hint + "  List them:  fastcls recipes")
    return read(recipes_folder() / f"{name}.py")


def read(path: Path) -> RecipeSource:
    """Read and check one recipe file; RecipeError says what it lacks and on which line."""
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise RecipeError(f"The recipe {path} cannot be read: {problem}.") from None
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as problem:  # the last two of deep nesting
        line = f", line {problem.lineno}" if isinstance(problem, SyntaxError) else ""
        raise RecipeError(f"{path}{line}: not valid Python: {getattr(problem, 'msg', problem)}.") from None
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    missing = [stage for stage in STAGES if stage not in functions]
    if missing:
        raise RecipeError(
            f"{path} has no {' and no '.join(f'`{stage}`' for stage in missing)}.",
            "A recipe has two functions: get_learner(...) returns a Learner, fit(learn, ...) trains it. "
            "See one:  fastcls recipe digits-cnn --show",
        )
    if not functions["fit"].args.args:
        raise RecipeError(f"{path}: `fit` has no parameter for the learner.", "Write it as  def fit(learn, ...):")
    knobs = [knob for stage, skip in STAGES.items() for knob in read_knobs(functions[stage], source, skip)]
    _check_names(path, knobs)
    doc = ast.get_docstring(tree) or ""
    title = doc.split("\n\n")[0].replace("\n", " ").strip() or path.stem
    return RecipeSource(path.stem, path.resolve(), source, title, _fields(doc), tuple(knobs))


def _check_names(path: Path, knobs: list[Knob]) -> None:
    names = [knob.name for knob in knobs]
    if taken := sorted(RESERVED & set(names)):
        raise RecipeError(
            f"{path}: {', '.join(taken)} cannot be a knob: every run has an option of that name.",
            "Give the parameter another name.",
        )
    if twice := sorted(name for name, times in Counter(names).items() if times > 1):
        raise RecipeError(
            f"{path}: {', '.join(twice)} is a knob of both `get_learner` and `fit`.", "Rename one of the two."
        )


def _fields(doc: str) -> dict[str, str]:
    """`Claim: …` and its like from a docstring; an indented line continues the one before it, or is a command more."""
    fields: dict[str, str] = {}
    name = ""
    for line in doc.splitlines():
        match = re.match(rf"({'|'.join(FIELDS)}):\s*(.*)", line)
        if match:
            name = match[1]
            fields[name] = match[2].strip()
        elif name and line.startswith(" "):
            fields[name] += ("\n" if name == "Run" else " ") + line.strip()
        else:
            name = ""
    return fields
