"""A million image files, and 10,000 classes, until they can be trained on:  python -m benchmarks.million

Hard links to 64 small JPEGs in class folders, made and removed. Ours is the recipe `folder` as a run calls it (any
layout, files that are no images left out with a note, a stratified split); the peer is stock fastai's
`get_image_files` and `DataBlock.dataloaders` (a random split). Each side is a process of its own, in turn; its memory
is what it adds to its imports at most.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, ratio, show, spread
from benchmarks.growth import make
from fastcls.machine import host

ROOT = Path(__file__).parents[1]
SIDES = ("fastcls", "stock fastai")


class Meter:
    """Seconds, seconds of the processor, and peak MB of resident memory since it was made."""

    def __init__(self) -> None:
        import gc

        gc.collect()
        self.started, self.busy, self.before = time.perf_counter(), time.process_time(), host.resident()
        host.forget_peak()

    def read(self, name: str) -> dict[str, float]:
        seconds, busy = time.perf_counter() - self.started, time.process_time() - self.busy
        return {name: seconds, f"{name} CPU": busy, f"{name} MB": (host.resident("VmHWM") - self.before) / 2**20}


def side(name: str, folder: str) -> dict[str, float]:
    """Seconds and MB of listing the files, and until the loaders are there; ours also until a run would decode."""
    from fastcls.running.loading import import_fastai

    import_fastai()
    return stock(folder) if name == "stock fastai" else ours(folder)


def stock(folder: str) -> dict[str, float]:
    from fastai.vision import all as fv

    meter = Meter()
    files = fv.get_image_files(folder)
    found = meter.read("scan")
    del files
    meter = Meter()
    block = fv.DataBlock(
        (fv.ImageBlock, fv.CategoryBlock),
        get_items=fv.get_image_files,
        get_y=fv.parent_label,
        splitter=fv.RandomSplitter(0.2, seed=42),
        item_tfms=fv.Resize(32),
    )
    dls = block.dataloaders(folder, bs=64, num_workers=0)
    found |= meter.read("ready")
    return found | {"images": len(dls.train_ds) + len(dls.valid_ds)}


def ours(folder: str) -> dict[str, float]:
    """The recipe itself, stopped where its loaders are there; then what a run adds before it decodes."""
    from fastcls import data, models  # noqa: F401  models: imports, which do not count
    from fastcls.datasets import layouts
    from fastcls.running import record
    from fastcls.running.loading import recipe

    importlib.import_module("sklearn.model_selection")  # for the split
    meter = Meter()
    table = layouts.find(folder)
    found = meter.read("scan")
    del table
    loaders = data.loaders

    def timed(*args: Any, **kwargs: Any) -> Any:
        dls = loaders(*args, **kwargs)
        found.update(meter.read("ready"))
        return dls

    data.loaders = timed
    loaded = recipe("folder")
    meter = Meter()
    learn = loaded.get_learner(path=folder, arch="squeezenet1_1", weights="none", size=32)
    meter = Meter()
    images = record.Images(learn)
    images.describe()
    found |= meter.read("record")
    return found | {"images": len(images.rows)}


def main() -> None:
    options = arguments(__doc__ or "", rounds=3, images=1_000_000, side="", folder="")
    if options.side:
        print(json.dumps(side(options.side, options.folder)))
        return
    images = options.images
    rows = []
    for classes in (1_000, 10_000):
        with tempfile.TemporaryDirectory() as scratch:
            make(Path(scratch), images, classes, 8)
            sum(len(files) for _, _, files in os.walk(scratch))  # neither side is the one that waits for the disk
            found: dict[str, list[dict[str, float]]] = {name: [] for name in SIDES}
            for number in range(options.rounds):
                for name in SIDES:
                    words = [sys.executable, "-W", "ignore", "-m", "benchmarks.million", "--side", name]
                    environment = {**os.environ, "FASTCLS_DATA": f"{scratch}/data"}
                    done = subprocess.run(
                        [*words, "--folder", f"{scratch}/images"],
                        cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, env=environment,
                    )  # fmt: skip
                    found[name].append(json.loads(done.stdout.splitlines()[-1]))
                    print(f"  round {number + 1}: {name}: {found[name][-1]}", file=sys.stderr, flush=True)
        for name in SIDES:
            rows.append([f"{images:,} images, {classes:,} classes: {name}"])
            for key in ("scan", "scan CPU", "scan MB", "ready", "ready CPU", "ready MB", "record"):
                rows[-1].append(spread([f[key] for f in found[name]]) if key in found[name][0] else "")
        for key in ("scan CPU", "ready CPU"):
            seconds = {name: [f[key] for f in found[name]] for name in SIDES}
            print(f"  {key}: {ratio(seconds, SIDES[1], SIDES[0]):.2f} times as fast", file=sys.stderr)
    columns = ["", "listing, s", "CPU s", "MB", "loaders ready, s", "CPU s", "MB", "run's record, s"]
    note = (
        "MB: the peak above the imports. Other programs were running: an idle machine needs the CPU seconds. The run's "
        "record: names, sizes and fingerprint of every file, for splits.csv and to refuse resuming on other images."
    )
    show("million", "A million files", columns, rows, options.rounds, note, options.save)


if __name__ == "__main__":
    main()
