"""One image file measured: whether it can be read, what kind it is, how it looks, and fingerprints to find copies by.

Whether that is a problem, `rules` decides. Files are read once and every pixel is decoded, which finds truncated ones.
"""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass
from typing import Any

import imagehash
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from fastcls.images import decode, heic
from fastcls.images.check import UNREADABLE
from fastcls.images.decode import JPEG, PLAIN

WORKING = 256  # pixels of the longer side of what is looked at; darkness and blur are measured at about this size
SIDE = 8  # pixels of the small image that copies are compared by
DAMAGED = (*UNREADABLE, KeyError, IndexError, TypeError, OverflowError)
MOVING = ("GIF", "PNG", "WEBP", "AVIF", "HEIF", "TIFF")  # formats whose further frames are animations or pages
_IMAGE_STARTS = (JPEG, b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP")
_AVIF = re.compile(rb"....ftypavi[fs]", re.S)
_OTHER_FILES = {  # how files begin -> what they are
    rb"%PDF": "a PDF document",
    rb"%!PS": "a PostScript document",
    rb"PK\x03\x04": "a ZIP archive or office document",
    rb"\x1f\x8b": "a gzip archive",
    rb"Rar!": "a RAR archive",
    rb"7z\xbc\xaf": "a 7z archive",
    rb"\x80\x04": "a pickle",
    rb"\x93NUMPY": "a NumPy array",
    rb"SQLite": "a database",
    rb"....ftyp": "a video",
    rb"\s*(<!doctype html|<html)": "an HTML page",
    rb"\s*(<svg|<\?xml)": "SVG or XML text",
}


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of one file; where it cannot be read, `fault` is its kind and `reason` why."""

    path: str
    digest: bytes = b""  # of the file's bytes
    fault: str = ""  # unreadable, empty, fake, truncated, huge or unscaled
    reason: str = ""
    format: str = ""
    mode: str = ""
    width: int = 0
    height: int = 0
    frames: int = 1
    bits: int = 8  # a channel, as they are in the file
    levels: str = ""  # the smallest and the largest value of 16 bits, where the image is gray
    orientation: int = 1  # of EXIF; 1 is upright
    transparent: bool = False
    damage: str = ""  # what libjpeg complains of in a file that is read nevertheless
    brightness: float = 0.0  # mean of the luminance, 0 … 255
    contrast: float = 0.0  # standard deviation of the luminance
    sharpness: float = 0.0  # standard deviation of the Laplacian, a share of the contrast
    hash: int = 0  # imagehash's perceptual hash, 64 bits
    small: np.ndarray | None = None  # (SIDE, SIDE, 3) uint8, upright


def measure(path: str) -> Measured:
    """Measure one file; never raises for what the file holds."""
    try:
        data = decode.file_bytes(path)
    except OSError as problem:
        return Measured(path, fault="unreadable", reason=problem.strerror or str(problem))
    if not data:
        return Measured(path, fault="empty", reason="0 bytes")
    digest = hashlib.blake2b(data, digest_size=16).digest()
    known: dict[str, Any] = {}
    try:
        with Image.open(io.BytesIO(data)) as image:
            deep = image.mode.startswith("I;16") or (image.format == "PNG" and data[24:25] == b"\x10")
            known = {
                "format": image.format or "",
                "mode": image.mode,
                "width": image.width,
                "height": image.height,
                "frames": decode.frames(image) if image.format in MOVING else 1,
                "bits": 32 if image.mode in ("I", "F") else 16 if deep else 8,
                "orientation": decode.orientation(image),
            }
            pixels, known["damage"] = _pixels(image, data, known["orientation"])
            known["transparent"] = _transparent(image)
            if decode.sixteen_bits(image):
                values = np.asarray(image)
                known["levels"] = f"{values.min():,} to {values.max():,}"
    except Image.DecompressionBombError as problem:
        return Measured(path, digest, "huge", str(problem).split(",")[0], **known)
    except MemoryError:
        return Measured(path, fault="huge", reason="too large for the available memory")
    except decode.UnknownRange as problem:
        return Measured(path, digest, "unscaled", str(problem), **known)
    except heic.NeedsPackage as problem:
        return Measured(path, digest, "unreadable", str(problem))
    except UnidentifiedImageError:
        if data.startswith(_IMAGE_STARTS) or _AVIF.match(data) or heic.begins(data):
            return Measured(path, digest, "truncated", "starts like an image, but its header is damaged")
        return Measured(path, digest, "fake", _what(data))
    except DAMAGED as problem:
        return Measured(path, digest, "truncated", str(problem) or type(problem).__name__, **known)
    return Measured(path, digest, **known, **_look(pixels))


def _pixels(image: Image.Image, data: bytes, orientation: int) -> tuple[Image.Image, str]:
    """The image as it is decoded, reduced where it is large, and what libjpeg complains of; raises if truncated."""
    damage = ""
    if data.startswith(JPEG):
        try:
            if simplejpeg.decode_jpeg_header(data)[2] in PLAIN:
                reduced = simplejpeg.decode_jpeg(data, "RGB", min_height=WORKING // 2, min_width=WORKING // 2)
                upright = decode.UPRIGHT.get(orientation)
                seen = Image.fromarray(reduced)
                return (seen if upright is None else seen.transpose(upright)), ""
        except ValueError as problem:  # Pillow has the last word: it reads some of them
            damage = str(problem)
    return decode.flattened(image), damage


def _transparent(image: Image.Image) -> bool:
    if not decode.transparent(image) or decode.sixteen_bits(image):
        return False
    lowest = image.convert("RGBA").getchannel("A").getextrema()[0]
    return isinstance(lowest, int) and lowest < 255


def _look(image: Image.Image) -> dict[str, Any]:
    image.thumbnail((WORKING, WORKING))
    gray = image.convert("L")
    light = np.asarray(gray, np.float32)
    contrast = float(light.std())
    sharpness = 0.0
    if min(light.shape) > 2 and contrast > 0:
        middle = light[1:-1, 1:-1]
        laplacian = light[:-2, 1:-1] + light[2:, 1:-1] + light[1:-1, :-2] + light[1:-1, 2:] - 4 * middle
        sharpness = float(laplacian.std()) / contrast
    bits = np.packbits(imagehash.phash(gray).hash)
    return {
        "brightness": float(light.mean()),
        "contrast": contrast,
        "sharpness": sharpness,
        "hash": int.from_bytes(bits.tobytes(), "big"),
        "small": np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX)),
    }


def _what(data: bytes) -> str:
    """What a file that is not an image seems to be."""
    for start, name in _OTHER_FILES.items():
        if re.match(start, data[:512], re.IGNORECASE | re.DOTALL):
            return name
    try:
        text = data[:400].decode("utf-8")
    except UnicodeDecodeError as problem:
        if problem.start < 390:  # not merely a character cut in two
            return "no image that Pillow knows"
        text = ""
    return "text" if all(c.isprintable() or c.isspace() for c in text) else "no image that Pillow knows"
