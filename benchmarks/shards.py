"""Packed images: the index of ten million rows, and a loader's speed:  python -m benchmarks.shards

The index: a manifest of so many made-up rows in 1,000 classes, all of them 64 small JPEGs of one shard, from the recipe
`folder`'s table and loaders to the first batch; a process a round, the index made (first) or found (again). The speed:
Imagenette at 160 px, from its folder and packed, decoded every epoch (`--cache-gb 0`), in turn.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, in_turn, ratio, show, spread
from fastcls.machine import memory

ROOT = Path(__file__).parents[1]
CLASSES, BATCHES = 1_000, 40


def make(folder: Path, images: int) -> None:
    """Packed images of which all but 64 are rows of the manifest alone."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    from PIL import Image

    from fastcls.datasets import shards
    from fastcls.datasets.buckets import Folder
    from fastcls.running import packing

    rng, sizes, offsets = np.random.default_rng(0), [], []
    (folder / shards.SHARDS).mkdir(parents=True)
    tar_file = folder / shards.SHARDS / "train-00000.tar"
    with tarfile.open(tar_file, "w") as tar:
        for number in range(64):
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(buffer, "JPEG")
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = len(buffer.getvalue())
            offsets.append(tar.offset + tarfile.BLOCKSIZE)
            sizes.append(info.size)
            tar.addfile(info, io.BytesIO(buffer.getvalue()))
    row = np.arange(images)
    label = pa.DictionaryArray.from_arrays(
        pa.array(row % CLASSES, pa.int32()), [f"n{number:08d}" for number in range(CLASSES)]
    ).cast(pa.string())
    number = pc.utf8_lpad(pc.cast(pa.array(row), pa.string()), 8, "0")
    path = pc.binary_join_element_wise("train", label, pc.binary_join_element_wise(number, ".JPEG", ""), "/")
    valid = images // 50
    columns: dict[str, Any] = {
        "path": path,
        "label": label,
        "split": pa.array(["train"] * (images - valid) + ["valid"] * valid),
        "group": pa.array([""] * images),
        "shard": pa.array(np.zeros(images, np.int32)),
        "offset": pa.array(np.array(offsets)[row % 64]),
        "size": pa.array(np.array(sizes, np.int32)[row % 64]),
        "key": pa.array([shards.key(name) for name in path.to_pylist()], pa.uint64()),
    }
    record = shards.Record(
        1, "", "made up", "", "", images, images * 1000, "single-label", True, 42,
        {"train": images - valid, "valid": valid}, [],
        [shards.Shard(tar_file.name, tar_file.stat().st_size, images, "")],
    )  # fmt: skip
    packing.save(Folder(folder), pa.table(columns), record, pq)


def first_batch(folder: str) -> dict[str, float]:
    """Seconds to the first batch, bytes of memory a row of the process's own, and of the index, which is shared."""
    from fastcls.running.loading import import_fastai

    import_fastai()
    from fastai.vision.all import CategoryBlock, ColReader, DataBlock, ImageBlock

    from fastcls import data, datasets, models, transforms  # noqa: F401  models: imports, which do not count
    from fastcls.datasets import shards
    from fastcls.settings import options

    before, started, busy = memory.resident("RssAnon"), time.perf_counter(), time.process_time()
    memory.forget_peak()
    peak = memory.resident("VmHWM")
    with options.using(options.Options(cache_gb=0, device="cpu", workers=0)):
        table = data.split(datasets.folder(folder, valid_pct=None))
        block = DataBlock(
            blocks=(ImageBlock, CategoryBlock), get_x=ColReader("path"), get_y=ColReader("label"),
            splitter=data.by_column, item_tfms=transforms.resize(32),
        )  # fmt: skip
        dls = data.loaders(block, table, bs=64)
        batch = next(iter(dls.train))
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    rows = len(dls.train_ds) + len(dls.valid_ds)
    pack = shards.opened(folder)
    index = sum(file.stat().st_size for file in pack.home.rglob("*") if file.is_file())
    return {
        "seconds": seconds, "CPU": busy, "index": index / rows, "own": (memory.resident("RssAnon") - before) / rows,
        "peak": (memory.resident("VmHWM") - peak) / rows, "images": len(batch[0]), "rows": rows,
    }  # fmt: skip


