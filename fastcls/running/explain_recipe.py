"""The same as `explain`, through the run's recipe, for networks and transforms without an ONNX form. Runs its code."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from fastcls.errors import DataError
from fastcls.evaluation import gradcam
from fastcls.inference.explain import Explanation
from fastcls.inference.export import input_example
from fastcls.running.replay import RecipePredictor
from fastcls.training.history import quiet


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
        with tempfile.TemporaryDirectory() as folder:  # fastai's pipeline begins at a file
            file = Path(folder, "image.png")
            Image.fromarray(pixels).save(file, compress_level=0)
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
