"""How a training step is computed: precision, memory format, compilation, accumulation, clipping; no waiting for a GPU.

`configure(learn)` reads the options in force. None of it changes what is learned beyond rounding.
"""

from __future__ import annotations

import shutil
import time
from functools import partial
from typing import Any

import torch
from fastai.callback.core import Callback
from fastai.callback.fp16 import AMPMode, MixedPrecision
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.learner import AvgSmoothLoss, Learner, Recorder
from fastai.torch_core import to_detach
from torch import nn

from fastcls import options
from fastcls.errors import EnvironmentProblem
from fastcls.loaders import FollowEpochs

WORTH = 0.9  # bf16 is taken where it needs at most this share of fp32's time
PROBED = 128 * 32 * 32  # pixels of the batch that the probe times


def configure(learn: Learner) -> None:
    """Give a learner the callbacks of the options in force; `learn.precision` says what it computes in, and why."""
    opts, device = options.current(), learn.dls.device
    if opts.channels_last and any(isinstance(module, nn.Conv2d) for module in learn.model.modules()):
        learn.model.to(memory_format=torch.channels_last)
    learn.precision, learn.precision_reason = precision(learn)
    callbacks: list[Callback] = [FollowEpochs()]
    if learn.precision != "fp32":
        callbacks.append(MixedPrecision(AMPMode.FP16) if learn.precision == "fp16" else Autocast(device.type))
    if opts.accumulate > 1:
        callbacks.append(GradientAccumulation(opts.accumulate * learn.dls.train.bs))
    if opts.clip is not None:
        callbacks.append(GradientClip(opts.clip))
    if opts.compile != "off":
        callbacks.append(Compile(opts.compile))
    if device.type != "cpu":
        callbacks.append(OnDevice())
    learn.add_cbs(callbacks)


def precision(learn: Learner) -> tuple[str, str]:
    """('fp32', 'bf16' or 'fp16', why): what the options ask for, or what is fastest on this device and network."""
    wanted, device = options.current().precision, learn.dls.device
    if wanted == "fp16" and device.type != "cuda":
        raise EnvironmentProblem(
            f"--precision fp16 needs a CUDA device, and this run computes on {device.type}.",
            "Use --precision bf16 or fp32.",
        )
    if wanted != "auto":
        return wanted, "as asked"
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "this GPU computes it natively"
        if torch.cuda.get_device_capability(device) >= (7, 0):
            return "fp16", "this GPU has no bf16"
        return "fp32", "this GPU has no tensor cores"
    if device.type != "cpu":
        return "fp32", f"the precision of {device.type}"
    gain = _gain(learn)
    return ("bf16" if gain > 1 / WORTH else "fp32"), f"a probe: bf16 runs this network {gain:.1f} times as fast as fp32"


def _gain(learn: Learner) -> float:
    """How many times faster the network runs in bf16 than in fp32: the best of three forward passes each."""
    first = learn.dls.valid_ds.items
    first = first.iloc[:1] if hasattr(first, "iloc") else first[:1]
    (image,) = learn.dls.test_dl(first, num_workers=0).one_batch()
    count = max(4, min(learn.dls.train.bs, PROBED // (image.shape[-1] * image.shape[-2])))
    batch = image.as_subclass(torch.Tensor).expand(count, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    best = {True: float("inf"), False: float("inf")}
    training = learn.model.training
    learn.model.eval()
    try:
        for _ in range(3):
            for bf16 in best:
                started = time.perf_counter()
                with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    learn.model(batch)
                best[bf16] = min(best[bf16], time.perf_counter() - started)
    finally:
        learn.model.train(training)
    return best[False] / best[True]


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


def precision_callbacks(learn: Learner) -> list[Callback]:
    """The callbacks through which a learner computes in less than fp32."""
    return [callback for callback in learn.cbs if isinstance(callback, (Autocast, MixedPrecision))]


class Compile(Callback):
    """torch.compile for the time of a fit, in place: the weights keep their names. Notes what compiling took."""

    order = -15

    def __init__(self, mode: str) -> None:
        if not any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl")):
            raise EnvironmentProblem(
                "--compile needs a C++ compiler, and there is none.", "Install one, or leave it away."
            )
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
        self.learn.model._compiled_call_impl = None  # evaluation and export run the network as it is


class SmoothLossOnDevice(AvgSmoothLoss):
    """fastai's smoothed loss, left where it was computed."""

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
