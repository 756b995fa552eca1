"""What can be wrong with an image file: a table of rules."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fastcls.audit.finding import Severity
from fastcls.images.decode import PAGES
from fastcls.images.measure import Measured

LARGE = 40e6  # pixels: decoding takes seconds and hundreds of megabytes
DARK, BRIGHT = 20, 240  # mean luminance, where the dataset itself is in between
BLANK = 2.0  # contrast of a plain surface
BLURRED = 0.15  # sharpness: sharp photographs have 0.25 and more, blurred by two pixels of 256 most have 0.13 and less
LOOKED_AT = 64  # pixels of the short side below which blur does not count
SMALL, LONG = 4, 3  # times smaller than the median image; sides' ratio


@dataclass(frozen=True)
class Rule:
    """A kind of finding on image files: `what` continues '3 images', `remark` is empty for a good one."""

    kind: str
    severity: Severity
    title: str
    what: str
    fix: str
    remark: Callable[[Measured], str]


def _unreadable(fault: str) -> Callable[[Measured], str]:
    return lambda image: (image.reason or fault) if image.fault == fault else ""


def _frames(number: int) -> str:
    return f"{number:,}{' or more' if number == PAGES else ''} frames"


def _readable(
    test: Callable[[Measured], object],
    remark: Callable[[Measured], str] = lambda image: f"{image.format}, {image.mode}",
) -> Callable[[Measured], str]:
    return lambda image: remark(image) if not image.fault and test(image) else ""


def _size(image: Measured) -> str:
    return f"{image.width:,} × {image.height:,} pixels"


def _ratio(image: Measured) -> float:
    return max(image.width, image.height) / max(min(image.width, image.height), 1)


def _suffix(image: Measured) -> str:
    """What the file is, where its name is another format's."""
    alike = {"MPO": "JPEG", "DIB": "BMP", "JPEG2000": "JPEG 2000"}
    named = Image.registered_extensions().get(Path(image.path).suffix.lower(), "")
    differs = named and alike.get(named, named) != alike.get(image.format, image.format)
    return f"{image.format} named {Path(image.path).suffix}" if differs else ""


_REMOVE = "Replace or remove these files: training stops at them."
_SMALLER = "Resize them: networks see about 224 × 224 pixels."
_CONVERT = "onvert them to 8-bit RGB in the range you need, with ImageMagick or Pillow, for example"
# fmt: off
RULES = [
    Rule("unreadable", "error", "Unreadable files", "that cannot be opened", _REMOVE, _unreadable("unreadable")),
    Rule("empty", "error", "Empty files", "of no bytes", _REMOVE, _unreadable("empty")),
    Rule("fake", "error", "Files that are not images", "by name only", _REMOVE, _unreadable("fake")),
    Rule("truncated", "error", "Truncated or damaged files", "truncated or damaged", _REMOVE,
         _unreadable("truncated")),
    Rule("too-large", "error", "Images too large to be opened",
         "with more pixels than Pillow opens (its guard against decompression bombs)", _SMALLER, _unreadable("huge")),
    Rule("unscaled", "error", "Images of 32-bit numbers",
         "of floats or 32-bit integers, with an unknown value range",
         f"C{_CONVERT}: training stops at them.", _unreadable("unscaled")),
    Rule("deep", "warning", "16-bit gray images",
         "with 16 bits, reduced to 8: 65,535 becomes 255, so that values of 10 or 12 bits turn almost black",
         f"If the values shown are far below 65,535, c{_CONVERT}.",
         _readable(lambda image: image.levels, lambda image: f"{image.format}, values of {image.levels}")),
    Rule("damaged", "warning", "Damaged JPEG files",
         "that libjpeg warns about: parts of them may be grey or shifted",
         "Look at them, and replace those that are broken.",
         _readable(lambda image: image.damage, lambda image: image.damage)),
    Rule("animated", "warning", "Animations and multi-page files",
         "with more than one frame, of which only the first is used",
         "Save the frame you need as its own file.",
         _readable(lambda image: image.frames > 1, lambda image: f"{_frames(image.frames)} of {image.format}")),
    Rule("cmyk", "warning", "CMYK images", "in print colours, which are converted only approximately",
         "Convert them to RGB with their colour profile.", _readable(lambda image: image.mode == "CMYK")),
    Rule("rotated", "note", "Images rotated by EXIF",
         "stored rotated or mirrored, with the orientation in EXIF; training and predict apply it",
         "Nothing to do here; other programs may not rotate them.",
         _readable(lambda image: image.orientation != 1, lambda image: f"EXIF orientation {image.orientation}")),
    Rule("huge", "warning", "Huge images",
         f"with more than {LARGE / 1e6:.0f} million pixels, which take seconds and hundreds of megabytes to decode",
         _SMALLER, _readable(lambda image: image.width * image.height > LARGE, _size)),
    Rule("blank", "warning", "Blank images", "of a single colour", "Remove them if they show nothing.",
         _readable(lambda image: image.contrast < BLANK, lambda image: f"contrast {image.contrast:.1f} of 128")),
    Rule("palette", "note", "Palette images", "with a palette of at most 256 colours, converted to RGB",
         "Nothing to do, unless only some classes have them.",
         _readable(lambda image: image.mode in ("P", "PA"))),
    Rule("transparent", "note", "Transparent images", "with transparent parts, which become white",
         "Nothing to do, unless only some classes have them; then put all images on the same background.",
         _readable(lambda image: image.transparent)),
    Rule("sixteen-bit-colour", "note", "16-bit PNG files", "with 16 bits per channel, of which the upper 8 are used",
         "Nothing to do; 8-bit files are half the size.",
         _readable(lambda image: image.bits == 16 and not image.levels)),
    Rule("misnamed", "note", "Format differs from the file name",
         "whose format differs from the suffix; they are read anyway",
         "Nothing to do here; other programs may fail on them.", _readable(_suffix, _suffix)),
]
# fmt: on