def index(images: int, rounds: int) -> list[list[str]]:
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        make(Path(scratch, "packed"), images)
        print("  made", file=sys.stderr, flush=True)
        for name, times in (("first", 1), ("again", rounds)):
            found = []
            for _ in range(times):
                words = [sys.executable, "-W", "ignore", "-m", "benchmarks.shards", "--folder", f"{scratch}/packed"]
                environment = {**os.environ, "FASTCLS_DATA": f"{scratch}/data"}
                done = subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, env=environment)
                found.append(json.loads(done.stdout.splitlines()[-1]))
                print(f"  {name}: {found[-1]}", file=sys.stderr, flush=True)
            keys = ("seconds", "CPU", "index", "own", "peak")
            rows.append([f"{images:,} rows, {name}", *(spread([f[key] for f in found]) for key in keys)])
    return rows


def speed(rounds: int) -> list[list[str]]:
    """Batches of 64 from the training loader, from files and from shards."""
    from fastcls.running.loading import import_fastai

    import_fastai()
    from fastai.vision.all import CategoryBlock, ColReader, DataBlock, ImageBlock

    from fastcls import data, datasets, transforms
    from fastcls.running import packing
    from fastcls.settings import options

    folder = Path(os.environ["FASTCLS_IMAGES"], "imagenette2-160")
    with tempfile.TemporaryDirectory() as scratch, options.using(options.Options(cache_gb=0, device="cpu")):
        packed = packing.pack(str(folder), f"{scratch}/packed")
        written = packed.written / 1e6 / packed.seconds
        print(f"  packed {packed.written / 1e6:.0f} MB, {written:.1f} MB/s, {packed.seconds:.0f} s", file=sys.stderr)
        loaders = {}
        for name, place in (("files", str(folder)), ("shards", f"{scratch}/packed")):
            block = DataBlock(
                blocks=(ImageBlock, CategoryBlock), get_x=ColReader("path"), get_y=ColReader("label"),
                splitter=data.by_column, item_tfms=transforms.resize(128, 0.35),
            )  # fmt: skip
            loaders[name] = data.loaders(block, data.split(datasets.folder(place, valid_pct=None)), bs=64).train
        sides = {name: lambda dl=dl: [None for _ in islice(dl, BATCHES)] for name, dl in loaders.items()}
        seconds = in_turn(sides, rounds, clock=time.process_time)
    each = {name: [one / (64 * BATCHES) * 1e6 for one in taken] for name, taken in seconds.items()}
    times = ratio(seconds, "files", "shards")
    return [
        ["Imagenette 160 px from files", spread(each["files"]), "1.00"],
        ["Imagenette 160 px from shards", spread(each["shards"]), f"{times:.2f}"],
    ]


def main() -> None:
    options = arguments(__doc__ or "", rounds=3, images=10_000_000, folder="", only="")
    if options.folder:
        print(json.dumps(first_batch(options.folder)))
        return
    if options.only != "speed":
        columns = ["", "to the first batch, s", "CPU s", "index, bytes a row", "a process's own", "peak"]
        note = (
            "First (n = 1): the index is made from the manifest, once a machine. Other work took most of both cores, "
            "as the CPU seconds say. The index is mapped, so that all processes share it; a process's own bytes a row "
            "are those after the first batch; the peak counts mapped pages too."
        )
        bars = "Ten million packed images"
        show("shards", bars, columns, index(options.images, options.rounds), options.rounds, note, options.save)
    if options.only != "index":
        columns = ["", "µs of a processor an image", "so many times as fast"]
        title = "Shards against files, decoded every epoch"
        show("shards-speed", title, columns, speed(options.rounds), options.rounds, "", options.save)


if __name__ == "__main__":
    main()
