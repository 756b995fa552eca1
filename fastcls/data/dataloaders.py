"""fastai DataLoaders that draw the same batches whatever the workers, and gather them whole from decoded pixels.

`SeededDL` is fastai's TfmdDL, its order and its random transforms a function of (seed, epoch, image).
`PixelDL` does without an item at a time: it gathers a batch from decoded pixels, in the order of `Plan`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from itertools import islice, tee
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.callback.schedule import LRFinder
from fastai.data.all import TensorCategory, TensorMultiCategory, TfmdDL, to_device
from fastai.data.load import _loaders, chunked

from fastcls.data import packs
from fastcls.data.pixels import Plan, targets
from fastcls.machine import ranks
from fastcls.settings import options
from fastcls.transforms import draws
from fastcls.transforms.equivalents import BatchTransforms

PREFETCHING = 4  # threads that gather batches before the device needs them, at most


class SeededDL(TfmdDL):
    """A TfmdDL whose order and augmentation depend on the run's seed and on `epoch` alone.

    `epoch` counts whole passes; `FollowEpochs` sets it to the epochs that a Learner has trained. `bs` is the whole
    batch; where several processes train, each goes through its `part` of it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.epoch, self.seed = 0, options.current().seed
        self.skip = 0  # batches that the next pass leaves out at its start: a resumed epoch's
        self.windows: packs.Windows | None = None  # of packed images, where they are too many to be shuffled as one
        self.weights: np.ndarray | None = None  # (n,) how often each image is drawn; None: once an epoch
        self.part = ranks.Place()
        self.turns = ranks.Place()  # of several processes each takes every world-th batch whole: evaluation
        super().__init__(*args, **kwargs)

    def shuffle_fn(self, idxs: Any) -> np.ndarray:
        rng, images = np.random.default_rng(draws.number(self.seed, self.epoch)), np.asarray(idxs)
        if self.weights is None:
            return rng.permutation(images) if self.windows is None else self.windows.order(rng, images)
        return rng.choice(images, len(images), p=self.weights[images] / self.weights[images].sum())

    def get_idxs(self) -> Any:
        """As fastai's, of a list as an array: of ten million images it takes a twentieth of the memory."""
        if not (self.indexed and self.n is not None):
            return super().get_idxs()
        images = np.arange(self.n)
        return self.shuffle_fn(images) if self.shuffle else images

    def do_item(self, s: int | None) -> Any:
        with draws.seeded(self.seed, self.epoch, int(s or 0)):  # for transforms of single items
            return super().do_item(None if s is None else int(s))

    def __iter__(self) -> Iterator[Any]:
        self.randomize()
        self.before_iter()
        order = self.get_idxs()
        if self.part.world > 1:
            order = shard(np.asarray(order), self.bs, self.drop_last, self.part)
        if self.turns.world > 1:
            order = turns(np.asarray(order), self.bs, self.turns)
        skipped, self.skip = self.skip * self.share, 0
        order = order[skipped:] if hasattr(order, "__len__") else islice(order, skipped, None)
        transform = BatchTransforms(self.after_batch)
        for indices, batch in self.batches(order):
            yield transform(batch, draws.Key(self.seed, self.epoch, indices))
        self.after_iter()
        if hasattr(self, "it"):
            del self.it
        self.epoch += 1

    def batches(self, order: Any) -> Iterator[tuple[np.ndarray, Any]]:
        """Positions in the dataset and the batch of them, on the device, `after_batch` still to come."""
        order, copy = (order, order) if hasattr(order, "__len__") else tee(order)
        self._DataLoader__idxs = order  # where fastai's worker processes look
        for indices, batch in zip(self.chunks(copy), _loaders[self.fake_l.num_workers == 0](self.fake_l), strict=False):
            yield indices, to_device(tuple(batch) if type(batch) is list else batch, self.device)

    @property
    def share(self) -> int:
        """How many images of a full batch are this process's."""
        return (self.bs or 1) // self.part.world

    def chunks(self, order: Any) -> Iterator[np.ndarray]:
        """`order` cut into batches."""
        rest = iter(order)
        while len(chunk := np.fromiter(islice(rest, self.share), np.int64)) and (
            not self.drop_last or len(chunk) == self.share
        ):
            yield chunk

    def chunkify(self, b: Any) -> Any:
        return b if self.prebatched else chunked(b, self.share, self.drop_last)


