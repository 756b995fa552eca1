"""fastai opens images one by one as `decode` does: upright, opaque, 16 bits scaled to 8.

fastai's own `load_image` reads no EXIF, drops transparency and saturates 16 bits, so that a Learner would see other
pixels item by item (`learn.predict`, `show_batch`, transforms of single items) than in batches or from model.onnx.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from fastai.data import transforms
from fastai.torch_core import TensorImageBase
from fastai.vision import core
from fastcore.foundation import L
from PIL import Image

from fastcls.datasets import shards
from fastcls.errors import DataError
from fastcls.images.check import reading
from fastcls.images.decode import decode, flattened, opened

CHANNELS = (1, 3, 4)

_of_fastai, _files_of_fastai = core.load_image, transforms.get_files


def install() -> None:
    """From now on, in the whole process, `PILImage.create` and `PILImageBW.create` open files by `load_image`.

    And `get_image_files` lists packed images too.
    """
    core.load_image = load_image
    transforms.get_files = get_files


def get_files(path: str | Path, *args: Any, **kwargs: Any) -> Any:
    """fastai's, which lists a folder; of packed images, all that are below it."""
    pack = shards.of_folder(str(Path(path).absolute()))
    return (
        _files_of_fastai(path, *args, **kwargs)
        if pack is None
        else L(map(Path, pack.below(str(Path(path).absolute()))))
    )


def load_image(fn: str | Path | BinaryIO, mode: str | None = None) -> Image.Image:
    """A file as an image of `mode`, DataError where it is none; modes other than 'RGB' and 'L' are left to fastai."""
    if mode not in ("RGB", "L"):
        return _of_fastai(fn, mode)

    def read(file: str | Path | BinaryIO) -> Image.Image:
        source = opened(file) if isinstance(file, (str, Path)) else contextlib.nullcontext(file)
        with source as data, Image.open(data) as image:
            return flattened(image, mode)

    return reading(fn, read)


@contextlib.contextmanager
def unopened() -> Iterator[None]:
    """Inside, every file is a blank pixel to fastai, which opens the first one only to see what kind of item it is."""
    before, core.load_image = core.load_image, lambda fn, mode=None: Image.new(mode or "RGB", (1, 1))
    try:
        yield
    finally:
        core.load_image = before


def picture(item: Any, mode: str) -> Image.Image:
    """A PIL image, an open file, its bytes, an array or a tensor as an image of `mode` ('RGB', 'L'), as a file's is.

    Arrays and tensors are uint8 (h, w) or (h, w, channels), a TensorImage and its kind (channels, h, w), other tensors
    either; channels are gray, RGB or RGBA. uint16 (h, w) is gray of 16 bits. DataError where an item is none of these.
    """
    if hasattr(item, "read"):  # an open file
        item = item.read()
    if isinstance(item, (bytes, bytearray)):
        return Image.fromarray(reading(shown(item), lambda _: decode(bytes(item), mode)))
    image = item if isinstance(item, Image.Image) else Image.fromarray(_array(item))
    if image.load() is None and (name := getattr(image, "filename", None)):
        image = Image.open(name)  # stock fastai's cast took the loader of an image that was not read yet
    return reading(shown(item), lambda _: flattened(image, mode))


def shown(item: Any) -> str:
    """An item in a message: a file's name, else what kind of thing it is."""
    if isinstance(item, (str, Path)):
        return str(item)
    if isinstance(item, (bytes, bytearray)):
        return f"{type(item).__name__} of length {len(item)}"
    if isinstance(item, Image.Image):
        return f"{type(item).__name__} of {item.width} × {item.height} pixels"
    if isinstance(item, (np.ndarray, torch.Tensor)):
        return f"{type(item).__name__} of shape {tuple(item.shape)} and type {str(item.dtype).removeprefix('torch.')}"
    return f"{type(item).__name__}"


def _array(item: Any) -> np.ndarray:
    """Pixels as Pillow takes them: (h, w) or (h, w, channels)."""
    pixels = item.detach().cpu().numpy() if isinstance(item, torch.Tensor) else item
    if isinstance(pixels, np.ndarray):
        image, tensor = isinstance(item, TensorImageBase), isinstance(item, torch.Tensor)
        if pixels.ndim == 3 and (image or (tensor and pixels.shape[2] not in CHANNELS)):
            pixels = pixels.transpose(1, 2, 0)
        if pixels.ndim == 3 and pixels.shape[2] == 1:
            pixels = pixels[..., 0]
        colours = pixels.ndim == 3 and pixels.shape[2] in CHANNELS and pixels.dtype == np.uint8
        if pixels.size and (colours or (pixels.ndim == 2 and pixels.dtype in (np.uint8, np.uint16))):
            return np.ascontiguousarray(pixels)
    raise DataError(
        f"{shown(item)} is not an image.",
        "Pass a file, a PIL image, the bytes of a file, or uint8 values: an array (h, w, 3) or a tensor (3, h, w).",
    )
