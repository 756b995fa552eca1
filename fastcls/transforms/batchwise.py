"""Random augmentation of a whole batch at once, on its device: a function of (seed, epoch, image) by `draws`.

fastai Transforms of the training split alone, in the order of their `order`: crops and flips of uint8 pixels, then
geometry and colour of floats in [0, 1], then erasing of normalised images. Tensors are (n, channels, h, w); memory
stays channels-last where it was. `augment` and `policy` make lists of them.

DataBlock(..., item_tfms=transforms.resize(224, min_scale=0.35), batch_tfms=transforms.augment(rotate=15))
DataBlock(..., batch_tfms=[transforms.Crop(4, flip=0.5)])
"""

from __future__ import annotations

import contextlib
import math
import zlib
from typing import Literal

import numpy as np
import torch
from fastai.data.all import DisplayedTransform, Normalize, Transform
from fastai.vision.core import TensorImage

from fastcls.transforms import draws, geometry

GRAY = (0.2989, 0.587, 0.114)  # ITU-R BT.601 luma, as Pillow and torchvision weigh the colours
NOISE = 1 << 18  # numbers in the bank that random erasing takes its noise from
Policy = Literal["none", "trivial", "rand"]
POLICIES = {
    "trivial": "TrivialAugmentWide",  # one operation of any strength (Müller and Hutter 2021)
    "rand": "RandAugment",  # two operations of strength 9 of 30 (Cubuk et al. 2020)
}


class Batchwise(DisplayedTransform):
    """A transform of training batches: `apply` takes and gives (n, channels, h, w), which it may change in place."""

    split_idx = 0

    def encodes(self, x: TensorImage) -> torch.Tensor:
        return self.apply(x.as_subclass(torch.Tensor)).as_subclass(type(x))

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def uniform(self, x: torch.Tensor, columns: int) -> torch.Tensor:
        """(n, columns) in [0, 1), this transform's own."""
        return draws.uniform(len(x), columns, type(self).__name__, x.device)


