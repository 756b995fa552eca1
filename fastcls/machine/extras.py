"""What only some commands need: the extras of pyproject.toml, what each brings, and the command that installs it."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import sys
from pathlib import Path

from fastcls.errors import EnvironmentProblem

MODULES = {  # extra -> what is imported of it
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "search": ("optuna",),
    "serve": ("starlette", "uvicorn"),
    "distributed": ("accelerate",),
    "parquet": ("pyarrow",),
    "openvino": ("openvino",),
}
DISTRIBUTIONS = {"sklearn": "scikit-learn", "PIL": "pillow"}  # where a package is not called as its module is


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
    """The command that installs extras."""
    return f"pip install 'fastcls[{','.join(extras)}]'"


def require(what: str, *extras: str, otherwise: str = "") -> None:
    """EnvironmentProblem where a package of extras, which `what` needs, is missing. otherwise: how to do without."""
    lacking = {extra: names for extra in extras if (names := missing(extra))}
    if lacking:
        names = [name for found in lacking.values() for name in found]
        are, them = ("are", "them") if len(names) > 1 else ("is", "it")
        raise EnvironmentProblem(
            f"{what} needs {' and '.join(names)}, which {are} not installed.",
            f"Install {them}:  {install(*lacking)}" + (f"    {otherwise}" if otherwise else ""),
        )


def declared() -> dict[str, str]:
    """Every package that pyproject.toml names -> what it says of it: 'torch>=2.6', 'optuna>=4; extra == "search"'.

    Empty where nobody knows: in a checkout that was not installed, on Python 3.10.
    """
    from importlib import metadata  # 50 ms that few commands need

    lines = _of_checkout(Path(__file__).parents[2] / "pyproject.toml")  # newer, perhaps, than what was installed of it
    if not lines:
        with contextlib.suppress(metadata.PackageNotFoundError):
            lines = metadata.requires("fastcls") or []
    found: dict[str, str] = {}
    for line in lines:
        found.setdefault(re.split(r"[^\w.-]", line, maxsplit=1)[0].lower(), line)
    return found


def _of_checkout(file: Path) -> list[str]:
    if sys.version_info < (3, 11) or not file.is_file():
        return []
    import tomllib

    project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"].items()
    return [*project["dependencies"], *(f'{line}; extra == "{name}"' for name, lines in optional for line in lines)]


def unimportable(problem: ImportError) -> EnvironmentProblem | None:
    """What an ImportError that nobody expected says of the installation; None where it is of no package we need."""
    module = (problem.name or "").partition(".")[0]
    package = DISTRIBUTIONS.get(module, module)
    if package not in declared():
        return None
    if there(module):
        what, how = f"{package} cannot be imported: {str(problem).splitlines()[0]}.", "--force-reinstall "
    else:
        what, how = f"{package} is not installed.", ""
    return EnvironmentProblem(
        what, f"Install it:  pip install {how}{package}    `fastcls doctor` looks at all of them."
    )
