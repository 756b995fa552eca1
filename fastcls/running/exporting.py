"""A run's network as files for other programs: what this run can give, checked before anything is written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fastcls.errors import OutputError, UsageError, did_you_mean
from fastcls.inference import deploy
from fastcls.inference.predictor import Predictor
from fastcls.runfolder import recorded, runs

FILES = {
    "onnx": "model.onnx",
    "safetensors": "model.safetensors",
    "torch-export": "model.pt2",
    "openvino": "model.xml",
}


class Exported(NamedTuple):
    """A file, the largest difference of a probability to the Learner's, and the images that it was found on.

    difference: None where nothing was compared: weights alone, or no image of the run can be read any more.
    """

    file: Path
    difference: float | None
    images: int


def export(run: Path, kinds: Sequence[str], out: Path | None, trust: bool) -> dict[str, Exported]:
    """Write the network of a run as files of these kinds; see `fastcls.export`."""
    if unknown := [kind for kind in kinds if kind not in FILES]:
        raise UsageError(f"There is no export as {unknown[0]!r}{did_you_mean(unknown[0], FILES) or '.'}")
    home = out or run / "export"
    with _removed_if_empty(home):
        return _export(run, kinds, home, trust)


@contextlib.contextmanager
def _removed_if_empty(home: Path) -> Iterator[None]:
    """An export that fails leaves no empty folder, where it made one."""
    existed = home.exists()
    try:
        yield
    finally:
        if not existed:
            with contextlib.suppress(OSError):  # it holds something, or was not made
                home.rmdir()


def _export(run: Path, kinds: Sequence[str], home: Path, trust: bool) -> dict[str, Exported]:
    targets = {kind: home / FILES[kind] for kind in kinds}
    _check(run, kinds, trust)
    _check_free([*targets.values(), *(home / "model.bin" for kind in kinds if kind == "openvino")])
    reference = None if list(kinds) == ["safetensors"] else deploy.reference(run)
    images = 0 if reference is None else len(reference.images)
    found = {}
    for kind, target in targets.items():
        if kind == "safetensors":
            deploy.safetensors(run, target)
            found[kind] = Exported(target, None, 0)
            continue
        if kind == "torch-export":
            from fastcls.running.loading import import_fastai

            import_fastai()
            from fastcls.running import torch_export as programs

            difference = programs.write(run, target, reference)
        else:
            difference = (deploy.onnx if kind == "onnx" else deploy.openvino)(run, target, reference)
        found[kind] = Exported(target, difference, images)
    return found


def _check(run: Path, kinds: Sequence[str], trust: bool) -> None:
    """Refuse, before anything is written, what this run or this installation cannot give."""
    if "torch-export" in kinds:
        recorded.recipe_file(run, runs.read_json(run / "run.json"))
        if not trust:
            raise UsageError(
                f"--torch-export builds the network by running the code in {run / 'recipe.py'}.",
                "Add --trust if you trust it; ONNX needs none of it.",
            )
    if "openvino" in kinds:
        deploy.import_openvino()
    for kind in ("onnx", "openvino"):
        if kind in kinds:
            if not (run / "model.onnx").is_file():
                raise OutputError(
                    f"--{kind}: {run} has no model.onnx; its network could not be exported when it was trained.",
                    "Its weights can be:  --safetensors",
                )
            Predictor(run)  # which refuses a damaged one
    if "safetensors" in kinds:
        if not (run / "model.safetensors").is_file():
            raise OutputError(f"--safetensors: {run} has no model.safetensors; it did not finish.")
        with deploy.opened_weights(run):  # which does too
            pass


def _check_free(targets: Sequence[Path]) -> None:
    """Refuse files that exist, and make their folder."""
    for target in targets:
        if target.exists():
            raise OutputError(f"{target} exists already.", "Remove it, or name another folder with -o.")
    home = targets[0].parent
    try:
        home.mkdir(exist_ok=True)
    except OSError as problem:
        raise OutputError(
            f"-o {home}: this folder cannot be made ({problem.strerror}).", "Name a folder in an existing one."
        ) from None
