"""Faster equivalents of fastai's batch transforms: parameters of the same distribution, for each the same pixels.

A loader's `after_batch` stays what the user gave: it is shown, decoded and changed as fastai's is. `BatchTransforms`
reads it when a pass begins and runs it in steps, without resampling where pixels only change places and without
broadcasting over channels. A transform without an equivalent (a subclass, a `draw` function of the user's) is called as
fastai calls it, with all generators seeded by the batch.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from fastai.data.all import IntToFloatTensor, Normalize, Pipeline
from fastai.torch_core import TensorImage, TensorImageBase, TensorImageBW
from fastai.vision import augment
from fastai.vision.core import TensorBBox, TensorPoint

from fastcls.machine import devices
from fastcls.transforms import draws, geometry
from fastcls.transforms.batchwise import Batchwise, NormalizeInPlace, flipped

GEOMETRY = (augment.AffineCoordTfm, augment.Flip, augment.Dihedral, augment.Rotate, augment.Zoom, augment.Warp)
LIGHTING = (augment.LightingTfm, augment.Brightness, augment.Contrast, augment.Saturation)
LOGITS = (augment._BrightnessLogit, augment._ContrastLogit, augment._SaturationLogit)
HUE = (augment.HSVTfm, augment.Hue)
NORMALIZE = (Normalize, NormalizeInPlace)


def known(tfm: Any) -> bool:
    """Whether a transform of `after_batch` runs by an equivalent, or loses nothing by running as it is."""
    kind = type(tfm)
    if getattr(tfm, "name", "") == "noop":
        return True
    if isinstance(tfm, Batchwise):
        return kind.__module__.startswith("fastcls.")
    if {"before_call", "encodes"} & vars(tfm).keys():
        return False
    if kind in GEOMETRY:
        warps = [f for f in tfm.coord_fs if type(f) is augment._WarpCoord]
        given = [f.draw_x for f in warps] + [f.draw_y for f in warps]
        for f in tfm.aff_fs:
            if not (isinstance(f, partial) and f.func in geometry.MATRICES and not f.args):
                return False
            given += [value for name, value in f.keywords.items() if name.startswith("draw")]
        return len(warps) == len(tfm.coord_fs) and all(map(understood, given))
    if kind in LIGHTING or kind in HUE:
        kinds = LOGITS if kind in LIGHTING else (augment._Hue,)
        return all(type(f) in kinds and understood(f.draw) for f in tfm.fs)
    if kind in NORMALIZE:
        return tuple(tfm.axes) == (0, 2, 3)
    return kind in (IntToFloatTensor, augment.RandomErasing, augment.RandomResizedCropGPU)


def unknown(tfms: Iterable[Any]) -> list[str]:
    """The names of the transforms that only fastai can run."""
    return sorted({type(tfm).__name__ for tfm in tfms if not known(tfm)})


def understood(draw: Any) -> bool:
    """Whether a parameter is drawn by fastai's rule or is one number, not given by a function or list of the user's."""
    return draw is None or isinstance(draw, (int, float))


@dataclass
class Step:
    """What `tfms` do to a batch of images (n, c, h, w); `run` None leaves it to them."""

    tfms: list[Any]
    run: Callable[[torch.Tensor], torch.Tensor] | None


def steps(tfms: Sequence[Any], split_idx: int | None) -> list[Step]:
    """The transforms of a pipeline, in its order, as steps for that split."""
    found: list[Step] = []
    own = False  # whether the batch is in memory that a step of ours has allocated
    for i, tfm in enumerate(tfms):
        last = found[-1].run if found else None
        merged = False
        run: Any = None
        if not known(tfm):
            own = False
        elif getattr(tfm, "name", "") == "noop":
            continue
        elif type(tfm) in GEOMETRY:
            resample = Resample(tfm, f"{i} ", not split_idx)
            if resample.changes_nothing():
                continue
            merged = isinstance(last, ToFloat) and last.flips_by(resample)
            run, own = resample, True
        elif type(tfm) is augment.RandomResizedCropGPU:  # its box is the same for the batch
            own = False
        elif tfm.split_idx is not None and tfm.split_idx != split_idx:
            continue
        elif isinstance(tfm, Batchwise):
            run = tfm.apply
        elif type(tfm) is IntToFloatTensor:
            run, own = ToFloat(tfm.div), True
        elif type(tfm) in NORMALIZE:
            merged = isinstance(last, ToFloat) and last.normalizes_by(tfm)
            run = partial(normalized, tfm=tfm) if own else None
        elif type(tfm) in LIGHTING + HUE:
            run, own = Lighting(tfm.fs, f"{i} ", type(tfm) in HUE), True
        if merged:
            found[-1].tfms.append(tfm)
        else:
            found.append(Step([tfm], run))
    return found


class BatchTransforms:
    """A loader's `after_batch` for one pass: `transform(batch, key)`."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.split_idx = pipeline.split_idx
        self.steps = steps(pipeline.fs, self.split_idx)

    def __call__(self, batch: Any, key: draws.Key) -> Any:
        with draws.of(key), devices.threads_for(batch[0].numel() if is_images(batch) else sys.maxsize):
            for step in self.steps:
                if step.run is None or not is_images(batch):
                    with draws.seeded_by(key, _device(batch)):
                        for tfm in step.tfms:
                            batch = tfm(batch, split_idx=self.split_idx)
                else:
                    x, *others = batch
                    batch = (step.run(x.as_subclass(torch.Tensor)).as_subclass(type(x)), *others)
        return batch


