"""Which architecture, image size, batch size and phase suit one's images and this machine, and why.

The rules are the constants below. What a network takes is counted on torch's meta device (bytes) and timed on the
device (seconds of a step).
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import nn

from fastcls.datasets import layouts
from fastcls.datasets.walk import count
from fastcls.errors import DataError, EnvironmentProblem, OutputError, did_you_mean
from fastcls.images import check
from fastcls.machine import devices
from fastcls.models import backbones, zoo
from fastcls.models.zoo import PUBLISHED
from fastcls.runfolder import runs, splits
from fastcls.runfolder import target as targets
from fastcls.settings import shell

# Accuracy after transfer goes with ImageNet accuracy: r = 0.96 where the whole network is tuned, 0.99 where only a head
# is (Kornblith et al. 2019, Do Better ImageNet Models Transfer Better?). So the most accurate that is affordable is
# taken from a ladder of networks, each dearer and more accurate than the one before; all but the first have layer norm,
# which small batches do not disturb, and all have seen 11,000 classes or more.
LADDER = tuple(PUBLISHED)
# With few images the head that is solved on frozen features is nearly all there is to gain (docs/transfer.md), in a
# small share of the time. The numbers are ours: where images look unlike photographs, tune all of it sooner.
FEW, FEW_A_CLASS = 500, 20
# Pixels a side. Weights have seen objects at the scale of 224 pixels (Touvron et al. 2019, Fixing the Train-Test
# Resolution Discrepancy), so smaller images are enlarged (Kornblith et al. enlarge even CIFAR's); but only to 128,
# where the last features are 4 × 4, as the time grows with the square. Between the two, a multiple of the stride, 32.
SMALLEST, LARGEST, STRIDE = 128, 224, 32
# Batch size by the number of images: small batches generalise at least as well (Masters and Luschi 2018), and small
# datasets need them for enough steps an epoch; below 8, batch norm's statistics are too noisy (Wu and He 2018).
BATCHES = ((FEW, 16), (20_000, 32), (float("inf"), 64))
LEAST_BATCH = 8
EPOCH_SECONDS = 600.0  # the six epochs of `fastcls recipe folder` are then done within the hour
GPU_SHARE, RAM_SHARE = 0.8, 0.5  # of a GPU's free memory; of the machine's whole memory, where others live too
OVERHEAD = 0.3e9  # bytes: workspaces and passing buffers, seen in seven networks on a CPU to be 0.1 to 0.3 GB
SAMPLED = 200  # images whose size is read, from the file's head


@dataclass(frozen=True)
class Images:
    """What is known of the images, and the recipe and settings that train on them."""

    where: str
    layout: str
    count: int
    trained: int  # those in the training split
    classes: int
    a_class: int  # images, the median of the classes
    short: int  # side in pixels, the median of `sampled` images
    long: int
    sampled: int
    command: tuple[str, ...]  # words after `fastcls recipe`
    files: Sequence[Sequence[str]] = field(default=(), repr=False)  # path, label, split
    target: targets.Target = targets.SINGLE

    @property
    def few(self) -> bool:
        return self.count < FEW or self.a_class < FEW_A_CLASS


@dataclass(frozen=True)
class Machine:
    """The device, and the bytes that a run may take on it."""

    device: torch.device
    name: str
    memory: int
    usable: int


@dataclass(frozen=True)
class Cost:
    """What training a network takes."""

    parameters: int
    trained: int
    kept: int  # bytes an image that the backward pass needs from the forward pass, in fp32
    seconds: float  # an image: forward, backward, update; in fp32, without loading

    def memory(self, batch: int) -> float:
        """Bytes: weights, gradients and AdamW's two moments, and what each image of the batch keeps."""
        return 4 * self.parameters + 12 * self.trained + batch * self.kept + OVERHEAD


@dataclass(frozen=True)
class Option:
    """A network with the batch size that fits."""

    architecture: zoo.Architecture
    cost: Cost
    batch: int
    epoch: float  # seconds


@dataclass(frozen=True)
class Suggestion:
    """The pick, and its neighbours where there are any."""

    tune: str
    size: int
    pick: Option
    smaller: Option | None
    larger: Option | None


