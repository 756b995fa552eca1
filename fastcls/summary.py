"""The network, layer by layer: output shape, kernel, stride, parameters, multiply-adds, frozen or trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torchinfo import summary as torchinfo_summary


def summarize(model: nn.Module, input_shape: Sequence[int]) -> list[dict[str, Any]]:
    """A row a layer that computes something; `input_shape` is (channels, height, width)."""
    was_training = model.training
    device = next(model.parameters()).device
    statistics = torchinfo_summary(
        model, input_data=torch.zeros(1, *input_shape, device=device), verbose=0, mode="eval", depth=99
    )
    model.train(was_training)
    modules = {id(module): name for name, module in model.named_modules()}
    rows = []
    for layer in statistics.summary_list:
        module = layer.module
        if any(True for _ in module.children()) or layer.contains_lazy_param:
            continue
        parameters = list(module.parameters(recurse=False))
        rows.append(
            {
                "layer": modules.get(id(module), layer.var_name),
                "type": layer.class_name,
                "output_shape": list(layer.output_size),
                "kernel": _pair(getattr(module, "kernel_size", None)),
                "stride": _pair(getattr(module, "stride", None)),
                "parameters": sum(p.numel() for p in parameters),
                "multiply_adds": int(layer.macs),
                "trainable": any(p.requires_grad for p in parameters) if parameters else None,
            }
        )
    return rows


def count(model: nn.Module) -> tuple[int, int]:
    """Parameters in all, and those that are being trained."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained)


def _pair(value: Any) -> list[int] | None:
    if value is None or isinstance(value, str):
        return None
    return [value, value] if isinstance(value, int) else [int(v) for v in value]
