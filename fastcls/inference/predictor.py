"""Labels for new images from a run folder: ONNX, Pillow and NumPy, no torch, no pickle, no code of the run's."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastcls.errors import OutputError
from fastcls.images import preprocessing
from fastcls.images.check import UNREADABLE, reason
from fastcls.machine import host
from fastcls.runfolder import model_files, onnx_safety, runs
from fastcls.runfolder import target as targets

BATCH = 8  # images that one thread takes from file to probabilities; their activations should stay in its cache
# what decoding an image raises where it cannot be read
DECODING_ERRORS = *UNREADABLE, Image.DecompressionBombError
OF_ONE_RUN = "Use model.json and model.onnx from the same run, unchanged."
EXTREME = 1000  # a temperature, or its reciprocal, that no fit finds
AHEAD = 2  # batches a thread that may be under way or waiting to be taken


@dataclass(frozen=True)
class Prediction:
    """One image's answer; `error` says why there is none. p_known: as `unknown.Knower` gives it.

    features (d,) and energy, the negative log-sum-exp of the logits: as `Features` gives them.
    """

    path: str
    probabilities: np.ndarray | None
    error: str = ""
    p_known: float | None = None
    features: np.ndarray | None = None
    energy: float = 0.0


class Predictor:
    """The network of a run folder, ready for image files.

    A thread a core takes a batch from its files to its probabilities, alone: the network on one core and the next
    one decoding beside it waste nothing on each other, where a network on all cores waits for its slowest part.

    temperature: the logits are divided by it.  mirror: the answer is the mean over the image and its mirror image.
    """

    threads = 1  # that the network uses for a batch
    width = 0  # of the features that go with a prediction

    def __init__(self, run: Path, temperature: float = 1, mirror: bool = False) -> None:
        import onnxruntime

        self.temperature, self.mirror = temperature, mirror

        model = model_files.read(run)
        self.classes: list[str] = list(model.get("classes", ()))
        self.target, self.thresholds = targets.of(model), targets.thresholds(model, temperature)
        spec = model.get("preprocessing")
        self.file = file = model_files.verify(run, model_files.NETWORK, model)
        if spec is None or not file.is_file():
            recipe = run / "recipe.py"
            if (run / runs.EVALUATION).is_file():
                other = runs.read_json(run / runs.EVALUATION).get("run")
                raise OutputError(f"{run} is an evaluation, which has no network.", f"Use its run: {other}")
            model_files.refuse_several(run, model)
            raise OutputError(
                f"{run} has no model.onnx: its network or its transforms could not be exported.",
                f"Use --trust to predict with its recipe, which runs the code in {recipe}."
                if recipe.is_file()
                else "It has no recipe either: use the Learner it was saved from, learn.predict(file).",
            )
        self.spec: dict[str, Any] = spec
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 4  # what is wrong comes as an exception
        settings.intra_op_num_threads = self.threads
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")  # a core is never kept for nothing
        try:
            onnx_safety.look_through(file)
            self.session = onnxruntime.InferenceSession(self._model(file), settings, providers=providers())
        except onnx_safety.Unsafe as problem:
            raise OutputError(f"{file} is refused: {problem}.", "No network exported by fastcls does this.") from None
        except Exception as problem:  # onnxruntime's own exception types are not public
            raise OutputError(f"{file} is not a readable ONNX model: {str(problem).splitlines()[0]}") from None
        self.input, self.size = self._shape_of_an_image()

    def _shape_of_an_image(self) -> tuple[str, tuple[int, ...]]:
        """The input's name, and the height and width that it takes; OutputError where it fits model.json not."""
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        images, answers = (inputs[0].shape, outputs[0].shape) if inputs and outputs else ([], [])
        channels, count = model_files.CHANNELS[self.spec["mode"]], len(self.classes)
        size = tuple(self.spec["size"]) if self.spec["method"] else tuple(images[2:])
        if (
            len(inputs) != 1
            or inputs[0].type != "tensor(float)"
            or len(images) != 4
            or images[1] != channels
            or any(isinstance(side, int) and side != own for side, own in zip(images[2:], size, strict=True))
        ):
            raise OutputError(f"{self.file} expects {images}, but model.json prepares {[channels, *size]}.", OF_ONE_RUN)
        if len(answers) != 2 or not count or (isinstance(answers[1], int) and answers[1] != count):
            raise OutputError(f"{self.file} returns {answers}, but model.json has {count} classes.", OF_ONE_RUN)
        return inputs[0].name, tuple(images[2:])

    def _model(self, file: Path) -> str | bytes:
        """The network to run: an ONNX file, or the bytes of one."""
        return str(file)

    def probabilities(self, images: Sequence[str | np.ndarray]) -> np.ndarray:
        """(n, classes) of files or decoded pixels; raises where an image cannot be read."""
        return self._run([self._prepare(image) for image in images])

    def predict(self, paths: Iterable[str]) -> Iterator[Prediction]:
        """An answer a path, in order; an image that cannot be read gets an error.

        Holds the images of a few batches a core, however many paths there are.
        """
        threads = host.cores()
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
            raise ValueError(f"{width} × {height} pixels, but the network expects {self.size[1]} × {self.size[0]}")
        return image

    def _run(self, images: list[np.ndarray]) -> np.ndarray:
        """Probabilities (n, classes) of prepared images."""
        batch = preprocessing.normalise(np.stack(images), self.spec)
        answer = self._network(batch)
        if self.mirror:
            answer = (answer + self._network(np.ascontiguousarray(batch[..., ::-1]))) / 2
        return answer

    def _network(self, batch: np.ndarray) -> np.ndarray:
        return self.target.probabilities(self._outputs(batch)[0], self.temperature)

    def _outputs(self, batch: np.ndarray) -> list[np.ndarray]:
        """What the network gives, the logits (n, classes) first; OutputError where these are none."""
        try:
            outputs = self.session.run(None, {self.input: batch})
        except Exception as problem:  # as above
            raise OutputError(f"{self.file} cannot be run: {str(problem).splitlines()[0]}") from None
        shape = len(batch), len(self.classes)
        if outputs[0].shape != shape or not np.isfinite(outputs[0]).all():
            what = "NaN or infinite" if outputs[0].shape == shape else f"of the shape {outputs[0].shape}, not {shape}"
            raise OutputError(f"{self.file}: its outputs are {what}.", OF_ONE_RUN)
        return outputs


