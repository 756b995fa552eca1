"""A run's network as files for other programs: what this run can give, checked before anything is written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from fastcls.comparison.differences import McNemar, images_interval
from fastcls.errors import OutputError, UsageError, did_you_mean
from fastcls.inference import deploy, fewer_bits
from fastcls.inference.predictor import Predictor
from fastcls.runfolder import model_files, recorded, runs, splits

FILES = {
    "onnx": "model.onnx",
    "safetensors": "model.safetensors",
    "torch-export": "model.pt2",
    "openvino": "model.xml",
    "int8": "model-int8.onnx",
    "fp16": "model-fp16.onnx",
}
FEWER_BITS = ("int8", "fp16")


class Exported(NamedTuple):
    """A file, the largest difference of a probability to the Learner's, and the images that it was found on.

    difference: None where nothing was compared: weights alone, fewer bits, or no image of the run can be read any more.
    cost: what fewer bits do to accuracy, time and size; it is in a JSON file beside the network, too.
    """

    file: Path
    difference: float | None
    images: int
    cost: dict[str, Any] | None = None


def export(run: Path, kinds: Sequence[str], out: Path | None, trust: bool) -> dict[str, Exported]:
    """Write the network of a run as files of these kinds; see `fastcls.export`."""
    if unknown := [kind for kind in kinds if kind not in FILES]:
        raise UsageError(f"Unknown export format {unknown[0]!r}{did_you_mean(unknown[0], FILES) or '.'}")
    _check(run, kinds, trust)
    home = out or run / "export"
    with _removed_if_empty(home):
        return _export(run, kinds, home)


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


def _export(run: Path, kinds: Sequence[str], home: Path) -> dict[str, Exported]:
    targets = {kind: home / FILES[kind] for kind in kinds}
    beside = {"openvino": "model.bin", "int8": "model-int8.json", "fp16": "model-fp16.json"}
    _check_free([*targets.values(), *(home / beside[kind] for kind in kinds if kind in beside)])
    reference = None if {*kinds} <= {"safetensors", *FEWER_BITS} else deploy.reference(run)
    images = 0 if reference is None else len(reference.images)
    found = {}
    for kind, target in targets.items():
        if kind == "safetensors":
            deploy.safetensors(run, target)
            found[kind] = Exported(target, None, 0)
        elif kind in FEWER_BITS:
            found[kind] = Exported(target, None, 0, _fewer_bits(run, kind, target))
        else:
            write = {"onnx": deploy.onnx, "openvino": deploy.openvino, "torch-export": _torch_export}[kind]
            found[kind] = Exported(target, write(run, target, reference), images)
    return found


def _torch_export(run: Path, target: Path, reference: deploy.Reference | None) -> float | None:
    from fastcls.running.loading import import_fastai

    import_fastai()
    from fastcls.running import replay

    return replay.write_program(run, target, reference)


def _fewer_bits(run: Path, kind: str, target: Path) -> dict[str, Any] | None:
    """Write the network in fewer bits, from pixels to probabilities; gives what that costs on the validation images."""
    model, record = model_files.read(run), runs.read_json(run / "run.json")
    root, network = Path(record.get("data", {}).get("root", "")), run / "model.onnx"
    parts: dict[str, list[tuple[Path, str]]] = {"train": [], "valid": []}
    for path, label, split in splits.read(run):
        parts.setdefault(split, []).append((root / path, label))
    small = fewer_bits.converted(kind, network, model["preprocessing"], [path for path, _ in parts["train"]])
    cost = fewer_bits.judged(network, small, model, parts["valid"])
    found = None
    if cost is not None:
        test = McNemar(cost.n, cost.only_before, cost.only_after, 1.0)
        difference, low, high = images_interval(test)
        found = asdict(cost) | {"split": "valid", "difference": difference, "low": low, "high": high}
    deploy.fewer_bits(run, small, target, {"bits": kind})
    if found is not None:
        runs.write_json(target.with_suffix(".json"), found)
    return found


def _check(run: Path, kinds: Sequence[str], trust: bool) -> None:
    """Refuse, before anything is written, what this run or this installation cannot give."""
    model_files.refuse_several(run, model_files.read(run))
    if "torch-export" in kinds:
        recorded.recipe_file(run, runs.read_json(run / "run.json"))
        if not trust:
            raise UsageError(
                f"--torch-export builds the network by running the code in {run / 'recipe.py'}.",
                "Add --trust if you trust it; ONNX does not need it.",
            )
    if "openvino" in kinds:
        deploy.import_openvino()
    for kind in ("onnx", "openvino", *FEWER_BITS):
        if kind in kinds:
            if not (run / "model.onnx").is_file():
                raise OutputError(
                    f"--{kind}: {run} has no model.onnx: its network could not be exported when it was trained.",
                    "Export its weights instead:  --safetensors",
                )
            Predictor(run)  # which refuses a damaged one
    if "safetensors" in kinds:
        if not (run / "model.safetensors").is_file():
            raise OutputError(f"--safetensors: {run} has no model.safetensors, because it did not finish.")
        with deploy.opened_weights(run):  # which does too
            pass


def _check_free(targets: Sequence[Path]) -> None:
    """Refuse files that exist, and make their folder."""
    for target in targets:
        if target.exists():
            raise OutputError(f"{target} exists already.", "Remove it, or choose another folder with -o.")
    home = targets[0].parent
    try:
        home.mkdir(exist_ok=True)
    except OSError as problem:
        why = "there is a file of this name" if home.exists() else problem.strerror
        raise OutputError(
            f"-o {home}: this folder cannot be created ({why}).", "Choose a folder inside an existing one."
        ) from None
