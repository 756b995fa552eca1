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
