"""Photographs taken several times in a row: moved a little, lit a little otherwise, saved at another quality."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance


def scene(rng: np.random.Generator, side: int = 96) -> Image.Image:
    """A picture with coarse shapes and fine grain, unlike any other."""
    coarse = Image.fromarray(rng.integers(40, 216, (6, 8, 3), np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    return Image.fromarray((np.asarray(coarse) + rng.normal(0, 8, (side, side, 3))).clip(0, 255).astype(np.uint8))


def again(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The same scene a moment later: up to 2 % lost each way, up to 15 % brighter or darker."""
    w, h = image.size
    lost = rng.uniform(0.005, 0.02)
    x, y = rng.uniform(0, lost, 2)
    moved = image.crop((round(x * w), round(y * h), round((1 - lost + x) * w), round((1 - lost + y) * h)))
    return ImageEnhance.Brightness(moved).enhance(float(rng.uniform(0.85, 1.15)))


def burst(folder: Path, name: str, image: Image.Image, rng: np.random.Generator, shots: int = 3) -> list[Path]:
    """The picture and its like, as JPEG files of several qualities."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}_{i}.jpg" for i in range(shots)]
    for i, file in enumerate(files):
        (again(image, rng) if i else image).save(file, quality=int(rng.integers(75, 96)))
    return files
