"""What can be the matter with a single image file: a name, a sentence, a remedy, and how it is recognised."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fastcls.audit.finding import Severity
from fastcls.audit.measure import Measured

LARGE = 40e6  # pixels: decoding takes seconds and hundreds of megabytes
DARK, BRIGHT = 20, 240  # mean luminance, where the dataset itself is in between
BLANK = 2.0  # contrast of a plain surface
BLURRED = 0.15  # sharpness: sharp photographs have 0.25 and more, blurred by two pixels of 256 most have 0.13 and less
LOOKED_AT = 64  # pixels of the short side below which blur is not judged
SMALL, LONG = 4, 3  # times smaller than the median image; sides' ratio

_Test = Callable[[Measured], str]  # the remark on an image that has the trouble, else nothing


@dataclass(frozen=True)
class Trouble:
    """A kind of finding: `what` goes on from '3 images', `remark` says it of one image, or nothing of a good one."""

    kind: str
    severity: Severity
    title: str
    what: str
    mend: str
    remark: _Test


def _fault(kind: str) -> _Test:
    return lambda image: (image.reason or kind) if image.fault == kind else ""


def _seen(test: Callable[[Measured], object], remark: _Test) -> _Test:
    return lambda image: remark(image) if not image.fault and test(image) else ""


def _frames(image: Measured) -> str:
    return f"{image.frames} frames of {image.format}"


def _mode(image: Measured) -> str:
    return f"{image.format}, {image.mode}"


def _size(image: Measured) -> str:
    return f"{image.width:,} × {image.height:,} pixels"


def _suffix(image: Measured) -> str:
    """What the file is, where its name says otherwise."""
    alike = {"MPO": "JPEG", "DIB": "BMP", "JPEG2000": "JPEG 2000"}
    named = Image.registered_extensions().get(Path(image.path).suffix.lower(), "")
    differs = named and alike.get(named, named) != alike.get(image.format, image.format)
    return f"{image.format} named {Path(image.path).suffix}" if differs else ""


_REMOVE = "Get these files again from where they came, or remove them: training stops at them."
_CONVERT = "Convert them to 8-bit RGB in the range that you mean, with ImageMagick or Pillow, say."
TROUBLES = [
    Trouble("unreadable", "error", "Unreadable files", "that cannot be opened", _REMOVE, _fault("unreadable")),
    Trouble("empty", "error", "Empty files", "of no bytes", _REMOVE, _fault("empty")),
    Trouble("fake", "error", "Files that are no images", "in name only", _REMOVE, _fault("fake")),
    Trouble(
        "truncated",
        "error",
        "Truncated or damaged files",
        "cut short or damaged within",
        _REMOVE,
        _fault("truncated"),
    ),
    Trouble(
        "too-large",
        "error",
        "Images too large to be opened",
        "with more pixels than Pillow opens, for fear of decompression bombs",
        "Make them smaller: networks see some 224 pixels a side.",
        _fault("huge"),
    ),
    Trouble(
        "unscaled",
        "error",
        "Images of 32-bit numbers",
        "of floats or 32-bit integers, of which nothing says which value is white",
        f"{_CONVERT[:-1]}: training stops at them.",
        _fault("unscaled"),
    ),
    Trouble(
        "deep",
        "warning",
        "16-bit gray images",
        "with 16 bits, of which 8 are kept: 65,535 becomes 255, so that values of 10 or 12 bits turn almost black",
        f"Where the values given here are far from 65,535: {_CONVERT[0].lower()}{_CONVERT[1:]}",
        _seen(lambda image: image.levels, lambda image: f"{image.format}, values of {image.levels}"),
    ),
    Trouble(
        "damaged",
        "warning",
        "Damaged JPEG files",
        "that libjpeg complains of: parts of them may be gray or shifted",
        "Look at them, and get them again where they are broken.",
        _seen(lambda image: image.damage, lambda image: image.damage),
    ),
    Trouble(
        "animated",
        "warning",
        "Animations and several pages",
        "with more than one frame, of which only the first is used",
        "Save the frame that you mean as a file of its own.",
        _seen(lambda image: image.frames > 1, _frames),
    ),
    Trouble(
        "cmyk",
        "warning",
        "CMYK images",
        "in the colours of a printing press, which are converted only roughly",
        "Convert them to RGB with their colour profile.",
        _seen(lambda image: image.mode == "CMYK", _mode),
    ),
    Trouble(
        "rotated",
        "note",
        "Images that EXIF turns",
        "that lie on their side or are mirrored but for a note in EXIF; training and predict read it, and turn them",
        "Nothing needs to be done here; other programs may not turn them.",
        _seen(lambda image: image.orientation != 1, lambda image: f"EXIF orientation {image.orientation}"),
    ),
    Trouble(
        "huge",
        "warning",
        "Huge images",
        f"with more than {LARGE / 1e6:.0f} million pixels, which take seconds and hundreds of megabytes to decode",
        "Make them smaller once: networks see some 224 pixels a side.",
        _seen(lambda image: image.width * image.height > LARGE, _size),
    ),
    Trouble(
        "blank",
        "warning",
        "Blank images",
        "of a single colour",
        "Remove them, if nothing is to be seen there.",
        _seen(lambda image: image.contrast < BLANK, lambda image: f"contrast {image.contrast:.1f} of 128"),
    ),
    Trouble(
        "palette",
        "note",
        "Palette images",
        "with a palette of at most 256 colours, converted to RGB",
        "Nothing needs to be done, unless they are of some classes only.",
        _seen(lambda image: image.mode in ("P", "PA"), _mode),
    ),
    Trouble(
        "transparent",
        "note",
        "Transparent images",
        "with transparent parts, which become white",
        "Nothing needs to be done, unless white is what only some classes have; put all on one background then.",
        _seen(lambda image: image.transparent, _mode),
    ),
    Trouble(
        "sixteen-bit-colour",
        "note",
        "16-bit PNG files",
        "with 16 bits a channel, of which the upper 8 are used",
        "Nothing needs to be done; 8-bit files are half as large.",
        _seen(lambda image: image.bits == 16 and not image.levels, _mode),
    ),
    Trouble(
        "misnamed",
        "note",
        "Another format than the name says",
        "of another format than the name says, read all the same",
        "Nothing needs to be done here; other programs may stumble.",
        _seen(_suffix, _suffix),
    ),
]


def unlike_the_rest(images: Sequence[Measured]) -> Iterator[Trouble]:
    """What is odd in one dataset and common in another: darkness, blur, sizes, held against the median image."""
    if not images:
        return
    light = statistics.median(image.brightness for image in images)
    short = statistics.median(min(image.width, image.height) for image in images)
    ratio = statistics.median(_ratio(image) for image in images)
    blur = statistics.median(image.sharpness for image in images)
    look = "Look whether anything can be recognised; if not, remove them."
    if light > 2 * DARK:
        yield Trouble(
            "dark",
            "note",
            "Very dark images",
            f"almost black (mean luminance below {DARK}, of the median image {light:.0f})",
            look,
            _seen(
                lambda image: image.brightness < DARK and image.contrast >= BLANK,
                lambda image: f"luminance {image.brightness:.0f}",
            ),
        )
    if light < 200:
        yield Trouble(
            "bright",
            "note",
            "Very bright images",
            f"almost white (mean luminance above {BRIGHT}, of the median image {light:.0f})",
            look,
            _seen(
                lambda image: image.brightness > BRIGHT and image.contrast >= BLANK,
                lambda image: f"luminance {image.brightness:.0f}",
            ),
        )
    if blur > 2 * BLURRED:
        yield Trouble(
            "blurred",
            "note",
            "Blurred images",
            f"with hardly an edge (sharpness below {BLURRED}, of the median image {blur:.2f})",
            look,
            _seen(
                lambda image: (
                    image.sharpness < BLURRED
                    and image.contrast >= BLANK
                    and min(image.width, image.height) >= LOOKED_AT
                ),
                lambda image: f"sharpness {image.sharpness:.2f}",
            ),
        )
    yield Trouble(
        "small",
        "note",
        "Very small images",
        f"with a short side less than a quarter of the median image's ({short:.0f} pixels)",
        "See that they are not thumbnails; get them in full size.",
        _seen(lambda image: SMALL * min(image.width, image.height) < short, _size),
    )
    if ratio < LONG / 1.5:
        yield Trouble(
            "elongated",
            "note",
            "Very long or tall images",
            f"more than {LONG} times as long as wide: a square crop misses much",
            "Crop them to what matters.",
            _seen(lambda image: _ratio(image) > LONG, _size),
        )


def _ratio(image: Measured) -> float:
    return max(image.width, image.height) / max(min(image.width, image.height), 1)
