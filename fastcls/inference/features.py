"""What a run's network makes of images before its last layer: features, from its ONNX file. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastcls.images import preprocessing
from fastcls.inference.predictor import Predictor


class Features(Predictor):
    """A Predictor that has features beside its probabilities, if the network `has` any."""

    def _model(self, file: Path) -> str | bytes:
        import onnx

        from fastcls.inference.anatomy import Anatomy, dissect

        model = onnx.load(file)
        anatomy = dissect(model)
        self.has = anatomy.features is not None
        body = Anatomy(anatomy.outlet, anatomy.features, None).body(model)
        return body.SerializeToString()

    def _run(self, images: list[np.ndarray]) -> np.ndarray:
        """Probabilities and features, (n, classes + d)."""
        logits, *features = self._outputs(preprocessing.normalise(np.stack(images), self.spec))
        probabilities = self.target.probabilities(logits, self.temperature)
        return np.hstack([probabilities, *(part.reshape(len(images), -1) for part in features)])

    def of(self, paths: Sequence[str]) -> dict[str, np.ndarray]:
        """(d,) of each image that can be read."""
        found = super().predict(paths)
        return {one.path: one.probabilities[len(self.classes) :] for one in found if one.probabilities is not None}
