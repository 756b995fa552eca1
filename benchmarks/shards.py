"""Packed images: the index of ten million rows, and a loader's speed:  python -m benchmarks.shards

The index: a manifest of so many made-up rows in 1,000 classes, all of them 64 small JPEGs of one shard, from the recipe
`folder`'s table and loaders to the first batch; a process a round, the index made (first) or found (again). The speed:
Imagenette at 160 px, from its folder and packed, decoded every epoch (`--cache-gb 0`), in turn. The way: the same
images packed (checked, grouped, split, written), and their shards fetched from an S3 server on loopback, moto's.
What a run writes down: the list of the rows, their fingerprint and splits.csv, by the first process; what all compare.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, in_turn, ratio, show, spread
from fastcls.machine import host
from fastcls.runfolder import runs

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


def first_batch(folder: str, written: bool = False) -> dict[str, float]:
    """Seconds to the first batch, bytes of memory a row of the process's own, and of the index, which is shared.

    written: those that a run's record of its images takes instead: the list of them, its fingerprint, splits.csv.
    """
    from fastcls.running.loading import import_fastai

    import_fastai()
    from fastai.vision.all import CategoryBlock, ColReader, DataBlock, ImageBlock

    from fastcls import data, datasets, models, transforms  # noqa: F401  models: imports, which do not count
    from fastcls.datasets import shards
    from fastcls.settings import options

    before, started, busy = host.resident("RssAnon"), time.perf_counter(), time.process_time()
    host.forget_peak()
    peak = host.resident("VmHWM")
    with options.using(options.Options(cache_gb=0, device="cpu", workers=0)):
        table = data.split(datasets.folder(folder, valid_pct=None))
        block = DataBlock(
            blocks=(ImageBlock, CategoryBlock), get_x=ColReader("path"), get_y=ColReader("label"),
            splitter=data.by_column, item_tfms=transforms.resize(32),
        )  # fmt: skip
        dls = data.loaders(block, table, bs=64)
        batch = next(iter(dls.train))
        if written:
            return _record(dls, folder)
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    rows = len(dls.train_ds) + len(dls.valid_ds)
    pack = shards.opened(folder)
    index = sum(file.stat().st_size for file in pack.home.rglob("*") if file.is_file())
    return {
        "seconds": seconds, "CPU": busy, "index": index / rows, "own": (host.resident("RssAnon") - before) / rows,
        "peak": (host.resident("VmHWM") - peak) / rows, "images": len(batch[0]), "rows": rows,
    }  # fmt: skip


def _record(dls: Any, folder: str) -> dict[str, float]:
    from fastcls import models
    from fastcls.runfolder import splits
    from fastcls.running import record

    learn = models.learner(dls, models.cnn(3, dls.c, (8,)))
    before = host.resident("RssAnon")
    started, busy = time.perf_counter(), time.process_time()
    shared = record.Images(learn).agreed()  # what all processes work out; the rest is the first one's
    agreed, busy = time.process_time() - busy, time.process_time()
    held = record.Images(learn)
    held.describe()
    splits.write(Path(folder), held.rows, held.groups)
    rows, own = sum(held.describe()["images"].values()), host.resident("RssAnon") - before
    assert len(shared) == 64
    return {
        "seconds": time.perf_counter() - started, "CPU": time.process_time() - busy,
        "agreed": agreed, "own": own / rows, "rows": rows,
    }  # fmt: skip


def written(images: int, rounds: int) -> list[list[str]]:
    """What a run writes down of its images, which the main process alone does."""
    with tempfile.TemporaryDirectory() as scratch:
        make(Path(scratch, "packed"), images)
        found = []
        for _ in range(rounds + 1):  # the first makes the index
            words = [sys.executable, "-W", "ignore", "-m", "benchmarks.shards", "--only", "written"]
            environment = {**os.environ, "FASTCLS_DATA": f"{scratch}/data"}
            done = subprocess.run(
                [*words, "--folder", f"{scratch}/packed"],
                cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, env=environment,
            )  # fmt: skip
            found.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"  {found[-1]}", file=sys.stderr, flush=True)
    keys = ("seconds", "CPU", "agreed", "own")
    return [[f"{images:,} rows", *(spread([f[key] for f in found[1:]]) for key in keys)]]


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


def way(rounds: int) -> list[list[str]]:
    """Packing into a folder, and fetching shards from object storage: MB/s on the clock, and of one processor."""
    import threading

    from fastcls.datasets import shards
    from fastcls.datasets.buckets import Bucket
    from fastcls.running import packing

    source = str(Path(os.environ["FASTCLS_IMAGES"], "imagenette2-160"))
    clocks: dict[str, list[tuple[float, float, float]]] = {"packed": [], "fetched": []}
    with tempfile.TemporaryDirectory() as scratch, _s3() as address:
        for number in range(rounds):
            os.environ["FASTCLS_DATA"] = f"{scratch}/data-{number}"  # nothing is known of the images yet
            began = time.perf_counter(), time.process_time()
            packed = packing.pack(source, f"{scratch}/packed-{number}", shard_mb=16)
            clocks["packed"].append((packed.written / 1e6, *_since(began)))
        packing.pack(source, address, shard_mb=16)
        bucket, stop = Bucket(address), threading.Event()
        for number in range(rounds):
            began = time.perf_counter(), time.process_time()
            for shard in packed.pack.record.shards:
                file = Path(scratch, f"{number}-{shard.name}")
                bucket.fetch(f"{shards.SHARDS}/{shard.name}", file, shard.bytes, stop)
                assert runs.digest(file) == shard.sha256
            clocks["fetched"].append((sum(shard.bytes for shard in packed.pack.record.shards) / 1e6, *_since(began)))
    images, each = packed.pack.record.images, packed.pack.record.bytes / packed.pack.record.images
    names = {
        "packed": f"{images:,} images of {each / 1e3:.1f} kB packed into a folder",
        "fetched": "their shards fetched and compared with their checksums",
    }
    return [
        [
            names[name],
            spread([size / wall for size, wall, _ in found]),
            spread([size / cpu for size, _, cpu in found]),
            spread([cpu / images * 1e6 for _, _, cpu in found]),
        ]
        for name, found in clocks.items()
    ]


def _since(began: tuple[float, float]) -> tuple[float, float]:
    return time.perf_counter() - began[0], time.process_time() - began[1]


@contextlib.contextmanager
def _s3() -> Iterator[str]:
    """An address in an empty bucket of a server of its own process."""
    import socket

    import requests

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    words = [sys.executable, "-W", "ignore", "-m", "moto.server", "-p", str(port)]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(120):
            with contextlib.suppress(requests.ConnectionError):
                requests.put(f"{url}/bucket", timeout=10).raise_for_status()
                break
            time.sleep(1)
        os.environ |= {
            "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip
        yield "s3://bucket/packed"
    finally:
        server.kill()
        server.wait()


def main() -> None:
    options = arguments(__doc__ or "", rounds=3, images=10_000_000, folder="", only="")
    if options.folder:
        print(json.dumps(first_batch(options.folder, options.only == "written")))
        return
    if options.only in ("", "written"):
        columns = ["", "s", "CPU s of the main process", "of every process", "bytes per row"]
        title = "What a run records of its packed images"
        show(
            "shards-written", title, columns, written(options.images, options.rounds), options.rounds, "", options.save
        )
    if options.only in ("", "way"):
        columns = ["", "MB/s, wall time", "MB per CPU second", "CPU µs per image"]
        note = (
            "Wall times are on two cores, mostly used by other programs; the server for fetching runs on the same ones."
        )
        show(
            "shards-way",
            "Packing and fetching shards",
            columns,
            way(options.rounds),
            options.rounds,
            note,
            options.save,
        )
    if options.only in ("", "index"):
        columns = ["", "to the first batch, s", "CPU s", "index, bytes per row", "a process's own", "peak"]
        note = (
            "First (n = 1): the index is built from the manifest, once per machine. Other programs used most of both "
            "cores, as the CPU seconds show. The index is mapped, so all processes share it. A process's own bytes per "
            "row are those after the first batch; the peak includes mapped pages."
        )
        bars = "Ten million packed images"
        show("shards", bars, columns, index(options.images, options.rounds), options.rounds, note, options.save)
    if options.only in ("", "speed"):
        columns = ["", "CPU µs per image", "times as fast"]
        title = "Shards compared with files, decoded every epoch"
        show("shards-speed", title, columns, speed(options.rounds), options.rounds, "", options.save)


if __name__ == "__main__":
    main()
