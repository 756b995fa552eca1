"""An image file as an array of 8 bits a channel, upright and opaque; sooner where libjpeg-turbo writes JPEG into NumPy.

Everything that reads pixels reads them here, so that training, prediction and the page of `serve` see the same:
turned as EXIF says, the first frame, transparent parts on white, 16 bits scaled to 8 (65,535 to 255). What has no
agreed range of values, 32-bit numbers, is refused, and so is what is not a regular file: a named pipe would block.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from fastcls.images import heic

JPEG = b"\xff\xd8\xff"
PLAIN = ("YCbCr", "RGB", "Gray")  # Pillow inverts some CMYK files by their metadata
WITHOUT_WAITING = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
PAGES = 1000
ORIENTATION = 0x0112  # EXIF's tag for how the camera was held; 1 is upright
PHOTOMETRIC = 262  # TIFF's tag for which value is white; Pillow heeds it for 8 bits, not for 16
UPRIGHT = {  # what undoes each orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

heic.register()


class UnknownRange(ValueError):
    """Pixels are numbers of which it is unknown what is black and what is white."""


def decode(source: str | Path | bytes, mode: str = "RGB") -> np.ndarray:
    """Pixels of an image file, or of its bytes, as uint8, (h, w, 3) for mode 'RGB', (h, w) for 'L'.

    Threads may call it at once and do not wait for each other. Raises what Pillow raises: OSError and its
    UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError; and UnknownRange, a ValueError.
    """
    data = source if isinstance(source, bytes) else file_bytes(source)
    if not data:
        raise OSError("an empty file")
    pixels = _jpeg(data, mode) if data.startswith(JPEG) else None
    if pixels is None:
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.array(flattened(image, mode))
    return pixels


def file_bytes(path: str | Path) -> bytes:
    """What a regular file holds, read as `opened` opens it."""
    with opened(path) as file:
        return file.read()


def opened(path: str | Path) -> io.FileIO | io.BytesIO:
    """A regular file, unbuffered, or a packed image; OSError at once for a pipe or a device, which might block."""
    try:
        file = io.FileIO(os.open(path, WITHOUT_WAITING))
    except (FileNotFoundError, NotADirectoryError):
        from fastcls.datasets import shards

        packed = shards.bytes_of(path)
        if packed is None:
            raise
        return io.BytesIO(packed)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError("a pipe or a device, not a file")
    return file


def flattened(image: Image.Image, mode: str = "RGB") -> Image.Image:
    """An image of any kind in `mode` ('RGB' or 'L'): upright, 8 bits a channel, transparent parts on white."""
    refuse_unusable(image)
    image.load()
    upright = UPRIGHT.get(orientation(image))
    image = _eight_bits(image)
    if transparent(image):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert(mode)
    image = image if upright is None else image.transpose(upright)
    image.info.clear()  # of its orientation, for example: who flattens it again must not turn it again
    return image


def transparent(image: Image.Image) -> bool:
    """Whether an image has a channel or a colour that is transparent."""
    return image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info


def orientation(image: Image.Image) -> int:
    """How the camera was held, by EXIF or XMP; 1, upright, where that is missing or damaged."""
    if image.format == "PNG":
        image.load()  # its EXIF may come behind the pixels; of what is wrong with those the caller should hear
    with contextlib.suppress(Exception):  # the parsers raise what they like
        value = image.getexif().get(ORIENTATION, 1)
        return value if value in UPRIGHT else 1
    return 1


def frames(image: Image.Image) -> int:
    """How many pictures a file holds, from 1; the pages of a TIFF are counted up to PAGES.

    With each page Pillow looks through the list of those before.
    """
    if image.format != "TIFF":
        return getattr(image, "n_frames", 1)
    page = 1
    try:
        with contextlib.suppress(EOFError):
            while page < PAGES:
                image.seek(page)
                page += 1
        return page
    finally:
        image.seek(0)


def sixteen_bits(image: Image.Image) -> bool:
    """Whether an image is gray with values of 0 … 65,535."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")  # Pillow scales PGM's to it


def refuse_unusable(image: Image.Image) -> None:
    """Raise UnidentifiedImageError for programs, UnknownRange where it is unknown which value is white.

    Looks at the header alone: Pillow has Ghostscript run a PostScript file, whatever its name, to load its pixels.
    """
    if image.format in ("EPS", "WMF"):
        raise UnidentifiedImageError("a PostScript program, not an image")
    if image.mode in ("I", "F") and not sixteen_bits(image):
        kind = "32-bit integers" if image.mode == "I" else "floating-point numbers"
        raise UnknownRange(f"its pixels are {kind} of an unknown range; save it with 8 or 16 bits")


def _eight_bits(image: Image.Image) -> Image.Image:
    if not sixteen_bits(image):
        return image
    values = np.asarray(image).astype(np.uint32)
    if image.format == "TIFF" and getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0:  # 0 is white
        values = 65535 - values
    pixels = ((values + 128) // 257).astype(np.uint8)
    pixels[values == image.info.get("transparency", -1)] = 255
    return Image.fromarray(pixels)


def _jpeg(data: bytes, mode: str) -> np.ndarray | None:
    """The pixels of a sound and ordinary JPEG file; None where Pillow should have the last word."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in PLAIN or height * width > (Image.MAX_IMAGE_PIXELS or 0):
            return None
        if colours == "Gray" and mode == "L":
            pixels = simplejpeg.decode_jpeg(data, "GRAY")[:, :, 0]
        else:
            pixels = simplejpeg.decode_jpeg(data, "RGB")  # strict: a file that libjpeg warns of is a ValueError
    except ValueError:
        return None
    upright = UPRIGHT.get(_orientation_of(data))
    if upright is None and (mode == "RGB" or pixels.ndim == 2):
        return pixels
    image = Image.fromarray(pixels).convert(mode)
    return np.array(image if upright is None else image.transpose(upright))


def _orientation_of(data: bytes) -> int:
    """A JPEG file's orientation; most have none, which takes microseconds to see."""
    if b"Exif\0\0" not in data and b"tiff:Orientation" not in data:
        return 1
    with Image.open(io.BytesIO(data)) as image:
        return orientation(image)
