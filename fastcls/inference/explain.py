"""An image's answer with its reasons, from a run's ONNX file: probabilities, features, Grad-CAM. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastcls.errors import DataError
from fastcls.images import preprocessing
from fastcls.inference.anatomy import Anatomy
from fastcls.inference.predictor import Predictor, providers

STEP = 0.001  # by which a map is raised to see what it does to the logits, in units of the highest value of any map
TOGETHER = 32_000_000  # bytes of raised maps that the head is run on at once


@dataclass(frozen=True)
class Explanation:
    """What a network made of one image; None for what it cannot tell."""

    seen: np.ndarray  # uint8 (h, w) or (h, w, 3): the image as it was shown to the network
    probabilities: np.ndarray  # (classes,)
    likeliest: list[int]  # classes, the likeliest first
    features: np.ndarray | None  # (d,) what the last linear layer was given
    heat: np.ndarray | None  # (len(likeliest), h, w), each 0 to 1 at most: Grad-CAM of these classes


class Explainer(Predictor):
    """A Predictor that looks at one image at a time, with all cores, and says why."""

    threads = 0  # all cores

    def _model(self, file: Path) -> bytes:
        import onnx
        import onnxruntime

        from fastcls.inference.anatomy import dissect

        model = onnx.load(file)
        self.anatomy: Anatomy = dissect(model)
        if self.anatomy.maps:
            head = self.anatomy.head(model).SerializeToString()
            self.head = onnxruntime.InferenceSession(head, providers=providers())
        return self.anatomy.body(model).SerializeToString()

    @property
    def has_heat(self) -> bool:
        """Whether there are feature maps for Grad-CAM; a vision transformer has none."""
        return self.anatomy.maps is not None

    @property
    def mode(self) -> str:
        """What `explain` takes: 'RGB' or 'L'."""
        return self.spec["mode"]

    def explain(self, pixels: np.ndarray, top: int) -> Explanation:
        """An image as `decode` gives it, uint8 (h, w, 3) or (h, w); DataError where the network cannot take it."""
        try:
            seen = self._prepare(pixels)
        except ValueError as problem:
            raise DataError(f"{problem}.") from None
        logits, features, maps = self._parts(preprocessing.normalise(seen[None], self.spec))
        probabilities = self.target.probabilities(logits, self.temperature)[0]
        likeliest = np.argsort(-probabilities, kind="stable")[:top]
        heat = None if maps is None else self._heat(maps[0], likeliest)
        return Explanation(seen, probabilities, likeliest.tolist(), None if features is None else features[0], heat)

    def features(self, paths: Sequence[str]) -> np.ndarray | None:
        """(n, d), or None for a network that has none; raises where an image cannot be read."""
        images = np.stack([self._prepare(path) for path in paths])
        return self._parts(preprocessing.normalise(images, self.spec))[1]

    def _parts(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Logits, features and the last feature maps, (n, …) each."""
        logits, *rest = self._outputs(batch)
        features = rest.pop(0).reshape(len(batch), -1) if self.anatomy.features else None
        return logits, features, rest.pop() if rest else None

    def _heat(self, maps: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Grad-CAM (Selvaraju et al. 2017) of each class: feature maps of one image to (len(classes), h, w).

        A map's weight, the mean of a logit's gradient over its places (equation 1 there), is what the logit gains where
        the whole map is raised a little, by its size: so the head is run once a map instead of being differentiated.
        """
        axis = 2 if self.anatomy.channels_last else 0
        channels_first = np.moveaxis(maps, axis, 0)
        alive = np.flatnonzero(channels_first.any((1, 2)))  # the others weigh nothing
        step = STEP * float(np.abs(maps).max())
        logits = self._from_maps(maps[None])
        gains = [np.empty((0, logits.shape[1]), np.float32)]
        for chunk in np.array_split(alive, max(1, -(-maps.nbytes * len(alive) // TOGETHER))):
            raised = np.repeat(maps[None], len(chunk), axis=0)
            np.moveaxis(raised, axis + 1, 1)[np.arange(len(chunk)), chunk] += step
            gains.append(self._from_maps(raised) - logits)
        weights = np.concatenate(gains)[:, classes]
        heat = np.maximum(np.einsum("kc,khw->chw", weights, channels_first[alive]), 0)  # equation 2
        return heat / np.maximum(heat.max((1, 2), keepdims=True), 1e-30)

    def _from_maps(self, maps: np.ndarray) -> np.ndarray:
        return self.head.run(None, {self.anatomy.maps: maps})[0]
