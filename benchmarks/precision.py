"""From which size on bf16 pays on this CPU: python -m benchmarks.precision

A training step (forward, backward, AdamW) and a forward pass of one batch, on one thread, channels-last, in fp32 and
under bf16 autocast in turn; processor time, which other work on the machine disturbs least.
"""

from __future__ import annotations

import statistics
import time
import warnings

from benchmarks.common import arguments, show
from fastcls.running.loading import import_fastai

CASES = {  # network -> batch, channels, side
    "digits-cnn": (64, 1, 8),
    "cifar10-cnn": (64, 3, 32),
    "cifar10-cnn5": (64, 3, 32),
    "resnet18, 64 px": (32, 3, 64),
    "resnet18, 128 px": (16, 3, 128),
    "resnet50": (8, 3, 224),
    "vit_small_patch16_224": (8, 3, 224),
    "mobilenet_v2": (8, 3, 224),
    "tf_efficientnet_lite0": (8, 3, 224),
    "convnext_tiny": (4, 3, 224),
    "resnext50_32x4d": (4, 3, 224),
}


def row(name: str, rounds: int) -> list[str]:
    import torch
    from torch.nn import functional as F

    from benchmarks.networks import network
    from fastcls.machine import flops, host

    host.keep_freed()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    bs, channels, side = CASES[name]
    net = network(name.partition(",")[0]).train()
    images = torch.randn(bs, channels, side, side).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (bs,))
    operations, depthwise = flops.forward_flops(net, images[:1])
    optimiser = torch.optim.AdamW(net.parameters(), 1e-4, fused=True)

    def step(bf16: bool) -> None:
        net.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(net(images).float(), labels)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    @torch.no_grad()
    def forward(bf16: bool) -> None:
        net.eval()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            net(images)

    cells = [name, f"{operations / 1e6:,.0f}", f"{100 * depthwise / operations:.1f}"]
    for work in (step, forward):
        taken: dict[bool, list[float]] = {False: [], True: []}
        for number in range(rounds + 1):  # the first warms up
            for bf16 in taken:
                started = time.process_time()
                work(bf16)
                if number:
                    taken[bf16].append(1e3 * (time.process_time() - started) / bs)
        fp32, half = statistics.median(taken[False]), statistics.median(taken[True])
        gains = [a / b for a, b in zip(taken[False], taken[True], strict=True)]
        cells += [f"{fp32:.2f}", f"{half:.2f}", f"{fp32 / half:.2f} ({min(gains):.2f}–{max(gains):.2f})"]
    print(*cells, sep="  ", flush=True)
    return cells


def main() -> None:
    options = arguments(__doc__ or "", rounds=5, only="")
    import_fastai()
    warnings.simplefilter("ignore")
    rows = [row(name, options.rounds) for name in CASES if options.only in name]
    columns = [
        "network",
        "million operations per image",
        "of them depthwise, %",
        "step, fp32, ms per image",
        "bf16",
        "gain",
    ]
    columns += ["forward pass, fp32, ms per image", "bf16", "gain"]
    show("precision", "bf16 on a CPU", columns, rows, options.rounds, "One thread; CPU time; medians.", options.save)


if __name__ == "__main__":
    main()
