"""Which pixels a loader reads: for every split either finished images or whole ones that are cropped at random."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from fastai.data.all import (
    Categorize,
    CategoryMap,
    ColReader,
    DataBlock,
    Datasets,
    EncodedMultiCategorize,
    L,
    MultiCategorize,
    OneHotEncode,
    Pipeline,
    ToTensor,
)
from fastai.vision.augment import RandomResizedCrop, Resize
from fastai.vision.core import PILBase
from PIL import Image

from fastcls.data import packs
from fastcls.data.cropping import RandomCrop
from fastcls.data.describe import item_specification, opener
from fastcls.datasets import shards
from fastcls.errors import DataError, OutputError
from fastcls.images import cache
from fastcls.images.check import reading
from fastcls.machine import devices
from fastcls.settings import options
from fastcls.transforms import draws
from fastcls.transforms.resizing import Letterbox, ResizedCrop

ON_DEVICE = 0.3  # of a GPU's free memory: stores up to that are kept there


@dataclass
class Files:
    """Images decoded when they are needed, in parallel: what a store is before it is built."""

    paths: Sequence[str | np.ndarray]  # or decoded pixels
    how: dict[str, Any]
    read: Callable[[np.ndarray], Any] | None = None  # of packed images: looked up once, not by name each time

    def images(self, indices: np.ndarray) -> list[np.ndarray]:
        """(h, w, channels) of each; DataError for a file that is no image, or a damaged one."""
        held = None if self.read is None else self.read(indices)

        def image(place: int, index: int) -> np.ndarray:
            return reading(self.paths[index], lambda path: cache.decoded(held[place]() if held else path, self.how))

        return list(devices.threads().map(image, range(len(indices)), indices.tolist()))


@dataclass
class Source:
    """A split's pixels: `source(key)` is the batch of key.indices, uint8 (n, channels, h, w), channels last."""

    origin: cache.Store | Files
    rows: np.ndarray | None = None  # this split's rows of the store; None takes them all, in order
    crop: RandomCrop | None = None
    device_copy: torch.Tensor | None = None

    @property
    def reads_files(self) -> bool:
        """Whether images are decoded as they are needed."""
        return isinstance(self.origin, Files)

    def on(self, device: torch.device) -> Source:
        """Finished pixels on a GPU that has room for them; otherwise as they are."""
        if device.type == "cuda" and self.crop is None and isinstance(self.origin, cache.Store) and self.origin.uniform:
            pixels = self.origin.pixels
            count = len(pixels) if self.rows is None else len(self.rows)
            if count * pixels[0].nbytes <= ON_DEVICE * torch.cuda.mem_get_info(device)[0]:
                own = pixels if self.rows is None else pixels[self.rows]
                return Source(self.origin, device_copy=torch.from_numpy(own).to(device))
        return self

    def __call__(self, key: draws.Key) -> torch.Tensor:
        rows = key.indices if self.rows is None else self.rows[key.indices]
        if self.device_copy is not None:
            return self.device_copy[torch.from_numpy(rows).to(self.device_copy.device)].permute(0, 3, 1, 2)
        origin = self.origin
        if self.crop is None and isinstance(origin, cache.Store) and origin.uniform:
            return torch.from_numpy(origin.pixels[rows]).permute(0, 3, 1, 2)
        images = origin.images(rows)
        if self.crop is not None:
            return self.crop(key, images)
        if len({image.shape for image in images}) > 1:
            raise DataError(
                "The images have different sizes.",
                "Pass item_tfms=transforms.resize(224), or another size, to the DataBlock.",
            )
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


