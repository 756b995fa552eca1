"""What can be wrong with a dataset: a table of rules for image files, and findings on labels and splits."""

from __future__ import annotations

import re
import statistics
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fastcls.audit.finding import Finding, Severity
from fastcls.datasets.walk import count, some
from fastcls.images.decode import PAGES
from fastcls.images.measure import Measured

LARGE = 40e6  # pixels: decoding takes seconds and hundreds of megabytes
DARK, BRIGHT = 20, 240  # mean luminance, where the dataset itself is in between
BLANK = 2.0  # contrast of a plain surface
BLURRED = 0.15  # sharpness: sharp photographs have 0.25 and more, blurred by two pixels of 256 most have 0.13 and less
LOOKED_AT = 64  # pixels of the short side below which blur does not count
SMALL, LONG = 4, 3  # times smaller than the median image; sides' ratio
FEW = 10  # training images of a class: below, hardly anything is learned
UNEVEN, LOPSIDED = 3, 10  # largest class over smallest: worth knowing, worth doing something about


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


def label_findings(labels: Sequence[str], splits: Sequence[str]) -> Iterator[Finding]:
    """What is wrong with these labels; an empty split is still to be drawn into train and valid."""
    by_split: dict[str, Counter[str]] = defaultdict(Counter)
    for label, split in zip(labels, splits, strict=True):
        by_split[split or "train"][label] += 1
    trained = by_split["train"]
    if len(set(labels)) == 1:
        yield Finding(
            "one-class", "error", "A single class",
            f"All {count(len(labels), 'image')} have the label {labels[0]!r}.",
            "Sort the images into a folder a class, name a table of labels with --labels, or take the labels from the "
            "file names with --label-regex.",
            names=(labels[0],),
        )  # fmt: skip
    elif len(trained) == len(splits) and "" in splits:
        yield Finding(
            "single-images", "error", "A single image a class",
            f"Each of {count(len(trained), 'class')} has a single image, so that none can be held out for validation.",
            "Add images to the classes.",
            names=tuple(sorted(trained)),
        )  # fmt: skip
    elif not trained:
        yield Finding(
            "no-training-images", "error", "No training images", f"There are images of {some(sorted(by_split))} only.",
            "Name the training split train.", names=("train",),
        )  # fmt: skip
    else:
        yield from _split_findings(by_split)
        yield from _size_findings(trained)
    same: dict[str, list[str]] = defaultdict(list)  # names, without case, spaces, hyphens and how accents are encoded
    for name in sorted(set(labels)):
        plain = unicodedata.normalize("NFKC", name).casefold()
        same[re.sub(r"[\s_\-]+", " ", plain).strip()].append(name)
    if alike := [group for group in same.values() if len(group) > 1]:
        sizes = Counter(labels)
        listed = some("/".join(f"{name!r} ({sizes[name]:,})" for name in group) for group in alike)
        yield Finding(
            "names-alike", "warning", "Classes that differ by case or spaces",
            f"{listed}: the network would have to distinguish them.",
            "If they are one class, give them one name: move the images into one folder, or correct the table.",
            names=tuple(" / ".join(map(repr, group)) for group in alike),
        )  # fmt: skip


def _split_findings(by_split: dict[str, Counter[str]]) -> Iterator[Finding]:
    trained = by_split["train"]
    if unknown := sorted(set().union(*by_split.values()) - set(trained)):
        where = {name: " and ".join(s for s in ("valid", "test") if by_split[s][name]) for name in unknown}
        listed = some(f"{name!r} (only in {where[name]})" for name in unknown)
        yield Finding(
            "class-not-in-train", "error", "Classes without training images",
            f"{listed}: the network could never predict them.",
            "Add training images of these classes, or correct the spelling.",
            names=tuple(unknown),
        )  # fmt: skip
    for split, title in (("valid", "validation"), ("test", "test")):
        if absent := sorted(set(trained) - set(by_split[split])) if by_split[split] else []:
            yield Finding(
                f"class-not-in-{split}", "warning", f"Classes without {title} images",
                f"{some(map(repr, absent))}: nothing will be known of how well they are recognised.",
                f"Move some of their images into the {split} split.",
                names=tuple(absent),
            )  # fmt: skip


def _size_findings(trained: Counter[str]) -> Iterator[Finding]:
    if few := sorted((label for label in trained if trained[label] < FEW), key=lambda name: (trained[name], name)):
        yield Finding(
            "few-images", "warning", f"Classes with fewer than {FEW} training images",
            f"{some(f'{label!r} ({trained[label]})' for label in few)}: a network memorises these few.",
            "Add images of them, merge them with a related class, or leave them out.",
            names=tuple(few),
        )  # fmt: skip
    (largest, most), (smallest, least) = trained.most_common()[0], trained.most_common()[-1]
    if most >= UNEVEN * least:
        yield Finding(
            "imbalance", "warning" if most >= LOPSIDED * least else "note", "Unevenly filled classes",
            f"{largest!r} has {count(most, 'training image')}, {smallest!r} {least:,}: accuracy mostly measures the "
            "large classes.",
            "Read macro F1 beside accuracy; try --class-weights of the recipe folder, or add images of rare classes.",
            names=(smallest, largest),
        )  # fmt: skip
