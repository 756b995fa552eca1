"""How a training step is computed: precision, memory format, compilation, accumulation, clipping; no waiting for a GPU.

`configure(learn)` reads the options in force. None of it changes what is learned beyond rounding.
"""

from __future__ import annotations

import shutil
import time

import torch
from fastai.callback.core import Callback
from fastai.callback.fp16 import AMPMode, MixedPrecision
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.learner import Learner
from fastai.torch_core import get_model
from torch import nn

from fastcls.data import splitting
from fastcls.data.dataloaders import FollowEpochs
from fastcls.datasets.walk import count
from fastcls.errors import EnvironmentProblem, UsageError
from fastcls.machine import flops, host, ranks
from fastcls.settings import options
from fastcls.training import distributed, patches
from fastcls.training.losses import AvgLossByWeight

# where bf16 pays on a CPU (docs/performance.md)
LARGE = 1e8  # operations of a forward pass an image, at least
DEPTHWISE = 0.05  # of them, at most, are depthwise convolutions', whose gradients are slow in bf16


def configure(learn: Learner) -> None:
    """Give a learner the callbacks of the options in force; `learn.precision` says what it computes in, and why."""
    opts, device = options.current(), learn.dls.device
    if opts.channels_last and any(isinstance(module, nn.Conv2d) for module in learn.model.modules()):
        learn.model.to(memory_format=torch.channels_last)
    learn.precision, learn.precision_reason = distributed.broadcast(precision(learn))
    callbacks: list[Callback] = [patches.Dispatch(), FollowEpochs(), patches.PlainLoss()]
    if learn.precision != "fp32":
        callbacks.append(MixedPrecision(AMPMode.FP16) if learn.precision == "fp16" else Autocast(device.type))
    if opts.accumulate > 1:
        callbacks.append(Accumulation(opts.accumulate * learn.dls.train.bs // ranks.world()))
    if opts.clip is not None:
        callbacks.append(GradientClip(opts.clip))
    if opts.compile != "off":
        callbacks.append(Compile(opts.compile))
    callbacks.append(Heap() if device.type == "cpu" else patches.OnDevice())
    learn.add_cbs(callbacks)
    if hasattr(learn, "recorder"):
        learn.recorder.loss = AvgLossByWeight()
    validate_in_fp32(learn)


class Accumulation(GradientAccumulation):
    """fastai's, which takes no step at all where a fit has fewer batches: in a run that is refused."""

    def before_fit(self) -> None:
        super().before_fit()
        epochs, wanted = self.learn.n_epoch, options.current().accumulate
        if (batches := epochs * len(self.dls.train)) < wanted and hasattr(self.learn, "history"):  # a run's
            raise UsageError(
                f"--accumulate {wanted}: {count(epochs, 'epoch')} of batches of {self.dls.train.bs} images have only "
                f"{batches:,} batches, so no step would be taken.",
                f"Use --accumulate {batches} or less, a smaller --bs or more epochs.",
            )


def validate_in_fp32(learn: Learner) -> None:
    """Leave fastai's fp16 to training batches: epochs are evaluated as `predict` computes, and so is the run's end."""
    for callback in learn.cbs:
        if isinstance(callback, MixedPrecision):
            callback.run_valid = False


def precision(learn: Learner) -> tuple[str, str]:
    """('fp32', 'bf16' or 'fp16', why): what the options ask for, without a reason, or what suits device and network.

    The choice is a function of the two alone, never of a timing: a busy machine takes the same as a quiet one."""
    wanted, device = options.current().precision, learn.dls.device
    if wanted == "fp16" and device.type != "cuda":
        raise EnvironmentProblem(
            f"--precision fp16 needs a CUDA device, and this run computes on {device.type}.",
            "Use --precision bf16 or fp32.",
        )
    if wanted != "auto":
        return wanted, ""
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "this GPU computes it natively"
        if torch.cuda.get_device_capability(device) >= (7, 0):
            return "fp16", "this GPU has no bf16"
        return "fp32", "this GPU has no tensor cores"
    if device.type != "cpu":
        return "fp32", f"the precision of {device.type}"
    if not _native_bf16():
        return "fp32", "this processor has no bf16"
    try:
        operations, depthwise = flops.forward_flops(learn.model, input_example(learn))
    except (RuntimeError, AssertionError):  # a network for other images; training will say it better
        return "fp32", "this network cannot be tested"
    size = f"{operations / 1e6:,.0f} million operations per image"
    if operations < LARGE:
        return "fp32", f"a small network: {size}"
    if depthwise > DEPTHWISE * operations:
        return "fp32", f"depthwise convolutions, {depthwise / operations:.0%} of its operations, are slow in bf16"
    return "bf16", f"native on this device; {size}"


def _native_bf16() -> bool:
    """Whether this CPU multiplies in bf16, and torch may use it (ATEN_CPU_CAPABILITY)."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))


def input_example(learn: Learner) -> torch.Tensor:
    """A validation image as the network is given it: (1, channels, height, width)."""
    (image,) = learn.dls.test_dl(splitting.picked(learn.dls.valid_ds.items, [0]), num_workers=0).one_batch()
    return image.as_subclass(torch.Tensor)


class Heap(Callback):
    """On a CPU: what tensors free stays for the next step; where the process has grown by it, it goes back."""

    every = 10  # batches, of training and validation
    growth = 1.25

    def __init__(self) -> None:
        self.batches, self.usual = 0, 0.0

    def before_fit(self) -> None:
        host.keep_freed()

    def after_batch(self) -> None:
        self.batches += 1
        if self.batches % self.every:
            return
        resident = host.resident()
        if not self.usual:
            self.usual = resident
        elif resident > self.growth * self.usual:
            host.give_back()  # 18 ms for 200 MB
            self.usual = 0.0  # measured again, when the next batches have taken what they need


class Autocast(Callback):
    """bfloat16 autocast of training batches on any device: fastai's own mixed precision does nothing off CUDA."""

    order = MixedPrecision.order
    run_valid = False

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def before_batch(self) -> None:
        self.context = torch.autocast(self.kind, dtype=torch.bfloat16)
        self.context.__enter__()

    def after_pred(self) -> None:
        self.learn.pred = self.learn.pred.float()

    def after_loss(self) -> None:
        self.context.__exit__(None, None, None)


class Compile(Callback):
    """torch.compile for the time of a fit, in place: the weights keep their names. Notes what compiling took."""

    order = -15

    def __init__(self, mode: str) -> None:
        if not any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl")):
            raise EnvironmentProblem("--compile needs a C++ compiler, and none was found.", "Install one, or omit it.")
        self.mode = mode

    def before_fit(self) -> None:
        self.learn.model.compile(mode=self.mode)
        self.first: float | None = None

    def before_batch(self) -> None:
        if self.training and self.first is None:
            self.started = time.perf_counter()

    def after_batch(self) -> None:
        if self.training and self.first is None:
            self.first = time.perf_counter() - self.started
            options.note(f"torch.compile ({self.mode}): the first step took {self.first:.0f} s, including compilation.")

    def after_fit(self) -> None:
        get_model(self.learn.model)._compiled_call_impl = None  # evaluation and export run the network as it is
