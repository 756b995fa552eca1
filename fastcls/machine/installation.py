"""Whether torch, torchvision, fastai and timm are installed and fit each other."""

from __future__ import annotations

import importlib.metadata

from fastcls import lazy
from fastcls.errors import EnvironmentProblem
from fastcls.machine import extras

FIX = "Install the pair together:  pip install --force-reinstall torch torchvision   (or `fastcls doctor` for details)"


def check_installation() -> None:
    """EnvironmentProblem where torch or torchvision is missing, or do not fit each other."""
    for package in ("torch", "torchvision", "fastai", "timm"):
        if not extras.there(package):
            raise extras.not_installed(package)
    problem = torchvision_problem()
    if problem:
        raise EnvironmentProblem(problem, FIX)


def torchvision_problem() -> str:
    """What keeps torchvision from working with this torch; empty where nothing does."""
    try:
        with lazy.imports():
            import torch  # noqa: F401
            import torchvision
    except (RuntimeError, ImportError, OSError) as problem:
        return (
            f"torch {version('torch')} and torchvision {version('torchvision')} do not match: "
            f"{str(problem).splitlines()[0]}."
        )
    return "" if hasattr(torchvision, "ops") else "torchvision is damaged: it has no `ops`."


def version(package: str) -> str:
    """The installed version of a distribution, or '(missing)'."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(missing)"
