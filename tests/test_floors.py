"""The shape of the house: a module imports only from floors below its own (docs/architecture.md draws it)."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fastcls"
FLOORS = {
    0: "errors lazy settings",
    1: "files machine layouts datasets doctor",
    2: "images audit results",
    3: "batches data transforms mixing policies resizing averaging losses optimizers muon networks speednet backbones "
    "pretrained stages schedules architectures",
    4: "fit models interpret exporting plots predict inference report serve tracking",
    5: "running lr_find trusted selfcheck",
    6: "cli notebook __main__",
}
FLOOR_OF = {name: floor for floor, names in FLOORS.items() for name in names.split()}
# they import torch where they need it, if at all: help, lists, checks, predictions and reports answer at once
LIGHT = f"{FLOORS[0]} {FLOORS[1]} {FLOORS[2]} plots predict inference exporting report serve cli notebook".split()
BUT = {"files/weights", "files/foreign", "machine/devices", "machine/throughput", "images/opening", "results/gradcam"}
BUT |= {"exporting/export"}
HEAVY = {"torch", "torchvision", "fastai", "timm"}


def modules() -> list[Path]:
    return sorted(file for file in PACKAGE.rglob("*.py") if file.parent != PACKAGE / "recipes")


def top(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(file: Path, at_import_only: bool = False) -> set[str]:
    """Dotted names that a file imports; with `at_import_only`, not those inside functions or for types alone."""
    names: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
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
    assert {top(file) for file in modules()} - {"__init__"} == set(FLOOR_OF)


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_module_imports_only_from_floors_below(file: Path) -> None:
    if top(file) == "__init__":
        return
    for name in imports(file):
        parts = name.split(".")
        if parts[0] == "fastcls" and len(parts) > 1 and parts[1] in FLOOR_OF and parts[1] != top(file):
            own, other = FLOOR_OF[top(file)], FLOOR_OF[parts[1]]
            assert other < own or (other == own and not _cyclic(parts[1], top(file))), f"{file.name} imports {name}"


@functools.cache
def neighbours(name: str) -> frozenset[str]:
    """The modules that a module or a package of ours imports."""
    names = {inner for file in modules() if top(file) == name for inner in imports(file)}
    return frozenset({inner.split(".")[1] for inner in names if inner.startswith("fastcls.")} & set(FLOOR_OF))


def _cyclic(start: str, target: str) -> bool:
    """Whether module `start` comes to import `target`."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name == target:
            return True
        if name not in seen:
            seen.add(name)
            waiting += neighbours(name)
    return False


def test_the_light_modules_never_import_torch_when_they_are_imported() -> None:
    heavy = {
        str(file.relative_to(PACKAGE).with_suffix(""))
        for file in modules()
        if top(file) in LIGHT and HEAVY & {name.split(".")[0] for name in imports(file, at_import_only=True)}
    }
    assert heavy == BUT


def test_a_folder_holds_what_one_can_overlook() -> None:
    crowded = {folder.name: n for folder in PACKAGE.iterdir() if (n := len(list(folder.glob("*.py")))) > 30}
    assert not crowded


def test_modules_hold_one_idea() -> None:
    long = {file.name: n for file in modules() if (n := len(file.read_text().splitlines())) > 310}
    assert not long