def look(target: str, labels: str = "", label_regex: str = "") -> Images:
    """The images of a run or of a folder; DataError where there is neither or no image can be read."""
    path = shell.path(target)
    if (path / "run.json").is_file() or not path.exists():
        return _of_run(_run(target))
    table = layouts.find(path, labels=labels, label_regex=label_regex)
    if targets.of(table.attrs).several:
        table["label"] = table["label"].map(targets.MULTI.text)
    rows = table[["path", "label", "split"]].values.tolist()
    command = ("folder", *shell.flags(path=target, labels=labels, label_regex=label_regex))
    return _images(target, table.attrs["layout"], rows, command, targets.of(table.attrs))


def machine() -> Machine:
    """This machine, and what of it a run may take."""
    where = devices.device()
    if where.type == "cuda":
        free, total = torch.cuda.mem_get_info(where)
        return Machine(where, torch.cuda.get_device_name(where), total, int(GPU_SHARE * free))
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 8 * 10**9
    name = f"{devices.describe(where)['name']}, {count(devices.cores(), 'core')}"
    return Machine(where, name, total, int(RAM_SHARE * total))


def suggest(images: Images, machine: Machine, progress: Callable[[str], object]) -> Suggestion:
    """The most accurate network of the ladder that fits memory and time, the ones before and after it beside it.

    The last of the ladder is only ever offered as the larger one. EnvironmentProblem where not even the first fits.
    """
    tune = "probe" if images.few else "full"
    size = side(images.short)
    options: list[Option] = []
    larger = None
    for name in LADDER:
        progress(name)
        found = option(zoo.named(name), size, tune, images, machine)
        affordable = found is not None and found.epoch <= EPOCH_SECONDS
        if found is not None and (affordable or not options) and name != LADDER[-1]:
            options.append(found)
        else:
            larger = found
            break
    if not options:
        raise EnvironmentProblem(
            f"{machine.usable / 1e9:.1f} GB are too little for {LADDER[0]} and {LEAST_BATCH} images of {size} pixels.",
            "Close other programs, or train on another machine.",
        )
    return Suggestion(tune, size, options[-1], options[-2] if len(options) > 1 else None, larger)


