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


_REMOVE = "Get these files again from where they came, or remove them: training stops at them."
_SMALLER = "Make them smaller: networks see some 224 pixels a side."
_CONVERT = "onvert them to 8-bit RGB in the range that you mean, with ImageMagick or Pillow, for example"
# fmt: off
RULES = [
    Rule("unreadable", "error", "Unreadable files", "that cannot be opened", _REMOVE, _unreadable("unreadable")),
    Rule("empty", "error", "Empty files", "of no bytes", _REMOVE, _unreadable("empty")),
    Rule("fake", "error", "Files that are not images", "in name only", _REMOVE, _unreadable("fake")),
    Rule("truncated", "error", "Truncated or damaged files", "cut short or damaged within", _REMOVE,
         _unreadable("truncated")),
    Rule("too-large", "error", "Images too large to be opened",
         "with more pixels than Pillow opens, for fear of decompression bombs", _SMALLER, _unreadable("huge")),
    Rule("unscaled", "error", "Images of 32-bit numbers",
         "of floats or 32-bit integers, of which it is unknown which value is white",
         f"C{_CONVERT}: training stops at them.", _unreadable("unscaled")),
    Rule("deep", "warning", "16-bit gray images",
         "with 16 bits, of which 8 are kept: 65,535 becomes 255, so that values of 10 or 12 bits turn almost black",
         f"Where the values given here are far from 65,535: c{_CONVERT}.",
         _readable(lambda image: image.levels, lambda image: f"{image.format}, values of {image.levels}")),
    Rule("damaged", "warning", "Damaged JPEG files",
         "that libjpeg complains of: parts of them may be gray or shifted",
         "Look at them, and get them again where they are broken.",
         _readable(lambda image: image.damage, lambda image: image.damage)),
    Rule("animated", "warning", "Animations and several pages",
         "with more than one frame, of which only the first is used",
         "Save the frame that you mean as a file of its own.",
         _readable(lambda image: image.frames > 1, lambda image: f"{_frames(image.frames)} of {image.format}")),
    Rule("cmyk", "warning", "CMYK images", "in the colours of a printing press, which are converted only roughly",
         "Convert them to RGB with their colour profile.", _readable(lambda image: image.mode == "CMYK")),
    Rule("rotated", "note", "Images that EXIF turns",
         "stored turned or mirrored, with a note in EXIF; training and predict read it, and turn them",
         "Nothing needs to be done here; other programs may not turn them.",
         _readable(lambda image: image.orientation != 1, lambda image: f"EXIF orientation {image.orientation}")),
    Rule("huge", "warning", "Huge images",
         f"with more than {LARGE / 1e6:.0f} million pixels, which take seconds and hundreds of megabytes to decode",
         _SMALLER, _readable(lambda image: image.width * image.height > LARGE, _size)),
    Rule("blank", "warning", "Blank images", "of a single colour", "Remove them, if nothing is to be seen there.",
         _readable(lambda image: image.contrast < BLANK, lambda image: f"contrast {image.contrast:.1f} of 128")),
    Rule("palette", "note", "Palette images", "with a palette of at most 256 colours, converted to RGB",
         "Nothing needs to be done, unless they are of some classes only.",
         _readable(lambda image: image.mode in ("P", "PA"))),
    Rule("transparent", "note", "Transparent images", "with transparent parts, which become white",
         "Nothing needs to be done, unless white is what only some classes have; put all on one background then.",
         _readable(lambda image: image.transparent)),
    Rule("sixteen-bit-colour", "note", "16-bit PNG files", "with 16 bits a channel, of which the upper 8 are used",
         "Nothing needs to be done; 8-bit files are half as large.",
         _readable(lambda image: image.bits == 16 and not image.levels)),
    Rule("misnamed", "note", "Another format than the name's",
         "of another format than the name's, read all the same",
         "Nothing needs to be done here; other programs may stumble.", _readable(_suffix, _suffix)),
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
    look = "Look whether anything can be recognised; if not, remove them."

    def luminance(image: Measured) -> str:
        return f"luminance {image.brightness:.0f}"

    def is_blurred(image: Measured) -> bool:
        large = min(image.width, image.height) >= LOOKED_AT
        return image.sharpness < BLURRED and image.contrast >= BLANK and large

    # fmt: off
    if light > 2 * DARK:
        yield Rule("dark", "note", "Very dark images",
                   f"almost black (mean luminance below {DARK}, of the median image {light:.0f})", look,
                   _readable(lambda image: image.brightness < DARK and image.contrast >= BLANK, luminance))
    if light < 200:
        yield Rule("bright", "note", "Very bright images",
                   f"almost white (mean luminance above {BRIGHT}, of the median image {light:.0f})", look,
                   _readable(lambda image: image.brightness > BRIGHT and image.contrast >= BLANK, luminance))
    if blur > 2 * BLURRED:
        yield Rule("blurred", "note", "Blurred images",
                   f"with hardly an edge (sharpness below {BLURRED}, of the median image {blur:.2f})", look,
                   _readable(is_blurred, lambda image: f"sharpness {image.sharpness:.2f}"))
    yield Rule("small", "note", "Very small images",
               f"with a short side less than a quarter of the median image's ({short:.0f} pixels)",
               "See that they are not thumbnails; get them in full size.",
               _readable(lambda image: SMALL * min(image.width, image.height) < short, _size))
    if ratio < LONG / 1.5:
        yield Rule("elongated", "note", "Very long or tall images",
                   f"more than {LONG} times as long as wide: a square crop misses much",
                   "Crop them to what matters.", _readable(lambda image: _ratio(image) > LONG, _size))
    # fmt: on
