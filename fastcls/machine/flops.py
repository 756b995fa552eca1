"""Floating-point operations of a network, by torch's counter."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


def flop_counter() -> FlopCounterMode:
    """torch's count of operations, silent, with the attention of CPUs, which older versions leave out."""
    mapping = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}
    return FlopCounterMode(display=False, custom_mapping=mapping)


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def forward_flops(model: nn.Module, example: torch.Tensor) -> tuple[float, float]:
    """Floating-point operations of a forward pass in evaluation mode, and how many of them are depthwise convolutions'.

    example: (n, channels, height, width). Multiplications and additions of matrix products and convolutions count,
    nothing else does.
    """
    training = model.training
    model.eval()
    counter = flop_counter()
    try:
        with counter, torch.no_grad():
            model(example)
    finally:
        model.train(training)
    counts, root = counter.get_flop_counts(), type(model).__name__
    depthwise = [
        sum(counts.get(f"{root}.{name}" if name else root, {}).values())
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
    ]
    return float(counter.get_total_flops()), float(sum(depthwise))
