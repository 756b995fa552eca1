"""A small network for 32 × 32 images that learns CIFAR-10 in minutes (after Jordan 2024, arXiv 2404.00498).

net = speednet.speednet(3, dls.c)
speednet.whiten(net, next(iter(dls.train))[0])
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from fastcls.errors import UsageError

SHIFTS = ((0, 0, 0.5), (-1, -1, 0.25), (1, 1, 0.25))  # of the views at test time: rows, columns, weight


class Whitening(nn.Module):
    """A fixed convolution whose outputs over natural patches are uncorrelated, with unit variance; a trained bias.

    (n, n_in, h, w) to (n, 2 · n_in · k², h - k + 1, w - k + 1): each filter and its negative, since a GELU keeps
    one side only. Random until `whiten` sets it. A buffer, for an optimiser's `unfreeze` would train a parameter.
    """

    weight: torch.Tensor

    def __init__(self, n_in: int, k: int = 2) -> None:
        super().__init__()
        filters = nn.init.orthogonal_(torch.empty(n_in * k * k, n_in * k * k)).reshape(-1, n_in, k, k)
        self.register_buffer("weight", torch.cat([filters, -filters]))
        self.bias = nn.Parameter(torch.zeros(len(self.weight)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight, self.bias)


class Shift(nn.BatchNorm2d):
    """Batch norm that learns a bias and no scale: a convolution follows, which has a scale of its own."""

    def __init__(self, nf: int, momentum: float = 0.4) -> None:
        super().__init__(nf, momentum=momentum)
        del self.weight
        self.register_buffer("weight", torch.ones(nf))


def conv(ni: int, nf: int) -> nn.Conv2d:
    """3 × 3, no bias; its first filters begin as the identity, so that depth costs nothing at the start."""
    layer = nn.Conv2d(ni, nf, 3, padding=1, bias=False)
    nn.init.dirac_(layer.weight[: min(ni, nf)].data)
    return layer


def block(ni: int, nf: int) -> nn.Sequential:
    """Two convolutions, pooled after the first and before its norm, so that all that follows is a quarter as large."""
    first = [conv(ni, nf), nn.MaxPool2d(2), Shift(nf), nn.GELU()]
    return nn.Sequential(*first, conv(nf, nf), Shift(nf), nn.GELU())


class SpeedNet(nn.Module):
    """Whitening, blocks, the maximum over all places, a linear layer: (n, n_in, h, w) to logits (n, n_out).

    widths: channels of its blocks, each of which halves the image. views: number of views that a prediction averages
    outside training: 1, 2 (also mirrored) or 6 (also each shifted by a pixel along the diagonal, at half the weight).
    Evaluation and export need no change for it.
    """

    def __init__(self, n_in: int, n_out: int, widths: Sequence[int] = (64, 256, 256), views: int = 6) -> None:
        super().__init__()
        if views not in (1, 2, 6):
            raise UsageError(f"Unknown test-time augmentation with {views} views.", "Use 1, 2 or 6.")
        self.views = views
        self.whitening = Whitening(n_in)
        self.act = nn.GELU()
        self.blocks = nn.Sequential(*(block(ni, nf) for ni, nf in pairwise([len(self.whitening.weight), *widths])))
        self.head = nn.Linear(widths[-1], n_out, bias=False)
        nn.init.normal_(self.head.weight, std=1 / widths[-1])  # small: the first steps are the features'

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous(memory_format=torch.channels_last)  # what tensor cores and oneDNN convolve fastest
        if self.training or self.views == 1:
            return self.logits(x)
        moved = shifted(x) if self.views == 6 else [(x, 1.0)]
        weighted = [(self.logits(v) + self.logits(v.flip(-1))) * (weight / 2) for v, weight in moved]
        return torch.stack(weighted).sum(0)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Of one view."""
        features = self.blocks(self.act(self.whitening(x)))
        return self.head(features.amax((2, 3)))


def shifted(x: torch.Tensor) -> list[tuple[torch.Tensor, float]]:
    """The image, and moved by a pixel either way along the diagonal (mirrored at the edge), with weights of sum 1."""
    h, w = x.shape[-2:]
    padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
    return [(padded[..., 1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w], weight) for dy, dx, weight in SHIFTS]


speednet = SpeedNet  # as recipes call it, beside models.cnn


@torch.no_grad()
def whiten(model: SpeedNet, images: torch.Tensor, eps: float = 5e-4) -> None:
    """Set the first layer from normalised training images (n, c, h, w): eigenvectors of their patches' covariance.

    eps: added to each variance, so that directions of pure noise are not amplified. A thousand images are enough.
    """
    n_in, k = model.whitening.weight.shape[1:3]
    patches = F.unfold(images.float(), k).transpose(1, 2).reshape(-1, n_in * k * k)
    variances, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (vectors / (variances + eps).sqrt()).T.flip(0).reshape(-1, n_in, k, k)
    model.whitening.weight.copy_(torch.cat([filters, -filters]))
