"""Whether the installation fits together: packages, devices, folders, and the command that fixes what does not."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import Requirement

from fastcls import lazy
from fastcls.errors import EnvironmentProblem
from fastcls.machine import extras, host
from fastcls.machine.extras import check_installation, version
from fastcls.version import __version__

MODULES = {package: module for module, package in extras.DISTRIBUTIONS.items()}
PAIR = {"torch", "torchvision"}  # one of the two alone would not fit the other
LEAST, AMPLE = 0.5, 5.0  # GB of free disk: below, hardly a run can be written; below, a note
DRIVER = Path("/proc/driver/nvidia/version")
SIDE, IMAGES = 16, 8  # of the pictures of a self-check: pixels; images a class
GOMP = "OMP_NUM_THREADS"


@dataclass
class Findings:
    """What there is, as (name, value); what is odd but does no harm; what has to be fixed."""

    facts: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[EnvironmentProblem] = field(default_factory=list)

    def problem(self, what: str, fix: str) -> None:
        self.problems.append(EnvironmentProblem(what, fix))


def examine() -> Findings:
    """Look at the packages, the devices and the folders; every problem's hint has the command that fixes it."""
    from fastcls.settings import sources

    found = Findings(
        [
            ("fastcls", f"{__version__} in {Path(__file__).parents[1]}"),
            ("recipes", str(sources.recipes_folder())),
            ("python", f"{platform.python_version()} at {sys.executable}"),
        ]
    )
    _packages(found)
    if extras.light():
        found.notes.append(f"{extras.LIGHT} does not include training.")
        _imports(found)
        _folders(found)
        return found
    try:
        check_installation()
    except EnvironmentProblem as problem:
        found.problems.append(problem)
    else:
        _imports(found)
        _threads(found)
        _devices(found)
    _folders(found)
    return found


def _requirements() -> dict[str, Requirement]:
    """What fastcls cannot do without, and what is installed of its extras."""
    optional = {module for modules in extras.MODULES.values() for module in modules if extras.there(module)}
    found = {name: Requirement(line) for name, line in extras.declared().items()}
    return {name: need for name, need in found.items() if need.marker is None or name in optional}


def _packages(found: Findings) -> None:
    """The packages that are there, compared with the versions that fastcls declares."""
    needs = _requirements()
    if not needs:
        found.notes.append(
            "fastcls runs from a checkout that is not installed: the versions it needs are unknown.  pip install -e ."
        )
    found.facts += [(name, version(name)) for name, need in needs.items() if need.marker is None]
    lacking = [extra for extra in extras.MODULES if extras.missing(extra)]
    found.facts.append(("extras", ", ".join(extra for extra in extras.MODULES if extra not in lacking) or "none"))
    if lacking:
        found.facts.append(
            ("not installed", f"{', '.join(lacking)}: pip install '.[NAME]' in the checkout installs one")
        )
    wrong = [name for name, need in needs.items() if not _satisfied(need)]
    if wrong:
        what = ", ".join(f"{name}{needs[name].specifier} ({version(name).strip('()')})" for name in wrong)
        again = [*wrong, *(PAIR - {*wrong} if PAIR & {*wrong} else ())]
        line = " ".join(f"'{name}{needs[name].specifier}'" for name in again)
        found.problem(f"The installed versions do not match: {what}.", f"Install them:  pip install {line}")


def _satisfied(need: Requirement) -> bool:
    have = version(need.name)
    if have == "(missing)":  # mlflow-skinny gives the module of mlflow
        return need.marker is not None
    return need.specifier.contains(have, prereleases=True)


def _imports(found: Findings) -> None:
    """Packages that are installed but cannot be imported."""
    for name, need in _requirements().items():
        try:
            with warnings.catch_warnings(), lazy.imports():
                warnings.simplefilter("ignore")
                importlib.import_module(MODULES.get(name, name.replace("-", "_")))
        except Exception as problem:  # whatever the package's own code meets
            what = (str(problem).splitlines() or [""])[0]
            found.problem(
                f"{name} {version(name)} cannot be imported: {type(problem).__name__}: {what}",
                f"Install it again:  pip install --force-reinstall '{name}{need.specifier}'",
            )


def _threads(found: Findings) -> None:
    """How many cores torch uses, and whether the environment keeps it from more."""
    import torch

    cores, given = host.cores(), os.environ.get(GOMP, "")
    found.facts.append(("threads", f"{torch.get_num_threads()} of {cores} cores"))
    if given and not given.isdigit():
        found.notes.append(f"{GOMP}={given} is not an integer and is ignored.  unset {GOMP}")
    elif given and int(given) != cores:
        why = "leaves cores idle" if int(given) < cores else "makes threads wait for each other"
        found.notes.append(f"{GOMP}={given} on {cores} cores {why}. If that is not intended:  unset {GOMP}")


