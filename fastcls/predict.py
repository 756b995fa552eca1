"""Labels for new images from a run folder: ONNX, Pillow and NumPy, no torch, no pickle, no code of the run's."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
from PIL import Image

from fastcls import preprocessing, runs
from fastcls.check import UNREADABLE, reason
from fastcls.errors import OutputError

BATCH = 8  # images that one thread takes from file to probabilities; their activations should stay in its cache
# what decoding an image raises where it cannot be read
DECODING_ERRORS = *UNREADABLE, Image.DecompressionBombError
AHEAD = 2  # batches a thread that may be under way or waiting to be taken


@dataclass(frozen=True)
class Prediction:
    """One image's answer; `error` says why there is none."""

    path: str
    probabilities: np.ndarray | None
    error: str = ""


class Predictor:
    """The network of a run folder, ready for image files.

    A thread a core takes a batch from its files to its probabilities, alone: the network on one core and the next
    one decoding beside it waste nothing on each other, where a network on all cores waits for its slowest part.

    temperature: the logits are divided by it.  mirror: the answer is the mean over the image and its mirror image.
    """

    threads = 1  # that the network uses for a batch

    def __init__(self, run: Path, temperature: float = 1, mirror: bool = False) -> None:
        import onnxruntime

        self.temperature, self.mirror = temperature, mirror

        model = runs.read_json(run / "model.json")
        try:
            self.classes: list[str] = list(model["classes"])
            self.spec = model["preprocessing"]
        except KeyError as problem:
            raise OutputError(f"{run / 'model.json'} lacks {problem}.") from None
        file = run / "model.onnx"
        if self.spec is None or not file.is_file():
            raise OutputError(
                f"{run} has no model.onnx: its network or its transforms could not be exported.",
                f"Predict through its recipe, which runs the code in {run / 'recipe.py'}, with --trust.",
            )
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        settings.intra_op_num_threads = self.threads
        try:
            self.session = onnxruntime.InferenceSession(self._model(file), settings, providers=["CPUExecutionProvider"])
        except Exception as problem:  # onnxruntime's own exception types are not public
            raise OutputError(f"{file} is not a readable ONNX model: {str(problem).splitlines()[0]}") from None
        images = self.session.get_inputs()[0]
        self.input, self.size = images.name, tuple(images.shape[2:])

    def _model(self, file: Path) -> str | bytes:
        """The network to run: an ONNX file, or the bytes of one."""
        return str(file)

    def probabilities(self, paths: Sequence[str]) -> np.ndarray:
        """(n, classes); raises where an image cannot be read."""
        return self._run([self._prepare(path) for path in paths])

    def predict(self, paths: Iterable[str]) -> Iterator[Prediction]:
        """An answer a path, in order; an image that cannot be read gets an error.

        Holds the images of a few batches a core, however many paths there are.
        """
        threads = _cores()
        paths = iter(paths)
        first = list(islice(paths, threads * BATCH))
        size = max(1, -(-len(first) // threads))  # few images are shared out evenly
        paths = chain(first, paths)
        pool = ThreadPoolExecutor(threads)
        waiting: deque[Future[list[Prediction]]] = deque()
        try:
            while batch := list(islice(paths, size)):
                waiting.append(pool.submit(self._batch, batch))
                if len(waiting) > AHEAD * threads:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _batch(self, paths: list[str]) -> list[Prediction]:
        images: dict[int, np.ndarray] = {}
        errors: dict[int, str] = {}
        for index, path in enumerate(paths):
            try:
                images[index] = self._prepare(path)
            except DECODING_ERRORS as problem:
                errors[index] = reason(problem)
        rows = dict(zip(images, self._run(list(images.values())), strict=True)) if images else {}
        return [Prediction(path, rows.get(i), errors.get(i, "")) for i, path in enumerate(paths)]

    def _prepare(self, source: str | np.ndarray) -> np.ndarray:
        image = preprocessing.prepare(source, self.spec)
        if image.shape[:2] != self.size:
            height, width = image.shape[:2]
            raise ValueError(f"{width} × {height} pixels, where the network takes {self.size[1]} × {self.size[0]}")
        return image

    def _run(self, images: list[np.ndarray]) -> np.ndarray:
        """Probabilities (n, classes) of prepared images."""
        batch = preprocessing.normalise(np.stack(images), self.spec)
        answer = self._network(batch)
        if self.mirror:
            answer = (answer + self._network(np.ascontiguousarray(batch[..., ::-1]))) / 2
        return answer

    def _network(self, batch: np.ndarray) -> np.ndarray:
        return softmax(self.session.run(None, {self.input: batch})[0], self.temperature)


def softmax(logits: np.ndarray, temperature: float = 1) -> np.ndarray:
    """Probabilities (n, classes) of logits, or of the logarithms of other probabilities, divided by a temperature."""
    scaled = logits.astype(np.float64) / temperature
    exponentials = np.exp(scaled - scaled.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def temperature_of(run: Path) -> float:
    """The temperature that was fitted on the run's validation split; OutputError where there is none."""
    value = runs.read_json(run / "model.json").get("temperature")
    if value is None:
        raise OutputError(
            f"--calibrated: {run / 'model.json'} has no temperature.",
            "It is fitted on the validation split at the end of training: train again with this fastcls, "
            "or leave --calibrated away.",
        )
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise OutputError(f"{run / 'model.json'}: temperature is {value!r}, where a number above 0 belongs.")
    return float(value)


def _cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