def relative_rules(images: Sequence[Measured]) -> Iterator[Rule]:
    """What is odd in one dataset and common in another: darkness, blur, sizes, compared with the median image."""
    if not images:
        return
    light = statistics.median(image.brightness for image in images)
    short = statistics.median(min(image.width, image.height) for image in images)
    ratio = statistics.median(map(_ratio, images))
    blur = statistics.median(image.sharpness for image in images)
    look = "Remove them if nothing can be recognised."

    def luminance(image: Measured) -> str:
        return f"luminance {image.brightness:.0f}"

    def is_blurred(image: Measured) -> bool:
        large = min(image.width, image.height) >= LOOKED_AT
        return image.sharpness < BLURRED and image.contrast >= BLANK and large

    # fmt: off
    if light > 2 * DARK:
        yield Rule("dark", "note", "Very dark images",
                   f"almost black (mean luminance below {DARK}; the median image has {light:.0f})", look,
                   _readable(lambda image: image.brightness < DARK and image.contrast >= BLANK, luminance))
    if light < 200:
        yield Rule("bright", "note", "Very bright images",
                   f"almost white (mean luminance above {BRIGHT}; the median image has {light:.0f})", look,
                   _readable(lambda image: image.brightness > BRIGHT and image.contrast >= BLANK, luminance))
    if blur > 2 * BLURRED:
        yield Rule("blurred", "note", "Blurred images",
                   f"with hardly any edges (sharpness below {BLURRED}; the median image has {blur:.2f})", look,
                   _readable(is_blurred, lambda image: f"sharpness {image.sharpness:.2f}"))
    yield Rule("small", "note", "Very small images",
               f"with a short side less than a quarter of the median image's ({short:.0f} pixels)",
               "If they are thumbnails, get the full-size images.",
               _readable(lambda image: SMALL * min(image.width, image.height) < short, _size))
    if ratio < LONG / 1.5:
        yield Rule("elongated", "note", "Very long or tall images",
                   f"more than {LONG} times as long as wide: a square crop misses most of the image",
                   "Crop them to the relevant part.", _readable(lambda image: _ratio(image) > LONG, _size))
    # fmt: on
