"""The geometry of image batches: a matrix an image, drawn by fastai's rules, and resampling through it.

Matrices go from output to input coordinates, which span -1 … 1 across the image, as in torch's `grid_sample`. fastai's
are drawn as functions of (seed, epoch, image): the same distributions, from `draws`. `u` is (n, COLUMNS) in [0, 1). A
`draw` that the user gives as one number takes the place of what is drawn. NumPy computes them, and they go to the
device at once: on a GPU, dozens of operations on n numbers would take longer than the pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from fastai.vision import augment
from torch.nn import functional as F

from fastcls.transforms import draws

COLUMNS = 4  # random numbers that one transform needs of an image, at most
DIHEDRAL = np.array([  # (xx, xy, yx, yy) of fastai's eight, in its order
    (1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (0, -1, 1, 0),
    (-1, 0, 0, -1), (0, 1, -1, 0), (0, 1, 1, 0), (0, -1, -1, 0),
])  # fmt: skip


def numbers(n: int, stream: str, batch: bool = False) -> np.ndarray:
    """`u` of the key in force; batch: the first image's for all, as fastai's `batch=True` has it."""
    key = draws.current()
    assert key is not None and len(key.indices) == n, "batch transforms run inside of draws.of"
    u = draws.table(key, COLUMNS, stream)
    return np.broadcast_to(u[:1], u.shape) if batch else u


def masked(u: np.ndarray, values: np.ndarray, p: float, neutral: float) -> np.ndarray:
    """`values` with probability `p`, else `neutral`, as fastai's `mask_tensor`. u: (n,)."""
    return np.where(u < p, values, neutral)


def between(u: np.ndarray, low: float, high: float, draw: float | None = None) -> np.ndarray:
    """Uniform numbers, or the user's one. u: (n,)."""
    return low + (high - low) * u.astype(np.float64) if draw is None else np.full(len(u), float(draw))


def affine(xx: Any, xy: Any, x: Any, yx: Any, yy: Any, y: Any) -> np.ndarray:
    """A matrix an image, from its upper two rows."""
    return np.stack(np.broadcast_arrays(xx, xy, x, yx, yy, y, 0.0, 0.0, 1.0), 1).reshape(-1, 3, 3)


def flip(u: np.ndarray, p: float = 0.5, draw: float | None = None) -> np.ndarray:
    flipped = masked(u[:, 1], np.full(len(u), 1.0 if draw is None else float(draw)), p, 0.0)
    return affine(1 - 2 * flipped, 0.0, 0.0, 0.0, 1.0, 0.0)


def dihedral(u: np.ndarray, p: float = 0.5, draw: float | None = None) -> np.ndarray:
    which = masked(u[:, 1], np.floor(between(u[:, 0], 0, 8, draw)), p, 0.0).astype(int)
    xx, xy, yx, yy = DIHEDRAL[which].T
    return affine(xx, xy, 0.0, yx, yy, 0.0)


def rotate(u: np.ndarray, max_deg: float = 10, p: float = 0.5, draw: float | None = None) -> np.ndarray:
    angle = np.radians(masked(u[:, 1], between(u[:, 0], -max_deg, max_deg, draw), p, 0.0))
    return affine(np.cos(angle), np.sin(angle), 0.0, -np.sin(angle), np.cos(angle), 0.0)


def zoom(
    u: np.ndarray, min_zoom: float = 1.0, max_zoom: float = 1.1, p: float = 0.5, draw: float | None = None,
    draw_x: float | None = None, draw_y: float | None = None,
) -> np.ndarray:  # fmt: skip
    scale = 1 / masked(u[:, 1], between(u[:, 0], min_zoom, max_zoom, draw), p, 1.0)
    x, y = (2 * between(u[:, 2 + i], 0, 1, at) - 1 for i, at in enumerate((draw_x, draw_y)))
    return affine(scale, 0.0, (1 - scale) * x, 0.0, scale, (1 - scale) * y)


