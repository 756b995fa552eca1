"""The mean of the networks of all folds, as one network that answers for image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastcls.errors import OutputError
from fastcls.inference.predictor import Predictor
from fastcls.runfolder import model_files, runs
from fastcls.runfolder import target as targets


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
