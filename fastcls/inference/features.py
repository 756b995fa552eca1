"""What a run's network makes of images before its last layer: features, from its ONNX file. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fastcls.images import preprocessing
from fastcls.inference.predictor import Prediction, Predictor


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
