"""Labels for new images from a run folder: ONNX, Pillow and NumPy, no torch, no pickle, no code of the run's."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastcls import preprocessing, runs
from fastcls.errors import DataError, OutputError

SUFFIXES = {".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
BATCH = 32


@dataclass(frozen=True)
class Prediction:
    """One image's answer; `error` says why there is none."""

    path: str
    probabilities: np.ndarray | None
    error: str = ""


class Predictor:
    """The network of a run folder, ready for image files."""

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
        try:
            self.session = onnxruntime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
        except Exception as problem:  # onnxruntime's own exception types are not public
            raise OutputError(f"{file} is not a readable ONNX model: {str(problem).splitlines()[0]}") from None

    def probabilities(self, paths: Sequence[str]) -> np.ndarray:
        """(n, classes); raises where an image cannot be read."""
        return self._softmax(np.stack([preprocessing.load(path, self.spec) for path in paths]))

    def _softmax(self, images: np.ndarray) -> np.ndarray:
        logits = self.session.run(None, {self.session.get_inputs()[0].name: images})[0].astype(np.float64)
        exponentials = np.exp(logits - logits.max(1, keepdims=True))
        return exponentials / exponentials.sum(1, keepdims=True)

    def predict(self, paths: Iterable[str]) -> Iterator[Prediction]:
        """An answer a path, in order, in bounded memory; an image that cannot be read gets an error."""
        chunk: list[str] = []
        for path in paths:
            chunk.append(path)
            if len(chunk) == BATCH:
                yield from self._chunk(chunk)
                chunk = []
        if chunk:
            yield from self._chunk(chunk)

    def _chunk(self, paths: list[str]) -> Iterator[Prediction]:
        images: dict[int, np.ndarray] = {}
        errors: dict[int, str] = {}
        for index, path in enumerate(paths):
            try:
                images[index] = preprocessing.load(path, self.spec)
            except (OSError, SyntaxError, ValueError) as problem:
                errors[index] = getattr(problem, "strerror", None) or str(problem).split(" '")[0] or "unreadable"
        answers: dict[int, np.ndarray] = {}
        shapes: dict[tuple[int, ...], list[int]] = {}
        for index, image in images.items():  # a network without a fixed size may get images of several
            shapes.setdefault(image.shape, []).append(index)
        for same in shapes.values():
            answers.update(zip(same, self._softmax(np.stack([images[i] for i in same])), strict=True))
        for index, path in enumerate(paths):
            yield Prediction(path, answers.get(index), errors.get(index, ""))


def collect(arguments: Sequence[str]) -> list[str]:
    """Image files from paths, folders (searched through, sorted) and '-' (a list on standard input)."""
    found: list[str] = []
    for argument in arguments:
        path = Path(argument).expanduser()
        if argument == "-":
            found += [line.rstrip("\n") for line in sys.stdin if line.strip()]
        elif path.is_dir():
            images = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
            if not images:
                raise DataError(f"{argument}: there are no images in this folder.", "Name a folder that holds some.")
            found += map(str, images)
        elif path.exists():
            found.append(str(path))
        else:
            raise DataError(f"{argument}: there is no such file or folder.", "Name image files or folders.")
    return found
