"""What takes a tiny run, or a process of many of them, most of its time: left out, or done once for all."""

from __future__ import annotations

import functools
import gc
import sys
from typing import Any


def freeze() -> None:
    """Have Python look no more at what was imported when it collects garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def operators_once() -> None:
    """Have torch read onnxscript's library of operators for the first ONNX file alone, if it is imported."""
    registry: Any = getattr(sys.modules.get("torch.onnx._internal.exporter._registration"), "ONNXRegistry", None)
    if registry is not None and not isinstance(registry.__dict__["from_torchlib"], staticmethod):
        registry.from_torchlib = staticmethod(functools.cache(registry.from_torchlib))
