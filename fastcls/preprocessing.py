"""From an image file to the array a network takes, as fastai's validation transforms do it, without torch.

A specification is the `preprocessing` object of model.json:

    mode       'RGB' or 'L'
    method     'crop' (centre, then resize), 'squish', 'pad', or '' for images taken as they are
    resize     [height, width] after resizing
    size       [height, width] that the network sees: the centre of the resized image
    pad_mode   'reflection', 'border' or 'zeros', for 'pad'
    mean, std  a value a channel, of pixels scaled to 0 … 1; or null
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NUMPY_PADDING = {"reflection": "reflect", "border": "edge", "zeros": "constant"}


def load(path: str | Path, spec: Mapping[str, Any]) -> np.ndarray:
    """One image as float32 (channels, height, width), resized, scaled and normalised."""
    with Image.open(path) as file:
        image = file.convert(spec["mode"])
    pixels = np.asarray(_resized(image, spec), dtype=np.float32) / 255
    pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    if spec["mean"] is not None:
        mean, std = (np.asarray(spec[key], dtype=np.float32)[:, None, None] for key in ("mean", "std"))
        pixels = (pixels - mean) / std
    return np.ascontiguousarray(pixels)


def _resized(image: Image.Image, spec: Mapping[str, Any]) -> Image.Image:
    method = spec["method"]
    if not method:
        return image
    height, width = spec["resize"]
    if method != "squish":
        image = _to_aspect(image, width, height, spec)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    crop_height, crop_width = spec["size"]
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return image.crop((left, top, left + crop_width, top + crop_height))


def _to_aspect(image: Image.Image, width: int, height: int, spec: Mapping[str, Any]) -> Image.Image:
    """The centre of the image ('crop'), or the image amid padding ('pad'), with the target's aspect ratio."""
    w, h = image.size
    ratios = w / width, h / height
    scale = max(ratios) if spec["method"] == "pad" else min(ratios)
    new_w, new_h = int(scale * width), int(scale * height)
    left, top = int(0.5 * (w - new_w)), int(0.5 * (h - new_h))
    image = image.crop((max(left, 0), max(top, 0), min(left + new_w, w), min(top + new_h, h)))
    before = max(-left, 0), max(-top, 0)
    after = max(new_w - w + left, 0), max(new_h - h + top, 0)
    if not any(before + after):
        return image
    pads = [(before[1], after[1]), (before[0], after[0])] + [(0, 0)] * (len(image.getbands()) > 1)
    return Image.fromarray(np.pad(np.asarray(image), pads, mode=NUMPY_PADDING[spec["pad_mode"]]))  # type: ignore[call-overload]
