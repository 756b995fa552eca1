"""What kind of target a DataBlock and its loaders have, one class an image or several labels; no other is trained."""

from __future__ import annotations

from typing import Any

import pandas as pd
from fastai.data.all import (
    Categorize,
    CategoryBlock,
    DataBlock,
    EncodedMultiCategorize,
    MultiCategorize,
    MultiCategoryBlock,
    OneHotEncode,
    RegressionSetup,
)
from fastai.vision.core import PILBase, PILMask, TensorBBox, TensorPoint

from fastcls.errors import RecipeError
from fastcls.runfolder import target as targets

SUPPORTED = "CategoryBlock (one class per image) and MultiCategoryBlock (any number of labels)"
OTHERS = ((PILMask.create, "a MaskBlock"), (TensorPoint.create, "a PointBlock"), (TensorBBox.create, "a BBoxBlock"))


def label_block(table: pd.DataFrame) -> Any:
    """The fastai block for the labels of `datasets.folder`: CategoryBlock, or MultiCategoryBlock for lists."""
    return MultiCategoryBlock() if targets.of(table.attrs).several else CategoryBlock()


def of(dls: Any) -> targets.Target:
    """The target of DataLoaders, or of Datasets."""
    dataset = getattr(dls, "train_ds", dls)
    tfms = dataset.tls[-1].tfms.fs if len(dataset.tls) > 1 else ()
    several = any(isinstance(tfm, MultiCategorize | EncodedMultiCategorize) for tfm in tfms)
    return targets.MULTI if several else targets.SINGLE


def check(block: DataBlock) -> None:
    """RecipeError for a target of another kind, by the name of its block."""
    tfms = block.type_tfms[-1] if len(block.type_tfms) > block.n_inp else ()
    name = _unsupported(list(tfms))
    if name:
        raise RecipeError(
            f"The recipe's DataBlock has {name} as its target, and fastcls only trains classifiers.",
            f"Supported are {SUPPORTED}. For other targets use fastai's own Learner.",
        )


def _unsupported(tfms: list[Any]) -> str:
    """The name of a block that is no classifier's; '' for others, those of the user's own among them."""
    if not tfms:
        return "no block"
    if any(isinstance(tfm, RegressionSetup) for tfm in tfms):
        return "a RegressionBlock"
    if any(type(tfm) is MultiCategorize for tfm in tfms) and OneHotEncode not in (*tfms, *map(type, tfms)):
        return "a BBoxLblBlock"
    for make, name in OTHERS:
        if any(tfm is make or tfm == make for tfm in tfms):
            return name
    if any(issubclass(getattr(tfm, "__self__", type), PILBase) for tfm in tfms):
        return "an ImageBlock"
    return "" if any(isinstance(tfm, Categorize) or hasattr(tfm, "vocab") for tfm in tfms) else type(tfms[-1]).__name__