def warp(
    u: np.ndarray, magnitude: float = 0.2, p: float = 0.5, draw_x: float | None = None, draw_y: float | None = None
) -> np.ndarray:
    """The projection that moves the corners by `x` down and by `y` across, for which fastai solves eight equations.

    [[1 - y², -xy, x], [-xy, 1 - x², y], [x, y, 1]] takes (±1, ±1) to fastai's target points; this is its inverse.
    """
    x = masked(u[:, 1], between(u[:, 0], -magnitude, magnitude, draw_x), p, 0.0)
    y = masked(u[:, 3], between(u[:, 2], -magnitude, magnitude, draw_y), p, 0.0)
    same, both = 1 - x**2 - y**2, 2 * x * y
    across, down = -x * (1 - x**2 + y**2), -y * (1 + x**2 - y**2)
    return np.stack([same, both, across, both, same, down, across, down, same], 1).reshape(-1, 3, 3)


MATRICES: dict[Any, Callable[..., np.ndarray]] = {
    augment.flip_mat: flip,
    augment.dihedral_mat: dihedral,
    augment.rotate_mat: rotate,
    augment.zoom_mat: zoom,
}


def matrix_of(f: partial[Any], n: int, stream: str) -> np.ndarray:
    """The matrices of one of fastai's affine functions with its settings."""
    how = dict(f.keywords)
    return MATRICES[f.func](numbers(n, stream, how.pop("batch", False)), **how)


# ---------------------------------------------------------------------------- resampling


def positions(n: int, align_corners: bool, device: torch.device) -> torch.Tensor:
    """(n,) coordinates of the pixels of a side; its ends are pixel centres with `align_corners`, else pixel edges."""
    if n == 1:
        return torch.zeros(1, device=device)
    centres = torch.linspace(-1, 1, n, device=device)
    return centres if align_corners else centres * ((n - 1) / n)


def grid(matrices: torch.Tensor, size: tuple[int, int], align_corners: bool) -> torch.Tensor:
    """(n, h, w, 2) input coordinates of the output's pixels, from (n, 2, 3) affine or (n, 3, 3) projective matrices.

    Kept in planes, (n, 2, h, w): one broadcast sum makes them in a tenth of the time of `F.affine_grid`, and
    `grid_sample` reads them as fast.
    In full precision whatever `torch.set_float32_matmul_precision` says: a matrix product in bf16 would move pixels.
    """
    h, w = size
    across = matrices[:, :, 0, None] * positions(w, align_corners, matrices.device)
    down = matrices[:, :, 1, None] * positions(h, align_corners, matrices.device) + matrices[:, :, 2, None]
    planes = down[..., None] + across[..., None, :]
    if matrices.shape[1] == 3:
        planes[:, :2].div_(planes[:, 2:])
    return planes[:, :2].permute(0, 2, 3, 1)


def resample(
    x: torch.Tensor,
    matrices: torch.Tensor,
    size: tuple[int, int] | None = None,
    mode: str = "bilinear",
    pad_mode: str = "reflection",
    align_corners: bool = False,
) -> torch.Tensor:
    """`x` (n, c, h, w) sampled through a matrix an image, from output to input coordinates, at `size` (height, width).

    Bilinear sampling to less than half the size averages areas first where fastai does: unless all images are zoomed.
    """
    where = grid(matrices, size or (x.shape[2], x.shape[3]), align_corners)
    shrinks = min(x.shape[2] / where.shape[1], x.shape[3] / where.shape[2]) / 2
    if mode == "bilinear" and shrinks > 1 and shrinks > 2 / (where.max() - where.min()).item():
        x = F.interpolate(x, scale_factor=1 / shrinks, mode="area", recompute_scale_factor=True)
    return F.grid_sample(x, where.to(x.dtype), mode=mode, padding_mode=pad_mode, align_corners=align_corners)
