"""Training by several processes as if by one: each takes its share of every batch, the gradients are averaged.

fastai's DistributedTrainer (accelerate, DistributedDataParallel), less what of it keeps figures from being right: its
DistributedDL, whose broadcast needs CUDA and whose gathering counts predictions twice. `loaders` share out the batches,
which are those of a single process; losses and predictions are put together here, once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
from fastcls.training import distributed
from fastcls.training.guard import Guard
from fastcls.training.history import Stateless

NEVER = 2**62  # a batch
PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)  # what torch's SyncBatchNorm takes the place of


class DataParallel(Stateless, DistributedTrainer):
    """A callback that makes a Learner's `fit` one of `ranks.world()` that train one network.

    A step has no collective beside those of DDP and of synchronised batch norms: where one process is to stop, has a
    loss that is not finite, or is to save, all agree on a step at which they `meet`. Losses are averaged there, and
    after an epoch's last step. Weights keep their names: fastai's `get_model` finds the network below the wrapper.
    """

    def __init__(self, learn: Learner, stop: Stop, guard: Guard) -> None:
        self.stop, self.guard, self.device = stop, guard, learn.dls.device
        self.meetings = distributed.Meetings(self.device.type)
        self.losses: list[torch.Tensor] = []  # this process's own, since all met
        super().__init__(sync_bn=False, cpu=self.device.type == "cpu", mixed_precision="no")
        stop.shared = guard.shared = True

    def _wrap_dl(self, dl: Any) -> Any:
        if not isinstance(dl, SeededDL):
            raise RecipeError(
                f"{type(dl).__name__}s cannot be shared among processes.",
                "Create the loaders with fastcls.data.loaders.",
            )
        dl.part = ranks.here()
        return dl

    def before_fit(self) -> None:
        self.network = self.learn.model
        self.norms = list(synchronise(self.network)) if synchronised() else []
        super().before_fit()

    def after_pred(self) -> None:
        """Validation: the predictions of all processes in the order of the batch, so that metrics are those of one."""
        if not self.training:
            n = min(self.dl.bs, self.dl.n - self.iter * self.dl.bs)
            self.learn.pred = apply(partial(gathered, n=n), self.pred)
            self.learn.yb = tuple(gathered(y, n) for y in self.yb)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The recorder's losses are restored, which all have."""
        self.losses = []

    def before_train(self) -> None:
        super().before_train()
        self.losses = []

    def after_batch(self) -> None:
        """Keep this process's own loss, before the recorder smooths it."""
        if self.training:
            if not self.losses:
                smooth = self.recorder.smooth_loss
                self.since = len(self.recorder.losses), smooth.count, smooth.val
            self.losses.append(self.learn.loss.detach().as_subclass(torch.Tensor).mean())

    def agree(self, due: bool) -> bool:
        """Called after each training step but an epoch's last: whether to save now, as all processes do.

        due: whether it is time to; rank 0 has the clock.
        """
        wanted = (due and ranks.first()) or self.stop.heard is not None or self.guard.found is not None
        if met := self.meetings.now(wanted):
            self.meet()
        return met

    def meet(self) -> None:
        """All act now on a signal that one of them heard, and refuse a loss that one found not to be finite."""
        found = self.guard.found.batch if self.guard.found else NEVER
        news = torch.tensor([self.stop.heard or 0, -found])
        dist.all_reduce(news, dist.ReduceOp.MAX)
        heard, first = news.tolist()
        if -first < NEVER:
            self.guard.refuse(-first)
        if heard:
            self.stop.asked = heard
        self._average_losses()

    def _average_losses(self) -> None:
        """Have the recorder smooth what one process would: the same numbers, wherever the processes met in between."""
        if not self.losses:
            return
        own = torch.stack(self.losses)
        every = [torch.empty_like(own) for _ in range(ranks.world())]
        dist.all_gather(every, own)
        smooth, found = self.recorder.smooth_loss, []
        done, smooth.count, smooth.val = self.since
        smooth.val = smooth.val.cpu()
        for self.learn.loss in torch.stack(every).cpu().mean(0):
            smooth.accumulate(self.learn)
            found.append(smooth.value)
        self.recorder.losses[done:] = torch.stack(found).to(own.device).unbind()
        self.losses = []

    def after_train(self) -> None:
        """Before the recorder reads the epoch's loss."""
        self.guard.after_train()
        self.meet()

    def after_epoch(self) -> None:
        self.meet()

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


def synchronised() -> bool:
    """Whether batch norms take their moments over all processes: on one machine, unless the options say otherwise."""
    asked = options.current().sync_norm
    return ranks.here().machines == 1 if asked is None else asked


def note_on_norms(learn: Learner) -> None:
    """Say it where batch norms see their process's share of a batch only because there are several machines."""
    has_them = any(isinstance(module, _BatchNorm) for module in learn.model.modules())
    if has_them and options.current().sync_norm is None and not synchronised():
        share, machines = learn.dls.train.bs // ranks.world(), ranks.here().machines
        options.note(
            f"on {machines} machines, each process's batch norm uses only its own {share} images of a batch; "
            "--sync-norm synchronises them, as on a single machine."
        )


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