def shard(order: np.ndarray, bs: int, drop_last: bool, part: ranks.Place) -> np.ndarray:
    """Every world-th image of each batch of `bs`, from the rank-th on: together the processes have the whole batch.

    A last batch that cannot be shared evenly is filled up with its own first images, `drop_last` leaves it out.
    """
    batches = [order[start : start + bs] for start in range(0, len(order), bs)]
    if drop_last and batches and len(batches[-1]) < bs:
        batches.pop()
    even = [np.resize(batch, -(-len(batch) // part.world) * part.world) for batch in batches]
    return np.concatenate([batch[part.rank :: part.world] for batch in even]) if even else order[:0]


def turns(order: np.ndarray, bs: int, part: ranks.Place) -> np.ndarray:
    """Every world-th whole batch of `bs`, from the rank-th on: the network is given the batches of one process."""
    batches = [order[start : start + bs] for start in range(part.rank * bs, len(order), part.world * bs)]
    return np.concatenate(batches) if batches else order[:0]


class PixelDL(SeededDL):
    """A SeededDL that gathers whole batches from decoded pixels; `threads` of them prefetch."""

    def __init__(self, dataset: Any, plan: Plan, threads: int = 0, **kwargs: Any) -> None:
        self.plan, self.threads = plan, min(threads, PREFETCHING)  # each of them has all cores decode and crop
        super().__init__(dataset, **{**kwargs, "num_workers": 0})

    def new(self, dataset: Any = None, cls: Any = None, **kwargs: Any) -> Any:
        """A loader with some arguments changed; over another dataset, its files are decoded as they are needed."""
        threads = kwargs.pop("num_workers", None)
        threads = self.threads if threads is None else threads
        return super().new(dataset, cls, **{"plan": self.plan, "threads": threads, **kwargs})

    def one_batch(self) -> Any:
        with self.plan.unprepared():  # not worth decoding everything for
            return super().one_batch()

    def batches(self, order: Any) -> Iterator[tuple[np.ndarray, Any]]:
        source = self.plan.source(self.dataset)
        labels = targets(self.dataset) if len(self.dataset.tls) > 1 else None

        def gather(indices: np.ndarray) -> tuple[np.ndarray, Any]:
            pixels = source(draws.Key(self.seed, self.epoch, indices))
            batch: tuple[torch.Tensor, ...] = (pixels.as_subclass(self.plan.tensor_type),)
            if labels is not None:
                kind = TensorCategory if labels.ndim == 1 else TensorMultiCategory
                batch += (kind(labels[indices]),)
            if self.device is not None and self.device.type == "cuda":  # which copies from pinned memory in parallel
                batch = tuple(b if b.is_cuda else b.pin_memory() for b in batch)
            return indices, batch

        done = 0
        with packs.ahead(self.dataset, np.asarray(order)) if source.reads_files else nullcontext(id) as moved:
            moved(done)
            for indices, batch in prefetched(gather, self.chunks(order), self.threads):
                yield indices, to_device(batch, self.device)
                moved(done := done + len(indices))


def prefetched(function: Any, arguments: Iterator[Any], threads: int) -> Iterator[Any]:
    """`map` with so many threads that compute a few results before they are needed, in order; without, as needed."""
    if not threads:
        yield from map(function, arguments)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Any]] = deque(pool.submit(function, a) for a in islice(arguments, 2 * threads))
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(function, a) for a in islice(arguments, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()


class FollowEpochs(Callback):
    """All that is random in training depends on (seed, epochs trained, step) alone, whatever ran in between.

    Sets the training loader's epoch to those that the Learner has trained, and seeds every step, dropout among it.
    """

    order = -10

    def __init__(self) -> None:
        self.trained = 0

    def before_epoch(self) -> None:
        self.learn.dls.train.epoch = self.trained

    def before_batch(self) -> None:
        if self.training:
            parts = (options.current().seed, self.trained, int(self.iter), *ranks.stream())
            draws.reseed(*parts, device=self.learn.dls.device)

    def after_epoch(self) -> None:
        if not any(isinstance(callback, LRFinder) for callback in self.learn.cbs):
            self.trained += 1
