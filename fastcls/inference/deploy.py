"""A run's network as files for other programs, each checked against the Learner's answers first. No torch."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastcls.errors import OutputError
from fastcls.images import preprocessing
from fastcls.images.decode import decode
from fastcls.inference.predictor import DECODING_ERRORS
from fastcls.machine import extras
from fastcls.runfolder import model_files, predictions, runs
from fastcls.runfolder import target as targets
from fastcls.version import __version__

TOLERANCE = 1e-3  # of a probability, as where a run checks its own model.onnx
CHECKED = 32  # real images that a file is checked on

Network = Callable[[np.ndarray], np.ndarray]  # prepared images (n, channels, height, width) to logits (n, classes)
PIXELS = {
    "input": "uint8 (batch, height, width, 3), or (batch, height, width) for gray: pixels of any size, upright",
    "output": "probabilities as `fastcls predict` writes them, and calibrated: at the temperature",
}


def metadata(run: Path) -> dict[str, str]:
    """What a program must know to use the network: classes, preprocessing and where it comes from, as text."""
    model, record = model_files.read(run), runs.read_json(run / "run.json")
    known = {
        "classes": json.dumps(model.get("classes"), ensure_ascii=False),
        "preprocessing": json.dumps(model.get("preprocessing")),
        "input": "float32 (batch, channels, height, width): pixels / 255, minus mean, over std",
        "output": "logits",
        "target": targets.of(model).kind,
        "arch": str(model.get("arch", "")),
        "recipe": str(record.get("recipe", "")),
        "written_by": f"fastcls {__version__}",
    }
    further = {name: json.dumps(model[name]) for name in ("temperature", "thresholds") if model.get(name) is not None}
    return known | further


@dataclass
class Reference:
    """Real images of a run, and what its Learner said of them in torch: the rows of predictions.csv."""

    paths: list[Path]
    images: np.ndarray  # (n, channels, height, width), as the network takes them
    classes: np.ndarray  # (n, k) indices of the classes that the row names
    probabilities: np.ndarray  # (n, k) of these
    target: targets.Target

    def check(self, network: Network, file: Path) -> float:
        """The largest difference of a probability to those of a network; OutputError above TOLERANCE."""
        return self.compare(self.target.probabilities(network(self.images)), file)

    def compare(self, probabilities: np.ndarray, file: Path) -> float:
        """The largest difference to probabilities (n, classes) of these images; OutputError above TOLERANCE."""
        found = np.take_along_axis(probabilities, self.classes, 1)
        difference = float(np.abs(found - self.probabilities).max())
        if not difference <= TOLERANCE:
            raise OutputError(
                f"{file.name} was not written: its probabilities differ from the Learner's by {difference:.2g}.",
                "This is a fault of the converter. Try another format.",
            )
        return difference


def reference(run: Path) -> Reference | None:
    """Some images of predictions.csv that can still be read; None where there are none, or no preprocessing."""
    model, record = model_files.read(run), runs.read_json(run / "run.json")
    root, spec = Path(record.get("data", {}).get("root", "")), model.get("preprocessing")
    if spec is None or not predictions.there(run):
        return None
    index = {name: i for i, name in enumerate(model["classes"])}
    paths, images, classes, probabilities = [], [], [], []
    table = predictions.of_run(run, probabilities=True)
    try:
        for row in table[:: max(1, len(table) // CHECKED)][:CHECKED].to_dict("records"):
            named = predictions.named(row)
            known = [index[name] for name in named], list(map(float, named.values()))
            with contextlib.suppress(*DECODING_ERRORS):
                images.append(preprocessing.load(root / row["path"], spec))
                paths.append(root / row["path"])
                classes.append(known[0])
                probabilities.append(known[1])
    except (KeyError, ValueError, TypeError) as problem:
        raise OutputError(f"{run / predictions.FILE} does not belong to {run / 'model.json'}: {problem}.") from None
    if not images:
        return None
    return Reference(paths, np.stack(images), np.array(classes), np.array(probabilities), targets.of(model))


def onnx(run: Path, target: Path, reference: Reference | None) -> float | None:
    """The run's network from pixels to probabilities, with its classes as metadata; the difference to the Learner."""
    import onnx as library

    mode = model_files.read(run)["preprocessing"]["mode"]
    model = _from_pixels(run, library.load(run / "model.onnx"))

    def write(temporary: Path) -> float | None:
        library.save(model, temporary)
        if not reference:
            return None
        network = _onnxruntime(temporary)
        found = np.concatenate([network(decode(path, mode)[None]) for path in reference.paths])
        return reference.compare(found, target)

    return checked(target, write)


def fewer_bits(run: Path, network: Any, target: Path, known: dict[str, str]) -> None:
    """A converted network from pixels to probabilities; known: what else its metadata says."""
    import onnx as library

    model = _from_pixels(run, network, known)
    runs.atomic_path(target, lambda temporary: library.save(model, temporary))


def _from_pixels(run: Path, network: Any, known: Mapping[str, str] | None = None) -> Any:
    """A network of the run as one graph from pixels to probabilities, with its metadata and what else is known."""
    import onnx as library

    from fastcls.inference import pipeline

    record = model_files.read(run)
    activation = targets.of(record).activation
    model = pipeline.whole(network, record["preprocessing"], record.get("temperature") or 1.0, activation)
    library.helper.set_model_props(model, metadata(run) | PIXELS | dict(known or {}))
    return model


def safetensors(run: Path, target: Path) -> None:
    """The weights as they are, with classes and preprocessing in the file's metadata."""
    from safetensors.numpy import save_file

    with opened_weights(run) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
    runs.atomic_path(target, lambda temporary: save_file(tensors, temporary, metadata(run)))


@contextlib.contextmanager
def opened_weights(run: Path) -> Iterator[Any]:
    """The run's model.safetensors, open; OutputError where it is not its own, or none."""
    from safetensors import SafetensorError, safe_open

    source = model_files.verify(run, model_files.WEIGHTS)
    try:
        model_files.refuse_long_header(source)
        with safe_open(source, framework="np") as file:
            yield file
    except (SafetensorError, OSError, TypeError, ValueError) as problem:
        raise OutputError(f"{source} is not a readable .safetensors file: {problem}.") from None


def openvino(run: Path, target: Path, reference: Reference | None) -> float | None:
    """The network as OpenVINO's .xml and, beside it, .bin; gives the difference to the Learner."""
    library = import_openvino()
    # convert_model would do the same for an ONNX file, and send a note of it to OpenVINO's makers
    model = library.Core().read_model(run / "model.onnx")
    for key, value in metadata(run).items():
        model.set_rt_info(value, ["fastcls", key])
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as folder:
        written = Path(folder, target.name)
        library.save_model(model, written, compress_to_fp16=False)
        network = library.Core().compile_model(written, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        difference = reference.check(lambda images: network(images)[0], target) if reference else None
        for part in (written.with_suffix(".bin"), written):  # who finds the .xml finds its weights
            shutil.move(part, target.with_suffix(part.suffix))
    return difference


def import_openvino() -> Any:
    """OpenVINO; EnvironmentProblem where it is not installed."""
    extras.require("--openvino", "openvino")
    import openvino

    return openvino


def _onnxruntime(file: Path) -> Network:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def checked(target: Path, write: Callable[[Path], float | None]) -> float | None:
    """Write a file that stays only if its check passes; gives what the check gave."""
    differences: list[float | None] = []
    runs.atomic_path(target, lambda temporary: differences.append(write(temporary)))
    return differences[0]
