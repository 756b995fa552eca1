"""Predict through a run's recipe, for networks and transforms that have no ONNX form. Runs the run's code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from fastcls.errors import OutputError
from fastcls.evaluation.interpret import activation
from fastcls.inference.predictor import Prediction, softmax
from fastcls.models import weights
from fastcls.runfolder import model_files, recorded, runs
from fastcls.running.loading import prepared
from fastcls.settings import sources
from fastcls.settings.request import Request
from fastcls.training.history import quiet

BATCH = 32


class RecipePredictor:
    """Builds the Learner again by the recipe.py and the knobs of a run, and loads its weights.

    temperature: the logarithms of its probabilities are divided by it.
    """

    def __init__(self, run: Path, temperature: float = 1) -> None:
        self.temperature = temperature
        record, model = runs.read_json(run / "run.json"), model_files.read(run)
        recipe = recorded.recipe_file(run, record)
        self.classes: list[str] = list(model.get("classes", ()))
        file = model_files.verify(run, model_files.WEIGHTS, model)
        options, knobs = recorded.options(record), recorded.knobs(record)
        if knobs.get("weights", "none") != "none":
            knobs["weights"] = str(file)  # the run's own, which say too how its images were prepared
        request = Request(sources.read(recipe), knobs, options)
        with prepared(request) as ready:
            self.learn = ready.learn
        if [str(name) for name in self.learn.dls.vocab] != self.classes:
            raise OutputError(f"{run}: its recipe now gives other classes than those it was trained with.")
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
                probabilities, _ = self.learn.get_preds(dl=loader, act=activation(self.learn.loss_func))
            rows = torch.as_tensor(probabilities).double().cpu().numpy()
            if self.temperature != 1:
                rows = softmax(np.log(rows.clip(np.finfo(float).tiny)), self.temperature)
            yield from (Prediction(path, row) for path, row in zip(paths, rows, strict=True))
        except (OSError, SyntaxError) as problem:
            if len(paths) == 1:
                yield Prediction(paths[0], None, str(problem))
            else:
                for path in paths:
                    yield from self._chunk([path])
