"""Resizing on the way in and random augmentation of whole batches, from fastai's transforms.

DataBlock(..., item_tfms=transforms.resize(224, min_scale=0.35), batch_tfms=transforms.augment(rotate=15))
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from fastai.vision.augment import (
    AffineCoordTfm,
    Brightness,
    Contrast,
    Flip,
    RandomErasing,
    RandomResizedCrop,
    RandTransform,
    Resize,
    Rotate,
    Saturation,
    Warp,
    Zoom,
    affine_mat,
    mask_tensor,
    setup_aug_tfms,
)


class Affine(AffineCoordTfm):
    """One resampling for all geometric augmentation, and none at all on the validation split.

    fastai's own class resamples validation images with the identity, which costs time and blurs them a little.
    """

    def __call__(self, b: Any, split_idx: int | None = None, **kwargs: Any) -> Any:
        return b if split_idx else super().__call__(b, split_idx=split_idx, **kwargs)


def _translation(x: torch.Tensor, fraction: float, p: float) -> torch.Tensor:
    """Affine matrices (n, 3, 3) that shift by up to `fraction` of the side; coordinates span -1 … 1."""
    shift = [mask_tensor(x.new_empty(x.size(0)).uniform_(-2 * fraction, 2 * fraction), p=p) for _ in range(2)]
    zero, one = torch.zeros_like(shift[0]), torch.ones_like(shift[0])
    return affine_mat(one, zero, shift[0], zero, one, shift[1])


def resize(size: int, min_scale: float = 1.0, method: str = "crop") -> RandTransform:
    """Every image to size × size: a random crop of at least `min_scale` of its area, or a plain resize.

    `method` of the plain resize is 'crop', 'squish' or 'pad' (fastai's ResizeMethod).
    """
    return RandomResizedCrop(size, min_scale=min_scale) if min_scale < 1 else Resize(size, method=method)


def augment(
    flip: bool = True,
    rotate: float = 10.0,
    translate: float = 0.0,
    zoom: float = 1.1,
    warp: float = 0.0,
    jitter: float = 0.2,
    erase: float = 0.0,
    p: float = 0.75,
    pad_mode: str = "reflection",
    gray: bool = False,
) -> list[RandTransform]:
    """Random augmentation of whole batches on the training device.

    flip: left to right half the time. rotate: up to so many degrees. translate: up to that fraction of the
    side. zoom: up to that factor. warp: magnitude of perspective. jitter: brightness, contrast and colour by
    up to that fraction (no colour where `gray`). erase: probability of a random rectangle of noise.
    `p` is the probability of each of the others.
    """
    geometric: list[RandTransform] = [Affine(mode="bilinear", pad_mode=pad_mode, align_corners=True)]
    if flip:
        geometric.append(Flip(p=0.5))
    if rotate:
        geometric.append(Rotate(max_deg=rotate, p=p))
    if translate:
        geometric.append(AffineCoordTfm(aff_fs=partial(_translation, fraction=translate, p=p)))
    if zoom > 1:
        geometric.append(Zoom(max_zoom=zoom, p=p))
    if warp:
        geometric.append(Warp(magnitude=warp, p=p))
    tfms = geometric if len(geometric) > 1 else []
    if jitter:
        tfms += [Brightness(jitter, p=p), Contrast(jitter, p=p)] + ([] if gray else [Saturation(jitter, p=p)])
    if erase:
        tfms.append(RandomErasing(p=erase))
    return list(setup_aug_tfms(tfms)) if tfms else []
