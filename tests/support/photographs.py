"""Small folders of pictures, a class a folder, and loaders of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image


def photographs(folder: Path, a_class: int, side: int = 40) -> Path:
    for name in ("cat", "dog"):
        for i in range(a_class):
            file = folder / name / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (side + 8, side), (i % 256, 0, 0)).save(file)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for index, name in enumerate(("cat", "dog", "owl")):
        for i in range(6):
            file = folder / name / f"{i}.png"
            file.parent.mkdir(exist_ok=True)
            Image.effect_noise((40, 40), 30 + 20 * index).convert("RGB").save(file)
    return folder


def loaders(photos: Path, size: int = 32, gray: bool = False, min_scale: float = 1.0, item_tfms: Any = None):
    from fastai.vision.all import CategoryBlock, DataBlock, ImageBlock, PILImageBW, get_image_files, parent_label

    from fastcls import data, transforms

    block = DataBlock(
        blocks=(ImageBlock(PILImageBW) if gray else ImageBlock, CategoryBlock),
        get_items=get_image_files,
        get_y=parent_label,
        splitter=data.stratified(parent_label, 0.34),
        item_tfms=item_tfms or transforms.resize(size, min_scale),
        batch_tfms=transforms.augment(),
    )
    return data.loaders(block, photos, bs=4)
