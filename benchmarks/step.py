"""A training step without loading, against stock fastai and a bare loop, and the device's limits:
python -m benchmarks.step

The same batch, on the device already, every step; images a second of each network and side, in turn. Below: the
optimiser's step on ResNet-50, and what a matrix product and a convolution reach.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks import five_conv
from benchmarks.common import arguments, in_turn, ratio, show, spread
from fastcls.running.loading import import_fastai


class Ready:
    """A loader that gives one batch again and again."""

    def __init__(self, batch: tuple[torch.Tensor, ...], steps: int) -> None:
        self.batch, self.steps, self.bs, self.dataset, self.device = batch, steps, len(batch[0]), (), batch[0].device

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        return iter([self.batch] * self.steps)


def sides(
    make: Callable[[], nn.Module], shape: tuple[int, ...], steps: int, watched: bool = False
) -> dict[str, Callable[[], object]]:
    """A pass of `steps` of each side. watched: in fp32, with all the callbacks that a run has."""
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.losses import CrossEntropyLossFlat

    from fastcls.machine import devices
    from fastcls.training import step
    from fastcls.training.history import quiet
    from fastcls.training.optimizers import optimizer

    device = devices.device()
    batch = torch.randn(shape, device=device), torch.randint(0, 10, shape[:1], device=device)
    lasting = batch[0].contiguous(memory_format=torch.channels_last), batch[1]
    half = step.Autocast(device.type)

    def learner(data: Any, **kwargs: Any) -> Learner:
        loaders = DataLoaders(Ready(data, steps), Ready(data, 0), device=device)
        return Learner(loaders, make().to(device), loss_func=CrossEntropyLossFlat(), **kwargs)

    stock = learner(batch)
    ours = learner(lasting, opt_func=optimizer(), cbs=None if watched else [half])
    if watched:
        watch(ours)
    ours.model.to(memory_format=torch.channels_last)
    net = make().to(device, memory_format=torch.channels_last)
    fused = torch.optim.AdamW(net.parameters(), 1e-3, fused=True)

    def fit(learn: Learner) -> None:
        with quiet(learn):
            learn.fit(1)

    def bare() -> None:
        net.train()
        for _ in range(steps):
            with torch.autocast(device.type, torch.bfloat16, enabled=not watched):
                loss = F.cross_entropy(net(lasting[0]).float(), lasting[1])
            loss.backward()
            fused.step()
            fused.zero_grad()
        loss.item()

    return {"fastcls": lambda: fit(ours), "bare loop": bare, "stock fastai": lambda: fit(stock)}


def watch(learn: Any) -> None:
    """Give a learner what `fastcls recipe` gives it; only the checkpoint at the end of the epoch is not written."""
    from fastcls.machine.screen import Screen
    from fastcls.machine.stop import Stop
    from fastcls.settings import options
    from fastcls.settings.options import Options
    from fastcls.training import checkpoints, resume, step
    from fastcls.training import history as train

    folder = Path(tempfile.mkdtemp())
    with options.using(Options(precision="fp32")):
        step.configure(learn)
    history = train.History(folder / "history.csv")
    best = train.KeepBest(history)
    saver = resume.Saver(checkpoints.Store(folder), history, best, Stop())
    saver.phase, saver.save = 0, lambda: saver.guard.check(learn)
    learn.add_cbs([history, best, train.Progress(Screen(quiet=True), history, []), saver.guard, saver])


def optimizer_steps(rounds: int) -> dict[str, list[float]]:
    from torchvision.models import resnet50

    from fastcls.training.optimizers import OPTIMIZERS

    net = resnet50()
    for p in net.parameters():
        p.grad = torch.randn_like(p)
    stepping = {}
    for name in ("adamw", "sgd"):
        for kind, function in zip(("fastcls", "fastai"), OPTIMIZERS[name], strict=True):
            stepping[f"{kind} {name}"] = function(list(net.parameters()), lr=1e-4).step
    return in_turn(stepping, rounds)


def overhead(options: Any) -> None:
    """A step of a network so small that the loop around it is all there is, in the process's seconds."""

    def two_layers() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 10))

    steps = 500
    seconds = in_turn(sides(two_layers, (8, 3, 8, 8), steps, watched=True), options.rounds, clock=time.process_time)
    rows = []
    for name, times in seconds.items():
        each = [1e3 * t / steps for t in times]
        rows.append([name, spread(each, "{:.2f}"), f"{min(each):.2f}", f"{ratio(seconds, name, 'fastcls'):.2f}"])
    show(
        "step-overhead",
        "A step of the smallest network",
        ["side", "ms per step", "least", "fastcls, times as fast"],
        rows,
        options.rounds,
        "Two layers, batches of 8, fp32, the process's user and system time; ours with the callbacks of a whole run "
        "(history, guard, progress, checkpoints, seeds).",
        options.save,
    )