class Average(Predictor):
    """The mean of the members' probabilities; an image is read and prepared once.

    OutputError where a member prepares images otherwise, or knows other classes.
    """

    def __init__(self, run: Path, temperature: float = 1, mirror: bool = False) -> None:
        model = model_files.read(run)
        folders = [run / name for name in model["members"]]
        for folder in folders:
            runs.read_json(folder / "run.json")  # which refuses what is no run folder, and what leads out of it
        self.members = [Predictor(folder, temperature, mirror=False) for folder in folders]
        vars(self).update(vars(self.members[0]))
        for folder, member in zip(folders, self.members, strict=True):
            if (member.spec, member.classes, member.size) != (self.spec, list(model["classes"]), self.size):
                raise OutputError(
                    f"{folder} has different preprocessing from {folders[0]}, or different classes from {run}.",
                    f"Run the folds again, or predict with one of them: {folders[0]}.",
                )
        self.mirror, self.thresholds = mirror, targets.thresholds(model, temperature)

    def _network(self, batch: np.ndarray) -> np.ndarray:
        mean: np.ndarray = np.mean([member._network(batch) for member in self.members], axis=0)
        return mean


class Features(Predictor):
    """A Predictor that gives features, `width` of them or none where that is 0, and the energy of its logits."""

    def __init__(self, run: Path, temperature: float = 1) -> None:
        super().__init__(run, temperature)
        if len(self.session.get_outputs()) > 1:
            black = np.zeros(self.size if self.spec["mode"] == "L" else (*self.size, 3), np.uint8)
            self.width = self._run([black]).shape[1] - len(self.classes) - 1

    def _model(self, file: Path) -> str | bytes:
        import onnx

        from fastcls.inference.anatomy import Anatomy, dissect

        model = onnx.load(file)
        anatomy = dissect(model)
        body = Anatomy(anatomy.outlet, anatomy.features, None).body(model)
        return body.SerializeToString()

    def _run(self, images: list[np.ndarray]) -> np.ndarray:
        """Probabilities, energy and features, (n, classes + 1 + d)."""
        from scipy.special import logsumexp

        logits, *features = self._outputs(preprocessing.normalise(np.stack(images), self.spec))
        probabilities = self.target.probabilities(logits, self.temperature)
        energy = -logsumexp(logits.astype(np.float64), 1, keepdims=True)
        return np.hstack([probabilities, energy, *(part.reshape(len(images), -1) for part in features)])

    def predict(self, paths: Iterable[str]) -> Iterator[Prediction]:
        for answer in super().predict(paths):
            if answer.probabilities is not None:
                k = len(self.classes)
                p, energy, features = np.split(answer.probabilities, [k, k + 1])
                answer = replace(answer, probabilities=p, features=features, energy=float(energy[0]))
            yield answer

    def of(self, paths: Sequence[str]) -> dict[str, np.ndarray]:
        """(d,) of each image that can be read."""
        return {one.path: one.features for one in self.predict(paths) if one.features is not None}


def providers() -> list[str]:
    """Where the network runs: on an Nvidia GPU where onnxruntime-gpu is installed, else on the CPU."""
    import onnxruntime

    there = onnxruntime.get_available_providers()
    return [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in there]


def temperature_of(run: Path) -> float:
    """The temperature that was fitted on the run's validation split; OutputError where there is none."""
    value = model_files.read(run).get("temperature")
    if value is None:
        raise OutputError(
            f"--calibrated: {run / 'model.json'} has no temperature.",
            "It is fitted on the validation split at the end of training: train again with this fastcls, "
            "or omit --calibrated.",
        )
    if not 1 / EXTREME <= value <= EXTREME:
        least = f"{1 / EXTREME:g} to {EXTREME:,}"
        raise OutputError(f"{run / 'model.json'}: temperature is {value!r} instead of a number from {least}.")
    return float(value)
