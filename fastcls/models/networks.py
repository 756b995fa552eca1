"""Convolutional networks of our own: stages of convolution, pool, norm and activation, then linear layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from fastcls import lazy
from fastcls.errors import UsageError

with lazy.imports():  # a second, that networks without EvoNorm need not wait for
    import timm

ACTIVATIONS = {"relu": nn.ReLU, "mish": nn.Mish, "silu": nn.SiLU, "gelu": nn.GELU}
NORMS = ("none", "batch", "group", "evonorm-b0", "evonorm-s0")
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
