"""Images a second out of the training loader, against fastai, torchvision and timm:  python -m benchmarks.loading

The same files, crops and flips on every side, an epoch a round, in turn. The peers load in the training process, as
ours does, and with two workers, as fastai does by default on two cores. Bars, in times as fast: CIFAR-10 25 (fastai),
20 (torchvision, timm); Imagenette 4 and 2.
"""

from __future__ import annotations

import random
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.data import ImageDataset, create_loader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from benchmarks.common import arguments, images_folder, in_turn, ratio, show, spread
from fastcls.running.loading import import_fastai

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WORKERS = (0, 2)
NOTE = (
    "The same files, crops and flips on every side, on two cores. Ours has no workers; each peer is measured in the "
    "training process, as ours, and with the two workers that it would be given here, which then compete with training "
    "for the cores."
)


def sides(folder: Path, size: int, crop: str, bs: int) -> dict[str, Callable[[], object]]:
    """An epoch of each loader. crop: 'pad' shifts by up to 4 pixels, 'resized' takes 35 to 100 % of the area."""
    from fastai.vision.all import (
        CategoryBlock,
        CropPad,
        DataBlock,
        Flip,
        ImageBlock,
        Normalize,
        RandomCrop,
        RandomResizedCrop,
        RandomSplitter,
        get_image_files,
        parent_label,
    )

    from fastcls import data, models, transforms

    common = {"blocks": (ImageBlock, CategoryBlock), "get_items": get_image_files, "get_y": parent_label}
    split = RandomSplitter(0.01, seed=1)
    stock_items = [CropPad(size + 8), RandomCrop(size)] if crop == "pad" else [RandomResizedCrop(size, min_scale=0.35)]
    stock = DataBlock(
        **common, splitter=split, item_tfms=stock_items, batch_tfms=[Flip(), Normalize.from_stats(MEAN, STD)]
    )
    batch_tfms = [transforms.Crop(4, flip=0.5)] if crop == "pad" else [transforms.Flip()]
    item_tfms = None if crop == "pad" else transforms.resize(size, 0.35)
    ours = data.loaders(DataBlock(**common, splitter=split, item_tfms=item_tfms, batch_tfms=batch_tfms), folder, bs=bs)
    models.normalize(ours, (MEAN, STD))
    started = time.perf_counter()
    ours.plan.prepare()
    print(f"  fastcls decoded {len(ours.train_ds):,} images in {time.perf_counter() - started:.1f} s, once")

    sizing = v2.RandomCrop(size, 4, padding_mode="reflect") if crop == "pad" else v2.RandomResizedCrop(size, (0.35, 1))
    pipeline = v2.Compose(
        [
            v2.PILToTensor(),
            sizing,
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    scale = (0.8, 1.0) if crop == "pad" else (0.35, 1.0)
    found: dict[str, Callable[[], object]] = {"fastcls": lambda: consume(ours.train)}
    for workers in WORKERS:
        lasting = {"num_workers": workers, "persistent_workers": workers > 0}
        fastai = stock.dataloaders(folder, bs=bs, num_workers=workers).train
        vision = torch.utils.data.DataLoader(
            ImageFolder(str(folder), pipeline), bs, shuffle=True, drop_last=True, **lasting
        )
        timm = create_loader(
            ImageDataset(str(folder)),
            (3, size, size),
            bs,
            is_training=True,
            use_prefetcher=False,
            scale=scale,
            color_jitter=None,
            **lasting,
        )
        for name, loader in (("fastai", fastai), ("torchvision v2", vision), ("timm", timm)):
            found[f"{name}, {workers} workers"] = partial(consume, loader)
    return found


def batch_transforms(folder: Path, bs: int) -> dict[str, dict[str, Callable[[], object]]]:
    """An epoch of images taken as they are, with each of these batch transforms, through fastcls and through fastai."""
    from fastai.vision.all import (
        CategoryBlock,
        DataBlock,
        Flip,
        ImageBlock,
        Normalize,
        RandomSplitter,
        aug_transforms,
        get_image_files,
        parent_label,
    )

    from fastcls import data, transforms

    def block(tfms: list[Any]) -> DataBlock:
        return DataBlock(
            blocks=(ImageBlock, CategoryBlock),
            get_items=get_image_files,
            get_y=parent_label,
            splitter=RandomSplitter(0.01, seed=1),
            batch_tfms=[*tfms, Normalize.from_stats(MEAN, STD)],
        )

    found: dict[str, dict[str, Callable[[], object]]] = {}
    for title, ours, theirs in (
        ("normalisation alone", list, list),
        ("our Flip, fastai's Flip", lambda: [transforms.Flip()], lambda: [Flip()]),
        ("fastai's Flip in both", lambda: [Flip()], lambda: [Flip()]),
        ("fastai's aug_transforms in both", aug_transforms, aug_transforms),
        ("our augment, fastai's aug_transforms", transforms.augment, aug_transforms),
    ):
        mine = data.loaders(block(ours()), folder, bs=bs)
        mine.plan.prepare()
        stock = block(theirs()).dataloaders(folder, bs=bs, num_workers=0)
        found[title] = {"fastcls": partial(consume, mine.train), "fastai": partial(consume, stock.train)}
    return found


def consume(loader: Iterable[Any]) -> None:
    for batch in loader:
        assert batch[0].dtype == torch.float32


def subset(folder: Path, count: int, into: Path) -> Path:
    """Links to `count` of a folder's images, its class folders kept."""
    files = sorted(folder.rglob("*.[jJ][pP]*[gG]"))
    for file in random.Random(1).sample(files, min(count, len(files))):
        link = into / file.parent.name / file.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    return into


def show_transforms(options: Any) -> None:
    """Batch transforms of CIFAR-10 in the processor's seconds, on one thread and on as many as torch takes."""
    rows = []
    for threads in dict.fromkeys((1, torch.get_num_threads())):
        torch.set_num_threads(threads)
        for bs in (64, 512):
            with tempfile.TemporaryDirectory() as scratch:
                images = subset(images_folder("cifar10") / "train", options.cifar // 2, Path(scratch))
                for title, sides_of in batch_transforms(images, bs).items():
                    seconds = in_turn(sides_of, options.rounds, clock=time.process_time)
                    each = {side: [1e6 * t / (options.cifar // 2) for t in times] for side, times in seconds.items()}
                    gain = f"{ratio(seconds, 'fastai', 'fastcls'):.0f}"
                    rows.append([title, str(bs), str(threads), *map(spread, each.values()), gain])
    show(
        "loading-transforms",
        "Batch transforms",
        ["transforms", "batch", "threads", "fastcls, µs per image", "fastai, µs per image", "times"],
        rows,
        options.rounds,
        "CIFAR-10, images as they are; the process's user and system time, so that a busy machine does not count. "
        "fastai decodes each image every epoch, fastcls has decoded it once.",
        options.save,
    )


def main() -> None:
    options = arguments(__doc__ or "", rounds=5, cifar=20_000, imagenette=3_000)
    import_fastai()
    warnings.simplefilter("ignore")
    cases = [
        ("CIFAR-10, crop with padding + flip", images_folder("cifar10") / "train", options.cifar, 32, "pad", 512),
        (
            "Imagenette 160 px, random resized crop + flip",
            images_folder("imagenette2-160"),
            options.imagenette,
            160,
            "resized",
            64,
        ),
    ]
    rows = []
    for title, folder, count, size, crop, bs in cases:
        with tempfile.TemporaryDirectory() as scratch:
            images = subset(folder / "imagenette2-160" / "train" if crop == "resized" else folder, count, Path(scratch))
            seconds = in_turn(sides(images, size, crop, bs), options.rounds)
        for name, times in seconds.items():
            each = [1e6 * t / count for t in times]
            rows.append([title, name, spread(each), f"{ratio(seconds, name, 'fastcls'):.1f}"])
    show_transforms(options)
    show(
        "loading",
        "Loading",
        ["images", "loader", "µs per image", "fastcls, times as fast"],
        rows,
        options.rounds,
        NOTE,
        options.save,
    )


if __name__ == "__main__":
    main()