class Flip(Batchwise):
    """Flip left to right with probability `p`.

    alternate: random for each image in the first epoch, and the other way in every second one, so that two epochs
    show each image both ways (Jordan 2024).
    """

    order = 6

    def __init__(self, p: float = 0.5, alternate: bool = False) -> None:
        self.p, self.alternate = p, alternate

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        return flipped(x, self.drawn(x))

    def drawn(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 1) booleans: which images are flipped."""
        key = draws.current()
        if not self.alternate or key is None:
            return draws.uniform(len(x), 1, "Flip", x.device) < self.p
        first = draws.table(draws.Key(key.seed, 0, key.indices), 1, "Flip")
        return torch.from_numpy((first < self.p) ^ bool(key.epoch % 2)).to(x.device, non_blocking=True)


def flipped(x: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """`x` with the images that `drawn` (n, 1) marks flipped left to right; on a CPU in place: a batch is used once."""
    if x.device.type != "cpu":  # where nonzero would wait for the device
        return torch.where(drawn[..., None, None], x.flip(3), x)
    rows = np.flatnonzero(drawn.numpy())
    memory = x.permute(0, 2, 3, 1).numpy()  # NumPy moves whole images, torch a number at a time
    memory[rows] = torch.from_numpy(memory[rows]).permute(0, 3, 1, 2).flip(3).permute(0, 2, 3, 1).numpy()
    return x


class Crop(Batchwise):
    """A crop of the original size after padding by `pad` pixels (He et al. 2016), that is, a shift by up to `pad`.

    pad_mode: 'reflection' or 'zeros'. flip, alternate: as in `Flip`, at no extra cost. Pixels are gathered directly,
    without padding and without a second copy.
    """

    order = 5

    def __init__(self, pad: int = 4, flip: float = 0.0, alternate: bool = False, pad_mode: str = "reflection") -> None:
        self.pad, self.pad_mode, self.flip = pad, pad_mode, Flip(flip, alternate)

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        h, w = x.shape[2:]
        shifts = (self.uniform(x, 2) * (2 * self.pad + 1)).long() - self.pad
        rows, columns = torch.arange(h, device=x.device), torch.arange(w, device=x.device)
        rows = rows + shifts[:, :1]
        columns = torch.where(self.flip.drawn(x), w - 1 - columns, columns) + shifts[:, 1:]
        pixels = x.permute(0, 2, 3, 1)
        if self.pad_mode == "reflection":
            return _gathered(pixels, _reflected(rows, h), _reflected(columns, w)).permute(0, 3, 1, 2)
        inside = ((rows >= 0) & (rows < h))[:, :, None] & ((columns >= 0) & (columns < w))[:, None, :]
        cut = _gathered(pixels, rows.clamp(0, h - 1), columns.clamp(0, w - 1)) * inside[..., None]
        return cut.permute(0, 3, 1, 2)


def _gathered(pixels: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """(n, h, w, c): pixel (rows[i, y], columns[i, x]) of image i at (y, x).

    index_select moves a pixel's channels at once: four times as fast as indexing with three tensors.
    """
    n, h, w, c = pixels.shape
    image = torch.arange(n, device=pixels.device)[:, None, None]
    places = image * (h * w) + rows[:, :, None] * w + columns[:, None, :]
    return pixels.reshape(-1, c).index_select(0, places.flatten()).view(*places.shape, c)


def _reflected(index: torch.Tensor, size: int) -> torch.Tensor:
    """Positions outside 0 … size - 1 mirrored at the edge pixels, as often as it takes."""
    return (size - 1) - ((size - 1) - index.abs() % max(2 * (size - 1), 1)).abs()


class Affine(Batchwise):
    """Rotation, shift, zoom and shear in a single bilinear resampling, each with probability `p`.

    rotate, shear: at most this many degrees either way. translate: at most this fraction of the side. zoom: a factor
    between 1 and `zoom`, about a random point. pad_mode: 'reflection', 'zeros' or 'border'.
    """

    order = 30

    def __init__(
        self,
        rotate: float = 10.0,
        translate: float = 0.0,
        zoom: float = 1.0,
        shear: float = 0.0,
        p: float = 0.75,
        pad_mode: str = "reflection",
    ) -> None:
        self.rotate, self.translate, self.zoom, self.shear = rotate, translate, zoom, shear
        self.p, self.pad_mode = p, pad_mode

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        matrices = self.matrices(self.uniform(x, 11), x.shape[3] / x.shape[2])
        return geometry.resample(x, matrices, pad_mode=self.pad_mode)

    def matrices(self, u: torch.Tensor, aspect: float) -> torch.Tensor:
        """(n, 2, 3): from output to input coordinates, which span -1 … 1 across the image. u: (n, 11) in [0, 1)."""
        signed = 2 * u - 1
        do = (u[:, 5:9] < self.p).to(u.dtype)
        angle = math.radians(self.rotate) * signed[:, 0] * do[:, 0]
        slant = torch.tan(math.radians(self.shear) * signed[:, 1] * do[:, 1])
        scale = 1 / (1 + (self.zoom - 1) * u[:, 2] * do[:, 2])
        shift = 2 * self.translate * signed[:, 3:5] * do[:, 3:4]
        centre = (1 - scale)[:, None] * signed[:, 9:11]
        cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
        # a rotation in pixels is a rotation of the [-1, 1] square only where the image is one: hence the aspect
        rows = [cos, (cos * slant + sin) / aspect, shift[:, 0] + centre[:, 0]]
        rows += [-sin * aspect, cos - sin * slant, shift[:, 1] + centre[:, 1]]
        return torch.stack(rows, 1).reshape(-1, 2, 3)


class ColorJitter(Batchwise):
    """Brightness, contrast and saturation by a factor of 1 ± `amount`, each with probability `p`.

    As in torchvision, in this order, each clamped to [0, 1] before the next.
    """

    order = 31

    def __init__(self, amount: float = 0.2, p: float = 0.75) -> None:
        self.amount, self.p = amount, p

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        u = self.uniform(x, 6)
        factors = 1 + self.amount * (2 * u[:, :3] - 1) * (u[:, 3:] < self.p)
        b, c, s = (factor[:, None, None, None].to(x.dtype) for factor in factors.unbind(1))
        x = x.mul_(b).clamp_(0, 1)
        offset = (1 - c) * _gray(x).mean((1, 2, 3), keepdim=True)
        x = x.mul_(c).add_(offset).clamp_(0, 1)
        return x if x.shape[1] == 1 else torch.lerp(_gray(x), x, s).clamp_(0, 1)


def _gray(x: torch.Tensor) -> torch.Tensor:
    """(n, 1, h, w): how light each pixel is."""
    return x if x.shape[1] == 1 else sum(x[:, i : i + 1] * weight for i, weight in enumerate(GRAY))  # type: ignore[return-value]


class NormalizeInPlace(Normalize):
    """fastai's Normalize without two more batches of memory: its input was made by IntToFloatTensor just before."""

    def encodes(self, x: TensorImage) -> TensorImage:
        return torch.addcmul(-self.mean / self.std, x, 1 / self.std, out=x)  # one pass


