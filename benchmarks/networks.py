"""Networks that measurements train, by name: those of recipes, torchvision's and timm's, with random weights."""

from __future__ import annotations

import torch
from torch import nn


def network(name: str) -> nn.Module:
    """A recipe's own network, or torchvision's or timm's of that name, for ten classes; channels-last."""
    import timm
    import torchvision

    from fastcls.models import networks

    match name:
        case "digits-cnn":
            net: nn.Module = networks.cnn(1, 10, (32, 64, 128), convs=2)
        case "cifar10-cnn":
            net = networks.cnn(3, 10, (32, 64, 128, 256), side=32, hidden=(512,))
        case "cifar10-cnn5":
            net = networks.cnn(3, 10, (64, 64, 128, 128, 256), pools=(2, 4, 5), side=32, hidden=(512,), dropout=0.3)
        case "cifar100-basenet":
            net = networks.cnn(3, 10, (64, 128, 256), 2, side=32, hidden=(512,))
        case _ if hasattr(torchvision.models, name):
            net = getattr(torchvision.models, name)(num_classes=10)
        case _:
            net = timm.create_model(name, num_classes=10)
    return net.to(memory_format=torch.channels_last)
