"""Whether the installation fits together: versions, devices, folders, and the mends for what does not."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
from pathlib import Path

from fastcls import lazy
from fastcls.errors import EnvironmentProblem

MEND = "Install the pair together:  pip install --force-reinstall torch torchvision   (or `fastcls doctor` for details)"


def check_installation() -> None:
    """EnvironmentProblem where torch or torchvision is missing, or the two were built for each other's strangers."""
    for package in ("torch", "torchvision", "fastai", "timm"):
        if importlib.util.find_spec(package) is None:
            raise EnvironmentProblem(f"{package} is not installed.", f"Install it:  pip install {package}")
    problem = torchvision_problem()
    if problem:
        raise EnvironmentProblem(problem, MEND)


def torchvision_problem() -> str:
    """What keeps torchvision from working with this torch; empty where nothing does."""
    try:
        with lazy.imports():
            import torch  # noqa: F401
            import torchvision
    except (RuntimeError, ImportError, OSError) as problem:
        return (
            f"torch {_version('torch')} and torchvision {_version('torchvision')} do not match: "
            f"{str(problem).splitlines()[0]}."
        )
    return "" if hasattr(torchvision, "ops") else "torchvision is damaged: it has no `ops`."


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(missing)"


PACKAGES = ("fastai", "torch", "torchvision", "timm", "numpy", "pillow", "scikit-learn", "onnx", "onnxruntime")


def examine() -> tuple[list[tuple[str, str]], list[EnvironmentProblem]]:
    """What there is, as (name, value), and what is wrong with it."""
    from fastcls import __version__, sources
    from fastcls.download import cache_dir
    from fastcls.runs import HOME

    findings = [("fastcls", f"{__version__} in {Path(__file__).parent}"), ("recipes", str(sources.recipes_folder()))]
    findings += [("python", f"{platform.python_version()} at {sys.executable}")]
    findings += [(package, _version(package)) for package in PACKAGES]
    problems = []
    try:
        check_installation()
        findings += _devices()
    except EnvironmentProblem as problem:
        problems.append(problem)
    findings += [("datasets", f"{cache_dir()} (FASTCLS_DATA moves it)"), ("runs", str(HOME.absolute()))]
    for name, folder in (("datasets", cache_dir()), ("runs", HOME.absolute())):
        if not _writable(folder):
            problems.append(
                EnvironmentProblem(f"The folder of {name}, {folder}, cannot be written.", "Move it or mend its rights.")
            )
    return findings, problems


def _devices() -> list[tuple[str, str]]:
    import torch

    found = [("threads", f"{torch.get_num_threads()} of {os.cpu_count()} cores")]
    for index in range(torch.cuda.device_count()):
        with contextlib.suppress(RuntimeError):
            memory = torch.cuda.get_device_properties(index).total_memory / 2**30
            found.append((f"cuda:{index}", f"{torch.cuda.get_device_name(index)}, {memory:.0f} GiB"))
    if torch.backends.mps.is_available():
        found.append(("mps", "available"))
    if len(found) == 1:
        found.append(("device", "cpu: no GPU was found"))
    return found


def _writable(folder: Path) -> bool:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK)