@dataclass
class Plan:
    """How the item transforms of a DataBlock turn files into pixels, and where those of each split are found."""

    tensor_type: type
    finished: dict[str, Any]  # the specification that validation images are prepared by
    crop: RandomCrop | None  # what training images go through instead; None where they are prepared alike
    sizing: list[Any] = field(default_factory=list)  # the item transforms of `finished` and `crop`
    own: tuple[Datasets, ...] = ()  # the training and validation sets, which are worth storing
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    stored: list[Source] = field(default_factory=list)  # of `own`, once they are
    storing: bool = True

    @classmethod
    def of(cls, block: DataBlock, tfms: Sequence[Any]) -> Plan | None:
        """The plan of a block with these item transforms; None where it does more than a plan can express."""
        image_types = block.type_tfms[0]
        create = image_types[0] if len(image_types) == 1 else None
        if getattr(create, "__func__", None) is not PILBase.create.__func__ or len(block.type_tfms) != 2:
            return None
        if not all(isinstance(tfm, Categorize) or tfm is OneHotEncode for tfm in block.type_tfms[1]):
            return None
        kind = create.__self__  # type: ignore[union-attr]
        mode = kind._open_args.get("mode")
        sizing = [tfm for tfm in tfms if not isinstance(tfm, ToTensor)]
        try:
            finished = item_specification(sizing, mode)
        except ValueError:
            return None
        if mode not in ("RGB", "L") or len(sizing) > 1:
            return None
        if finished["method"] == "pad" and not isinstance(sizing[0], Letterbox):
            return None  # fastai pads training images at random places
        if any(type(tfm) not in (Resize, RandomResizedCrop, ResizedCrop, Letterbox) for tfm in sizing):
            return None  # one of training images alone, which only fastai can do
        return cls(kind._tensor_cls, finished, RandomCrop.of(sizing[0]) if sizing else None, sizing)

    def update(self) -> None:
        """Follow item transforms that were changed; what was stored under the old ones is no longer looked at."""
        self.finished = item_specification(self.sizing, self.finished["mode"])
        self.crop, self.stored = RandomCrop.of(self.sizing[0]) if self.sizing else None, []

    def __getstate__(self) -> dict[str, Any]:
        """Without datasets and pixels: an exported Learner reads other files."""
        return {**vars(self), "own": (), "stored": []}

    @contextlib.contextmanager
    def unprepared(self) -> Iterator[None]:
        """Inside, nothing is stored that is not stored yet."""
        before, self.storing = self.storing, False
        try:
            yield
        finally:
            self.storing = before

    def source(self, dataset: Datasets) -> Source:
        """The pixels of a dataset: its own splits' from the store, those of others from their files."""
        place = next((i for i, own in enumerate(self.own) if own is dataset), None)
        if place is None or dataset.split_idx != place:  # test-time augmentation crops validation images as in training
            return self._unstored(dataset)
        if self.storing:
            self.prepare()
        return self.stored[place] if self.stored else self._unstored(dataset)

    def _crop(self, dataset: Datasets) -> tuple[RandomCrop | None, dict[str, Any]]:
        """What images of a dataset go through, and what is kept of a file for it."""
        crop = self.crop if dataset.split_idx == 0 else None
        return crop, crop.how(self.finished["mode"]) if crop else self.finished

    def _unstored(self, dataset: Datasets) -> Source:
        crop, how = self._crop(dataset)
        return Source(Files(_sources(dataset), how, packs.reader(dataset)), crop=crop)

    def prepare(self, progress: cache.Progress | None = None) -> None:
        """Store the pixels of both splits, if they are not; where they cannot be, images are decoded every epoch."""
        if self.stored:
            return
        gigabytes = options.current().cache_gb
        if gigabytes > 0:
            try:
                self.stored = [self._stored(dataset, gigabytes * cache.GB, progress) for dataset in self.own]
                return
            except OutputError as problem:
                options.note(f"images are decoded every epoch: {problem.message}.")
        self.stored = [self._unstored(dataset) for dataset in self.own]

    def _stored(self, dataset: Datasets, budget: float, progress: cache.Progress | None) -> Source:
        """From a store of both splits, so that it serves whatever the split; finished images beside crops are few."""
        crop, how = self._crop(dataset)
        own = files(dataset)
        alike = self.crop is None or crop is not None
        every = sorted({path for other in self.own for path in files(other)} if alike else set(own))
        with shards.ahead_of(every, lambda: cache.room(options.current().cache_gb)) as moved:

            def done(count: int, total: int) -> None:
                moved(count)
                if progress is not None:
                    progress(count, total)

            store = cache.obtain(every, how, budget, done)
        place = {path: row for row, path in enumerate(every)}
        rows = np.array([place[path] for path in own], np.int64)
        if crop is not None and crop.min_scale is None and store.uniform and store.pixels.shape[1:3] == crop.size:
            crop = None  # every image has the crop's shape: there is nothing to choose
        return Source(store, rows, crop).on(self.device)


