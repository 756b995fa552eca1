"""A run's network through its recipe: predictions where there is no ONNX form, and torch.export. Runs its code."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from fastcls.errors import OutputError
from fastcls.evaluation.interpret import activation
from fastcls.inference.deploy import Reference, checked, metadata
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


def write_program(run: Path, target: Path, reference: Reference | None) -> float | None:
    """A torch.export program (.pt2), which runs without fastcls and fastai; gives the difference to the Learner.

    Images to logits, any batch size; metadata.json inside.
    """
    learn = RecipePredictor(run).learn
    pair = input_example(learn).cpu().repeat(2, 1, 1, 1)  # a batch of one would be traced as a constant
    batch = torch.export.Dim("batch", min=1)
    try:
        program = torch.export.export(learn.model.cpu().eval(), (pair,), dynamic_shapes=({0: batch},))
    except Exception as problem:  # the exporter raises whatever the network's own code met
        raise OutputError(
            f"{target.name} was not written: torch.export cannot follow this network ({type(problem).__name__}).",
            "Try ONNX or safetensors.",
        ) from problem

    def save(temporary: Path) -> float | None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of weights that is in one block of memory; the check reads the file
            torch.export.save(program, temporary, extra_files={"metadata.json": json.dumps(metadata(run))})
        network = torch.export.load(temporary).module()

        def logits(images: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return network(torch.from_numpy(images)).numpy()

        return reference.check(logits, target) if reference else None

    return checked(target, save)
