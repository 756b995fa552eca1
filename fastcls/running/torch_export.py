"""A run's network as a torch.export program (.pt2), which runs without fastcls and fastai. Runs the run's recipe."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import torch

from fastcls.errors import OutputError
from fastcls.inference.deploy import Reference, checked, metadata
from fastcls.running.replay import RecipePredictor
from fastcls.training.step import input_example


def write(run: Path, target: Path, reference: Reference | None) -> float | None:
    """Images to logits, any batch size; metadata.json inside. Gives the difference to the Learner."""
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
