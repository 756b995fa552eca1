"""Training by several processes as if by one: each takes its share of every batch, the gradients are averaged.

fastai's DistributedTrainer (accelerate, DistributedDataParallel), less what of it keeps figures from being right: its
DistributedDL, whose broadcast needs CUDA and whose gathering counts predictions twice. `loaders` share out the batches,
which are those of a single process; losses and predictions are put together here, once.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from fastai.distributed import DistributedTrainer
from fastai.learner import Learner
from fastai.torch_core import apply
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fastcls.data.dataloaders import SeededDL
from fastcls.errors import RecipeError
from fastcls.machine import ranks
from fastcls.machine.stop import Stop
from fastcls.settings import options
from fastcls.training.history import Stateless

STOP_EVERY = 10  # steps on a GPU between looks whether a process is to stop, for which the hosts wait for each other
PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)  # what torch's SyncBatchNorm takes the place of


class DataParallel(Stateless, DistributedTrainer):
    """A callback that makes a Learner's `fit` one of `ranks.world()` that train one network.

    stop: when one process is asked to stop, all are, at the same step. Weights keep their names: fastai's `get_model`
    finds the network below the wrapper.
    """

    def __init__(self, learn: Learner, stop: Stop) -> None:
        self.stop, self.device = stop, learn.dls.device
        super().__init__(sync_bn=False, cpu=self.device.type == "cpu", mixed_precision="no")
        stop.shared = True

    def _wrap_dl(self, dl: Any) -> Any:
        if not isinstance(dl, SeededDL):
            raise RecipeError(
                f"{type(dl).__name__}s cannot be shared among processes.",
                "Make the loaders with fastcls.data.loaders.",
            )
        dl.part = ranks.here()
        return dl

    def before_fit(self) -> None:
        self.network = self.learn.model
        self.norms = list(synchronise(self.network)) if options.current().sync_norm else []
        super().before_fit()

    def after_pred(self) -> None:
        """Validation: the predictions of all processes in the order of the batch, so that metrics are those of one."""
        if not self.training:
            n = min(self.dl.bs, self.dl.n - self.iter * self.dl.bs)
            self.learn.pred = apply(partial(gathered, n=n), self.pred)
            self.learn.yb = tuple(gathered(y, n) for y in self.yb)

    def after_loss(self) -> None:
        if self.training:
            loss = self.learn.loss.detach().as_subclass(torch.Tensor).clone()
            dist.all_reduce(loss)
            self.learn.loss = loss / ranks.world()
        if self.device.type == "cpu" or self.iter % STOP_EVERY == 0:
            self.stop_together()

    def stop_together(self) -> None:
        """Reduce over all processes whether a signal came; if so, all act on it now."""
        heard = torch.tensor(self.stop.heard or 0)
        dist.all_reduce(heard, dist.ReduceOp.MAX)
        if heard:
            self.stop.asked = int(heard)

    def before_validate(self) -> None:
        super().before_validate()
        self.stop_together()

    def after_epoch(self) -> None:
        self.stop_together()

    def after_fit(self) -> None:
        super().after_fit()
        for name, module in self.norms:
            if isinstance(self.network.get_submodule(name), nn.SyncBatchNorm):
                self.network.set_submodule(name, module)
            else:
                del module.forward
        for dl in self.learn.dls:
            dl.part = ranks.Place()
        self.accelerator.free_memory()


def gathered(own: torch.Tensor, n: int) -> torch.Tensor:
    """The `n` rows of a batch, of which each process has every world-th and some have one more to be even."""
    plain = own.detach().as_subclass(torch.Tensor).contiguous()
    parts = [torch.empty_like(plain) for _ in range(ranks.world())]
    dist.all_gather(parts, plain)
    return torch.stack(parts, 1).flatten(0, 1)[:n].as_subclass(type(own))


def synchronise(network: nn.Module) -> Iterator[tuple[str, _BatchNorm]]:
    """Let batch norms take mean and variance over all processes' images; yields their names and themselves.

    On GPUs torch's SyncBatchNorm takes their place. It refuses CPUs, and parameters that are buffers: there they keep
    theirs and compute otherwise.
    """
    for name, module in list(network.named_modules()):
        if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm):
            if name and type(module) in PLAIN and next(network.parameters()).device.type == "cuda":
                network.set_submodule(name, nn.SyncBatchNorm.convert_sync_batchnorm(module))
            else:
                module.forward = partial(normalized, module)  # type: ignore[method-assign]
            yield name, module


class _Sum(torch.autograd.Function):
    """The sum over all processes, its gradient too."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient


def normalized(norm: _BatchNorm, x: torch.Tensor) -> torch.Tensor:
    """What `norm` makes of its share `x` (n, channels, …) of a batch, by the moments of the whole batch."""
    if not norm.training:
        return type(norm).forward(norm, x)
    places = [i for i in range(x.ndim) if i != 1]
    count = x.numel() // x.shape[1] * ranks.world()
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    mean = _Sum.apply(wide.sum(places)) / count
    centred = wide - mean.view(1, -1, *[1] * (x.ndim - 2))
    variance = _Sum.apply(centred.square().sum(places)) / count
    if norm.track_running_stats and norm.running_mean is not None and norm.running_var is not None:
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
        share = 1 / int(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        with torch.no_grad():
            norm.running_mean.lerp_(mean, share)
            norm.running_var.lerp_(variance * (count / max(count - 1, 1)), share)
    scaled = centred * (variance + norm.eps).rsqrt().view(1, -1, *[1] * (x.ndim - 2))
    if norm.weight is not None:
        scaled = scaled * norm.weight.view(1, -1, *[1] * (x.ndim - 2))
    if norm.bias is not None:
        scaled = scaled + norm.bias.view(1, -1, *[1] * (x.ndim - 2))
    return scaled.to(x.dtype)
