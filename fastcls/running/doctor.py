"""Whether the installation fits together: packages, devices, folders, and the command that fixes what does not."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fastcls import lazy
from fastcls.errors import EnvironmentProblem
from fastcls.machine import cpus, extras
from fastcls.machine.installation import check_installation, version

MODULES = {package: module for module, package in extras.DISTRIBUTIONS.items()}
LEAST, AMPLE = 0.5, 5.0  # GB of free disk: below, hardly a run can be written; below, a note
DRIVER = Path("/proc/driver/nvidia/version")
GOMP = "OMP_NUM_THREADS"


@dataclass
class Findings:
    """What there is, as (name, value); what is odd but does no harm; what has to be fixed."""

    facts: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[EnvironmentProblem] = field(default_factory=list)


def examine() -> Findings:
    """Look at the packages, the devices and the folders; every problem's hint has the command that fixes it."""
    from fastcls.settings import sources
    from fastcls.version import __version__

    found = Findings()
    found.facts += [
        ("fastcls", f"{__version__} in {Path(__file__).parent}"),
        ("recipes", str(sources.recipes_folder())),
    ]
    found.facts += [("python", f"{platform.python_version()} at {sys.executable}")]
    _packages(found)
    _extras(found)
    found.problems += _changed()
    try:
        check_installation()
    except EnvironmentProblem as problem:
        found.problems.append(problem)
    else:
        found.problems += _unimportable()
        _threads(found)
        _devices(found)
    _folders(found)
    return found


def _packages(found: Findings) -> None:
    """The packages that fastcls cannot do without, compared with the versions that it declares."""
    declared = {name: line for name, line in extras.declared().items() if "extra ==" not in line}
    if not declared:
        found.notes.append("fastcls runs from a bare checkout: nobody knows which versions it needs.  pip install -e .")
    wrong = [(name, line) for name, line in declared.items() if not _satisfied(name, line)]
    found.facts += [(name, version(name)) for name in declared]
    if wrong:
        what = ", ".join(f"{line} ({version(name).strip('()')})" for name, line in wrong)
        words = [line for _, line in wrong]
        if {"torch", "torchvision"} & {name for name, _ in wrong}:  # one of the two alone would not fit the other
            words = [*(line for line in words if not line.startswith("torch")), *(declared[n] for n in PAIR)]
        found.problems.append(
            EnvironmentProblem(
                f"fastcls needs other versions than there are: {what}.",
                f"Install them:  pip install {' '.join(repr(word) for word in words)}",
            )
        )


PAIR = ("torch", "torchvision")


def _satisfied(name: str, line: str) -> bool:
    from packaging.requirements import Requirement

    have = version(name)
    return have != "(missing)" and Requirement(line).specifier.contains(have, prereleases=True)


def _extras(found: Findings) -> None:
    """What is optional: a package that is not there is no problem, one that is too old is."""
    declared = extras.declared()
    there = [extra for extra in extras.MODULES if not extras.missing(extra)]
    lacking = [extra for extra in extras.MODULES if extra not in there]
    found.facts.append(("extras", ", ".join(there) or "none"))
    if lacking:
        found.facts.append(("no extras", f"{', '.join(lacking)}: {extras.install('NAME')} installs one"))
    for extra in there:
        for name in extras.MODULES[extra]:
            if name in declared and version(name) != "(missing)" and not _satisfied(name, declared[name]):
                line = declared[name].partition(";")[0].strip()
                what = f"fastcls needs {line}, and {version(name)} is installed."
                found.problems.append(EnvironmentProblem(what, f"Upgrade it:  pip install '{line}'"))


def _changed() -> Iterator[EnvironmentProblem]:
    """Whether files of fastcls itself are no longer as they were installed."""
    import base64
    import hashlib

    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        changed = []
        for file in importlib.metadata.files("fastcls") or []:
            place = Path(str(file.locate()))
            if file.hash is not None and file.hash.mode == "sha256" and file.parts[0] == "fastcls":
                raw = place.read_bytes() if place.is_file() else b""
                if base64.urlsafe_b64encode(hashlib.sha256(raw).digest()).decode().rstrip("=") != file.hash.value:
                    changed.append(str(file))
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            yield EnvironmentProblem(
                f"Files of fastcls are not as they were installed: {', '.join(changed[:3])}{more}.",
                "Install it again:  pip install --force-reinstall --no-deps fastcls   (or from its checkout)",
            )


