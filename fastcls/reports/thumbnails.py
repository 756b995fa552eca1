"""Pictures as small data URIs: as the network sees them, bounded in bytes, and never a reason to fail."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image, features

from fastcls.audit.finding import Item
from fastcls.images.decode import UnknownRange, flattened, opened
from fastcls.reports.heat import Overlay, levels_of, overlay
from fastcls.reports.shell import data_uri
from fastcls.runfolder.text import clean

SIDE = 208  # pixels of the longer side; pictures are shown at about half to three quarters of this
TINY = 64  # below this side a picture is enlarged with its pixels kept square
UNMAPPED, COLD = (
    "no heat map: only the first images of each kind have one",
    "no part of the image supports this prediction",
)
MOST_BYTES = 40_000  # a picture's share of the page


@dataclass(frozen=True)
class Tile:
    """A picture for the page, or the reason why there is none."""

    src: str = ""
    why: str = ""
    pixelated: bool = False
    overlay: Overlay | None = None  # where the network looked
    unmapped: str = ""  # why there is none, where others have one


@dataclass(frozen=True)
class Shown:
    """An image of a page: its picture and what is said of it, as text without control characters."""

    tile: Tile
    path: str
    label: str
    prediction: str = ""
    confidence: float | None = None  # in the prediction
    loss: float = 0.0
    split: str = ""
    remark: str = ""
    kinds: tuple[str, ...] = ()  # of the gallery's
    label_names: tuple[str, ...] | None = None  # where an image has several
    prediction_names: tuple[str, ...] | None = None

    @property
    def classes(self) -> tuple[str, str]:
        """The classes of label and prediction, a line each, for the page's script."""
        own = (self.label,) if self.label_names is None else self.label_names
        said = (self.prediction,) if self.prediction_names is None else self.prediction_names
        return "\n".join(own), "\n".join(said)

    @property
    def file(self) -> str:
        return self.path.replace("\\", "/").rsplit("/", 1)[-1]

    @property
    def wrong(self) -> bool:
        return self.label != self.prediction


class Thumbnails:
    """Tiles of the images below `root`, each file opened once.

    heatmaps: path -> Grad-CAM's record, whose overlays the tiles get; spec: model.json's `preprocessing`. most: bytes
    of all pictures, beyond which there are no more.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        heatmaps: Mapping[str, Any] | None = None,
        spec: Mapping[str, Any] | None = None,
        most: float = math.inf,
    ) -> None:
        self.root, self.heatmaps, self.spec, self.most = Path(root or ""), heatmaps or {}, spec, most
        self.lost = self.spent = 0
        self._tiles: dict[str, Tile] = {}

    def tile(self, path: str) -> Tile:
        if path not in self._tiles:
            if self.spent > self.most:
                return Tile(why="not shown: the page is full")
            tile, ratio = _tile(self.root / path)
            if tile.src and self.heatmaps:
                found = overlay(levels_of(self.heatmaps.get(path)), self.spec, ratio)
                why = COLD if path in self.heatmaps else UNMAPPED
                tile = replace(tile, overlay=found, unmapped="" if found else why)
            self._tiles[path] = tile
            self.lost += not tile.src
            self.spent += len(tile.src)
        return self._tiles[path]

    def shown(self, item: Item, path: str) -> Shown:
        """An image of a check's finding; path: what it is called on the page."""
        named = (clean(path), clean(item.label))
        return Shown(self.tile(item.path), *named, split=clean(item.split), remark=clean(item.remark))


def _tile(path: Path) -> tuple[Tile, float]:
    """The picture, and its width by its height."""
    try:
        with warnings.catch_warnings():  # damaged EXIF, huge pictures, odd palettes: not this page's business
            warnings.simplefilter("ignore")
            with opened(path) as file, Image.open(file) as image:
                image.draft("RGB", (SIDE, SIDE))
                upright = flattened(image)
            return _encode(upright), upright.width / upright.height
    except FileNotFoundError:
        return Tile(why="image not found"), 1.0
    except UnknownRange:
        return Tile(why="not an 8-bit or 16-bit image"), 1.0
    except Exception:  # decoders raise what they like: SyntaxError, struct.error, DecompressionBombError …
        return Tile(why="image cannot be read"), 1.0


def _encode(image: Image.Image) -> Tile:
    tiny = max(image.size) < TINY
    if tiny:
        factor = max(1, SIDE // max(image.size))
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    else:
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        image = image.resize((max(image.width, 8), max(image.height, 8))) if min(image.size) < 8 else image
    if tiny:
        return Tile(data_uri(image, optimize=True), pixelated=True)
    kind = "WEBP" if features.check("webp") else "JPEG"
    for quality in (82, 60, 30):
        uri = data_uri(image, kind, quality=quality)
        if len(uri) <= MOST_BYTES:
            break
    return Tile(uri)
