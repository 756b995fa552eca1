"""A run's ONNX network in fewer bits, by onnxruntime's own tools, and what that does to its predictions. No torch.

int8: weights and activations of eight bits, a scale a channel; activations are calibrated on training images (static
quantisation, Jacob et al. 2018). fp16: half precision, for GPUs; on most CPUs it is no faster.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastcls import log
from fastcls.errors import OutputError
from fastcls.images import preprocessing
from fastcls.inference.predictor import DECODING_ERRORS
from fastcls.runfolder import target as targets

CALIBRATION = 128  # training images that the activations' ranges are taken from
JUDGED = 1000  # validation images at most
TIMED = 32  # images of a round at least, ROUNDS rounds in turn; the median of their ratios is the gain
ROUNDS = 5
SPENT, MOST_REPEATS = 0.1, 4096  # seconds of a round at least, unless the clock stands still
BATCH = 8


@dataclass(frozen=True)
class Cost:
    """What fewer bits do: on n images, right with the run's own network and with the smaller one.

    only_before, only_after: images that one of them alone gets right. gain: processor time before over after.
    """

    n: int
    before: int
    after: int
    only_before: int
    only_after: int
    gain: float
    bytes_before: int
    bytes_after: int


def converted(kind: str, network: Path, spec: dict[str, Any], images: Sequence[Path]) -> Any:
    """The network as an onnx.ModelProto of `kind`, 'int8' or 'fp16'; images: of training, for int8."""
    import onnx

    try:
        with log.hushed():  # onnxruntime's tools advise by logging and by print
            if kind == "fp16":
                from onnxruntime.transformers.float16 import convert_float_to_float16
                from onnxruntime.transformers.onnx_model import OnnxModel

                half = OnnxModel(convert_float_to_float16(onnx.load(network), keep_io_types=True))
                half.topological_sort()  # the casts that were added stand last
                return half.model
            return _int8(network, spec, images)
    except OutputError:
        raise
    except Exception as problem:  # onnxruntime's tools raise what they like
        what = (str(problem).splitlines() or [type(problem).__name__])[0]
        raise OutputError(f"--{kind}: {network} cannot be converted: {what}.", "Use --onnx.") from problem


def _int8(network: Path, spec: dict[str, Any], images: Sequence[Path]) -> Any:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared, kept = _batch([images[i] for i in _evenly(len(images), CALIBRATION)], spec)
    if not kept:
        raise OutputError(
            "--int8: no training image of this run can be read any more, and calibration needs some.",
            "Restore the images at the location in run.json (data, root), or use --fp16.",
        )
    name = onnx.load(network, load_external_data=False).graph.input[0].name

    class Images(CalibrationDataReader):
        rest = iter(prepared)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.rest, None)
            return None if image is None else {name: image[None]}

    with tempfile.TemporaryDirectory() as folder:
        simple, small = Path(folder, "simple.onnx"), Path(folder, "int8.onnx")
        quant_pre_process(str(network), str(simple), skip_symbolic_shape=True)
        quantize_static(
            str(simple),
            str(small),
            Images(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(small)


def judged(network: Path, small: Any, model: Mapping[str, Any], known: Sequence[tuple[Path, str]]) -> Cost | None:
    """The cost of the smaller network on images and their labels, evenly chosen; None where none can be read.

    model: model.json.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.log_severity_level = 1, 3
    content = small.SerializeToString()
    whole, less = (
        onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
        for model in (str(network), content)
    )
    name = whole.get_inputs()[0].name
    chosen = [known[i] for i in _evenly(len(known), JUDGED)]
    right, timed = [], None
    for start in range(0, len(chosen), BATCH):
        rows = chosen[start : start + BATCH]
        batch, kept = _batch([image for image, _ in rows], model["preprocessing"])
        if not kept:
            continue
        truth = np.array([rows[i][1] for i in kept])
        right.append([_predicted(session.run(None, {name: batch})[0], model) == truth for session in (whole, less)])
        timed = batch if timed is None else timed
    if timed is None:
        return None
    before, after = (np.concatenate(side) for side in zip(*right, strict=True))

    def seconds(session: Any) -> float:
        started = time.process_time()
        for _ in range(repeats):
            session.run(None, {name: timed})
        return time.process_time() - started

    repeats = -(-TIMED // len(timed))
    while seconds(whole) < SPENT and repeats < MOST_REPEATS:  # the clock of some systems has steps of 16 ms
        repeats *= 2
    gains = [seconds(whole) / max(seconds(less), 1e-9) for _ in range(ROUNDS)]
    return Cost(
        n=len(before),
        before=int(before.sum()),
        after=int(after.sum()),
        only_before=int((before & ~after).sum()),
        only_after=int((after & ~before).sum()),
        gain=float(np.median(gains)),
        bytes_before=network.stat().st_size,
        bytes_after=len(content),
    )


def _predicted(logits: np.ndarray, model: Mapping[str, Any]) -> np.ndarray:
    """(n,) the label of each image, as splits.csv has it."""
    target, thresholds = targets.of(model), targets.thresholds(model)
    chosen = (target.answer(p, thresholds, 0)[0] for p in target.probabilities(logits))
    return np.array([target.text(model["classes"][i] for i in row) for row in chosen])


def _batch(images: Sequence[Path], spec: dict[str, Any]) -> tuple[np.ndarray, list[int]]:
    """(n, channels, height, width) of those that can be read, and which these are."""
    found, kept = [], []
    for i, image in enumerate(images):
        with contextlib.suppress(*DECODING_ERRORS):
            found.append(preprocessing.load(image, spec))
            kept.append(i)
    return (np.stack(found) if found else np.empty(0)), kept


def _evenly(n: int, most: int) -> list[int]:
    return np.linspace(0, n - 1, min(n, most)).astype(int).tolist()
