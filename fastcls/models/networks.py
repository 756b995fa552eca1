"""Convolutional networks of our own: `cnn`, in stages, and `speednet`, which learns CIFAR-10 in minutes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from fastcls import lazy
from fastcls.errors import UsageError

with lazy.imports():  # a second, that networks without EvoNorm need not wait for
    import timm

ACTIVATIONS = {"relu": nn.ReLU, "mish": nn.Mish, "silu": nn.SiLU, "gelu": nn.GELU}
NORMS = ("none", "batch", "group", "evonorm-b0", "evonorm-s0")
SHIFTS = ((0, 0, 0.5), (-1, -1, 0.25), (1, 1, 0.25))  # of speednet's views at test time: rows, columns, weight
GROUPS = 32  # of group norm and EvoNorm-S0 where the channels can be shared out so (Wu and He 2018)


def cnn(
    n_in: int,
    n_out: int,
    filters: Sequence[int] = (32, 64, 128),
    convs: int = 1,
    kernel: int = 3,
    padding: str = "same",
    act: str = "relu",
    norm: str = "batch",
    pools: Sequence[int] | None = None,
    side: int | None = None,
    hidden: Sequence[int] = (),
    dropout: float = 0.0,
    pool_first: bool = True,
) -> nn.Sequential:
    """A CNN with a stage of `convs` convolutions for each of `filters`, then linear layers; returns logits (n, n_out).

    The input is (n, n_in, side, side), with features flattened into `hidden` linear layers; with side=None it is any
    image size, with features averaged over the image. padding: 'same' or 'valid'. norm: one of NORMS, act: one of
    ACTIVATIONS; the EvoNorms (Liu et al. 2020) include an activation, so there `act` is only for the hidden layers.
    pools: after which stages, counted from 1, the image is halved; by default after every one, except the last where
    features are averaged. dropout: before the last linear layer.
    pool_first: pool before norm and activation, which then process a quarter of the values, instead of after them. For
    ReLU the two are equal up to the batch's statistics: the maximum of normalised values is the normalised maximum.
    """
    if pools is None:
        pools = range(1, len(filters) + (side is not None))
    layers: list[nn.Module] = []
    for stage, (ni, nf) in enumerate(pairwise([n_in, *filters]), 1):
        for index in range(convs):
            rest = norm_act(nf, norm, act)
            if index == convs - 1 and stage in pools:
                rest.insert(0 if pool_first else len(rest), nn.MaxPool2d(2))
            width = 0 if padding == "valid" else kernel // 2
            conv = nn.Conv2d(ni if index == 0 else nf, nf, kernel, padding=width, bias=norm == "none")
            layers += [conv, *rest]
            if side is not None:
                side = (side + 2 * width - kernel + 1) // (2 if index == convs - 1 and stage in pools else 1)
                if side < 1:
                    raise UsageError(
                        f"Stage {stage} of the network reduces the image to nothing.",
                        "Use fewer filters, a smaller kernel or padding 'same'.",
                    )
    widths = [filters[-1] * (1 if side is None else side**2), *hidden]
    head: list[nn.Module] = [nn.AdaptiveAvgPool2d(1)] if side is None else []
    head.append(nn.Flatten())
    for ni, nf in pairwise(widths):
        head += [nn.Linear(ni, nf), _activation(act)]
    return nn.Sequential(*layers, *head, nn.Dropout(dropout), nn.Linear(widths[-1], n_out))


def norm_act(channels: int, norm: str, act: str) -> list[nn.Module]:
    """Normalisation and activation of (n, channels, h, w)."""
    groups = math.gcd(GROUPS, channels)
    match norm:
        case "none":
            return [_activation(act)]
        case "batch":
            return [nn.BatchNorm2d(channels), _activation(act)]
        case "group":
            return [nn.GroupNorm(groups, channels), _activation(act)]
        case "evonorm-b0":
            return [timm.layers.EvoNorm2dB0(channels)]
        case "evonorm-s0":
            return [timm.layers.EvoNorm2dS0(channels, groups=groups)]
    raise UsageError(f"Unknown norm {norm!r}.", f"Use one of {', '.join(NORMS)}.")


def _activation(name: str) -> nn.Module:
    if name not in ACTIVATIONS:
        raise UsageError(f"Unknown activation {name!r}.", f"Use one of {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name]() if name == "gelu" else ACTIVATIONS[name](inplace=True)


# ------------------------------------------------------------------ speednet (after Jordan 2024, arXiv 2404.00498)


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

    A small network for 32 × 32 images; `whiten(net, images)` sets its first layer before the training.

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


speednet = SpeedNet  # as recipes call it, beside cnn


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
