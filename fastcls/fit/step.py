"""How a training step is computed: precision, memory format, compilation, accumulation, clipping; no waiting for a GPU.

`configure(learn)` reads the options in force. None of it changes what is learned beyond rounding.
"""

from __future__ import annotations

import platform
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

from fastcls.batches.loaders import FollowEpochs
from fastcls.errors import EnvironmentProblem
from fastcls.fit import distributed
from fastcls.machine import devices, ranks
from fastcls.settings import options

WORTH = 1.25  # times as fast as fp32 bf16 must be to be taken: small networks lie near 1, and must not waver
PROBED = 64 * 32 * 32  # pixels of the batch that the probe times
PROBE_SECONDS = 0.15


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
    callbacks.append(GiveBackMemory() if device.type == "cpu" else OnDevice())
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
    native = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    if platform.machine() in ("x86_64", "AMD64") and not any(getattr(torch.cpu, name, bool)() for name in native):
        return "fp32", "this processor has no bf16"
    gain = _gain(learn)
    return ("bf16" if gain >= WORTH else "fp32"), f"in a probe bf16 ran this network {gain:.1f} times as fast as fp32"


def _gain(learn: Learner) -> float:
    """How many times faster the network runs in bf16 than in fp32: the best of several forward passes each.

    On one thread, whose time other work on the machine disturbs least; 0 where a small batch cannot be run.
    """
    batch = _probe_batch(learn)
    best = {True: float("inf"), False: float("inf")}
    training, threads = learn.model.training, torch.get_num_threads()
    learn.model.eval()
    torch.set_num_threads(1)
    try:
        until = time.perf_counter() + PROBE_SECONDS
        while time.perf_counter() < until or best[True] == float("inf"):
            for bf16 in best:
                started = time.perf_counter()
                with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    learn.model(batch)
                best[bf16] = min(best[bf16], time.perf_counter() - started)
    except (RuntimeError, AssertionError):  # a network for other images; training will say it better
        return 0.0
    finally:
        torch.set_num_threads(threads)
        learn.model.train(training)
    return best[False] / best[True]


def _probe_batch(learn: Learner) -> torch.Tensor:
    """Copies of one validation image, as many as are trained at once or fill PROBED pixels."""
    first = learn.dls.valid_ds.items
    first = first.iloc[:1] if hasattr(first, "iloc") else first[:1]
    (image,) = learn.dls.test_dl(first, num_workers=0).one_batch()
    count = max(2, min(learn.dls.train.bs, PROBED // (image.shape[-1] * image.shape[-2])))
    return image.as_subclass(torch.Tensor).expand(count, -1, -1, -1).contiguous(memory_format=torch.channels_last)


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
        if isinstance(self.learn.loss_func, BaseLoss):
            self.learn.loss_func._contiguous = partial(_contiguous, axis=self.learn.loss_func.axis)

    def after_fit(self) -> None:
        if isinstance(self.learn.loss_func, BaseLoss):
            vars(self.learn.loss_func).pop("_contiguous", None)


def _contiguous(x: Any, axis: int) -> Any:
    return x.transpose(axis, -1).contiguous().as_subclass(torch.Tensor) if isinstance(x, torch.Tensor) else x


class GiveBackMemory(Callback):
    """What tensors leave free goes back to the system every so often (18 ms for 200 MB)."""

    every = 100  # batches, over all epochs

    def __init__(self) -> None:
        self.batches = 0

    def after_batch(self) -> None:
        self.batches += 1
        if self.batches % self.every == 0:
            devices.give_back_memory()


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
