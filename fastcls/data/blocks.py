"""A DataBlock and its source become fastai DataLoaders that refuse what would train on nothing.

block = DataBlock((ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label,
                  splitter=data.stratified(parent_label),
                  item_tfms=transforms.resize(224), batch_tfms=transforms.augment())
dls = data.loaders(block, path, bs=64)
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from fastai.data.all import DataBlock, DataLoaders, Datasets, RandomSplitter, get_c, noop, test_set

from fastcls.data import packs, splitting, target
from fastcls.data.dataloaders import PixelDL, SeededDL
from fastcls.data.pixels import Plan, files, name_classes, targets
from fastcls.data.unseen import Loaders
from fastcls.datasets import shards
from fastcls.datasets.walk import common_root, some
from fastcls.errors import DataError, UsageError
from fastcls.images import check, opening
from fastcls.log import logger
from fastcls.machine import devices, ranks
from fastcls.settings import options
from fastcls.transforms import equivalents


def loaders(block: DataBlock, source: Any, bs: int = 64, test: Any = None, balanced: bool = False) -> DataLoaders:
    """Create and check the DataLoaders of `block` over `source`; `dls.test_items` has the labelled test items or None.

    A table with a `split` column is split by it; its 'test' rows become the test items. `bs` is reduced to the number
    of training images (with a larger one fastai would silently train on no batch). balanced: an epoch has the same
    number of images, drawn with replacement, with equal class frequencies. DataError if there are no training images,
    only one class, no validation images, or a file that is not an image.
    """
    opening.install()
    target.check(block)
    if bs < 1:
        raise UsageError(f"A batch size of {bs} cannot be trained.", "Use --bs 2 or more.")
    whole = source
    if isinstance(source, pd.DataFrame) and "split" in source:
        for text in source.attrs.get("notes", []):
            options.note(text)
        if "pack" in source.attrs:  # which has its test rows last: slices are no copies
            rest = int((source["split"] != "test").sum())
            test = source.iloc[rest:] if test is None and rest < len(source) else test
            source = source.iloc[:rest]
        else:
            if test is None and (source["split"] == "test").any():
                test = source[source["split"] == "test"].reset_index(drop=True)
            source = source[source["split"] != "test"].reset_index(drop=True)
        if block.splitter is None:
            block.splitter = splitting.by_column
    if fold := options.fold_of(options.current().fold):
        block.splitter = splitting.folded(block.splitter or RandomSplitter(), block.getters[-1], fold)
    skipped: list[str] = []
    dsets = _datasets(block, source, skipped)
    n_train, n_valid = len(dsets.train), len(dsets.valid)
    classes, pack = get_c(dsets), packs.of(dsets)
    images = [] if pack else files(dsets)  # those of a pack were looked at when they were packed
    where = pack.origin.address if pack else common_root(images)
    if classes < 2:
        raise DataError(
            f"{where}: all images are of one class, {dsets.vocab[0]!r}." if classes else f"{where}: no classes.",
            "A classifier needs at least two classes, each in its own folder or named in a CSV.",
        )
    if n_train < 2 or n_valid < 1:
        raise DataError(
            f"{where}: {n_train} training and {n_valid} validation images are too few.",
            "Add images: at least two of every class.",
        )
    if bs > n_train:
        options.note(f"the batch size was reduced from {bs} to {n_train}, the number of training images.")
        bs = n_train - n_train % ranks.world() or n_train
    if bs % (world := ranks.world()):
        sizes = " or ".join(str(size) for size in (bs - bs % world, bs - bs % world + world) if size)
        raise UsageError(
            f"{world} processes cannot share a batch of {bs} images evenly.",
            f"Use --bs {sizes}: it is the total batch size of all processes.",
        )
    plan = None if block.dls_kwargs else Plan.of(block, block.item_tfms)
    stored = plan is not None and options.current().cache_gb > 0  # then every image is read before the first step
    tested = [] if test is None or pack else files(test_set(dsets, test, rm_tfms=0))
    if options.current().skip_bad:
        bad = check.broken(tested, decode=True)
        test = _at(test, [i for i, path in enumerate(tested) if path not in bad]) if bad else test
        skipped += bad.values()
        if skipped:
            total = len(images) + len(tested) + len(skipped) - len(bad)
            options.note(
                f"{len(skipped):,} of {total:,} images cannot be read and were left out: {some(skipped, check.NAMED)}."
            )
    else:
        check.refuse_broken(([] if stored else images) + tested)
    logger.debug(f"images are read {'item by item, as fastai does' if plan is None else 'in batches'}")
    kind = {"dl_type": SeededDL} if plan is None else {"dl_type": PixelDL, "plan": plan}
    dsets._dbunch_type = Loaders
    dls = dsets.dataloaders(
        bs=bs,
        val_bs=2 * bs,
        after_item=block.item_tfms,
        after_batch=block.batch_tfms,
        device=devices.device(),
        num_workers=0 if pack and pack.remote and plan is None else devices.workers(),  # connections survive no fork
        **kind,
        **block.dls_kwargs,
    )
    if plan is not None:
        plan.own, plan.device = (dls.train_ds, dls.valid_ds), dls.device
    dls.plan, dls.skipped, dls.groups = plan, skipped, splitting.groups_of(whole, block.splitter)
    if slow := equivalents.unknown(dls.train.after_batch.fs):
        options.note(f"batch transforms without a fast equivalent run as in fastai: {', '.join(slow)}.")
    dls.train.windows = packs.Windows.of(dls.train_ds)
    if balanced:
        dls.train.weights = _balancing(targets(dls.train_ds))
    dls.test_items = _limited_test(block, test if test is None or hasattr(test, "iloc") else in_order(test))
    return dls


def _balancing(labels: torch.Tensor) -> np.ndarray:
    """How often each image is drawn, so that every class is as often as any other; of several labels, the rarest."""
    if labels.ndim == 1:
        return (1 / torch.bincount(labels)[labels]).numpy()
    options.note(
        "--balanced: images are drawn by the rarest of their labels, because labels that occur together cannot all be "
        "equally frequent; --class-weights weights each label separately."
    )
    each = labels / labels.sum(0).clamp(min=1)
    bare = ~labels.any(1)
    return torch.where(bare, 1 / max(1, int(bare.sum())), each.amax(1)).numpy()


def _datasets(block: DataBlock, source: Any, skipped: list[str]) -> Datasets:
    """The block's datasets, cut to `--limit` images a class in each split.

    With `--skip-bad`, images that cannot be read are left out first, a line each added to `skipped`. They are
    what `block.datasets(source)` gives, its classes found without going through the table row by row.
    """
    if isinstance(source, (str, Path)) and not Path(source).exists() and shards.of_folder(str(source)) is None:
        raise DataError(f"{source}: no such folder.", "Pass the folder with the images as --path.")
    items = (block.get_items or noop)(source)
    if len(items) == 0:
        raise DataError(f"{source}: no images were found.", "Pass the folder with the images as --path.")
    if isinstance(source, (str, Path)):
        items = in_order(items)

    def make(items: Any, splits: Sequence[Sequence[int]]) -> Datasets:
        return Datasets(items, tfms=block._combine_type_tfms(), splits=splits, dl_type=block.dl_type, n_inp=block.n_inp)

    def paths() -> list[str]:
        with opening.unopened():
            return files(Datasets(items, tfms=block._combine_type_tfms()[:1], splits=splits))

    splits = (block.splitter or RandomSplitter())(items)
    if options.current().skip_bad:
        every = paths()
        bad = check.broken(every, decode=True)
        keep = [[int(i) for i in splitting.positions(split, len(every)) if every[i] not in bad] for split in splits]
        if not keep[0]:
            raise check.broken_images(list(bad.values()), len(every))
        items, splits = _only(items, keep)
        skipped += bad.values()
    name_classes(block, items, splits[0])
    try:
        dsets = make(items, splits)
    except (DataError, *check.UNREADABLE):  # of the first training image, which fastai opens
        every = paths()
        check.refuse_broken(every)
        check.refuse_broken(every, decode=True)
        raise
    if (limit := options.current().limit) is None:
        return dsets
    own = targets(dsets)
    labels = own.tolist() if own.ndim == 1 else [tuple(row.nonzero().flatten().tolist()) for row in own]
    parts = [splitting.positions(split, len(labels)) for split in dsets.splits]
    return make(*_only(dsets.items, [_sample(part, [labels[i] for i in part], limit) for part in parts]))


def _only(items: Any, keep: Sequence[Sequence[int]]) -> tuple[Any, list[list[int]]]:
    """The items at the positions of all splits, and the splits by their new positions."""
    chosen = sorted(i for split in keep for i in split)
    place = {old: new for new, old in enumerate(chosen)}
    return _at(items, chosen), [[place[i] for i in split] for split in keep]


def _at(items: Any, chosen: Sequence[int]) -> Any:
    found = splitting.picked(items, chosen)
    if hasattr(items, "iloc") and not packs.is_packed(items):  # whose index says which row it is
        return found.reset_index(drop=True)
    return found


def in_order(items: Sequence[Any]) -> Sequence[Any]:
    """Files by name: file systems list them in orders of their own, and a split must not depend on that."""
    paths = all(isinstance(item, Path) for item in items)
    return sorted(items, key=Path.as_posix) if paths else items


def _limited_test(block: DataBlock, test: Any) -> Any:
    limit = options.current().limit
    if test is None or limit is None:
        return test
    getter = block.getters[-1]
    rows = [row for _, row in test.iterrows()] if hasattr(test, "iterrows") else list(test)
    labels = splitting.plain(map(getter, rows))
    return _at(test, _sample(range(len(rows)), labels, limit))


def _sample(indices: Sequence[int], labels: Sequence[Hashable], limit: int) -> list[int]:
    """At most `limit` of `indices` a label, chosen by the run's seed; of several labels, while one has room."""
    order = list(zip(indices, labels, strict=True))
    random.Random(options.current().seed).shuffle(order)
    count: dict[Hashable, int] = defaultdict(int)
    kept = []
    for index, label in order:
        own = (label or ("",)) if isinstance(label, tuple) else (label,)
        if any(count[name] < limit for name in own):
            kept.append(int(index))
        for name in own:
            count[name] += 1
    return sorted(kept)
