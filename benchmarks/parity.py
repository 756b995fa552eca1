"""What makes it fast does not change what is learned:  python -m benchmarks.parity

The five-conv CNN on a part of CIFAR-10 with all fast paths, and with each of them switched off, over the same seeds.
Stock fastai's network pools after batch norm and ReLU, ours before them: the last but one row has stock's.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import warnings
from pathlib import Path

from benchmarks import five_conv
from benchmarks.common import arguments, images_folder, show
from fastcls.running.loading import import_fastai

SIDES: dict[str, dict[str, object]] = {
    "all fast paths": {"precision": "bf16"},
    "decoded every epoch (--cache-gb 0)": {"precision": "bf16", "cache_gb": 0.0},
    "fp32": {"precision": "fp32"},
    "contiguous memory (--no-channels-last)": {"precision": "bf16", "channels_last": False},
    "fastai's AdamW (--no-fused)": {"precision": "bf16", "fused": False},
    "all fast paths, stock's network": {"precision": "bf16", "pool_first": False},
}


def main() -> None:
    options = arguments(__doc__ or "", rounds=3, images=10_000, epochs=4, bs=64)
    import_fastai()
    warnings.simplefilter("ignore")
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files = sorted((images_folder("cifar10") / "train").rglob("*.jpg"))
        for file in random.Random(1).sample(files, options.images):
            (folder / file.parent.name).mkdir(exist_ok=True)
            (folder / file.parent.name / file.name).symlink_to(file)
        for seed in range(1, options.rounds + 1):
            for name, settings in [*SIDES.items(), ("stock fastai", None)]:
                if settings is None:
                    train = five_conv.stock(folder, seed, options.epochs, options.bs)
                else:
                    train = five_conv.ours(folder, seed, options.epochs, bs=options.bs, **settings)
                found.setdefault(name, []).append(train())
                print(f"  seed {seed}, {name}: {found[name][-1]:.4f}", flush=True)
            rows = []
            for name, values in found.items():
                sd = statistics.stdev(values) if len(values) > 1 else float("nan")
                each = ", ".join(f"{value:.4f}" for value in values)
                rows.append([name, f"{statistics.mean(values):.4f} ± {sd:.4f}", each])
            note = (
                f"Validation accuracy after {options.epochs} epochs on {options.images:,} images, a tenth held out, "
                "one seed per run. Our network pools before batch norm, stock fastai's after it: compare the last two "
                "rows."
            )
            show("parity", "Parity", ["side", "mean ± sd", "seeds"], rows, seed, note, options.save)


if __name__ == "__main__":
    main()
