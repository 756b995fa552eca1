"""The five-conv CNN on CIFAR-10 as every side of a measurement trains it: stock fastai, fastcls, a bare loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from fastcls.settings import options

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
BS, LR, WD = 512, 4e-3, 0.02


def network(pool_first: bool) -> nn.Module:
    """conv 64-64-128-128-256, linear 512, dropout 0.5."""
    from fastcls.models import networks

    return networks.cnn(
        3, 10, (64, 64, 128, 128, 256), pools=(2, 4, 5), side=32, hidden=(512,), dropout=0.5, pool_first=pool_first
    )


def block(**tfms: Any) -> Any:
    from fastai.vision.all import CategoryBlock, DataBlock, ImageBlock, RandomSplitter, get_image_files, parent_label

    blocks = (ImageBlock, CategoryBlock)
    split = RandomSplitter(0.1, seed=1)
    return DataBlock(blocks=blocks, get_items=get_image_files, get_y=parent_label, splitter=split, **tfms)


def stock(folder: Path, seed: int, epochs: int, bs: int = BS) -> Any:
    """Stock fastai, as a user would write it; gives a function that trains and then the validation accuracy."""
    from fastai.vision.all import CropPad, Flip, Learner, Normalize, RandomCrop, accuracy

    from fastcls.machine import devices

    devices.seed_everything(seed)
    items, batch = [CropPad(40, pad_mode="reflection"), RandomCrop(32)], [Flip(), Normalize.from_stats(MEAN, STD)]
    dls = block(item_tfms=items, batch_tfms=batch).dataloaders(folder, bs=bs)
    learn = Learner(dls, network(pool_first=False), metrics=accuracy)
    return _trained(learn, epochs)


def ours(folder: Path, seed: int, epochs: int, pool_first: bool = True, bs: int = BS, **settings: Any) -> Any:
    """The same on fastcls, as the recipe cifar10-cnn5 has it; `settings` are options of the run."""
    from fastai.vision.all import accuracy

    from fastcls import data, models, transforms
    from fastcls.machine import devices

    with options.using(replace(options.Options(seed=seed), **settings)):
        devices.seed_everything(seed)
        dls = data.loaders(block(batch_tfms=transforms.Crop(4, flip=0.5)), folder, bs=bs)
        learn = models.learner(dls, network(pool_first), stats=(MEAN, STD), metrics=accuracy)
        dls.plan.prepare()
    return _trained(learn, epochs)


def _trained(learn: Any, epochs: int) -> Any:
    def train() -> float:
        with learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(epochs, LR, wd=WD)
        return float(learn.recorder.values[-1][-1])

    train.learn = learn  # type: ignore[attr-defined]
    return train


def bare(learner: Any, epochs: int, bf16: bool) -> Any:
    """A plain PyTorch loop over the pixels that our loader has decoded: crop, flip, forward, backward, fused AdamW."""
    dls = learner.dls
    sources = [dls.plan.source(dl.dataset) for dl in (dls.train, dls.valid)]
    pixels = [torch.from_numpy(s.origin.pixels[s.rows]).permute(0, 3, 1, 2) for s in sources]
    labels = [learner_targets(dl.dataset) for dl in (dls.train, dls.valid)]
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) * 255 for v in (MEAN, STD))

    def train() -> float:
        net = network(pool_first=True).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(net.parameters(), LR, weight_decay=WD, fused=True)
        steps = epochs * (len(labels[0]) // BS)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps)
        shift = torch.arange(32)
        for _ in range(epochs):
            net.train()
            for rows in torch.randperm(len(labels[0])).split(BS):
                if len(rows) < BS:
                    break
                x = pixels[0][rows].permute(0, 2, 3, 1)
                y, z = (shift + torch.randint(-4, 5, (BS, 1)) for _ in range(2))
                y, z = (31 - (31 - i.abs()).abs() for i in (y, z))
                z = torch.where(torch.rand(BS, 1) < 0.5, 31 - z, z)
                places = torch.arange(BS)[:, None, None] * 1024 + y[:, :, None] * 32 + z[:, None, :]
                x = x.reshape(-1, 3).index_select(0, places.flatten()).view(BS, 32, 32, 3).permute(0, 3, 1, 2)
                x = x.float().sub_(mean).div_(std)
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    loss = F.cross_entropy(net(x).float(), labels[0][rows])
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
        net.eval()
        right = 0
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            for rows in torch.arange(len(labels[1])).split(2 * BS):
                x = pixels[1][rows].float().sub_(mean).div_(std)
                right += int((net(x).argmax(1) == labels[1][rows]).sum())
        return right / len(labels[1])

    return train


def learner_targets(dataset: Any) -> torch.Tensor:
    from fastcls.data.pixels import targets

    return targets(dataset)
