"""Resizing images on the way in, by a recipe, by the weights of a network, and while training grows them."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastai.callback.core import Callback
from fastai.data.all import DataLoaders, fastuple
from fastai.vision.augment import PadMode, RandomResizedCrop, RandTransform, Resize, ResizeMethod
from PIL import Image
from torch.nn import functional as F

from fastcls.errors import UsageError
from fastcls.images import preprocessing
from fastcls.runfolder.model_files import LONGEST_SIDE

FITS = ("crop", "squish", "pad")


def resize(size: int, min_scale: float = 1.0, fit: str = "crop", valid_size: int | None = None) -> RandTransform:
    """Resize every image to size × size: in training a random crop of at least `min_scale` of its area, or all of it.

    fit: how a whole image becomes a square, in validation and prediction, and in training without random crops: 'crop'
    uses its centre, 'squish' changes its aspect ratio, 'pad' adds black borders (a letterbox), in training as well,
    whatever min_scale is. valid_size: with random crops, the side that validation images are squished to. A pretrained
    network changes this to the interpolation, centre crop and, if it accepts no other, size of its weights.
    """
    if fit not in FITS:
        raise UsageError(f"fit={fit!r}: expected one of {', '.join(FITS)}.")
    for side in (size, *([] if valid_size is None else [valid_size])):
        if not 1 <= side <= LONGEST_SIDE:
            hint = f"Use a size from 1 to {LONGEST_SIDE}, for example --size 224."
            raise UsageError(f"Cannot train on images of {side} × {side} pixels.", hint)
    if valid_size is not None and (min_scale >= 1 or fit == "pad"):
        raise UsageError(
            "A separate size for validation images needs random crops in training.",
            "Use for example --min-scale 0.35, or omit --valid-size.",
        )
    tfm: RandTransform
    if fit == "pad":
        tfm = Letterbox(size)
    elif min_scale < 1:
        squished = valid_size or (size if fit == "squish" else None)
        tfm = ResizedCrop(size, squish(squished, squished) if squished else None, min_scale=min_scale)
    else:
        tfm = Resize(size, method=fit)
    tfm.adapts = True
    return tfm


def squish(height: int, width: int) -> dict[str, Any]:
    """Of a specification of `fastcls.images.preprocessing`: the whole image at this size."""
    return {"method": "squish", "resize": [height, width], "size": [height, width]}


class Letterbox(Resize):
    """The whole image amid black, in the middle: fastai's padding without its random place in training."""

    def __init__(self, size: int) -> None:
        super().__init__(size, method=ResizeMethod.Pad, pad_mode=PadMode.Zeros)

    def before_call(self, b: Any, split_idx: int) -> None:
        super().before_call(b, 1)


class ResizedCrop(RandomResizedCrop):
    """fastai's random crop in training; validation images as `evaluation` says, as fastai has them where it is empty.

    evaluation: method, resize and size of a specification of `fastcls.images.preprocessing`.
    """

    def __init__(self, size: int, evaluation: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(size, **kwargs)
        self.evaluation, self.fixed = evaluation or {}, evaluation is not None
        self.own_size = self.size

    def before_call(self, b: Any, split_idx: int) -> None:
        super().before_call(b, split_idx)
        self.evaluates = bool(split_idx and self.evaluation)

    def encodes(self, x: Image.Image) -> Any:
        if self.evaluates:
            how = {**self.evaluation, "interpolation": Image.Resampling(self.mode).name}
            return type(x).create(preprocessing.prepare(np.asarray(x), how))  # type: ignore[attr-defined]
        cut = x.crop_pad(  # type: ignore[attr-defined]
            self.cp_size, self.tl, orig_sz=self.orig_sz, resize_mode=self.mode, resize_to=self.final_size
        )
        return cut if self.final_size == self.size else cut.crop_pad(self.size)


def adapt(
    dls: DataLoaders,
    size: tuple[int, int] | None = None,
    interpolation: str = "bilinear",
    crop_pct: float | None = None,
    squash: bool = False,
) -> bool:
    """Have images resized as a network's weights were evaluated; False where no transform may be changed so.

    Those may that `transforms.resize` made. size: (height, width) instead of the transform's own. crop_pct: beside
    random crops, validation images show the centre of the image: its short side, or with `squash` both sides, is
    resized to size / crop_pct, and `size` is cut out. Plain resizes show whole images in training, and here too.
    """
    found = {id(tfm): tfm for dl in (dls.train, dls.valid) for tfm in dl.after_item.fs if getattr(tfm, "adapts", False)}
    for tfm in found.values():
        tfm.mode = Image.Resampling[interpolation.upper()]
        tfm.resamples = (tfm.mode, tfm.mode_mask)
        if size is not None:
            tfm.size = fastuple(size[1], size[0])
        if isinstance(tfm, ResizedCrop):
            if size is not None:
                tfm.fixed = tfm.fixed and tfm.evaluation["size"] == [tfm.own_size[1], tfm.own_size[0]]
                tfm.evaluation = squish(*size) if tfm.fixed else {}
            if crop_pct is not None and not tfm.fixed:
                sides = [tfm.size[1], tfm.size[0]]
                whole = [int(side / crop_pct + 1e-6) for side in sides]  # timm rounds down
                tfm.evaluation = {"method": "squish" if squash else "crop", "resize": whole, "size": sides}
    if found and getattr(dls, "plan", None) is not None:
        dls.plan.update()
    return bool(found)


class Grow(Callback):
    """Shrinks training batches to `first` pixels when a fit begins, less and less until `until` of it is trained.

    Sizes between are `first` plus multiples of `step`. Small images cost little, and the network sees the whole size
    before it is done (Howard 2018, progressive resizing). A function of epoch and batch alone, as a resume needs it.
    """

    order = 5  # before autocast is entered
    run_valid = False

    def __init__(self, first: int, until: float = 2 / 3, step: int = 32) -> None:
        if first < 1:
            raise UsageError(f"Training cannot start with images of {first} pixels.", "Use for example --grow-from 96.")
        self.first, self.until, self.step = first, until, step

    def side(self, full: int) -> int:
        """The pixels of this batch's shorter side, of `full` ones."""
        trained = (self.epoch + self.iter / self.n_iter) / self.n_epoch
        steps = min(1.0, trained / self.until) * (full - self.first) / self.step
        return full if trained >= self.until else self.first + int(steps) * self.step

    def sizes(self, h: int, w: int) -> set[tuple[int, int]]:
        """(height, width) of all batches that are smaller than h × w."""
        return {_shrunk(h, w, side) for side in range(self.first, min(h, w), self.step)}

    def before_batch(self) -> None:
        images, *rest = self.xb
        h, w = images.shape[2:]
        side = self.side(min(h, w))
        if side < min(h, w):
            size = _shrunk(h, w, side)
            self.learn.xb = (F.interpolate(images, size, mode="bilinear", antialias=True), *rest)


def _shrunk(h: int, w: int, side: int) -> tuple[int, int]:
    """h × w with a shorter side of `side`."""
    return round(h * side / min(h, w)), round(w * side / min(h, w))


def grow(first: int | None) -> list[Callback]:
    """The callbacks for training that starts with images of `first` pixels; None starts at the full size."""
    return [] if first is None else [Grow(first)]
