"""Packed images behind a fastai dataset: which rows it has, in which order shards are read, and how they are kept."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from fastai.data.all import Datasets

from fastcls.datasets import shards
from fastcls.datasets.shards import Pack
from fastcls.images import cache
from fastcls.settings import options

REQUESTS = 32  # to object storage at a time: an answer takes tens of milliseconds, however fast the network


def is_packed(items: Any) -> bool:
    """Whether these are rows of a pack's table; their index says which."""
    return isinstance(items, pd.DataFrame) and "pack" in items.attrs


def of(dataset: Datasets) -> Pack | None:
    """The pack whose images a dataset has; None for one of files."""
    items = dataset.tls[0].items
    if is_packed(items):
        return shards.opened(items.attrs["pack"])
    first = items[0] if isinstance(items, Sequence) and len(items) else None
    if not isinstance(first, (str, Path)) or Path(first).is_file():
        return None
    return shards.of_folder(str(Path(first).parent))


def reader(dataset: Datasets) -> Callable[[np.ndarray], list[Callable[[], bytes]]] | None:
    """What gives the bytes of a dataset's items, each read when it is called for; None where its images are files.

    From object storage many are asked for at once.
    """
    pack = of(dataset)
    own = () if pack is None else rows(dataset, pack)
    if pack is None or not len(own):
        return None

    def read(indices: np.ndarray) -> list[Callable[[], bytes]]:
        chosen = own[indices].tolist()
        if pack.remote:
            return [_requests().submit(pack.read, row).result for row in chosen]
        return [partial(pack.read, row) for row in chosen]

    return read


@functools.cache
def _requests() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(REQUESTS, "fastcls-requests")


def rows(dataset: Datasets, pack: Pack) -> np.ndarray:
    """(n,) the row of each item in its pack; none where one is not packed."""
    items = dataset.tls[0].items
    found = items.index.to_numpy() if is_packed(items) else pack.rows_of([*map(str, items)])
    return np.zeros(0, np.int64) if found is None else found


def first_and_last(dataset: Datasets) -> list[str]:
    """The first and the last name of a dataset's packed images by the alphabet, between which all others are."""
    names = dataset.tls[0].items["path"]
    return [names.min(), names.max()] if len(names) else []


def in_order(dataset: Datasets) -> bool:
    """Whether a dataset's packed images are in the order of their names."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = pa.chunked_array([]) if not len(dataset) else pa.Array.from_pandas(dataset.tls[0].items["path"])
    return len(names) < 2 or bool(pc.all(pc.less(names[:-1], names[1:])).as_py())


@dataclass(frozen=True)
class Windows:
    """Shards that are shuffled `most` at a time: of many, all are never needed at once.

    Each shard is a sample of its split, so that a batch is one too.
    """

    shard: np.ndarray  # (n,) of each item
    most: int

    @classmethod
    def of(cls, dataset: Datasets) -> Windows | None:
        """Those of a dataset; None where its images are files, or few enough to be shuffled as one."""
        pack = of(dataset)
        if pack is None:
            return None
        own = pack.index["shard"][rows(dataset, pack)]
        sizes = [pack.record.shards[code].bytes for code in np.unique(own).tolist()]
        return cls(own, max(1, int(shards.WINDOW * len(sizes) / sum(sizes)))) if sum(sizes) > shards.WINDOW else None

    def order(self, rng: np.random.Generator, positions: np.ndarray) -> np.ndarray:
        """The positions, shuffled within windows of shards."""
        window = rng.permutation(int(self.shard.max()) + 1) // self.most
        order = rng.permutation(positions)
        return order[np.argsort(window[self.shard[order]], kind="stable")]


def ahead(dataset: Datasets, order: np.ndarray) -> AbstractContextManager[Callable[[int], None]]:
    """Inside, shards are fetched before the items of a dataset at these positions, in this order, need them."""
    pack = of(dataset)
    if pack is None or not pack.remote:
        return nullcontext(lambda _: None)
    own = rows(dataset, pack)
    return pack.ahead(own[order] if len(own) else own, cache.room(options.current().cache_gb))
