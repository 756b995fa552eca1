"""What fastai loaders do to a validation image, as the specification that `preprocessing` follows without torch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from fastai.data.all import DataLoaders, IntToFloatTensor, Normalize, TfmdLists, ToTensor
from fastai.vision.augment import AffineCoordTfm, RandomResizedCrop, Resize, SpaceTfm
from PIL import Image

from fastcls.transforms.resizing import ResizedCrop

INTERPOLATIONS = ("bilinear", "bicubic")


def item_specification(tfms: Iterable[Any], mode: str) -> dict[str, Any]:
    """What these item transforms do to a validation image of `mode`; ValueError where that cannot express it."""
    spec: dict[str, Any] = {"mode": mode, "method": "", "resize": None, "size": None, "pad_mode": ""}
    spec |= {"mean": None, "std": None, "interpolation": "bilinear"}
    for tfm in tfms:
        if hasattr(tfm, "resamples"):
            spec["interpolation"] = Image.Resampling(tfm.resamples[0]).name.lower()
            if spec["interpolation"] not in INTERPOLATIONS:
                raise ValueError(
                    f"{type(tfm).__name__} resizes with {spec['interpolation']}, which predict does not support"
                )
        if isinstance(tfm, Resize):
            size = [tfm.size[1], tfm.size[0]]
            spec |= {"method": str(tfm.method), "resize": size, "size": size, "pad_mode": str(tfm.pad_mode)}
        elif isinstance(tfm, ResizedCrop) and tfm.evaluation:
            spec |= tfm.evaluation
        elif isinstance(tfm, RandomResizedCrop):
            extra = math.ceil(max(tfm.size) * tfm.val_xtra / 8) * 8  # fastai cuts this off again after resizing
            resize = [tfm.size[1] + extra, tfm.size[0] + extra]
            spec |= {"method": "squish", "resize": resize, "size": [tfm.size[1], tfm.size[0]]}
        elif not (isinstance(tfm, ToTensor) or _only_in_training(tfm)):
            raise ValueError(f"validation images go through {type(tfm).__name__}, which predict does not support")
    return spec


def describe_preprocessing(dls: DataLoaders) -> dict[str, Any]:
    """The `preprocessing` object of model.json; ValueError where it cannot express what images go through."""
    image = dls.valid_ds[0][0]
    if not isinstance(image, Image.Image):
        raise ValueError(f"the network expects {type(image).__name__}, not an image file")
    batch_tfms = [*dls.valid.before_batch.fs, *dls.valid.after_batch.fs]
    known = [tfm for tfm in batch_tfms if isinstance(tfm, (IntToFloatTensor, Normalize))]
    others = [tfm for tfm in batch_tfms if tfm not in known]
    opened = dls.valid_ds.tls[0]
    further = opened.tfms.fs[opener(opened) + 1 :]
    spec = item_specification([*further, *dls.valid.after_item.fs, *others], image.mode)
    for tfm in known:
        if isinstance(tfm, Normalize):
            spec |= {"mean": tfm.mean.flatten().tolist(), "std": tfm.std.flatten().tolist()}
    return spec


def opener(tl: TfmdLists) -> int:
    """Which of its transforms makes an image of a file; those before it find the file of an item."""
    fs = tl.tfms.fs
    given = tl.types[-len(fs) :]  # by each of them
    images = (i for i, kind in enumerate(given) if isinstance(kind, type) and issubclass(kind, Image.Image))
    return next(images, len(fs) - 1)


def _only_in_training(tfm: Any) -> bool:
    if isinstance(tfm, AffineCoordTfm):  # without a size of its own, fastai's resamples with the identity
        return tfm.size is None
    return tfm.split_idx == 0 or isinstance(tfm, SpaceTfm)