def side(short: int) -> int:
    """Image side to train with, for images whose short side is `short` pixels."""
    return max(SMALLEST, min(LARGEST, short // STRIDE * STRIDE))


def on_disk(architecture: zoo.Architecture) -> bool:
    """Whether its ImageNet weights are in the cache of torch or of Hugging Face already."""
    return backbones.is_kept(backbones.find(architecture.name))


def _run(target: str) -> Path:
    try:
        return runs.find(target)
    except OutputError:
        path = shell.path(target).absolute()
        near = [entry.name for entry in path.parent.glob("*")] + [run.name for run in runs.listing()]
        raise DataError(
            f"--suggest {target}: no such folder or run{did_you_mean(path.name, near) or '.'}",
            "Pass a folder of images, or a run; `fastcls runs` lists the runs.",
        ) from None


def _of_run(run: Path) -> Images:
    record = runs.read_json(run / "run.json")
    try:
        rows = splits.read(run)
        root, knobs = Path(record["data"]["root"]), record["knobs"]["get_learner"]
    except KeyError as problem:
        raise OutputError(f"{run} is not a complete run folder: it has no record of its images ({problem}).") from None
    command = ["folder", *shell.flags(path=root)]
    if {"arch", "size", "bs"} <= set(knobs) and "tune" in record["knobs"]["fit"]:  # its recipe takes what is suggested
        given = {knob: knobs.get(knob) for knob in ("path", "labels", "label_regex")}
        command = [record["recipe"], *shell.flags(**given)]
    files = [(str(root / path), label, split) for path, label, split in rows]
    return _images(str(root), f"as split by the run {run}", files, tuple(command), targets.of(record["data"]))


def _images(
    where: str,
    layout: str,
    files: Sequence[Sequence[str]],
    command: tuple[str, ...],
    target: targets.Target = targets.SINGLE,
) -> Images:
    """From rows of path, label and split."""
    from PIL import Image

    def sides(path: str) -> list[int]:
        with Image.open(path) as image:
            return sorted(image.size)

    found, problem = [], None
    for i in np.linspace(0, len(files) - 1, min(SAMPLED, len(files))).astype(int):
        try:
            found.append(check.reading(files[i][0], sides))
        except DataError as broken:  # training will name them all
            problem = broken
    if not found:
        raise DataError(f"None of the images of {where} can be read. The last one: {problem}", "Fix or replace them.")
    short, long = (int(median(side)) for side in zip(*found, strict=True))
    classes = Counter(name for _, label, _ in files for name in target.names(label))
    trained = sum(split == "train" for _, _, split in files)
    a_class = int(median(classes.values()))
    return Images(
        where, layout, len(files), trained, len(classes), a_class, short, long, len(found), command, files, target
    )


def _usual_batch(images: Images) -> int:
    return next(batch for limit, batch in BATCHES if images.count < limit)


def option(architecture: zoo.Architecture, size: int, tune: str, images: Images, machine: Machine) -> Option | None:
    """The network with the batch size that fits; None where not even the least batch fits the memory."""
    price = cost(architecture, size, tune, machine.device)
    batch = _usual_batch(images)
    while price.memory(batch) > machine.usable and batch >= LEAST_BATCH:
        batch //= 2
    return Option(architecture, price, batch, price.seconds * images.trained) if batch >= LEAST_BATCH else None


def cost(architecture: zoo.Architecture, size: int, tune: str, device: torch.device) -> Cost:
    """What one image costs in training; 'probe' runs the network forward alone."""
    network = _tuned(zoo.on_meta(architecture), tune)
    parameters = list(network.parameters())
    trained = [p.numel() for p in parameters if p.requires_grad]
    kept = _kept(network, torch.empty(2, 3, size, size, device="meta")) // 2
    return Cost(sum(p.numel() for p in parameters), sum(trained), kept, _seconds(architecture, size, tune, device))


def _tuned(network: nn.Module, tune: str) -> nn.Module:
    return network.requires_grad_(False).eval() if tune == "probe" else network.train()


def _kept(network: nn.Module, batch: torch.Tensor) -> int:
    """Bytes that autograd keeps of a forward pass, weights not counted; every storage counts once."""
    own = {tensor.untyped_storage()._cdata for tensor in (*network.parameters(), *network.buffers())}
    storages = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage  # held, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _output = network(batch)
    return sum(storage.nbytes() for address, storage in storages.items() if address not in own)


def _seconds(architecture: zoo.Architecture, size: int, tune: str, device: torch.device) -> float:
    """Of one image in a step: the faster of two steps, of 4 images on a CPU and 32 on a GPU."""
    network = _tuned(zoo.network(architecture), tune).to(device)
    batch = torch.randn(4 if device.type == "cpu" else 32, 3, size, size, device=device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.0)
    fastest = float("inf")
    for _ in range(2):
        started = time.perf_counter()
        optimiser.zero_grad()
        loss = network(batch).square().mean()
        if loss.requires_grad:
            loss.backward()
            optimiser.step()
        loss.item()  # waits for the device
        fastest = min(fastest, time.perf_counter() - started)
    return fastest / len(batch)


def reasons(images: Images, machine: Machine, found: Suggestion) -> list[tuple[str, str]]:
    """(knob, one sentence that says why) for what was picked."""
    pick, short = found.pick, images.short
    counts = f"{images.count:,} images, {images.a_class:,} per class"
    if found.tune == "probe":
        tune = (
            f"{counts}: with so few, a head solved on frozen features gets nearly all there is; full may add a little."
        )
    else:
        tune = f"{counts}: enough to fine-tune the whole network, after its head."
    limit = f"{EPOCH_SECONDS / 60:.0f} minutes per epoch"
    arch = f"the most accurate on ImageNet ({pick.architecture.top1} %) of the networks considered that fit the memory "
    arch += f"and {limit} here; ImageNet accuracy carries over (Kornblith et al. 2019)."
    if pick.epoch > EPOCH_SECONDS:
        arch = (
            f"the smallest of the networks considered; even it needs more than {limit} here, which a GPU would shorten."
        )
    if short >= LARGEST:
        size = f"the size its weights were trained at; the images' short side, {short} pixels, is large enough."
    elif found.size > short:
        size = f"more than the images' short side, {short} pixels: enlarged, they are closer to the weights' training."
    else:
        size = f"the images' short side, {short} pixels, rounded to steps of {STRIDE}; a larger size adds no detail."
    need, usable = pick.cost.memory(pick.batch) / 1e9, machine.usable / 1e9
    usual = _usual_batch(images)
    why = "the usual size" if pick.batch == usual else "the most that fits"
    if pick.batch == usual == BATCHES[0][1]:
        why = "small, so that few images still give enough steps"
    room = "the GPU's free memory" if machine.device.type == "cuda" else "half the memory"
    return [
        ("arch", arch),
        ("tune", tune),
        ("size", size),
        ("bs", f"{why}: it needs about {need:.1f} of the {usable:.1f} GB that a run may take ({room})."),
    ]
