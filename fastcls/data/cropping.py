"""Random crops of decoded images, resized with antialiasing: what fastai's item transforms do, from uint8 arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fastai.vision.augment import RandomResizedCrop, Resize, ResizeMethod
from PIL import Image
from torch.nn import functional as F

from fastcls.machine import devices
from fastcls.transforms import draws

ATTEMPTS = 10  # crops that may not fit into the image before its centre is taken, as fastai and torchvision have it
ZOOM = 2.5  # a store of larger images takes longer to crop, and shows no difference from the files' own pixels


@dataclass(frozen=True)
class RandomCrop:
    """A box of each image, resized to `size` (height, width).

    min_scale … max_scale: its share of the image's area; ratio: its width over its height. Without a scale the box is
    the largest with the output's aspect ratio, at a random place. mode: 'bilinear' or 'bicubic', with antialiasing.
    """

    size: tuple[int, int]
    min_scale: float | None = None
    max_scale: float = 1.0
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    mode: str = "bilinear"

    @classmethod
    def of(cls, tfm: Any) -> RandomCrop | None:
        """The crop that a fastai item transform makes of training images; None where it makes none at random."""
        if isinstance(tfm, RandomResizedCrop):
            return cls((tfm.size[1], tfm.size[0]), tfm.min_scale, tfm.max_scale, tfm.ratio, _mode(tfm))
        if isinstance(tfm, Resize) and tfm.method == ResizeMethod.Crop:
            return cls((tfm.size[1], tfm.size[0]), mode=_mode(tfm))
        return None

    def how(self, mode: str) -> dict[str, Any]:
        """What a store has to keep for it: whole images, no larger than a crop of them can show.

        A random resized crop shows the image at up to 1/√min_scale of its size; ZOOM times is kept at most. It is
        resized a second time, so the first must not blur: Lanczos.
        """
        if self.min_scale is None:  # resized once, as fastai does
            return {"mode": mode, "cover": list(self.size), "resample": self.mode.upper()}
        side = math.ceil(max(self.size) * min(ZOOM, self.min_scale**-0.5))
        return {"mode": mode, "cover": [side, side], "resample": "LANCZOS"}

    def boxes(self, key: draws.Key, heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
        """(n, 4): top, left, height, width of each image's crop."""
        u = draws.table(key, 2 * ATTEMPTS + 2, "RandomCrop")
        placed = np.ones(len(u), bool)
        if self.min_scale is None:
            scale = np.minimum(heights / self.size[0], widths / self.size[1])
            h, w = (scale * self.size[0]).astype(int), (scale * self.size[1]).astype(int)
        else:
            h, w, placed = self._scaled(u, heights, widths, self.min_scale)
        top = np.where(placed, (u[:, -2] * (heights - h + 1)).astype(int), (heights - h) // 2)
        left = np.where(placed, (u[:, -1] * (widths - w + 1)).astype(int), (widths - w) // 2)
        return np.stack([top, left, h, w], 1)

    def _scaled(self, u: np.ndarray, heights: np.ndarray, widths: np.ndarray, least: float) -> Any:
        """Heights, widths, and whether an attempt fitted: else the centre is taken."""
        low, high = np.log(self.ratio)
        area = (least + (self.max_scale - least) * u[:, :ATTEMPTS]) * (heights * widths)[:, None]
        ratio = np.exp(low + (high - low) * u[:, ATTEMPTS : 2 * ATTEMPTS])
        w, h = np.rint(np.sqrt(area * ratio)).astype(int), np.rint(np.sqrt(area / ratio)).astype(int)
        fits = (w <= widths[:, None]) & (h <= heights[:, None]) & (w > 0) & (h > 0)
        first, rows = fits.argmax(1), np.arange(len(u))
        widest = np.minimum(widths, (heights * self.ratio[1]).astype(int))
        tallest = np.minimum(heights, (widths / self.ratio[0]).astype(int))
        any_fits = fits.any(1)
        return np.where(any_fits, h[rows, first], tallest), np.where(any_fits, w[rows, first], widest), any_fits

    def __call__(self, key: draws.Key, images: Sequence[np.ndarray]) -> torch.Tensor:
        """(n, channels, height, width) uint8 in channels-last memory, from images of (h, w, channels)."""
        shapes = np.array([image.shape for image in images])
        boxes = self.boxes(key, shapes[:, 0], shapes[:, 1])
        out = torch.empty(len(images), *self.size, shapes[0, 2], dtype=torch.uint8)

        def fill(part: np.ndarray) -> None:
            for i in part.tolist():
                top, left, h, w = boxes[i].tolist()
                self._resize(images[i][top : top + h, left : left + w], out[i])

        list(devices.threads().map(fill, np.array_split(np.arange(len(images)), devices.cores())))
        return out.permute(0, 3, 1, 2)

    def _resize(self, cut: np.ndarray, into: torch.Tensor) -> None:
        if cut.shape[:2] == self.size:
            into.numpy()[:] = cut
            return
        pixels = torch.from_numpy(np.array(cut)).permute(2, 0, 1)[None]
        into.copy_(F.interpolate(pixels, self.size, mode=self.mode, antialias=True)[0].permute(1, 2, 0))


def _mode(tfm: Any) -> str:
    return Image.Resampling(tfm.resamples[0]).name.lower()
