"""Epochs of real recipes on a GPU against the same step on data that is there already:  python -m benchmarks.gpu

Prints images/s of a recipe's training epochs, of the bare step, and the model-FLOPs utilisation of both. Bar: 90 %.
"""

from __future__ import annotations

import sys
import tempfile
import time

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import arguments, images_folder, show
from benchmarks.step import matmul_peak
from fastcls.settings import options, sources
from fastcls.settings.request import Request

CASES = [  # recipe, folder below FASTCLS_IMAGES, knobs
    ("pets-resnet50", "oxford-iiit-pet-40", {"weights": "none", "bs": 64}),
    ("birds-resnet50", "CUB_200_2011", {"weights": "none", "bs": 64}),
    ("folder", "imagenette2-160", {"weights": "none", "arch": "resnet50", "size": 128, "bs": 64}),
    ("cifar10-cnn5", "cifar10", {"bs": 512}),
]


def epochs(learn: object, count: int) -> float:
    """Images a second of the fastest of `count` training epochs."""
    from fastai.callback.core import Callback

    rates = []

    class Clock(Callback):
        def before_train(self) -> None:
            torch.cuda.synchronize()
            self.started = time.perf_counter()

        def after_train(self) -> None:
            torch.cuda.synchronize()
            trained = len(self.dls.train) * self.dls.train.bs
            rates.append(trained / (time.perf_counter() - self.started))

    with learn.no_bar(), learn.no_logging():  # type: ignore[attr-defined]
        learn.fit(count, 1e-4, cbs=Clock())  # type: ignore[attr-defined]
    return max(rates)


def bare(learn: object, steps: int = 30) -> float:
    """Images a second of the same network, precision and optimiser on a batch that is on the device."""
    x, y = (b.as_subclass(torch.Tensor) for b in learn.dls.train.one_batch())  # type: ignore[attr-defined]
    x = x.contiguous(memory_format=torch.channels_last)
    net = learn.model.train()  # type: ignore[attr-defined]
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], 1e-4, fused=True)
    dtype = torch.bfloat16 if learn.precision == "bf16" else torch.float16  # type: ignore[attr-defined]
    best = 0.0
    for _ in range(4):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(steps):
            with torch.autocast("cuda", dtype, enabled=learn.precision != "fp32"):  # type: ignore[attr-defined]
                loss = F.cross_entropy(net(x).float(), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        torch.cuda.synchronize()
        best = max(best, steps * len(x) / (time.perf_counter() - started))
    return best


def flops_per_image(model: nn.Module, example: torch.Tensor) -> float:
    """Floating-point operations of a training step an image, forward and backward; example: (1, channels, h, w)."""
    training = {module: module.training for module in model.modules()}
    model.train()  # as in training; but batch statistics of a single image would be none
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        model(example).sum().backward()
    model.zero_grad(set_to_none=True)
    for module, mode in training.items():
        module.training = mode
    return float(counter.get_total_flops())


def main() -> None:
    chosen = arguments(__doc__ or "", epochs=3)
    if not torch.cuda.is_available():
        sys.exit("There is no CUDA GPU: not measured.")
    from fastcls.running.loading import prepared
    from fastcls.training.step import input_example

    rows = []
    for name, folder, knobs in CASES:
        request = Request(
            sources.find(name), {**knobs, "path": str(images_folder(folder))}, options.Options(), {}, None, name
        )
        with tempfile.TemporaryDirectory(), prepared(request) as ready:
            learn = ready.learn
            learn.dls.plan.prepare()
            learn.unfreeze()
            limit, rate = bare(learn), epochs(learn, chosen.epochs)
            flops = flops_per_image(learn.model, input_example(learn))
            peak = matmul_peak(learn.dls.device, learn.precision)
            rows.append(
                [
                    name,
                    f"{rate:,.0f}",
                    f"{limit:,.0f}",
                    f"{rate / limit:.2f}",
                    f"{rate * flops / peak:.1%}",
                    f"{limit * flops / peak:.1%}",
                ]
            )
    columns = ["recipe", "images/s, epoch", "images/s, data on the device", "share", "utilisation", "of the bare step"]
    show("gpu", "Recipes on a GPU", columns, rows, chosen.epochs, "The fastest epoch.", chosen.save)


if __name__ == "__main__":
    main()