class Erase(Batchwise):
    """Replace a random rectangle by noise with probability `p` (Zhong et al. 2020), after normalisation.

    area: smallest and largest share of the image. The rectangle is inside it, with an aspect ratio of 0.3 to 3.3.
    """

    order = 100

    def __init__(self, p: float = 0.5, area: tuple[float, float] = (0.02, 0.33)) -> None:
        self.p, self.area = p, area
        self.bank: torch.Tensor | None = None

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        _, channels, h, w = x.shape
        u = self.uniform(x, 6)
        low, high = self.area
        share = low + (high - low) * u[:, 0]
        ratio = torch.exp(math.log(0.3) + (math.log(3.3) - math.log(0.3)) * u[:, 1])
        whole = torch.tensor([h, w], device=x.device)
        sides = (torch.stack([ratio, 1 / ratio], 1) * (share * h * w)[:, None]).sqrt().round().minimum(whole)
        first = (u[:, 2:4] * (whole - sides + 1)).floor()
        rows, columns = (
            (places >= first[:, i : i + 1]) & (places < (first + sides)[:, i : i + 1])
            for i, places in enumerate((torch.arange(h, device=x.device), torch.arange(w, device=x.device)))
        )
        erased = rows[:, :, None] & columns[:, None, :] & (u[:, 4, None, None] < self.p)
        offsets = (u[:, 5] * NOISE).long()[:, None] + torch.arange(channels * h * w, device=x.device)
        noise = self._bank(x)[offsets % NOISE].reshape(x.shape)
        return torch.where(erased[:, None], noise, x)

    def _bank(self, x: torch.Tensor) -> torch.Tensor:
        """Normal noise, the same in every run; each image reads it from a place of its own."""
        if self.bank is None or self.bank.device != x.device:
            self.bank = torch.randn(NOISE, generator=torch.Generator().manual_seed(0)).to(x.device)
        return self.bank.to(x.dtype)


class Cutout(Batchwise):
    """Set a square of `side` (a fraction of the image's side) to zero, centred anywhere (DeVries and Taylor 2017)."""

    order = 101

    def __init__(self, side: float = 0.25) -> None:
        self.side = side

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        centres = self.uniform(x, 2)
        rows, columns = (
            ((torch.arange(pixels, device=x.device) + 0.5) / pixels - centres[:, i : i + 1]).abs() < self.side / 2
            for i, pixels in enumerate(x.shape[2:])
        )
        return x * ~(rows[:, :, None] & columns[:, None, :])[:, None]


class Policies(Batchwise):
    """`policy` on every image of a uint8 batch by itself, its draws a function of (seed, epoch, image)."""

    order = 7  # after crop and flip, before the pixels become numbers with a fraction

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        from torchvision.transforms import v2  # imports torch._dynamo, a second

        self.operation = getattr(v2, POLICIES[policy])(interpolation=v2.InterpolationMode.BILINEAR)

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        key, stream = draws.current(), zlib.crc32(self.policy.encode())
        changed = torch.empty_like(x)
        with draws.seeded_by(key) if key is not None else contextlib.nullcontext():
            for i, image in enumerate(x):
                if key is not None:
                    draws.reseed(key.seed, key.epoch, int(key.indices[i]), stream)
                changed[i] = self.operation(image)
        return changed


def policy(name: Policy) -> list[Transform]:
    """The batch transforms of this policy; none for 'none'."""
    return [] if name == "none" else [Policies(name)]


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

    flip: left to right half the time. rotate, shear: at most this many degrees. translate: at most this fraction of the
    side. zoom: at most this factor. jitter: brightness, contrast and saturation by at most this fraction. erase:
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
