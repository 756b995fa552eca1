"""Convolutional networks of our own, from fastai's layers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from fastai.layers import ConvLayer, NormType
from torch import nn


def cnn(n_in: int, n_out: int, filters: Sequence[int] = (32, 64, 128), dropout: float = 0.0) -> nn.Sequential:
    """3 × 3 convolutions with batch norm and ReLU, a pool before each but the first, then a linear layer.

    Takes (n, n_in, h, w) with h, w ≥ 2^(len(filters) - 1); gives logits (n, n_out). Global average pooling
    before the linear layer lets it take any image size.
    """
    layers: list[nn.Module] = []
    widths = [n_in, *filters]
    for index, (ni, nf) in enumerate(pairwise(widths)):
        if index:
            layers.append(nn.MaxPool2d(2))
        layers.append(ConvLayer(ni, nf, norm_type=NormType.Batch))
        layers.append(ConvLayer(nf, nf, norm_type=NormType.Batch))
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(widths[-1], n_out)]
    return nn.Sequential(*layers, *head)


def vgg_cnn(
    n_in: int,
    n_out: int,
    filters: Sequence[int] = (64, 64, 128, 128, 256),
    pools: Sequence[int] = (2, 4, 5),
    hidden: int = 512,
    dropout: float = 0.5,
    side: int = 32,
    pool_first: bool = True,
) -> nn.Sequential:
    """Single 3 × 3 convolutions with batch norm and ReLU, pools after some of them, one hidden linear layer.

    Takes (n, n_in, side, side); gives logits (n, n_out). pools: after which convolutions, counted from 1, the image is
    halved. pool_first: before batch norm and ReLU instead of after them, which then have a quarter to do; a maximum of
    normalised values is the normalised maximum, up to the batch's statistics.
    """
    layers: list[nn.Module] = []
    for index, (ni, nf) in enumerate(pairwise([n_in, *filters]), 1):
        rest: list[nn.Module] = [nn.BatchNorm2d(nf), nn.ReLU(inplace=True)]
        if index in pools:
            rest.insert(0 if pool_first else 2, nn.MaxPool2d(2))
        layers += [nn.Conv2d(ni, nf, 3, padding=1, bias=False), *rest]
    features = filters[-1] * (side // 2 ** len(pools)) ** 2
    head = [nn.Linear(features, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout), nn.Linear(hidden, n_out)]
    return nn.Sequential(*layers, nn.Flatten(), *head)
