"""Grad-CAM maps of a run folder as overlays placed where the network looked, whatever it interrupted the picture."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

from fastcls.reports.shell import data_uri

SIDE = 56  # pixels of an overlay, which the browser enlarges: the maps have seven or so
STRONGEST = 0.72  # opacity of the hottest place
FADES = 0.12  # of a side


@dataclass(frozen=True)
class Overlay:
    """A transparent picture, and where it is in the square around the other, in percent of its side."""

    src: str
    left: float
    top: float
    width: float
    height: float

    @property
    def style(self) -> str:
        return f"left:{self.left:.2f}%;top:{self.top:.2f}%;width:{self.width:.2f}%;height:{self.height:.2f}%"


def levels_of(record: Any) -> np.ndarray:
    """The map (height, width) of an entry of heatmaps.json, 0 to 255; all 0 where it is none."""
    try:
        height, width = record["shape"]
        return np.frombuffer(base64.b64decode(record["values"], validate=True), np.uint8).reshape(height, width)
    except (TypeError, KeyError, ValueError):
        return np.zeros((1, 1), np.uint8)


def overlay(levels: np.ndarray, spec: Mapping[str, Any] | None, ratio: float) -> Overlay | None:
    """The overlay of one picture, or None where nothing is hot.

    levels (h, w): 0 to 255. spec: model.json's `preprocessing`. ratio: the picture's width by its height.
    """
    if not levels.any():
        return None
    smooth = Image.fromarray(levels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    heat = np.asarray(smooth, dtype=float) / 255
    colours = matplotlib.colormaps["inferno"](0.25 + 0.75 * heat)
    wide, high = _seen(spec or {}, ratio)
    across, down = (_faded(part < 1) for part in (wide, high))
    colours[..., 3] = STRONGEST * np.clip(heat * 1.15 - 0.1, 0, 1) * np.outer(down, across)
    source = data_uri(Image.fromarray((colours * 255).round().astype(np.uint8)).quantize(128), optimize=True)
    wide, high = wide * min(1.0, ratio), high * min(1.0, 1 / ratio)  # of the picture, then of the square around it
    return Overlay(source, 50 * (1 - wide), 50 * (1 - high), 100 * wide, 100 * high)


def _faded(inside: bool) -> np.ndarray:
    """(SIDE,) the opacity along a side: it fades where it ends inside the picture; the network saw nothing beyond."""
    to_edge = np.minimum(np.arange(SIDE), np.arange(SIDE)[::-1]) + 0.5
    return np.clip(to_edge / (FADES * SIDE), 0, 1) if inside else np.ones(SIDE)


def _seen(spec: Mapping[str, Any], ratio: float) -> tuple[float, float]:
    """How much of a picture's width and height the network sees, around its centre; above 1 with padding."""
    try:
        (height, width), (crop_height, crop_width) = spec["resize"], spec["size"]
        wanted = width / height
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return 1.0, 1.0
    wide = high = 1.0
    if spec.get("method") == "crop":
        wide, high = min(1.0, wanted / ratio), min(1.0, ratio / wanted)
    elif spec.get("method") == "pad":
        wide, high = max(1.0, wanted / ratio), max(1.0, ratio / wanted)
    return wide * crop_width / width, high * crop_height / height
