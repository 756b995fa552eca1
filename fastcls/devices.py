"""The device a run computes on, the precision it computes in, and what the machine is."""

from __future__ import annotations

import os
import platform
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.callback.fp16 import AMPMode, MixedPrecision
from fastai.learner import Learner

from fastcls import options
from fastcls.errors import EnvironmentProblem


def device() -> torch.device:
    """The device that the options in force ask for; EnvironmentProblem where it is not there."""
    wanted = options.current().device
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return torch.device(next(kind for kind, found in there.items() if found))
    if not there[wanted]:
        raise EnvironmentProblem(
            f"--device {wanted}: this machine (or its torch {torch.__version__}) has none.",
            f"Use --device {' or '.join(kind for kind, found in there.items() if found)}, or leave it away.",
        )
    return torch.device(wanted)


def precision(where: torch.device) -> str:
    """'fp32', 'bf16' or 'fp16': what the options ask for, or what suits the device."""
    wanted = options.current().precision
    if wanted == "auto":
        if where.type != "cuda":
            return "fp32"
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if wanted == "fp16" and where.type != "cuda":
        raise EnvironmentProblem(
            f"--precision fp16 needs a CUDA device, and this run computes on {where.type}.",
            "Use --precision bf16 or fp32.",
        )
    return wanted


class Autocast(Callback):
    """bfloat16 autocast on any device: fastai's own mixed precision does nothing off CUDA."""

    order = MixedPrecision.order

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def before_batch(self) -> None:
        self.context = torch.autocast(self.kind, dtype=torch.bfloat16)
        self.context.__enter__()

    def after_pred(self) -> None:
        self.learn.pred = self.learn.pred.float()

    def after_loss(self) -> None:
        self.context.__exit__(None, None, None)


def precision_callback(name: str, where: torch.device) -> Callback | None:
    """The callback that computes in that precision; none for fp32."""
    if name == "fp32":
        return None
    return MixedPrecision(AMPMode.FP16) if name == "fp16" else Autocast(where.type)


def precision_callbacks(learn: Learner) -> list[Callback]:
    """The callbacks through which a learner computes in less than fp32."""
    return [callback for callback in learn.cbs if isinstance(callback, (Autocast, MixedPrecision))]


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (every device)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def workers() -> int:
    """Loader processes: as asked, else by the cores; none on two cores, where they only get in the way."""
    asked = options.current().workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return asked if asked is not None else (0 if cores <= 2 else min(16, cores))


def describe(where: torch.device) -> dict[str, Any]:
    """Device type, name and thread count, for run.json."""
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else _processor()
    return {"type": where.type, "name": name, "threads": torch.get_num_threads()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
