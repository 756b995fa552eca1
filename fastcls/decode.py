"""An image file as an array: Pillow's pixels to the bit, sooner where libjpeg-turbo writes them straight into NumPy."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

JPEG = b"\xff\xd8\xff"
PLAIN = ("YCbCr", "RGB", "Gray")  # Pillow inverts some CMYK files by their metadata


def decode(source: str | Path | bytes, mode: str = "RGB") -> np.ndarray:
    """Pixels of an image file, or of its bytes, as uint8, (h, w, 3) for mode 'RGB', (h, w) for 'L'.

    They are those of Pillow's open and convert.

    Threads may call it at once and do not wait for each other. Raises what Pillow raises: OSError and its
    UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError.
    """
    if isinstance(source, bytes):
        pixels = _jpeg(source, mode) if source.startswith(JPEG) else None
    else:
        with open(source, "rb") as file:  # noqa: PTH123  a Path costs a tenth of a small image's time
            start = file.read(len(JPEG))
            pixels = _jpeg(start + file.read(), mode) if start == JPEG else None
    if pixels is None:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            pixels = np.array(image.convert(mode))
    return pixels


def _jpeg(data: bytes, mode: str) -> np.ndarray | None:
    """The pixels of a sound and ordinary JPEG file; None where Pillow should have the last word."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in PLAIN or height * width > (Image.MAX_IMAGE_PIXELS or 0):
            return None
        if colours == "Gray" and mode == "L":
            return simplejpeg.decode_jpeg(data, "GRAY")[:, :, 0]
        pixels = simplejpeg.decode_jpeg(data, "RGB")  # strict: a file that libjpeg warns of is a ValueError
    except ValueError:
        return None
    return pixels if mode == "RGB" else np.array(Image.fromarray(pixels).convert(mode))