def is_images(batch: Any) -> bool:
    """Whether a batch is images, and with them nothing that has to be moved as they are."""
    return (
        isinstance(batch, tuple)
        and type(batch[0]) in (TensorImage, TensorImageBW)
        and batch[0].ndim == 4
        and not any(isinstance(other, (TensorImageBase, TensorPoint, TensorBBox)) for other in batch[1:])
    )


def _device(batch: Any) -> torch.device | None:
    while isinstance(batch, (tuple, list)) and batch:
        batch = batch[0]
    return getattr(batch, "device", None)


def _on(x: torch.Tensor, values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(x.device, non_blocking=True)


@dataclass
class ToFloat:
    """IntToFloatTensor, with flips, which are done while a pixel is three bytes, and normalisation."""

    div: float
    flips: list[tuple[partial[Any], str]] = field(default_factory=list)
    normalize: Normalize | None = None

    def flips_by(self, resample: Resample) -> bool:
        """Whether all that `resample` does are flips, which are now done here."""
        tfm = resample.tfm
        plain = [f for f in tfm.aff_fs if f.func is augment.flip_mat and f.keywords.get("draw") in (None, 0, 1)]
        if self.normalize or tfm.size or len(tfm.coord_fs) or len(plain) < len(tfm.aff_fs):
            return False
        self.flips += [(f, f"{resample.stream}{i}") for i, f in enumerate(plain)]
        return True

    def normalizes_by(self, tfm: Normalize) -> bool:
        """Whether `tfm` is now done here."""
        done, self.normalize = self.normalize is None, self.normalize or tfm
        return done

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        for f, stream in self.flips:
            x = flipped(x, _on(x, geometry.matrix_of(f, len(x), stream)[:, 0, :1]) < 0)
        x = x.float()
        if self.normalize is not None:
            return normalized(x, self.normalize, self.div or 1.0)
        return x.div_(self.div) if self.div else x


def normalized(x: torch.Tensor, tfm: Normalize, div: float = 1.0) -> torch.Tensor:
    """(x / div - mean) / std, in place, as one row of numbers an image: by channel torch takes eight times as long."""
    mean, std = (torch.as_tensor(m, device=x.device).as_subclass(torch.Tensor).float() for m in (tfm.mean, tfm.std))
    scale, shift = 1 / (std * div), -mean / std
    last = x.is_contiguous(memory_format=torch.channels_last)
    if mean.numel() not in (1, x.shape[1]) or not (last or x.is_contiguous()):
        return torch.addcmul(shift, x, scale)
    memory, scale, shift = (
        t.permute(0, 2, 3, 1) if last else t for t in (x, scale.expand_as(x[:1]), shift.expand_as(x[:1]))
    )
    rows = memory.view(len(x), -1)
    torch.addcmul(shift.reshape(1, -1), rows, scale.reshape(1, -1), out=rows)
    return x


@dataclass
class Resample:
    """Composed affine and coordinate transforms: one matrix an image, one resampling."""

    tfm: augment.AffineCoordTfm
    stream: str
    random: bool

    def changes_nothing(self) -> bool:
        """fastai resamples by the identity then."""
        return self.tfm.size is None and not (self.random and (len(self.tfm.aff_fs) or len(self.tfm.coord_fs)))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        tfm, (h, w), n = self.tfm, x.shape[2:], len(x)
        matrices = np.broadcast_to(np.eye(3), (n, 3, 3))
        functions = [*tfm.aff_fs, *tfm.coord_fs] if self.random else []
        for i, f in enumerate(functions[: len(tfm.aff_fs)]):
            matrices = matrices @ geometry.matrix_of(f, n, f"{self.stream}{i}")
        matrices = matrices * [[1, h / w, 1], [w / h, 1, 1], [1, 1, 1]]  # a rotation in pixels, not of the unit square
        for i, f in enumerate(functions[len(tfm.aff_fs) :], len(tfm.aff_fs)):
            u = geometry.numbers(n, f"{self.stream}{i}", f.batch)
            matrices = geometry.warp(u, f.magnitude, f.p, f.draw_x, f.draw_y) @ matrices
        rows = 3 if self.random and len(tfm.coord_fs) else 2
        size = (tfm.size, tfm.size) if isinstance(tfm.size, int) else tfm.size
        return geometry.resample(x, _on(x, matrices[:, :rows]), size, tfm.mode, tfm.pad_mode, bool(tfm.align_corners))


def change_of(f: Any, n: int, stream: str) -> np.ndarray:
    """(n,) the `change` of one of fastai's lighting functions: of brightness, contrast, saturation or hue."""
    u = geometry.numbers(n, stream, f.batch)
    if isinstance(f, augment._BrightnessLogit):
        change = geometry.between(u[:, 0], 0.5 * (1 - f.max_lighting), 0.5 * (1 + f.max_lighting), f.draw)
        return geometry.masked(u[:, 1], change, f.p, 0.5)
    hue = isinstance(f, augment._Hue)
    most = -math.log(1 - (f.max_hue if hue else f.max_lighting))
    change = (
        np.exp(geometry.between(u[:, 0], -most, most)) if f.draw is None else geometry.between(u[:, 0], 0, 0, f.draw)
    )
    return geometry.masked(u[:, 1], change, f.p, 0.0 if hue else 1.0)


@dataclass
class Lighting:
    """Brightness, contrast and saturation of logits, which are computed once; hue by fastai's own arithmetic."""

    functions: Sequence[Any]
    stream: str
    hue: bool

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        x = augment.rgb2hsv(x) if self.hue else torch.logit(x, 1e-7)  # clamped where fastai clamps
        for i, f in enumerate(self.functions):
            change = change_of(f, len(x), f"{self.stream}{i}")
            if isinstance(f, augment._BrightnessLogit):
                x.add_(_on(x, np.log(change / (1 - change)))[:, None, None, None])
            elif isinstance(f, augment._ContrastLogit):
                x.mul_(_on(x, change)[:, None, None, None])
            else:
                f.change = _on(x, change)
                x = f(x)
        return augment.hsv2rgb(x) if self.hue else torch.sigmoid(x, out=x)