def matmul_peak(device: torch.device, precision: str, tries: int = 5) -> float:
    """FLOP/s of a large matrix product in this precision, the best of `tries`: the measured limit of the device."""
    from fastcls.training.epochs import DTYPES

    n = 8192 if device.type == "cuda" else 1536
    a = torch.randn(n, n, device=device).to(DTYPES[precision])
    best = float("inf")
    for _ in range(tries + 1):
        started = time.perf_counter()
        torch.mm(a, a)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * n**3 / best


def limits() -> list[list[str]]:
    """TFLOP/s of a matrix product and of a 256-channel convolution, forward and backward."""
    from fastcls.machine import devices

    device = devices.device()
    rows = []
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        x = torch.randn(64, 256, 16, 16, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
        conv = nn.Conv2d(256, 256, 3, padding=1, bias=False, device=device, dtype=dtype).to(
            memory_format=torch.channels_last
        )
        best = float("inf")
        x.requires_grad_()
        for _ in range(6):
            started = time.perf_counter()
            conv(x).sum().backward()
            if device.type == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - started)
        flops = 3 * 2 * 64 * 256 * 256 * 9 * 16 * 16
        rows.append([f"{name}", f"{matmul_peak(device, name) / 1e12:.2f}", f"{flops / best / 1e12:.2f}"])
    return rows


def main() -> None:
    options = arguments(__doc__ or "", rounds=5)
    import_fastai()
    warnings.simplefilter("ignore")
    from torchvision.models import resnet18

    rows = []
    cases: list[tuple[str, Callable[[], nn.Module], tuple[int, ...], int]] = [
        ("five-conv CNN, 32 px, batch 512", lambda: five_conv.network(True), (512, 3, 32, 32), 4),
        ("ResNet-18, 128 px, batch 32", lambda: resnet18(num_classes=10), (32, 3, 128, 128), 4),
    ]
    for title, make, shape, steps in cases:
        seconds = in_turn(sides(make, shape, steps), options.rounds)
        for name, times in seconds.items():
            rate = [steps * shape[0] / t for t in times]
            each = f"{1e3 * min(times) / steps:.2f}"
            rows.append([title, name, spread(rate, "{:,.0f}"), each, f"{ratio(seconds, name, 'fastcls'):.2f}"])
    columns = ["network", "side", "images/s", "ms per step, minimum", "fastcls, times as fast"]
    show(
        "step",
        "A step",
        columns,
        rows,
        options.rounds,
        "bf16, channels-last on our side and the bare loop; stock fastai in fp32.",
        options.save,
    )
    overhead(options)
    seconds = optimizer_steps(options.rounds)
    rows = [[name, spread([1e3 * t for t in times])] for name, times in seconds.items()]
    show(
        "step-optimizer", "An optimiser's step, ResNet-50", ["optimiser", "ms"], rows, options.rounds, "", options.save
    )
    show(
        "step-limits",
        "Limits of the device",
        ["precision", "matrix product, TFLOP/s", "convolution, TFLOP/s"],
        limits(),
        6,
        "The best of six.",
        options.save,
    )


if __name__ == "__main__":
    main()
