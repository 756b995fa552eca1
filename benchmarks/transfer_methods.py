"""One cell of benchmarks.transfer: pretrained weights, some images, a method; test accuracy and CPU seconds.

ours-…     the recipe `folder` with --tune probe, head or full and otherwise its defaults
fastai-N   vision_learner(...).fine_tune(N) with the transforms of the pet breeds in fastai's book (chapter 5)
timm       the fine-tuning command of timm's training-script page, and train.py's defaults for everything else:
           --pretrained --batch-size 32 --epochs 30 --opt adamw --lr 1e-4 --weight-decay 0.01, --amp on a GPU
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.transfer_data import Images

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class Task:
    """What a method is given."""

    root: Path
    train: Images
    valid: Images
    test: Images
    arch: str
    weights: Path
    seed: int

    @property
    def classes(self) -> list[str]:
        return sorted({label for _, label in self.train})


class Clock:
    """User and system seconds (of this process and those it has waited for) and wall seconds, by what they went to."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self.last = (0.0, time.perf_counter())  # processor seconds are those since the process began

    def lap(self, name: str) -> None:
        """What passed since the last lap went to `name`."""
        now = (sum(os.times()[:4]), time.perf_counter())
        for kind, since, until in zip(("cpu", "wall"), self.last, now, strict=True):
            self.spent[f"{kind}_{name}"] = round(until - since, 2)
        self.last = now


def measure(method: str, task: Task) -> dict[str, Any]:
    """Correct test images and CPU seconds: import, train (loading weights and images too), test; report of ours."""
    name, _, detail = method.partition("-")
    side: Callable[[Task, str, Clock], int] = {"ours": _ours, "fastai": _fastai, "timm": _timm}[name]
    clock = Clock()
    correct = side(task, detail, clock)
    return {"correct": correct, "accuracy": correct / len(task.test), **clock.spent}


def _ours(task: Task, tune: str, clock: Clock) -> int:
    """A run of `folder` on a table of these images; its test images are predicted as a user would, from the run."""
    from fastcls import recipe
    from fastcls.running import evaluation

    folder = recipe("folder")
    evaluate = evaluation.evaluate
    clock.lap("import")

    def evaluated(*args: Any, **kwargs: Any) -> Any:  # training ends where the report's own passes begin
        clock.lap("train")
        return evaluate(*args, **kwargs)

    evaluation.evaluate = evaluated  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as scratch:
        table = Path(scratch) / "labels.csv"
        with table.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["path", "label", "split"])
            for split, images in (("train", task.train), ("valid", task.valid)):
                rows.writerows([path, label, split] for path, label in images)
        settings = {"arch": task.arch, "weights": str(task.weights), "tune": tune, "seed": task.seed}
        run = folder.run(path=str(task.root), labels=str(table), out=Path(scratch) / "run", quiet=True, **settings)
        clock.lap("report")
        found = run.predict([task.root / path for path, _ in task.test])
        clock.lap("test")
    truth = {str(task.root / path): label for path, label in task.test}
    return sum(truth[path] == guess for path, guess in zip(found["path"], found["prediction"], strict=True))


def _fastai(task: Task, epochs: str, clock: Clock) -> int:
    """As the book writes it; put in by hand are the weights, which stock fastai only downloads."""
    import pandas as pd
    import torch
    from fastai.vision.all import (
        ImageDataLoaders,
        Normalize,
        Resize,
        accuracy,
        aug_transforms,
        set_seed,
        vision_learner,
    )
    from fastai.vision.learner import default_split, model_meta
    from safetensors.torch import load_file
    from torchvision.models import mobilenet_v2

    clock.lap("import")
    set_seed(task.seed)
    lite0 = task.arch == "tf_efficientnet_lite0"
    rows = [(path, label, held_out) for held_out in (False, True) for path, label in (task.train, task.valid)[held_out]]
    dls = ImageDataLoaders.from_df(
        pd.DataFrame(rows, columns=["path", "label", "is_valid"]),
        task.root,
        valid_col="is_valid",
        item_tfms=Resize(460),
        batch_tfms=[*aug_transforms(size=224, min_scale=0.75), Normalize.from_stats(*(HALF if lite0 else IMAGENET))],
        bs=min(64, len(task.train)),  # else it drops the only batch
        num_workers=0,
    )
    # fastai cannot find where to cut a MobileNetV2 by itself
    model_meta[mobilenet_v2] = {"cut": -1, "split": default_split}
    learn = vision_learner(dls, task.arch if lite0 else mobilenet_v2, pretrained=False, metrics=accuracy)
    state = load_file(task.weights)
    if lite0:
        body = {name: value for name, value in state.items() if not name.startswith("classifier.")}
        learn.model[0].model.load_state_dict(body)
    else:
        body = {name.removeprefix("features."): value for name, value in state.items() if name.startswith("features.")}
        learn.model[0][0].load_state_dict(body)
    learn.freeze()
    with learn.no_bar(), learn.no_logging():
        learn.fine_tune(int(epochs))
        clock.lap("train")
        probabilities, _ = learn.get_preds(dl=dls.test_dl([task.root / path for path, _ in task.test]))
    truth = torch.tensor([list(dls.vocab).index(label) for _, label in task.test])
    correct = int((probabilities.argmax(1) == truth).sum())
    clock.lap("test")
    return correct


