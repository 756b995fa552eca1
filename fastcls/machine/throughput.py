"""How near a run came to what the device can do: model-FLOPs utilisation (Chowdhery et al. 2022, appendix B)."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def flop_counter() -> FlopCounterMode:
    """torch's count of floating-point operations, silent, with what it leaves out or gets wrong.

    2.7 leaves out the attention of CPUs; up to 2.15 it counts the gradient of a grouped convolution's weights as if
    there were one group, 13 times what an EfficientNet-Lite0 computes. All functions are given shapes.
    """
    mapping = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
        torch.ops.aten.convolution_backward: _convolution_backward,
    }
    return FlopCounterMode(display=False, custom_mapping=mapping)


def _convolution_backward(gradient: Any, images: Any, weights: Any, *rest: Any, **__: Any) -> int:
    """Either gradient, of images and of weights, takes as many operations as the convolution itself."""
    *_, transposed, _, _, wanted = rest
    one = 2 * math.prod(images if transposed else gradient) * math.prod(weights[1:])
    return one * sum(wanted[:2])


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(gradient, query, key, value))


def flops_per_image(model: nn.Module, example: torch.Tensor) -> float:
    """Floating-point operations of a training step an image: forward, and backward as far as weights are trained.

    example: (1, channels, height, width) on the model's device. Multiplications and additions of matrix products and
    convolutions count, nothing else does.
    """
    training = {module: module.training for module in model.modules()}
    model.train()  # as in training; but batch statistics of a single image would be none
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    counter = flop_counter()
    try:
        with counter, torch.enable_grad():
            logits = model(example)
            if logits.requires_grad:
                logits.sum().backward()
    finally:
        model.zero_grad(set_to_none=True)
        for module, mode in training.items():
            module.training = mode
    return float(counter.get_total_flops())


def forward_flops(model: nn.Module, example: torch.Tensor) -> tuple[float, float]:
    """Floating-point operations of a forward pass in evaluation mode, and how many of them are depthwise convolutions'.

    example: (n, channels, height, width).
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


def matmul_peak(device: torch.device, precision: str, tries: int = 5) -> float:
    """FLOP/s of a large matrix product in this precision, the best of `tries`: the measured limit of the device."""
    n = 8192 if device.type == "cuda" else 1536
    a = torch.randn(n, n, device=device).to(DTYPES[precision])
    best = float("inf")
    for _ in range(tries + 1):
        _wait(device)
        started = time.perf_counter()
        torch.mm(a, a)
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return 2 * n**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
