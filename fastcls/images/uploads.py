"""Uploaded bytes of a picture: refused, with the reason, before they cost anything."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from fastcls.errors import DataError
from fastcls.images import heic
from fastcls.images.check import reason
from fastcls.images.decode import UnknownRange, decode, orientation

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "HEIF")
NAMES = "JPEG, PNG, WebP, GIF, BMP, TIFF or HEIC"
LONGEST = 12_000  # pixels of a side: padded to a square, such a picture takes 0.4 GB
MOST_PIXELS = 80_000_000  # a photograph's are below 60 million; Pillow warns above 89


@dataclass(frozen=True)
class Upload:
    """A picture's pixels, uint8 (h, w, 3) or (h, w), and whether they were turned upright by its EXIF."""

    pixels: np.ndarray
    turned: bool


def read(data: bytes, mode: str = "RGB") -> Upload:
    """Check and decode the bytes of one picture, as `decode` would a file; DataError where they cannot be used."""
    if not data:
        raise DataError("The file is empty: 0 bytes.")
    with warnings.catch_warnings():  # odd metadata and palettes do not matter here
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                turned = _check(image)
            return Upload(decode(data, mode), turned)
        except (UnidentifiedImageError, Image.DecompressionBombError) as problem:
            raise DataError(_unknown(data, problem)) from None
        except DataError:
            raise
        except heic.NeedsPackage as problem:
            raise DataError(f"The image cannot be used: it is {problem}") from None
        except UnknownRange as problem:
            raise DataError(f"The image cannot be used: {problem}.") from None
        except Exception as problem:  # of bytes made to harm, a decoder may raise anything
            raise DataError(f"The image is damaged: {reason(problem).rstrip('.')}.") from problem


def _check(image: Image.Image) -> bool:
    """Refuse what is too large; gives whether the camera was turned. No pixel has been decoded yet."""
    width, height = image.size
    if max(image.size) > LONGEST or width * height > MOST_PIXELS:
        raise DataError(
            f"The image has {width:,} × {height:,} pixels; the limit is {LONGEST:,} per side and "
            f"{MOST_PIXELS // 1_000_000} million in all. Resize it."
        )
    return orientation(image) != 1


def _unknown(data: bytes, problem: Exception) -> str:
    if isinstance(problem, Image.DecompressionBombError):
        return f"The image has more than {MOST_PIXELS // 1_000_000} million pixels. Resize it."
    start = data[:4096].lower()
    if b"<svg" in start:
        return f"This is an SVG drawing, which has no pixels. Save it as {NAMES}."
    if heic.begins(data):
        return "The image is damaged: its header cannot be read."
    if start[4:8] == b"ftyp":
        return f"AVIF images and videos are not supported. Save it as {NAMES}."
    return f"This is not an image in a supported format. Send a {NAMES}."
