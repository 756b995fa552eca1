"""What fastai loaders do to a validation image, as the specification that `preprocessing` follows without torch."""

from __future__ import annotations

from typing import Any

from fastai.data.all import DataLoaders, IntToFloatTensor, Normalize, ToTensor
from fastai.vision.augment import AffineCoordTfm, RandomResizedCrop, Resize, SpaceTfm
from PIL import Image

from fastcls.transforms import Affine


def describe_preprocessing(dls: DataLoaders) -> dict[str, Any]:
    """The `preprocessing` object of model.json; ValueError where images go through more than it can say."""
    image = dls.valid_ds[0][0]
    if not isinstance(image, Image.Image):
        raise ValueError(f"the network takes {type(image).__name__}, not an image file")
    spec: dict[str, Any] = {"mode": image.mode, "method": "", "resize": None, "size": None, "pad_mode": ""}
    spec |= {"mean": None, "std": None}
    for tfm in [*dls.valid.after_item.fs, *dls.valid.before_batch.fs, *dls.valid.after_batch.fs]:
        if isinstance(tfm, Resize):
            size = [tfm.size[1], tfm.size[0]]
            spec |= {"method": str(tfm.method), "resize": size, "size": size, "pad_mode": str(tfm.pad_mode)}
        elif isinstance(tfm, RandomResizedCrop):
            tfm.before_call(image, 1)
            resize = [tfm.final_size[1], tfm.final_size[0]]
            spec |= {"method": "squish", "resize": resize, "size": [tfm.size[1], tfm.size[0]]}
        elif isinstance(tfm, Normalize):
            spec |= {"mean": tfm.mean.flatten().tolist(), "std": tfm.std.flatten().tolist()}
        elif not (isinstance(tfm, (ToTensor, IntToFloatTensor)) or _only_in_training(tfm)):
            raise ValueError(f"validation images go through {type(tfm).__name__}, which predict does not know")
    return spec


def _only_in_training(tfm: Any) -> bool:
    if isinstance(tfm, AffineCoordTfm):  # without a size of its own, fastai's resamples with the identity
        return isinstance(tfm, Affine) or tfm.size is None
    return tfm.split_idx == 0 or isinstance(tfm, SpaceTfm)
