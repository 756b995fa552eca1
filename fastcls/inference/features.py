"""What a run's network makes of images before its last layer: features, from its ONNX file. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastcls.images import preprocessing
from fastcls.inference.predictor import Predictor


class Features(Predictor):
    """A Predictor that gives features in place of probabilities; `has` says whether the network has any."""

    def _model(self, file: Path) -> str | bytes:
        import onnx

        from fastcls.inference.anatomy import Anatomy, dissect

        model = onnx.load(file)
        anatomy = dissect(model)
        self.has = anatomy.features is not None
        return (
            Anatomy(anatomy.outlet, anatomy.features, None).body(model).SerializeToString() if self.has else str(file)
        )

    def _run(self, images: list[np.ndarray]) -> np.ndarray:
        """(n, d) of prepared images."""
        return self._outputs(preprocessing.normalise(np.stack(images), self.spec))[1].reshape(len(images), -1)

    def of(self, paths: Sequence[str]) -> dict[str, np.ndarray]:
        """(d,) of each image that can be read."""
        found = self.predict(paths)
        return {one.path: one.probabilities for one in found if one.probabilities is not None}
