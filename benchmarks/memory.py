"""What the kernel takes of a training step on a CPU, and how much memory: python -m benchmarks.memory

Each network trains on one batch, one thread, fp32, channels-last, in processes of its own: as fastcls does it, and with
FASTCLS_KEEP_MEMORY=0, in turn. User and system time, page faults and the largest resident set are getrusage's, less the
first two steps' time and faults. --steps 300 --only cifar100-basenet watches growth.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import warnings

from benchmarks.common import arguments, show, spread

SIDES = ("kept", "glibc")
NETWORKS: dict[str, tuple[int, int, int, int]] = {  # channels, side, batch, steps
    "digits-cnn": (1, 8, 64, 100),
    "cifar10-cnn5": (3, 32, 64, 12),
    "cifar100-basenet": (3, 32, 64, 12),
    "resnet18": (3, 128, 16, 8),
    "mobilenet_v2": (3, 224, 16, 4),
    "tf_efficientnet_lite0": (3, 224, 16, 4),
    "resnet50": (3, 224, 16, 3),
}


def measure(name: str, steps: int) -> None:
    """Print a step's user and system seconds, its page faults, and the peak and the last resident set in MB."""
    from fastcls.running.loading import import_fastai

    import_fastai()
    warnings.simplefilter("ignore")
    import torch
    from fastai.callback.core import Callback
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.losses import CrossEntropyLossFlat

    from benchmarks.networks import network
    from benchmarks.step import Ready
    from fastcls.machine import host
    from fastcls.training import step
    from fastcls.training.optimizers import optimizer

    class Start(Callback):
        def before_batch(self) -> None:
            if self.iter == 2:
                self.usage = resource.getrusage(resource.RUSAGE_SELF)

    torch.set_num_threads(1)
    channels, side, bs, usual = NETWORKS[name]
    steps = steps or usual
    images = torch.randn(bs, channels, side, side).contiguous(memory_format=torch.channels_last)
    batch = images, torch.randint(0, 10, (bs,))
    loaders = DataLoaders(Ready(batch, steps + 2), Ready(batch, 0), device=torch.device("cpu"))
    model, start = network(name), Start()
    learn = Learner(loaders, model, loss_func=CrossEntropyLossFlat(), opt_func=optimizer(), cbs=[start, step.Heap()])
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-4)
    before, after = start.usage, resource.getrusage(resource.RUSAGE_SELF)
    spent = [getattr(after, key) - getattr(before, key) for key in ("ru_utime", "ru_stime", "ru_minflt")]
    print(json.dumps([*(value / steps for value in spent), after.ru_maxrss / 1024, host.resident() / 2**20]))


def child(name: str, side: str, steps: int) -> list[float]:
    env = {**os.environ, "FASTCLS_KEEP_MEMORY": "0" if side == "glibc" else "1", "OMP_NUM_THREADS": "1"}
    code = f"from benchmarks.memory import measure; measure({name!r}, {steps})"
    done = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True)
    return list(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    options = arguments(__doc__ or "", rounds=3, steps=0, only="")
    rows = []
    for name in options.only.split(",") if options.only else NETWORKS:
        found: dict[str, list[list[float]]] = {side: [] for side in SIDES}
        for _ in range(options.rounds):
            for side in SIDES:
                found[side].append(child(name, side, options.steps))
        cost = {side: [user + system for user, system, *_ in found[side]] for side in SIDES}
        ratio = statistics.median(b / a for a, b in zip(cost["kept"], cost["glibc"], strict=True))
        for side in SIDES:
            user, system, faults, peak, _ = zip(*found[side], strict=True)
            share = [100 * s / (u + s) for u, s in zip(user, system, strict=True)]
            rows.append(
                [
                    f"{name}, {NETWORKS[name][1]} px, batch {NETWORKS[name][2]}",
                    side,
                    spread([1e3 * each for each in cost[side]]),
                    spread(share),
                    f"{statistics.median(faults):,.0f}",
                    f"{statistics.median(peak):,.0f}",
                    f"{ratio:.2f}" if side == "kept" else "1.00",
                ]
            )
            print(*rows[-1], sep="  ", file=sys.stderr, flush=True)
    columns = ["network", "freed memory", "CPU ms per step", "in the kernel, %", "page faults", "peak, MB", "faster"]
    note = "One thread, fp32, the same batch repeated; processes in turn. Peak: the largest resident set."
    name = "memory-growth" if options.steps else "memory"
    title = f"Memory after {options.steps} steps" if options.steps else "Memory of a training step on a CPU"
    show(name, title, columns, rows, options.rounds, note, options.save)


if __name__ == "__main__":
    main()
