"""Resizing on the way in and random augmentation of whole batches, by the names that recipes use.

DataBlock(..., item_tfms=transforms.resize(224, min_scale=0.35), batch_tfms=transforms.augment(rotate=15))
DataBlock(..., batch_tfms=[transforms.Crop(4, flip=0.5)])
"""

from __future__ import annotations

from fastai.data.all import Transform
from fastai.vision.augment import RandTransform, Resize

from fastcls.errors import UsageError
from fastcls.runfolder.model_files import LONGEST_SIDE
from fastcls.transforms.batchwise import Affine, ColorJitter, Crop, Cutout, Erase, Flip
from fastcls.transforms.resizing import ResizedCrop

__all__ = ["Affine", "ColorJitter", "Crop", "Cutout", "Erase", "Flip", "augment", "resize"]


def resize(size: int, min_scale: float = 1.0, method: str = "crop", valid_size: int | None = None) -> RandTransform:
    """Every image to size × size: a random crop of at least `min_scale` of its area, or a plain resize.

    `method` of the plain resize is 'crop', 'squish' or 'pad' (fastai's ResizeMethod). valid_size: beside random crops,
    the side that validation images are squished to, whole; None shows their centre at `size`. A pretrained network
    changes it to the interpolation, the share of the centre and, if it takes no other, the size of its weights.
    """
    for side in (size, *([] if valid_size is None else [valid_size])):
        if not 1 <= side <= LONGEST_SIDE:
            hint = f"Give a size of 1 to {LONGEST_SIDE}: --size 224, say."
            raise UsageError(f"Images of {side} × {side} pixels cannot be trained on.", hint)
    if valid_size is not None and min_scale >= 1:
        raise UsageError(
            "A size of its own for validation images goes with random crops in training.",
            "Give --min-scale 0.35, say, or leave out --valid-size.",
        )
    whole = None if valid_size is None else {"method": "squish", "resize": [valid_size] * 2, "size": [valid_size] * 2}
    tfm = ResizedCrop(size, whole, min_scale=min_scale) if min_scale < 1 else Resize(size, method=method)
    tfm.adapts = True
    return tfm


def augment(
    flip: bool = True,
    rotate: float = 10.0,
    translate: float = 0.0,
    zoom: float = 1.1,
    shear: float = 0.0,
    jitter: float = 0.2,
    erase: float = 0.0,
    p: float = 0.75,
    pad_mode: str = "reflection",
) -> list[Transform]:
    """Random augmentation of whole batches on the training device.

    flip: left to right half the time. rotate, shear: up to so many degrees. translate: up to that fraction of the
    side. zoom: up to that factor. jitter: brightness, contrast and saturation by up to that fraction. erase:
    probability of a random rectangle of noise. `p` is the probability of each of the others.
    """
    tfms: list[Transform] = [Flip()] if flip else []
    if rotate or translate or shear or zoom > 1:
        tfms.append(Affine(rotate, translate, zoom, shear, p, pad_mode))
    if jitter:
        tfms.append(ColorJitter(jitter, p))
    if erase:
        tfms.append(Erase(erase))
    return tfms
