"""How a training step is computed: precision, memory format, compilation, accumulation, clipping; no waiting for a GPU.

`configure(learn)` reads the options in force. None of it changes what is learned beyond rounding.
"""

from __future__ import annotations

import shutil
import time
from functools import partial
from operator import attrgetter
from typing import Any

import torch
from fastai.callback.core import Callback
from fastai.callback.fp16 import AMPMode, MixedPrecision
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.learner import AvgSmoothLoss, Learner, Recorder
from fastai.losses import BaseLoss
from fastai.torch_core import get_model, to_detach
from torch import nn

from fastcls.data.dataloaders import FollowEpochs
from fastcls.errors import EnvironmentProblem
from fastcls.machine import heap, memory, ranks, throughput
from fastcls.settings import options
from fastcls.training import distributed
from fastcls.training.losses import AvgLossByWeight

# where bf16 pays on a CPU (docs/performance.md)
LARGE = 1e8  # operations of a forward pass an image, at least
DEPTHWISE = 0.05  # of them, at most, are depthwise convolutions', whose gradients are slow in bf16


def configure(learn: Learner) -> None:
    """Give a learner the callbacks of the options in force; `learn.precision` says what it computes in, and why."""
    opts, device = options.current(), learn.dls.device
    if opts.channels_last and any(isinstance(module, nn.Conv2d) for module in learn.model.modules()):
        learn.model.to(memory_format=torch.channels_last)
    learn.precision, learn.precision_reason = distributed.shared(precision(learn))
    callbacks: list[Callback] = [Dispatch(), FollowEpochs(), PlainLoss()]
    if learn.precision != "fp32":
        callbacks.append(MixedPrecision(AMPMode.FP16) if learn.precision == "fp16" else Autocast(device.type))
    if opts.accumulate > 1:
        callbacks.append(GradientAccumulation(opts.accumulate * learn.dls.train.bs // ranks.world()))
    if opts.clip is not None:
        callbacks.append(GradientClip(opts.clip))
    if opts.compile != "off":
        callbacks.append(Compile(opts.compile))
    callbacks.append(Heap() if device.type == "cpu" else OnDevice())
    learn.add_cbs(callbacks)
    if hasattr(learn, "recorder"):
        learn.recorder.loss = AvgLossByWeight()
    validate_in_fp32(learn)


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
        operations, depthwise = throughput.forward_flops(learn.model, _validation_image(learn))
    except (RuntimeError, AssertionError):  # a network for other images; training will say it better
        return "fp32", "this network cannot be tried"
    size = f"{operations / 1e6:,.0f} million operations an image"
    if operations < LARGE:
        return "fp32", f"a small network: {size}"
    if depthwise > DEPTHWISE * operations:
        return "fp32", f"depthwise convolutions, {depthwise / operations:.0%} of its operations, are slow in bf16"
    return "bf16", f"native here; {size}"


def _native_bf16() -> bool:
    """Whether this CPU multiplies in bf16, and torch may use it (ATEN_CPU_CAPABILITY)."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))


def _validation_image(learn: Learner) -> torch.Tensor:
    """One image as the network is given it: (1, channels, height, width)."""
    first = learn.dls.valid_ds.items
    first = first.iloc[:1] if hasattr(first, "iloc") else first[:1]
    (image,) = learn.dls.test_dl(first, num_workers=0).one_batch()
    return image.as_subclass(torch.Tensor)


class Dispatch(Callback):
    """While `fit` runs, an event calls the callbacks that define it.

    fastai calls all of them, and each looks for the event in itself, in the Learner and in the model: 7 µs for each of
    the callbacks, in each of a step's eight events.
    """

    order = -100

    def __init__(self) -> None:
        self.present: tuple[Callback, ...] = ()
        self.defining: dict[str, list[Callback]] = {}

    def before_fit(self) -> None:
        self.learn._call_one = self.call

    def after_fit(self) -> None:
        self.learn.__dict__.pop("_call_one", None)

    def call(self, event: str) -> None:
        present = tuple(self.learn.cbs.items)
        if present != self.present:
            self.present, self.defining = present, {}
        if event not in self.defining:
            every = event == "after_fit"  # where fastai sets `run` of all of them again
            those = [cb for cb in present if every or hasattr(type(cb), event) or event in vars(cb)]
            self.defining[event] = sorted(those, key=attrgetter("order"))
        for callback in self.defining[event]:
            callback(event)


class PlainLoss(Callback):
    """While `fit` runs, fastai's losses compute with plain tensors.

    They compute with tensors of fastai's own, so that all that is done to a loss, its backward pass too, goes through
    Python: a sixth of the step of a small network. What is computed is the same.
    """

    def before_fit(self) -> None:
        single = all(p.dtype == torch.float32 for p in self.learn.model.parameters())  # fastai's smoothed loss is, too
        if single and isinstance(self.learn.loss_func, BaseLoss):
            self.learn.loss_func._contiguous = partial(_contiguous, axis=self.learn.loss_func.axis)

    def after_fit(self) -> None:
        if isinstance(self.learn.loss_func, BaseLoss):
            vars(self.learn.loss_func).pop("_contiguous", None)


def _contiguous(x: Any, axis: int) -> Any:
    return x.transpose(axis, -1).contiguous().as_subclass(torch.Tensor) if isinstance(x, torch.Tensor) else x


class Heap(Callback):
    """On a CPU: what tensors free stays for the next step; where the process has grown by it, it goes back."""

    every = 10  # batches, of training and validation
    growth = 1.25

    def __init__(self) -> None:
        self.batches, self.usual = 0, 0.0

    def before_fit(self) -> None:
        heap.keep_freed()

    def after_batch(self) -> None:
        self.batches += 1
        if self.batches % self.every:
            return
        resident = memory.resident()
        if not self.usual:
            self.usual = resident
        elif resident > self.growth * self.usual:
            heap.give_back()  # 18 ms for 200 MB
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
            raise EnvironmentProblem("--compile needs a C++ compiler, and there is none.", "Install one, or omit it.")
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
            options.note(f"torch.compile ({self.mode}): the first step took {self.first:.0f} s, compiling included.")

    def after_fit(self) -> None:
        get_model(self.learn.model)._compiled_call_impl = None  # evaluation and export run the network as it is


class SmoothLossOnDevice(AvgSmoothLoss):
    """fastai's smoothed loss, left where it was computed."""

    val: torch.Tensor

    def accumulate(self, learn: Learner) -> None:
        self.count += 1
        loss = to_detach(learn.loss.mean(), cpu=False)
        self.val = torch.lerp(loss, self.val.to(loss.device), self.beta)


class OnDevice(Callback):
    """Losses and metrics accumulate on the device: fastai copies them to the host, and so waits, every batch."""

    order = Recorder.order - 40

    def before_fit(self) -> None:
        self.learn.to_detach = partial(to_detach, cpu=False)
        if hasattr(self.learn, "recorder"):
            self.learn.recorder.smooth_loss = SmoothLossOnDevice(beta=self.learn.recorder.smooth_loss.beta)

    def after_fit(self) -> None:
        self.learn.__dict__.pop("to_detach", None)
        if hasattr(self.learn, "recorder") and self.learn.recorder.losses:
            losses: Any = self.learn.recorder.losses
            self.learn.recorder.losses = list(torch.stack(losses).cpu())

    def after_cancel_fit(self) -> None:
        self.after_fit()