def files(dataset: Datasets, part: slice = slice(None)) -> list[str]:
    """The image file of every item, or of a part of them."""
    return [str(path) for path in _opened(dataset)[part]]


def _sources(dataset: Datasets) -> Sequence[str | np.ndarray]:
    """The image of every item: a file, or the pixels of a picture in memory."""
    if packs.is_packed(dataset.tls[0].items):  # which are not made texts before they are needed
        return _opened(dataset)
    return [np.asarray(item) if isinstance(item, Image.Image) else str(item) for item in _opened(dataset)]


def _opened(dataset: Datasets) -> Sequence[Any]:
    """What the transform that opens images is given, of every item."""
    tl = dataset.tls[0]
    return _column(tl.items, tl.tfms.fs[: opener(tl)])


def targets(dataset: Datasets) -> torch.Tensor:
    """Of every item of a labelled dataset, looked up once: (n,) class indices, or (n, labels) zeros and ones."""
    tl = dataset.tls[-1]
    if "targets" not in vars(tl):
        fs = tl.tfms.fs
        at = next((i for i, tfm in enumerate(fs) if isinstance(tfm, Categorize)), None)
        if at is None:
            tl.targets = torch.tensor([int(label) for label in tl])
        elif isinstance(fs[at], EncodedMultiCategorize):
            tl.targets = torch.tensor(list(map(list, _column(tl.items, fs[:at])))).float()
        else:
            index, labels = fs[at].vocab.o2i, _column(tl.items, fs[:at])
            try:
                if isinstance(labels, pd.Categorical):
                    used = np.unique(labels.codes)
                    code = np.zeros(len(labels.categories), np.int64)
                    code[used] = [index[labels.categories[i]] for i in used]
                    tl.targets = torch.from_numpy(code[labels.codes])
                elif isinstance(fs[at], MultiCategorize):
                    tl.targets = _flags([[index[name] for name in own] for own in labels], len(fs[at].vocab))
                else:
                    tl.targets = torch.tensor([index[name] for name in labels])
            except KeyError as problem:
                raise DataError(f"The label {problem} is not one of the training classes.") from None
    return tl.targets


def _flags(indices: Sequence[Sequence[int]], labels: int) -> torch.Tensor:
    """(n, labels): 1 where an item has the label."""
    found = torch.zeros(len(indices), labels)
    for row, own in enumerate(indices):
        found[row, own] = 1
    return found


def name_classes(block: DataBlock, items: Any, training: Sequence[int]) -> None:
    """Give the block's Categorize or MultiCategorize its classes, as it would find them itself.

    For a million rows that took a minute.
    """
    (first, *others), getter = block.type_tfms[-1], block.getters[-1]
    several = type(first) is MultiCategorize and others == [OneHotEncode]
    if first.vocab is not None or not (several or (type(first) is Categorize and not others)):
        return
    getters = (getter if isinstance(getter, Pipeline) else Pipeline(getter)).fs
    chosen = items.iloc[training] if isinstance(items, pd.DataFrame) else L(items, use_list=None)[training]
    labels = _column(chosen, getters)
    if isinstance(labels, pd.Categorical):
        labels = list(labels.unique())
    names = list(dict.fromkeys(name for own in labels for name in own)) if several else list(labels)
    first.vocab = CategoryMap(names, sort=True if several else first.sort, add_na=first.add_na)


def _column(items: Any, getters: Sequence[Any]) -> Sequence[Any]:
    """What these getters give for every item; a plain column of a table without a look at its rows."""
    getters = [getter for getter in getters if getattr(getter, "name", "") != "noop"]
    if isinstance(items, pd.DataFrame):
        reader = getters[0] if len(getters) == 1 and isinstance(getters[0], ColReader) else None
        if reader is not None and len(reader.cols) == 1 and not (reader.label_delim or reader.pref or reader.suff):
            name = reader.cols[0]
            column = items[name] if isinstance(name, str) else items.iloc[:, name]
            return column.array if packs.is_packed(items) else column.tolist()
        items = [row for _, row in items.iterrows()]
    for getter in getters:
        items = [getter(item) for item in items]
    return items