def _devices(found: Findings) -> None:
    """The GPUs that torch finds, each tried; why it finds none where there is one."""
    import torch

    for index in range(torch.cuda.device_count()):
        try:
            memory = torch.cuda.get_device_properties(index).total_memory / 2**30
            torch.ones(2, device=f"cuda:{index}").sum().item()
            found.facts.append((f"cuda:{index}", f"{torch.cuda.get_device_name(index)}, {memory:.0f} GiB"))
        except RuntimeError as problem:
            what = f"cuda:{index} was found, but torch {torch.__version__} cannot compute on it: "
            hint = "Install a torch built for it:  pip install --upgrade torch torchvision    Until then: --device cpu"
            found.problem(what + str(problem).splitlines()[0], hint)
    if torch.backends.mps.is_available():
        found.facts.append(("mps", "available"))
    elif not torch.cuda.device_count():
        found.facts.append(("device", "cpu: no GPU was found"))
        if DRIVER.exists() or shutil.which("nvidia-smi"):
            _idle_gpu(found)


def _idle_gpu(found: Findings) -> None:
    """Why torch does not find the GPU of an NVIDIA driver."""
    import torch

    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        found.notes.append("CUDA_VISIBLE_DEVICES hides the GPUs.  unset CUDA_VISIBLE_DEVICES")
    elif torch.version.cuda is None:
        found.notes.append(
            f"An NVIDIA driver was found, but torch {torch.__version__} was built without CUDA, so runs use the CPU.  "
            "pip install --force-reinstall torch torchvision"
        )
    else:
        try:
            torch.cuda.init()
        except (RuntimeError, AssertionError) as problem:
            found.problem(
                f"torch {torch.__version__} was built for CUDA {torch.version.cuda} and cannot use the driver: "
                f"{str(problem).splitlines()[0]}",
                "Update the NVIDIA driver (`nvidia-smi` shows which CUDA it supports), or install an older build of "
                "torch and torchvision.",
            )


def _folders(found: Findings) -> None:
    """Where datasets and runs go: whether they can be written, and how much room there is."""
    from fastcls.datasets.downloads import cache_dir
    from fastcls.runfolder.runs import HOME

    for name, folder, move in (
        ("datasets", cache_dir(), "export FASTCLS_DATA=/another/folder"),
        ("runs", HOME.absolute(), "work in another folder, or choose one with  --out DIR"),
    ):
        there = next(each for each in (folder, *folder.parents) if each.exists())
        try:
            with tempfile.TemporaryFile(dir=there):
                free = shutil.disk_usage(there).free / 1e9
        except OSError as problem:
            what = f"The folder of {name}, {folder}, cannot be written: {problem.strerror}."
            found.problem(what, f"Fix its permissions:  chmod u+rwx {there}    or  {move}")
            continue
        found.facts.append((name, f"{folder}, {free:.0f} GB free"))
        if free < LEAST:
            what = f"The disk of {name}, {folder}, has {free:.2f} GB left."
            found.problem(what, f"Clear the caches:  fastcls cache --clear all    or  {move}")
        elif free < AMPLE:
            found.notes.append(f"The disk of {name} has {free:.1f} GB left.  fastcls cache --clear all")


# ------------------------------------------------------------------ a training


def self_check() -> None:
    """Train a small network for a step, export it and predict; raises whatever goes wrong on the way.

    AssertionError where nothing does and the answers are wrong.
    """
    import numpy as np
    from fastai.vision.all import CategoryBlock, DataBlock, ImageBlock, accuracy, get_image_files, parent_label

    from fastcls.data import blocks, splitting
    from fastcls.inference import export
    from fastcls.models import learners as models
    from fastcls.models import networks
    from fastcls.settings import options

    quick = options.Options(workers=0, cache_gb=0, precision="fp32")
    with tempfile.TemporaryDirectory(prefix="fastcls-") as folder, options.using(quick) as notes:
        images, out = Path(folder, "images"), Path(folder, "run")
        _draw(images)
        out.mkdir()
        block = DataBlock(
            blocks=(ImageBlock, CategoryBlock),
            get_items=get_image_files,
            get_y=parent_label,
            splitter=splitting.stratified(parent_label, valid_pct=0.5),
        )
        dls = blocks.loaders(block, images, bs=IMAGES)
        learn = models.learner(dls, networks.cnn(3, dls.c, (8,)), stats=((0.5,) * 3, (0.5,) * 3), metrics=accuracy)
        with learn.no_bar(), learn.no_logging():
            learn.fit(1, 0.01)
            probabilities = learn.get_preds(dl=dls.valid)[0].numpy()
        assert np.isfinite(probabilities).all(), "the network's outputs are NaN or infinite"
        export.save(learn, out, {})
        paths = [str(path) for path in dls.valid_ds.items]
        difference = export.verify(out, paths, probabilities)
        assert difference is not None and (out / "model.onnx").is_file(), "; ".join(notes) or "nothing was exported"


def _draw(folder: Path) -> None:
    """Dark pictures and light ones."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for name, low in (("dark", 0), ("light", 128)):
        (folder / name).mkdir(parents=True)
        for index in range(IMAGES):
            pixels = rng.integers(low, low + 128, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