def _timm(task: Task, _: str, clock: Clock) -> int:
    """train.py's loop from timm's parts: the loaders, the loss, the optimiser, the schedule and the best checkpoint."""
    import copy

    import timm
    import torch
    from safetensors.torch import load_file
    from timm.data import create_loader, resolve_data_config
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2
    from timm.utils import random_seed
    from torchvision.models import mobilenet_v2

    clock.lap("import")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = device.type == "cuda"
    random_seed(task.seed)
    if task.arch == "tf_efficientnet_lite0":
        overlay = {"file": str(task.weights)}
        model = timm.create_model(
            task.arch, pretrained=True, num_classes=len(task.classes), pretrained_cfg_overlay=overlay
        )
        config = resolve_data_config({}, model=model)
    else:  # the file has torchvision's names
        model = mobilenet_v2(num_classes=len(task.classes))
        missing = model.load_state_dict(load_file(task.weights), strict=False)
        assert set(missing.missing_keys) == {"classifier.1.weight", "classifier.1.bias"} and not missing.unexpected_keys
        config = resolve_data_config({"interpolation": "bilinear"}, pretrained_cfg={})
    model.to(device)
    common = {"input_size": config["input_size"], "mean": config["mean"], "std": config["std"]}
    common |= {"num_workers": 4 * on_gpu, "persistent_workers": on_gpu, "use_prefetcher": False, "device": device}
    train = create_loader(
        _Pictures(task, task.train),
        batch_size=min(32, len(task.train)),
        is_training=True,
        scale=(0.08, 1.0),
        ratio=(3 / 4, 4 / 3),
        color_jitter=0.4,
        interpolation="random",
        **common,
    )

    half = partial(torch.autocast, device.type, torch.float16, enabled=on_gpu)  # --amp, on a GPU
    scaler = torch.amp.GradScaler(device.type, enabled=on_gpu)

    def evaluated(images: Images) -> int:
        loader = create_loader(
            _Pictures(task, images),
            batch_size=32,
            interpolation=config["interpolation"],
            crop_pct=config["crop_pct"],
            **common,
        )
        model.eval()
        with torch.inference_mode(), half():
            return sum(int((model(x.to(device)).argmax(1) == y.to(device)).sum()) for x, y in loader)

    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-4, weight_decay=0.01)
    schedule, epochs = create_scheduler_v2(
        optimizer, "cosine", num_epochs=30, warmup_epochs=5, warmup_lr=1e-5, updates_per_epoch=len(train)
    )
    loss = LabelSmoothingCrossEntropy(0.1)
    best, weights = -1, {}
    for epoch in range(epochs):
        model.train()
        for x, y in train:
            optimizer.zero_grad()
            with half():
                wrong = loss(model(x.to(device)), y.to(device))
            scaler.scale(wrong).backward()
            scaler.step(optimizer)
            scaler.update()
        if (right := evaluated(task.valid)) > best:
            best, weights = right, copy.deepcopy(model.state_dict())
        schedule.step(epoch + 1)
    model.load_state_dict(weights)
    clock.lap("train")
    correct = evaluated(task.test)
    clock.lap("test")
    return correct


class _Pictures:
    """Images with their class number, as timm's loaders take a dataset: they set its `transform`."""

    def __init__(self, task: Task, images: Images) -> None:
        self.root, self.images, self.transform = task.root, images, None
        self.number = {name: i for i, name in enumerate(task.classes)}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        from PIL import Image

        path, label = self.images[i]
        with Image.open(self.root / path) as image:
            picture = image.convert("RGB")
        return self.transform(picture) if self.transform else picture, self.number[label]


@contextlib.contextmanager
def quietly() -> Any:
    """Libraries print into nowhere: the row is the only output."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
