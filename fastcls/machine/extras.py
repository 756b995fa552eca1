"""The installation: optional packages, the command that installs each, and whether torch and torchvision match."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shlex

from fastcls import lazy
from fastcls.errors import EnvironmentProblem

MODULES = {  # extra -> what is imported of it
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "search": ("optuna",),
    "serve": ("starlette", "uvicorn", "python_multipart"),
    "distributed": ("accelerate",),
    "parquet": ("pyarrow",),
    "shards": ("pyarrow",),
    "openvino": ("openvino",),
    "heic": ("pillow_heif",),
    "hub": ("huggingface_hub",),
    "datasets": ("datasets",),
}
FIX = "Install the pair together:  pip install --force-reinstall torch torchvision   (or `fastcls doctor` for details)"
LIGHT = "fastcls-predict"  # the distribution without TRAINING, scripts/predict-only
TRAINING = ("torch", "torchvision", "fastai", "timm", "onnxscript")
DISTRIBUTIONS = {  # where a package is not called as its module is
    "sklearn": "scikit-learn",
    "PIL": "pillow",
    "iterstrat": "iterative-stratification",
    "huggingface_hub": "huggingface-hub",
}


def there(module: str) -> bool:
    """Whether a top-level module can be found; it is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # a stand-in in sys.modules, without a spec
        return True


def missing(extra: str) -> list[str]:
    """The modules of an extra that are not installed."""
    return [module for module in MODULES[extra] if not there(module)]


def install(*extras: str) -> str:
    """The command that installs extras: their packages, as fastcls itself is on no index yet."""
    lines = [line.replace('"', "'").partition(";") for line in _requires()[1]]
    needed = [name for extra in extras for name, _, condition in lines if f"extra == '{extra}'" in condition]
    if needed:
        return shlex.join(["pip", "install", *dict.fromkeys(needed)])
    return f"pip install '.[{','.join(extras)}]'  in the checkout"


def require(what: str, *extras: str, otherwise: str = "") -> None:
    """EnvironmentProblem where a package of extras, which `what` needs, is missing. otherwise: how to do without."""
    absent = {extra: names for extra in extras if (names := missing(extra))}
    if absent:
        names = [name for found in absent.values() for name in found]
        are, them = ("are", "them") if len(names) > 1 else ("is", "it")
        raise EnvironmentProblem(
            f"{what} needs {' and '.join(names)}, which {are} not installed.",
            f"Install {them}:  {install(*absent)}" + (f"    {otherwise}" if otherwise else ""),
        )


def declared() -> dict[str, str]:
    """Every package that fastcls requires -> its requirement: 'torch>=2.6', 'optuna>=4; extra == "search"'."""
    found: dict[str, str] = {}
    for line in _requires()[1]:
        found.setdefault(re.split(r"[^\w.-]", line, maxsplit=1)[0].lower(), line)
    return found


def light() -> bool:
    """Whether fastcls was installed without what training needs, and that is not there otherwise."""
    return _requires()[0] == LIGHT and not all(map(there, TRAINING))


def _requires() -> tuple[str, list[str]]:
    """Which of our distributions is installed, and its requirements; nothing in a checkout that was not installed."""
    from importlib import metadata  # 50 ms that few commands need

    for name in ("fastcls", LIGHT):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return name, metadata.requires(name) or []
    return "", []


def unimportable(problem: ImportError) -> EnvironmentProblem | None:
    """The error for an ImportError that nobody expected; None where it is of no package that fastcls requires."""
    module = (problem.name or "").partition(".")[0]
    package = DISTRIBUTIONS.get(module, module)
    if package not in declared() and not (module in TRAINING and light()):
        return None
    if not there(module):
        return not_installed(package)
    return EnvironmentProblem(
        f"{package} cannot be imported: {str(problem).splitlines()[0]}.",
        f"Install it:  pip install --force-reinstall {package}    `fastcls doctor` checks all of them.",
    )


def not_installed(package: str) -> EnvironmentProblem:
    """The error for a missing package that is no extra's."""
    if package in TRAINING and light():
        return EnvironmentProblem(
            f"This needs {package}, which is not in {LIGHT}: that predicts, serves, evaluates, reports and checks.",
            "Install fastcls itself, in its checkout:  pip install .",
        )
    line = declared().get(package, "").replace('"', "'")
    of_extra = re.search(r"extra == '(\w+)'", line) if _requires()[0] == LIGHT else None
    command = install(of_extra[1]) if of_extra else f"pip install {package}"
    hint = f"Install it:  {command}    `fastcls doctor` checks all of them."
    return EnvironmentProblem(f"{package} is not installed.", hint)


# ------------------------------------------------------------------ torch and torchvision


def check_installation() -> None:
    """EnvironmentProblem where torch or torchvision is missing, or do not fit each other."""
    for package in ("torch", "torchvision", "fastai", "timm"):
        if not there(package):
            raise not_installed(package)
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
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(missing)"
