"""Labels for new images from a run folder: ONNX, Pillow and NumPy, no torch, no pickle, no code of the run's."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from operator import attrgetter
from pathlib import Path

import numpy as np
from PIL import Image

from fastcls import preprocessing, runs
from fastcls.errors import DataError, OutputError

SUFFIXES = {".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
BATCH = 8  # images that one thread takes from file to probabilities; their activations should stay in its cache
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
    """

    def __init__(self, run: Path) -> None:
        import onnxruntime

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
        settings.intra_op_num_threads = 1
        try:
            self.session = onnxruntime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
        except Exception as problem:  # onnxruntime's own exception types are not public
            raise OutputError(f"{file} is not a readable ONNX model: {str(problem).splitlines()[0]}") from None
        images = self.session.get_inputs()[0]
        self.input, self.size = images.name, tuple(images.shape[2:])

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
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as problem:
                errors[index] = getattr(problem, "strerror", None) or str(problem).split(" '")[0] or "unreadable"
        rows = dict(zip(images, self._run(list(images.values())), strict=True)) if images else {}
        return [Prediction(path, rows.get(i), errors.get(i, "")) for i, path in enumerate(paths)]

    def _prepare(self, path: str) -> np.ndarray:
        image = preprocessing.prepare(path, self.spec)
        if image.shape[:2] != self.size:
            height, width = image.shape[:2]
            raise ValueError(f"{width} × {height} pixels, where the network takes {self.size[1]} × {self.size[0]}")
        return image

    def _run(self, images: list[np.ndarray]) -> np.ndarray:
        """Probabilities (n, classes) of prepared images."""
        inputs = {self.input: preprocessing.normalise(np.stack(images), self.spec)}
        logits = self.session.run(None, inputs)[0].astype(np.float64)
        exponentials = np.exp(logits - logits.max(1, keepdims=True))
        return exponentials / exponentials.sum(1, keepdims=True)


def _cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def collect(arguments: Sequence[str]) -> Iterator[str]:
    """Image files from paths, folders (searched through, sorted) and '-' (a list on standard input), as they are found.

    DataError at once where an argument names nothing or a folder without an image.
    """
    for argument in arguments:
        path = Path(argument).expanduser()
        if argument == "-":
            continue
        if path.is_dir() and next(_below(path), None) is None:
            raise DataError(f"{argument}: there are no images in this folder.", "Name a folder that holds some.")
        if not path.exists():
            raise DataError(f"{argument}: there is no such file or folder.", "Name image files or folders.")
    return chain.from_iterable(map(_files, arguments))


def _files(argument: str) -> Iterator[str]:
    path = Path(argument).expanduser()
    if argument == "-":
        yield from (line.rstrip("\n") for line in sys.stdin if line.strip())
    elif path.is_dir():
        yield from _below(path)
    else:
        yield str(path)


def _below(folder: str | Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        found = sorted(entries, key=attrgetter("name"))
    for entry in found:
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            with contextlib.suppress(PermissionError):
                yield from _below(path)
        elif path.suffix.lower() in SUFFIXES and not entry.name.startswith("."):
            yield str(path)
