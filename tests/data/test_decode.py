"""Decoding is Pillow's, pixel for pixel and error for error; but upright, on white, and with 16 bits scaled to 8."""

from __future__ import annotations

import io
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from fastcls.images.decode import _jpeg, decode

KINDS = {
    "4:2:0": {},
    "4:2:2": {"subsampling": 1},
    "4:4:4": {"subsampling": 0},
    "progressive": {"progressive": True, "quality": 40},
    "restarts": {"restart_marker_blocks": 2},
    "RGB inside": {"keep_rgb": True},
    "turned by EXIF": {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"},
}


def picture(mode: str = "RGB", size: tuple[int, int] = (83, 61)) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)).resize(size).convert(mode)


def pillow(path: Path, mode: str) -> np.ndarray:
    """The pixels as floats where the last bit is a matter of rounding."""
    with Image.open(path) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode == "I;16":
            gray = np.rint(np.asarray(image) / 257).astype(np.uint8)
            return gray if mode == "L" else np.stack([gray] * 3, -1)
        if image.mode in ("RGBA", "LA"):
            *colours, alpha = np.moveaxis(np.asarray(image, np.float64), -1, 0)
            white = np.stack(colours, -1) * (alpha / 255)[..., None] + 255 - alpha[..., None]
            image = Image.fromarray(np.rint(white.squeeze()).astype(np.uint8))
        return np.asarray(image.convert(mode))


def check(path: Path) -> None:
    for mode, dimensions in (("RGB", 3), ("L", 2)):
        ours = decode(path, mode)
        assert ours.dtype == np.uint8 and ours.ndim == dimensions and ours.flags.writeable
        np.testing.assert_allclose(ours, pillow(path, mode).astype(int), atol=float(path.stem == "glass"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_jpeg_is_pillows(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "image.jpg"
    picture().save(file, **KINDS[kind])
    assert _jpeg(file.read_bytes(), "RGB") is not None, "it went the slow way"
    check(file)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "bmp", "tiff"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_format_and_mode_is_pillows(tmp_path: Path, suffix: str, mode: str) -> None:
    file = tmp_path / f"{'glass' if 'A' in mode else 'image'}.{suffix}"
    image = picture("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 256 + 7)
    if "A" in mode:
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    try:
        image.save(file)
    except (OSError, KeyError, ValueError):
        pytest.skip(f"Pillow writes no {suffix} of mode {mode}")
    check(file)


def outcome(call, *arguments) -> object:  # type: ignore[no-untyped-def]
    try:
        return call(*arguments)
    except Exception as problem:
        return type(problem)


@pytest.mark.filterwarnings("ignore")  # Pillow's, of the damage
def test_damage_has_pillows_outcome(tmp_path: Path) -> None:
    """Truncated, overwritten and garbled files raise what Pillow raises or give what it gives."""
    rng = random.Random(0)
    sources = []
    for kind in KINDS.values():
        buffer = io.BytesIO()
        picture().save(buffer, "JPEG", **kind)
        sources.append(buffer.getvalue())
    file = tmp_path / "damaged.jpg"
    for turn in range(400):
        data = bytearray(rng.choice(sources))
        if turn % 4 == 0:
            del data[rng.randrange(len(data)) :]
        elif turn % 4 == 1:
            data[rng.randrange(len(data))] = rng.randrange(256)
        elif turn % 4 == 2:
            data[rng.randrange(700)] = rng.randrange(256)
        else:
            data[rng.randrange(len(data)) :] = b"\xff\xd9"
        file.write_bytes(data)
        ours, theirs = outcome(decode, file, "RGB"), outcome(pillow, file, "RGB")
        if isinstance(theirs, type) or isinstance(ours, type):
            assert ours is theirs, turn
        else:
            np.testing.assert_array_equal(ours, theirs)


def test_many_threads(tmp_path: Path) -> None:
    files = []
    for i in range(8):
        files.append(tmp_path / f"{i}.jpg")
        picture(size=(50 + i, 40)).save(files[-1])
    with ThreadPoolExecutor(8) as pool:
        for file, pixels in zip(files * 20, pool.map(decode, files * 20), strict=True):
            np.testing.assert_array_equal(pixels, pillow(file, "RGB"))
