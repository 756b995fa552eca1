"""Decoded images, kept: every image of a dataset as uint8 pixels, one memory-mapped file a dataset.

A store is a folder of the data cache, named by a hash of its files' paths, sizes and times and of what was done
to them. It is written once, under a lock, to a temporary name; checked against its sha256 by every run that opens it,
and decoded anew if it is not what was written; shared by every run that needs the same. The least recently used ones
make room for new ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastcls.datasets import shards
from fastcls.datasets.archives import building, locked
from fastcls.datasets.downloads import cache_dir
from fastcls.errors import DataError, OutputError
from fastcls.images import preprocessing
from fastcls.images.check import broken_images, read_or_reason, reading
from fastcls.images.decode import decode
from fastcls.log import logger
from fastcls.machine import host, ranks
from fastcls.runfolder import runs
from fastcls.settings import options

FORMAT = 1
PIXELS = 3  # another number where `decode` or `preprocessing` give other pixels
GB = 1e9
CHUNK = 256  # images decoded before they are written
IN_MEMORY = 0.25  # of the free memory: stores up to that are read whole, larger ones stay on disk, mapped

Progress = Callable[[int, int], object]  # images done, images in all


@dataclass(frozen=True)
class Store:
    """Pixels of `n` images: (n, h, w, channels) where they are of one size, else one after the other."""

    pixels: np.ndarray
    shapes: np.ndarray  # (n, 3): height, width, channels
    starts: np.ndarray  # (n,): where each image begins in the flat file

    def __len__(self) -> int:
        return len(self.shapes)

    @property
    def uniform(self) -> bool:
        return self.pixels.ndim == 4

    def images(self, indices: np.ndarray) -> list[np.ndarray]:
        """(h, w, channels) of each, views of the store."""
        if self.uniform:
            return [self.pixels[index] for index in indices]
        found = []
        for start, (h, w, c) in zip(self.starts[indices].tolist(), self.shapes[indices].tolist(), strict=True):
            found.append(self.pixels[start : start + h * w * c].reshape(h, w, c))
        return found


def folder_of_stores() -> Path:
    """The folder of all stores."""
    return cache_dir() / "decoded"


def obtain(paths: Sequence[str], how: Mapping[str, Any], budget: float, progress: Progress | None = None) -> Store:
    """The store of these images under `how`, built if it is not there; OutputError where it cannot be.

    how: a specification of `preprocessing`, or {'mode', 'cover', 'resample'} for whole images, reduced as far as
    they cover its [height, width]. budget: bytes that all stores together may take. DataError names the images that
    are damaged.
    """
    root = folder_of_stores()
    name = _key(paths, how)
    folder = root / name
    try:
        with locked(folder):
            if (store := _open(folder)) is None:
                if folder.exists():  # which costs time, and a disk that changes files is worth knowing of
                    damage = "were damaged; they were decoded again from the image files"
                    options.note(f"the decoded images in {folder} {damage}.")
                for remains in (folder, *root.glob(f".{name}-*")):  # the latter of builds that were killed
                    shutil.rmtree(remains, ignore_errors=True)
                _make_room(root, _estimate(paths, how), budget)
                with building(folder) as part:
                    _build(part, name, paths, how, progress)
                store = _open(folder)
            logger.debug(f"decoded images: {folder}, {how}")
            if store is None:
                raise OutputError(f"the decoded images in {folder} are damaged as soon as they are written")
            os.utime(folder / "store.json")  # when it was last used
            return store
    except OSError as problem:
        raise OutputError(f"the decoded images cannot be saved in {root} ({problem.strerror or problem})") from None


def _key(paths: Sequence[str], how: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps([FORMAT, PIXELS, dict(how)], sort_keys=True).encode())
    missing = []
    for path in paths:
        try:
            size, changed = shards.stamp(path)
            digest.update(f"{path}\0{size}\0{changed}\n".encode())
        except OSError as problem:
            missing.append(f"{path}: {problem.strerror}")
    if missing:
        raise broken_images(missing, len(paths))
    return digest.hexdigest()[:20]


def _estimate(paths: Sequence[str], how: Mapping[str, Any]) -> float:
    """Bytes that the store will take, from at most 64 of its images; damaged ones are `_build`'s to report."""
    sizes = []
    for i in np.linspace(0, len(paths) - 1, min(64, len(paths))).astype(int):
        with contextlib.suppress(DataError):
            sizes.append(reading(paths[i], lambda path: decoded(path, how)).nbytes)
    return float(np.mean(sizes)) * len(paths) if sizes else 0.0


def _make_room(root: Path, needed: float, budget: float) -> None:
    """Remove the least recently used stores until `needed` bytes fit into `budget` and onto the disk."""
    if needed > budget:
        raise OutputError(
            f"the decoded images would need {needed / GB:.1f} GB, more than --cache-gb {budget / GB:g} allows"
        )
    stores = sorted(listing(), key=lambda store: store["used"])
    kept = sum(store["bytes"] for store in stores)
    while stores and kept + needed > budget:
        oldest = stores.pop(0)
        kept -= oldest["bytes"]
        clear([oldest["name"]])
    shards.trim(max(0.0, budget - needed - kept))
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if needed > 0.9 * free:
        raise OutputError(f"the decoded images would need {needed / GB:.1f} GB; {root} has {free / GB:.1f} GB free")


