"""Image sizes that change: training that begins on small images, validation on larger ones than training."""

from __future__ import annotations

from typing import Any

from fastai.callback.core import Callback
from fastai.vision.augment import RandomResizedCrop
from PIL import Image
from torch.nn import functional as F

from fastcls.errors import UsageError


class ResizedCrop(RandomResizedCrop):
    """fastai's random crop in training; validation images whole, squished to `valid_size` pixels, not a centre crop.

    A crop shows things larger than the whole image does, so a network trained on crops of 224 pixels does better on
    somewhat larger images (Touvron et al. 2019, "Fixing the train-test resolution discrepancy"). One trained on 64 or
    128 does worse: its last stage has few positions, and others at another size (docs/log.md).
    """

    def __init__(self, size: int, valid_size: int, **kwargs: Any) -> None:
        super().__init__(size, **kwargs)
        self.valid_size = (valid_size, valid_size)

    def before_call(self, b: Any, split_idx: int) -> None:
        super().before_call(b, split_idx)
        if split_idx:
            self.final_size = self.valid_size

    def encodes(self, x: Image.Image) -> Any:
        return x.crop_pad(  # type: ignore[attr-defined]
            self.cp_size, self.tl, orig_sz=self.orig_sz, resize_mode=self.mode, resize_to=self.final_size
        )


class Grow(Callback):
    """Shrinks training batches to `first` pixels when a fit begins, less and less until `until` of it is trained.

    Sizes between are `first` plus multiples of `step`. Small images cost little, and the network sees the whole size
    before it is done (Howard 2018, progressive resizing). A function of epoch and batch alone, as a resume needs it.
    """

    order = 5  # before autocast is entered
    run_valid = False

    def __init__(self, first: int, until: float = 2 / 3, step: int = 32) -> None:
        if first < 1:
            raise UsageError(f"Training cannot begin on images of {first} pixels.", "Give --grow-from 96, say.")
        self.first, self.until, self.step = first, until, step

    def side(self, full: int) -> int:
        """The pixels of this batch's shorter side, of `full` ones."""
        trained = (self.epoch + self.iter / self.n_iter) / self.n_epoch
        steps = min(1.0, trained / self.until) * (full - self.first) / self.step
        return full if trained >= self.until else self.first + int(steps) * self.step

    def before_batch(self) -> None:
        images, *rest = self.xb
        h, w = images.shape[2:]
        side = self.side(min(h, w))
        if side < min(h, w):
            size = (round(h * side / min(h, w)), round(w * side / min(h, w)))
            self.learn.xb = (F.interpolate(images, size, mode="bilinear", antialias=True), *rest)


def grow(first: int | None) -> list[Callback]:
    """The callbacks of a recipe whose training begins on images of `first` pixels; None begins on whole ones."""
    return [] if first is None else [Grow(first)]
