"""A trained Learner becomes files that need neither fastai nor a pickle: model.safetensors, model.json, model.onnx."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from fastai.learner import Learner
from torch import nn

from fastcls import log
from fastcls.data import target
from fastcls.data.describe import describe_preprocessing
from fastcls.errors import OutputError
from fastcls.inference.predictor import Predictor
from fastcls.models import summary, weights
from fastcls.runfolder import model_files, onnx_safety, runs
from fastcls.settings import options
from fastcls.training import probe
from fastcls.training.step import input_example

TOLERANCE = 1e-3  # of the probabilities of a few validation images, ONNX and preprocessing against the Learner
CHECKED = 8  # images that the comparison looks at
NAMES: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"], "verbose": False}


def save(
    learn: Learner,
    run: Path,
    build: Mapping[str, Any],
    temperature: float = 1.0,
    thresholds: np.ndarray | None = None,
) -> None:
    """Write model.safetensors, model.json and, where the network allows it, model.onnx into a run folder.

    build: how to rebuild the network (recipe name and knobs), empty where nobody knows. temperature: what its logits
    are divided by to calibrate them. thresholds (labels,): from which probability on a label is predicted. A
    network that cannot be exported is noted.
    """
    weights.save(learn.model, run / "model.safetensors")
    spec: dict[str, Any] | None
    try:
        spec = describe_preprocessing(learn.dls)
        reason = ""
    except ValueError as problem:
        spec, reason = None, str(problem)
    example = input_example(learn)
    parameters, trained = summary.count(learn.model)
    record = {
        "format": runs.FORMAT,
        "arch": arch_name(learn),
        "pool": getattr(learn, "pool", "own"),
        "build": dict(build),
        "classes": [str(name) for name in learn.dls.vocab],
        "preprocessing": spec,
        "temperature": temperature,
        "target": target.of(learn.dls).kind,
        "thresholds": None if thresholds is None else [round(float(one), 6) for one in thresholds],
        "parameters": parameters,
        "trainable": trained,
        "summary": _summary(learn.model, example.shape[1:]),
    }
    if spec is not None:
        reason = _export_onnx(learn.model, example, run / "model.onnx")
    runs.write_json(run / model_files.RECORD, record | {"sha256": model_files.sums(run)})
    if reason:
        what = "will need --trust, to run this run's recipe" if build else "cannot run this network"
        options.note(f"no model.onnx: {reason}. `fastcls predict` {what}.")


def arch_name(learn: Learner) -> str:
    """What the network is called: by the recipe, by fastai's vision_learner, or by its class."""
    arch = getattr(learn, "arch_name", None) or getattr(learn, "arch", None)
    return arch if isinstance(arch, str) else getattr(arch, "__name__", type(learn.model).__name__)


def _summary(model: nn.Module, shape: torch.Size) -> list[dict[str, Any]]:
    try:
        return summary.summarize(model, shape)
    except RuntimeError as problem:  # the run is worth keeping all the same
        options.note(f"no network summary: {problem}")
        return []


def _export_onnx(model: nn.Module, example: torch.Tensor, file: Path) -> str:
    """Write the network (images → logits, any batch size) as ONNX; gives the reason where that fails."""
    training = model.training
    model.eval()
    device, layout = example.device, _memory_format(model)
    # the pooling of channels-last features was exported as a loop
    network: Any = model
    network.to("cpu", memory_format=torch.contiguous_format)
    pair = example.cpu().contiguous().repeat(2, 1, 1, 1)  # a batch of one would be traced as a constant
    reason = ""
    try:
        with log.hushed():
            runs.atomic_path(file, partial(_of_all_folds, network, pair))
    except Exception as problem:  # the exporter raises whatever the network's own code met
        reason = f"the network cannot be exported ({type(problem).__name__})"
    finally:
        network.to(device, memory_format=layout).train(training)
    return reason


def _of_all_folds(network: nn.Module, pair: torch.Tensor, file: Path) -> None:
    """As `_program`; of folds with one frozen network, the first one's file with their last layers."""
    layers = [named for named in network.named_modules() if isinstance(named[1], nn.Linear)]
    if not layers or not probe.is_sharing():
        return _program(network, pair, file)
    name, layer = layers[-1]
    own = {f"{name}.{part}".lstrip("."): value.detach().numpy().tobytes() for part, value in layer.named_parameters()}

    def first() -> tuple[bytes, dict[str, bytes]]:
        _program(network, pair, file)
        return file.read_bytes(), own

    data, before = probe.shared("onnx", f"{probe.digest(network, layer)} {name} {tuple(pair.shape)}", first)
    if before is own:
        return None
    model = onnx.load_from_string(data)
    held = {one.name: one for one in model.graph.initializer}
    if any(part not in held or held[part].raw_data != before[part] for part in own):
        return _program(network, pair, file)  # the exporter has made something else of the layer
    for part, value in own.items():
        held[part].raw_data = value
    file.write_bytes(model.SerializeToString())
    onnx_safety.look_through(file)
    return None


def _program(network: nn.Module, pair: torch.Tensor, file: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shapes = ({0: torch.export.Dim("batch", min=1)},)
        program = torch.onnx.export(network, (pair,), dynamo=True, dynamic_shapes=shapes, **NAMES)
        assert program is not None
        program.save(str(file), external_data=False)
    onnx_safety.look_through(file)


def _memory_format(model: nn.Module) -> torch.memory_format:
    images = [parameter for parameter in model.parameters() if parameter.dim() == 4 and not parameter.is_contiguous()]
    last = any(parameter.is_contiguous(memory_format=torch.channels_last) for parameter in images)
    return torch.channels_last if last else torch.contiguous_format


def verify(run: Path, paths: list[str], probabilities: np.ndarray) -> float | None:
    """The largest difference between the exported model's probabilities and the Learner's, on a few images.

    None where there is no model.onnx. One that differs by more than TOLERANCE is removed, and noted.
    """
    if not (run / "model.onnx").is_file():
        return None
    pick = np.linspace(0, len(paths) - 1, min(CHECKED, len(paths))).astype(int)
    try:
        exported = Predictor(run).probabilities([paths[i] for i in pick])
    except OutputError as problem:  # convolutions in 64 bits, say, which ONNX has and onnxruntime has not
        (run / "model.onnx").unlink()
        options.note(f"model.onnx was removed: onnxruntime cannot run it ({problem.message.rpartition(' : ')[2]}).")
        return None
    difference = float(np.abs(exported - probabilities[pick]).max())
    if not difference <= TOLERANCE:
        (run / "model.onnx").unlink()
        options.note(f"model.onnx was removed: its probabilities differ from the Learner's by {difference:.2g}.")
    return difference