def _unimportable() -> Iterator[EnvironmentProblem]:
    """Packages that are installed but cannot be imported."""
    for name, line in extras.declared().items():
        module = MODULES.get(name, name)
        needed = "extra ==" not in line or any(module in modules for modules in extras.MODULES.values())
        if not needed or not extras.there(module):
            continue
        try:
            with warnings.catch_warnings(), lazy.imports():
                warnings.simplefilter("ignore")
                importlib.import_module(module)
        except Exception as problem:  # whatever the package's own code meets
            what = str(problem).splitlines() or [""]
            yield EnvironmentProblem(
                f"{name} {version(name)} cannot be imported: {type(problem).__name__}: {what[0]}",
                f"Install it again:  pip install --force-reinstall '{line.partition(';')[0].strip()}'",
            )


def _threads(found: Findings) -> None:
    """How many cores torch uses, and whether the environment keeps it from more."""
    import torch

    cores = cpus.cores()
    found.facts.append(("threads", f"{torch.get_num_threads()} of {cores} cores"))
    asked = os.environ.get(GOMP)
    if asked is None:
        return
    if not asked.isdigit():
        found.notes.append(f"{GOMP}={asked} is not finite, and is ignored.  unset {GOMP}")
    elif int(asked) != cores:
        why = "leaves cores idle" if int(asked) < cores else "makes threads wait for each other"
        found.notes.append(f"{GOMP}={asked} on {cores} cores {why}, unless you meant it.  unset {GOMP}")


def _devices(found: Findings) -> None:
    """The GPUs that torch finds, each tried; why it finds none where there is one."""
    import torch

    for index in range(torch.cuda.device_count()):
        try:
            memory = torch.cuda.get_device_properties(index).total_memory / 2**30
            torch.ones(2, device=f"cuda:{index}").sum().item()
            found.facts.append((f"cuda:{index}", f"{torch.cuda.get_device_name(index)}, {memory:.0f} GiB"))
        except RuntimeError as problem:
            what = f"cuda:{index} is there, and torch {torch.__version__} cannot compute on it: "
            hint = "Take a torch built for it:  pip install --upgrade torch torchvision    Meanwhile: --device cpu"
            found.problems.append(EnvironmentProblem(what + str(problem).splitlines()[0], hint))
    if torch.backends.mps.is_available():
        found.facts.append(("mps", "available"))
    elif not torch.cuda.device_count():
        found.facts.append(("device", "cpu: no GPU was found"))
        _idle_gpu(found)


def _idle_gpu(found: Findings) -> None:
    """A GPU of NVIDIA's that torch does not find."""
    import torch

    if not (DRIVER.exists() or shutil.which("nvidia-smi")):
        return
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        found.notes.append("CUDA_VISIBLE_DEVICES hides the GPUs.  unset CUDA_VISIBLE_DEVICES")
    elif torch.version.cuda is None:
        found.notes.append(
            f"An NVIDIA driver is here, and torch {torch.__version__} was built without CUDA: runs use the CPU.  "
            "pip install --force-reinstall torch torchvision"
        )
    else:
        try:
            torch.cuda.init()
        except (RuntimeError, AssertionError) as problem:
            found.problems.append(
                EnvironmentProblem(
                    f"torch {torch.__version__} was built for CUDA {torch.version.cuda} and cannot use the driver: "
                    f"{str(problem).splitlines()[0]}",
                    "Update the NVIDIA driver (`nvidia-smi` shows which CUDA it knows), or take an older build:  "
                    f"pip install {' '.join(repr(extras.declared().get(name, name)) for name in PAIR)}",
                )
            )


def _folders(found: Findings) -> None:
    """Where datasets and runs go: whether they can be written, and how much room there is."""
    from fastcls.datasets.downloads import cache_dir
    from fastcls.runfolder.runs import HOME

    for name, folder, move in (
        ("datasets", cache_dir(), "export FASTCLS_DATA=/another/folder"),
        ("runs", HOME.absolute(), "work in another folder, or name one with  --out DIR"),
    ):
        there = folder
        while not there.exists() and there != there.parent:
            there = there.parent
        try:
            with tempfile.TemporaryFile(dir=there):
                free = shutil.disk_usage(there).free / 1e9
        except OSError as problem:
            what = f"The folder of {name}, {folder}, cannot be written: {problem.strerror}."
            found.problems.append(EnvironmentProblem(what, f"Fix its rights:  chmod u+rwx {there}    or  {move}"))
            continue
        found.facts.append(
            (name, f"{folder}, {free:.0f} GB free" + (" (FASTCLS_DATA moves it)" * (name == "datasets")))
        )
        if free < LEAST:
            what = f"The disk of {name}, {folder}, has {free:.2f} GB left."
            hint = f"Remove what can be made again:  fastcls cache --clear all    or  {move}"
            found.problems.append(EnvironmentProblem(what, hint))
        elif free < AMPLE:
            found.notes.append(f"The disk of {name} has {free:.1f} GB left.  fastcls cache --clear all")
