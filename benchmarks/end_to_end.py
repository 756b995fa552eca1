"""One epoch of the five-conv CNN on CIFAR-10, validation included:  python -m benchmarks.end_to_end

Stock fastai as a user would write it (two worker processes, fp32), fastcls, fastcls on the very network of the stock
side (batch norm before the pool), and a bare PyTorch loop on pixels that are decoded already. A round is a seed. Bars:
3 times as fast as stock, with equal accuracy; at least 95 % of the bare loop.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import five_conv
from benchmarks.common import arguments, images_folder, in_turn, ratio, show, spread
from fastcls.running.loading import import_fastai


def main() -> None:
    options = arguments(__doc__ or "", rounds=3, images=50_000, epochs=1)
    import_fastai()
    warnings.simplefilter("ignore")
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files = sorted((images_folder("cifar10") / "train").rglob("*.jpg"))
        for file in random.Random(1).sample(files, options.images):
            (folder / file.parent.name).mkdir(exist_ok=True)
            (folder / file.parent.name / file.name).symlink_to(file)
        seeds = {name: 0 for name in ("fastcls", "bare loop", "fastcls, same network", "stock fastai")}
        made: dict[str, Any] = {}

        def side(name: str) -> Callable[[], None]:
            def run() -> None:
                found.setdefault(name, []).append(made[name]())

            return run

        seconds: dict[str, list[float]] = {name: [] for name in seeds}
        for seed in range(1, options.rounds + 1):
            made["fastcls"] = five_conv.ours(folder, seed, options.epochs)
            learn = made["fastcls"].learn
            made["bare loop"] = five_conv.bare(learn, options.epochs, learn.precision == "bf16")
            made["fastcls, same network"] = five_conv.ours(folder, seed, options.epochs, pool_first=False)
            made["stock fastai"] = five_conv.stock(folder, seed, options.epochs)
            for name, times in in_turn({name: side(name) for name in made}, 1, warm=False).items():
                seconds[name] += times
            rows = []
            for name, times in seconds.items():
                rate = [options.images * options.epochs / t for t in times]
                accuracy = f"{statistics.mean(found[name]):.4f} ({min(found[name]):.4f}–{max(found[name]):.4f})"
                rows.append(
                    [
                        name,
                        spread(times),
                        f"{statistics.median(rate):,.0f}",
                        accuracy,
                        f"{ratio(seconds, name, 'fastcls'):.2f}",
                    ]
                )
            note = f"Precision: {learn.precision} ({learn.precision_reason}). A round is a seed."
            columns = [
                "side",
                "seconds per epoch",
                "images/s",
                "validation accuracy",
                "fastcls, times as fast",
            ]
            show("end_to_end", "End to end", columns, rows, seed, note, options.save)


if __name__ == "__main__":
    main()
