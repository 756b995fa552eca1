"""HEIC, the format of many phones: read by pillow-heif where that is installed, else refused with what installs it.

Its wheels hold x265, whose licence (GPL) not everybody can take, so it is an extra.
"""

from __future__ import annotations

from typing import IO

from PIL import Image, ImageFile

from fastcls.machine import extras

FORMAT = "HEIF"
BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


class NeedsPackage(OSError):
    """A HEIC file, and nothing is installed that reads it."""


def register() -> None:
    """From now on Pillow opens HEIC files, or raises NeedsPackage."""
    if FORMAT not in Image.OPEN:
        Image.register_open(FORMAT, _open, begins)
        Image.register_extensions(FORMAT, [".heic", ".heif"])


def begins(data: bytes) -> bool:
    """Whether a file that begins so is HEIC."""
    return data[4:8] == b"ftyp" and data[8:12] in BRANDS


def _open(file: IO[bytes], name: str | bytes) -> ImageFile.ImageFile:
    """The first HEIC file imports pillow-heif, which takes the place of this for those that follow."""
    if extras.missing("heic"):
        raise NeedsPackage(f"a HEIC image, which needs pillow-heif:  {extras.install('heic')}")
    import pillow_heif

    pillow_heif.register_heif_opener()
    image: ImageFile.ImageFile = Image.OPEN[FORMAT][0](file, name)
    return image
