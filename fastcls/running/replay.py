"""Predict and explain through a run's recipe, for networks and transforms without an ONNX form. Runs its code."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from fastcls.errors import DataError, OutputError
from fastcls.evaluation import gradcam
from fastcls.evaluation.interpret import activation
from fastcls.inference.explain import Explanation
from fastcls.inference.predictor import Prediction
from fastcls.models import weights
from fastcls.runfolder import model_files, recorded, runs
from fastcls.runfolder import target as targets
from fastcls.running.loading import prepared
from fastcls.settings import sources
from fastcls.settings.request import Request
from fastcls.training.history import quiet
from fastcls.training.step import input_example

BATCH = 32


class RecipePredictor:
    """Builds the Learner again by the recipe.py and the knobs of a run, and loads its weights.

    temperature: the logarithms of its probabilities are divided by it.
    """

    width = 0  # of features: it gives none

    def __init__(self, run: Path, temperature: float = 1) -> None:
        self.temperature = temperature
        record, model = runs.read_json(run / "run.json"), model_files.read(run)
        recipe = recorded.recipe_file(run, record)
        self.classes: list[str] = list(model.get("classes", ()))
        self.target, self.thresholds = targets.of(model), targets.thresholds(model, temperature)
        file = model_files.verify(run, model_files.WEIGHTS, model)
        options, knobs = recorded.options(record), recorded.knobs(record)
        if knobs.get("weights", "none") != "none":
            knobs["weights"] = str(file)  # the run's own, which say too how its images were prepared
        request = Request(sources.read(recipe), knobs, options)
        with prepared(request) as ready:
            self.learn = ready.learn
        if [str(name) for name in self.learn.dls.vocab] != self.classes:
            raise OutputError(f"{run}: its recipe now has different classes from those it was trained with.")
        weights.load(self.learn.model, file)

    def predict(self, paths: Iterable[str]) -> Iterator[Prediction]:
        """An answer a path, in order; an image that cannot be read gets an error."""
        rest = iter(paths)
        while chunk := list(islice(rest, BATCH)):
            yield from self._chunk(chunk)

    def _chunk(self, paths: list[str]) -> Iterator[Prediction]:
        try:
            with quiet(self.learn):
                loader = self.learn.dls.test_dl([Path(p) for p in paths], num_workers=0)
                probabilities, _ = self.learn.get_preds(dl=loader, act=activation(self.learn.loss_func, self.target))
            rows = torch.as_tensor(probabilities).double().cpu().numpy()
            if self.temperature != 1:
                rows = self.target.softened(rows, self.temperature)
            yield from (Prediction(path, row) for path, row in zip(paths, rows, strict=True))
        except (OSError, SyntaxError) as problem:
            if len(paths) == 1:
                yield Prediction(paths[0], None, str(problem))
            else:
                for path in paths:
                    yield from self._chunk([path])


class RecipeExplainer(RecipePredictor):
    """A RecipePredictor that says why."""

    mode = "RGB"  # the recipe's own transforms take it from there

    def __init__(self, run: Path, temperature: float = 1) -> None:
        super().__init__(run, temperature)
        layers = [module for module in self.learn.model.modules() if isinstance(module, nn.Linear)]
        self.last = layers[-1] if layers else None
        self.has_heat = gradcam.heatmaps(self.learn.model, input_example(self.learn), [0]) is not None

    def explain(self, pixels: np.ndarray, top: int) -> Explanation:
        """An image as `decode` gives it, uint8 (h, w, 3); DataError where the network cannot take it."""
        with _as_files([pixels]) as (file,):
            with self._features() as features:
                (answer,) = self.predict([str(file)])
            if answer.probabilities is None:
                raise DataError(f"{answer.error}.")
            loader = self.learn.dls.test_dl([file], num_workers=0)
            batch = loader.one_batch()
        likeliest = np.argsort(-answer.probabilities, kind="stable")[:top].tolist()
        (image,) = (tensor.as_subclass(torch.Tensor) for tensor in batch)
        heat = gradcam.heatmaps(self.learn.model, image.expand(len(likeliest), -1, -1, -1), likeliest)
        (decoded,) = loader.decode(batch)
        return Explanation(
            _pixels(decoded[0].as_subclass(torch.Tensor)),
            answer.probabilities,
            likeliest,
            features[0][0] if features else None,
            None if heat is None else heat.numpy(),
        )

    def probabilities(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """(n, classes) of images as `decode` gives them; DataError where the network cannot take one."""
        with _as_files(images) as files:
            answers = list(self.predict(str(file) for file in files))
        if problem := next((answer.error for answer in answers if answer.error), ""):
            raise DataError(f"{problem}.")
        return np.stack([answer.probabilities for answer in answers if answer.probabilities is not None])

    def features(self, paths: Sequence[str]) -> np.ndarray | None:
        """(n, d), or None for a network that has none; raises where an image cannot be read."""
        with self._features() as features, quiet(self.learn):
            self.learn.get_preds(dl=self.learn.dls.test_dl([Path(path) for path in paths], num_workers=0))
        return np.concatenate(features) if features else None

    @contextlib.contextmanager
    def _features(self) -> Iterator[list[np.ndarray]]:
        """What the last linear layer is given meanwhile, (n, d) a batch."""
        found: list[np.ndarray] = []
        if self.last is None:
            yield found
            return
        hook = self.last.register_forward_pre_hook(
            lambda _, inputs: found.append(inputs[0].detach().flatten(1).float().cpu().numpy())
        )
        try:
            yield found
        finally:
            hook.remove()


def _pixels(image: torch.Tensor) -> np.ndarray:
    """A decoded image (channels, h, w), of 0 to 1 or of integers up to 255, as uint8 (h, w[, 3])."""
    levels = image.float().cpu() * (255 if image.is_floating_point() else 1)
    pixels = levels.clamp(0, 255).round().to(torch.uint8).movedim(0, 2).numpy()
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels


@contextlib.contextmanager
def _as_files(images: Sequence[np.ndarray]) -> Iterator[list[Path]]:
    """Files of pixels, where fastai's pipeline begins."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{i}.png") for i in range(len(images))]
        for file, pixels in zip(files, images, strict=True):
            Image.fromarray(pixels).save(file, compress_level=0)
        yield files
