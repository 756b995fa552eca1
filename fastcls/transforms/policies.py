"""Policies of many augmentations, torchvision's: an operation and its strength drawn for every image."""

from __future__ import annotations

import contextlib
import zlib
from typing import Literal

import torch
from fastai.data.all import Transform
from torchvision.transforms import v2

from fastcls.transforms import draws
from fastcls.transforms.batchwise import Batchwise

Policy = Literal["none", "trivial", "rand"]
POLICIES = {
    "trivial": v2.TrivialAugmentWide,  # one operation of any strength (Müller and Hutter 2021)
    "rand": v2.RandAugment,  # two operations of strength 9 of 30 (Cubuk et al. 2020)
}


class Policies(Batchwise):
    """`policy` on every image of a uint8 batch by itself, its draws a function of (seed, epoch, image)."""

    order = 7  # after crop and flip, before the pixels become numbers with a fraction

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.operation = POLICIES[policy](interpolation=v2.InterpolationMode.BILINEAR)

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
    """The batch transforms of that policy; none for 'none'."""
    return [] if name == "none" else [Policies(name)]
