"""fastai opens images one by one as `decode` does: upright, opaque, 16 bits scaled to 8.

fastai's own `load_image` reads no EXIF, drops transparency and saturates 16 bits, so that a Learner would see other
pixels item by item (`learn.predict`, `show_batch`, transforms of single items) than in batches or from model.onnx.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import BinaryIO

from fastai.vision import core
from PIL import Image

from fastcls.images.decode import flattened, opened

_of_fastai = core.load_image


def install() -> None:
    """From now on `PILImage.create` and `PILImageBW.create` open files by `load_image`, for everyone."""
    core.load_image = load_image


def load_image(fn: str | Path | BinaryIO, mode: str | None = None) -> Image.Image:
    """A file as an image of `mode`; modes other than 'RGB' and 'L' are left to fastai."""
    if mode not in ("RGB", "L"):
        return _of_fastai(fn, mode)
    with opened(fn) if isinstance(fn, (str, Path)) else contextlib.nullcontext(fn) as file, Image.open(file) as image:
        return flattened(image, mode)