def _build(part: Path, name: str, paths: Sequence[str], how: Mapping[str, Any], progress: Progress | None) -> None:
    """Decode in parallel, write in order; `name` stands for the files, their order and what is done to them."""
    shapes: list[tuple[int, ...]] = []
    broken: list[str] = []
    digest = hashlib.sha256()
    read = partial(read_or_reason, read=partial(decoded, how=how))
    with (part / "pixels.u8").open("wb") as file, ThreadPoolExecutor(host.cores()) as pool:
        for start in range(0, len(paths), CHUNK):
            images = list(pool.map(read, paths[start : start + CHUNK]))
            broken += [image for image in images if isinstance(image, str)]
            good = [image for image in images if not isinstance(image, str)]
            shapes += [image.shape for image in good]
            block = b"".join(image.tobytes() for image in good)
            digest.update(block)
            file.write(block)
            if progress is not None:
                progress(min(start + CHUNK, len(paths)), len(paths))
        file.flush()
        os.fsync(file.fileno())
    if broken:
        raise broken_images(broken, len(paths))
    table = np.asarray(shapes, np.int32).reshape(-1, 3)
    np.save(part / "shapes.npy", table)
    runs.write_json(
        part / "store.json",
        {
            "format": FORMAT,
            "root": os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths]),  # noqa: PTH100, PTH120
            "images": len(paths),
            "bytes": int(table.astype(np.int64).prod(1).sum()),
            "how": dict(how),
            "name": name,
            "sha256": digest.hexdigest(),
            "shapes": hashlib.sha256(table.tobytes()).hexdigest(),
        },
    )


def decoded(path: str | bytes | np.ndarray, how: Mapping[str, Any]) -> np.ndarray:
    """(h, w, channels) of one image, a file, its bytes or decoded pixels, as a store under `how` keeps it."""
    image = _shrunk(path, how) if "cover" in how else preprocessing.prepare(path, how)
    return np.ascontiguousarray(image if image.ndim == 3 else image[..., None])


def _shrunk(path: str | bytes | np.ndarray, how: Mapping[str, Any]) -> np.ndarray:
    """The whole image, reduced to where it just covers how['cover']."""
    pixels = path if isinstance(path, np.ndarray) else decode(path, how["mode"])
    h, w = pixels.shape[:2]
    scale = max(how["cover"][0] / h, how["cover"][1] / w)
    if scale >= 1:
        return pixels
    return np.asarray(
        Image.fromarray(pixels).resize((round(w * scale), round(h * scale)), Image.Resampling[how["resample"]])
    )


def _open(folder: Path) -> Store | None:
    """The store, read into memory and checked, or mapped; None where it is missing, damaged, or one of other files."""
    file = folder / "pixels.u8"
    try:
        record = runs.read_json(folder / "store.json")
        shapes = np.load(folder / "shapes.npy", allow_pickle=False)
        sizes = shapes.astype(np.int64).prod(1)
        known: dict[str, Any] = {"name": folder.name, "shapes": hashlib.sha256(shapes.tobytes()).hexdigest()}
        known |= {"images": len(shapes), "bytes": int(sizes.sum())}
        if shapes.shape[1:] != (3,) or any(record.get(key, value) != value for key, value in known.items()):
            return None
        if file.stat().st_size != record["bytes"]:
            return None
        in_memory = record["bytes"] <= IN_MEMORY * host.available() / ranks.here().local_world
        flat = np.fromfile(file, np.uint8) if in_memory else np.memmap(file, np.uint8, mode="r")
        digest = hashlib.sha256(flat).hexdigest() if in_memory else runs.digest(file)  # type: ignore[arg-type]
        if digest != record["sha256"]:
            return None
    except (OutputError, OSError, EOFError, ValueError, KeyError, TypeError):
        return None
    starts = np.cumsum(sizes) - sizes
    if len(shapes) and (shapes == shapes[0]).all():
        return Store(flat.reshape(len(shapes), *shapes[0]), shapes, starts)
    return Store(flat, shapes, starts)


def listing() -> list[dict[str, Any]]:
    """Every store: name, root, images, bytes, what was done to them, and when it was last used (seconds)."""
    found = []
    for file in sorted(folder_of_stores().glob("*/store.json")):
        try:
            record = runs.read_json(file)
            found.append({**record, "name": file.parent.name, "used": file.stat().st_mtime})
        except (OutputError, OSError):
            continue
    return found


def room(gb: float) -> float:
    """Bytes that shards may take: what decoded images leave of --cache-gb."""
    return max(0.0, gb * GB - sum(store["bytes"] for store in listing()))


def clear(names: Sequence[str]) -> int:
    """Remove these stores; gives the bytes that were freed. A run that has one open keeps reading it."""
    freed = 0
    for store in listing():
        if store["name"] in names:
            runs.discard(folder_of_stores() / store["name"])
            freed += store["bytes"]
    return freed
