"""The shape of the house: a module imports only from floors below its own (docs/architecture.md draws it)."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "fastcls"
# fmt: off
ORDER = [
    "version", "errors", "lazy", "log", "settings", "runfolder", "machine", "datasets", "images", "transforms",
    "data", "evaluation", "audit", "training", "models", "inference", "comparison", "reports", "plugins",
    "running", "api", "cli", "__main__",
]
# they import torch where they need it, if at all: help, lists, checks, predictions and reports answer at once
LIGHT = [
    "version", "errors", "lazy", "log", "settings", "runfolder", "machine", "datasets", "images", "audit", "comparison",
    "reports", "api", "cli",
]
# fmt: on
BUT = {"machine/devices", "machine/flops", "images/opening"}
HEAVY = {"torch", "torchvision", "fastai", "timm"}


def modules() -> list[Path]:
    return sorted(file for file in PACKAGE.rglob("*.py") if file.parent != PACKAGE / "recipes")


def top(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(file: Path, at_import_only: bool = False, types: bool = False) -> set[str]:
    """Dotted names that a file imports; `at_import_only` without those in functions, `types` with those for types."""
    names: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if not types and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if at_import_only and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            if isinstance(child, ast.Import):
                names.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                names.update(f"{child.module}.{alias.name}" for alias in child.names)
            visit(child)

    visit(ast.parse(file.read_text()))
    return names


def test_every_module_has_a_floor() -> None:
    assert {top(file) for file in modules()} - {"__init__"} == set(ORDER)


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_module_imports_only_from_floors_below(file: Path) -> None:
    if top(file) == "__init__":
        return
    for name in imports(file):
        parts = name.split(".")
        if parts[0] == "fastcls" and len(parts) > 1 and parts[1] in ORDER and parts[1] != top(file):
            assert ORDER.index(parts[1]) < ORDER.index(top(file)), f"{file.name} imports {name}"


def test_no_two_modules_import_each_other_even_by_way_of_others() -> None:
    """Not inside functions either, nor for types alone."""
    names = {".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts): file for file in modules()}
    graph = {name: {one for one in imports(file, types=True) for one in (one, one.rpartition(".")[0])} & names.keys()
             for name, file in names.items()}  # fmt: skip
    TopologicalSorter({name: needed - {name} for name, needed in graph.items()}).prepare()  # CycleError names them


def test_the_light_modules_never_import_torch_when_they_are_imported() -> None:
    heavy = {
        str(file.relative_to(PACKAGE).with_suffix(""))
        for file in modules()
        if top(file) in LIGHT and HEAVY & {name.split(".")[0] for name in imports(file, at_import_only=True)}
    }
    assert heavy == BUT


def test_one_module_reads_predictions() -> None:
    """A tracker and the Hub list the file among those that are sent, a message shows it as an example of a command."""
    named = sorted(file.name for file in modules() if '"predictions.csv"' in file.read_text())
    assert named == ["hub.py", "messages.py", "predictions.py", "tracker.py"]
