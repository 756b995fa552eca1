"""Bad inputs and what becomes of them: the data of test_bad_inputs.py and the source of docs/bad_inputs.md.

A case is made in `photos`, mostly of six pictures each of a cat and a dog. What `make` returns is what a careful reader
would make of it: {path below photos: label}, or {path: 'label split'} where the user drew the splits.
"""

from __future__ import annotations

import functools
import io
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

Outcome = Literal["right", "warned", "skipped", "refused"]
Rows = dict[str, str]
Make = Callable[[Path], Any]
SIDE, EACH = 8, 6
OUTCOMES = {
    "right": "read correctly, pixel for pixel and label for label",
    "warned": "the same, with a warning",
    "skipped": "omitted and listed; training uses the rest",
    "refused": "an error that says what, where and how to fix it, before the first step",
}
KINDS = {
    "image": "An image file",
    "folder": "A folder of images",
    "table": "A table of labels",
    "several": "Several labels per image",
    "name": "A name",
    "knob": "A setting",
}


@dataclass(frozen=True)
class Case:
    """One bad input: `what` it is, the declared outcome, and a part of what the user `says` reads."""

    kind: str
    name: str
    what: str
    outcome: Outcome
    says: str
    make: Callable[[Path], Rows | None]
    words: tuple[str, ...] = ()  # of the command, further ones
    code: int = 3  # the exit code where it is refused
    pixels: Callable[[], np.ndarray] | None = None  # of photos/cat/odd.*, as a careful reader would have them
    file: str = ""  # that image


CASES: list[Case] = []


# ---------------------------------------------------------------------------- pictures


@functools.cache
def grain(seed: int, width: int = SIDE, height: int = SIDE) -> np.ndarray:
    """(height, width, 3) of a picture unlike that of any other seed: smooth, so that JPEG keeps it."""
    small = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    """Of a copy: Pillow notes how an image was last encoded in the image, and another format stumbles over it."""
    buffer = io.BytesIO()
    if "append_images" in options:
        options["append_images"] = [frame.copy() for frame in options["append_images"]]
    if kind == "HEIF":  # which nothing has read yet, maybe
        import pillow_heif

        pillow_heif.register_heif_opener()
    (image.copy() if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


@functools.cache
def plain(label: str, number: int) -> bytes:
    return encoded(grain(zlib.crc32(f"{label} {number}".encode())))


def write(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


def plant(photos: Path, folder: str, label: str = "", count: int = EACH, split: str = "") -> Rows:
    """So many pictures in a folder; their rows."""
    label = label or folder.rpartition("/")[2]
    for number in range(count):
        write(photos / folder / f"{number}.png", plain(folder, number))
    return {f"{folder}/{number}.png": (f"{label} {split}" if split else label) for number in range(count)}


def two(photos: Path) -> Rows:
    """The good dataset that most cases spoil."""
    return plant(photos, "cat") | plant(photos, "dog")


# ---------------------------------------------------------------------------- image files


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG file of any header and chunks; `rows` begin with their filters."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", head), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def png_rows(values: np.ndarray) -> bytes:
    """Pixels as PNG has them: big-endian, each row behind a filter of none."""
    return b"".join(b"\0" + row.astype(values.dtype.newbyteorder(">")).tobytes() for row in values)


def image(
    name: str, what: str, outcome: Outcome, says: str, file: str, data: Callable[[], bytes], pixels: Any = None
) -> None:
    """A case of one odd file among good ones."""

    def make(photos: Path) -> Rows:
        good = two(photos)
        write(photos / file, data())
        return good if outcome == "skipped" else good | {file: file.split("/")[0]}

    seen = pixels if callable(pixels) or pixels is None else lambda: pixels
    CASES.append(Case("image", name, what, outcome, says, make, pixels=seen, file=file))


ODD = grain(7)
GRAY = np.asarray(Image.fromarray(ODD).convert("L"))
DEEP = np.linspace(0, 65535, SIDE * SIDE).astype(np.uint16).reshape(SIDE, SIDE)
ALPHA = np.linspace(0, 255, SIDE * SIDE).astype(np.uint8).reshape(SIDE, SIDE)


def gray(values: np.ndarray) -> np.ndarray:
    return np.stack([values] * 3, -1)


def on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return np.rint(colours * share + 255 * (1 - share)).astype(np.uint8)


def jpeg(pixels: np.ndarray = ODD, **options: Any) -> bytes:
    return encoded(pixels, "JPEG", quality=95, subsampling=0, **options)


def reread(data: bytes) -> np.ndarray:
    """The pixels of a file that was written without any oddity."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


# ---------------------------------------------------------------------------- files that are no images, or damaged

BIG = grain(8, 160, 120)
DOCUMENTS = {
    "text": ("odd.jpg", b"Dear all, this is no photograph.\n" * 9, "a text file with an image's name"),
    "HEIC photograph": ("odd.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(300), "a truncated phone photo"),
    "pickle": ("odd.png", b"\x80\x04cos\nsystem\n(S'touch owned'\ntR.", "would run a command if it were loaded"),
    "PostScript": ("odd.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
                   "a PostScript program, which Pillow would have Ghostscript run"),
}  # fmt: skip
for title, (name, data, what) in DOCUMENTS.items():
    image(title, what, "refused", "not an image", f"cat/{name}", lambda data=data: data)
image("first", "the first training image, which fastai opens to find its type", "refused",
      "1 of 12 images cannot be read: ", "cat/0.png", lambda: b"x\n")  # fmt: skip
image("empty file", "0 bytes under an image's name", "refused", "an empty file", "cat/odd.png", lambda: b"")
image("half a JPEG", "a download that was interrupted", "refused", "truncated", "dog/odd.jpg",
      lambda: encoded(BIG, "JPEG")[:-500])  # fmt: skip
image("half a PNG", "truncated within its pixels", "refused", "odd.png: image file is truncated", "dog/odd.png",
      lambda: encoded(BIG)[:9000])  # fmt: skip
image("PNG with a wrong checksum", "a bit of its pixels was flipped", "refused", "broken data stream", "cat/odd.png",
      lambda: (lambda d: d[:60] + bytes([d[60] ^ 1]) + d[61:])(encoded(BIG)))  # fmt: skip
image("WebP cut short", "truncated within its pixels", "refused", "odd.webp: ", "cat/odd.webp",
      lambda: (lambda d: d[: len(d) // 2])(encoded(BIG, "WEBP")))  # fmt: skip
image("GIF without pixels", "nothing after its header", "refused", "odd.gif: not an image", "cat/odd.gif",
      lambda: encoded(BIG, "GIF")[:30])  # fmt: skip
image("JPEG damaged within", "some bytes are garbled: libjpeg warns and fills the gap", "warned", "Damaged JPEG",
      "cat/odd.jpg", lambda: (lambda d: d[:-2] + b"\0\x11\x22" * 9 + d[-2:])(encoded(BIG, "JPEG")))  # fmt: skip
image("bomb", "a few bytes that claim to be 20,000 × 20,000 pixels", "refused", "decompression bomb", "cat/odd.png",
      lambda: png(20_000, 20_000, 8, 2, b""))  # fmt: skip
image("41 million pixels", "slow to decode", "warned", "Huge images", "cat/odd.png",
      lambda: encoded(Image.fromarray(GRAY > 100).resize((6400, 6464), Image.Resampling.NEAREST)))  # fmt: skip
for suffix in (".txt", ".dng", ""):
    title = f"a {suffix} file" if suffix else "no suffix"
    image(title, f"beside the images, named odd{suffix}", "skipped", f"{suffix or 'no suffix'} 1", f"cat/odd{suffix}",
          lambda: plain("beside", 0))  # fmt: skip


# ---------------------------------------------------------------------------- what is there and is no file


def special(name: str, what: str, outcome: Outcome, says: str, make: Callable[[Path], object]) -> None:
    def whole(photos: Path) -> Rows:
        good = two(photos)
        make(photos / "cat" / "odd.png")
        return good | ({"cat/odd.png": "cat"} if outcome == "right" else {})

    CASES.append(Case("image", name, what, outcome, says, whole))


def _linked(file: Path) -> None:
    write(file.parents[2] / "elsewhere.png", plain("elsewhere", 0))
    file.symlink_to("../../elsewhere.png")


def _link_to_a_pipe(file: Path) -> None:
    os.mkfifo(file.parents[2] / "pipe")
    file.symlink_to("../../pipe")


special("named pipe", "opening it would wait for ever", "skipped", "pipes, sockets or devices", os.mkfifo)
special("link to a pipe", "leads to a named pipe", "skipped", "pipes, sockets or devices", _link_to_a_pipe)
special("dangling link", "leads to a file that was removed", "refused", "odd.png: No such file",
        lambda file: file.symlink_to("removed.png"))  # fmt: skip
special("link to itself", "points to itself", "refused", "Too many levels of symbolic links",
        lambda file: file.symlink_to("odd.png"))  # fmt: skip
special("link to an image", "leads out of the folder, to a valid image", "right", "", _linked)


# ---------------------------------------------------------------------------- depths, colours, transparency

DEEP_SAYS = "16-bit gray images"
EIGHT = gray(np.rint(DEEP / 257).astype(np.uint8))
image("16-bit gray PNG", "0 … 65,535", "warned", DEEP_SAYS, "cat/odd.png", lambda: encoded(DEEP), EIGHT)
image("16-bit gray TIFF, big-endian", "as microscopes write it", "warned", DEEP_SAYS, "cat/odd.tif",
      lambda: encoded(Image.frombytes("I;16B", (SIDE, SIDE), DEEP.astype(">u2").tobytes()), "TIFF"), EIGHT)  # fmt: skip
image("16-bit gray TIFF, 0 is white", "as scanners and X-rays write it", "warned", DEEP_SAYS, "cat/odd.tif",
      lambda: encoded(Image.fromarray(65535 - DEEP), "TIFF", tiffinfo={262: 0}), EIGHT)  # fmt: skip
image("10-bit PGM", "its header says that 1,023 is white", "warned", DEEP_SAYS, "cat/odd.pgm",
      lambda: b"P5 8 8 1023\n" + (DEEP // 64).astype(">u2").tobytes(),
      lambda: gray(np.rint((DEEP // 64) / 1023 * 255).astype(np.uint8)))  # fmt: skip
image("12 bits in 16", "an X-ray of 0 … 4,095 in a 16-bit file: almost black", "warned", DEEP_SAYS,
      "cat/odd.png", lambda: encoded(DEEP // 16),
      lambda: gray(np.rint(DEEP // 16 / 257).astype(np.uint8)))  # fmt: skip
image("16-bit gray with a transparent value", "one value is transparent", "warned", DEEP_SAYS, "cat/odd.png",
      lambda: png(SIDE, SIDE, 16, 0, png_rows(DEEP), (b"tRNS", struct.pack(">H", int(DEEP[3, 3])))),
      lambda: np.where(gray(DEEP[3, 3] == DEEP), 255, EIGHT).astype(np.uint8))  # fmt: skip
image("16-bit colours", "a PNG of three channels of 16 bits", "right", "", "cat/odd.png",
      lambda: png(SIDE, SIDE, 16, 2, png_rows(ODD.astype(np.uint16) * 257 + 3)), ODD)  # fmt: skip
image("16-bit colours and transparency", "four channels of 16 bits", "right", "", "cat/odd.png",
      lambda: png(SIDE, SIDE, 16, 6, png_rows(np.dstack([ODD, ALPHA]).astype(np.uint16) * 257)),
      lambda: on_white(ODD, ALPHA))  # fmt: skip
image("floats from 0 to 1", "a TIFF of floating-point numbers whose white is unknown", "refused",
      "floating-point numbers", "cat/odd.tif", lambda: encoded((DEEP / 65535).astype(np.float32), "TIFF"))  # fmt: skip
image("32-bit integers", "a TIFF whose white is unknown", "refused", "32-bit integers", "cat/odd.tif",
      lambda: encoded(DEEP.astype(np.int32) * 9, "TIFF"))  # fmt: skip
image("two bits a pixel", "four grays", "right", "", "cat/odd.png",
      lambda: png(SIDE, SIDE, 2, 0, b"".join(b"\0\x1b\xe4" for _ in range(SIDE))),
      lambda: gray(np.tile(np.array([0, 85, 170, 255, 255, 170, 85, 0], np.uint8), (SIDE, 1))))  # fmt: skip
image("gray among coloured", "a JPEG of one channel", "right", "", "cat/odd.jpg", lambda: encoded(GRAY, "JPEG"),
      lambda: reread(encoded(GRAY, "JPEG")))  # fmt: skip
image("palette", "256 colours at most", "right", "", "cat/odd.png", lambda: encoded(Image.fromarray(ODD).quantize(32)),
      lambda: np.asarray(Image.fromarray(ODD).quantize(32).convert("RGB")))  # fmt: skip
image("palette with a transparent colour", "what is transparent becomes white", "right", "", "cat/odd.png",
      lambda: png(SIDE, SIDE, 8, 3, png_rows(np.arange(64, dtype=np.uint8).reshape(SIDE, SIDE) % 3),
                  (b"PLTE", bytes([255, 0, 0, 0, 255, 0, 0, 0, 255])), (b"tRNS", bytes([255, 0]))),
      lambda: np.array([[255, 0, 0], [255] * 3, [0, 0, 255]], np.uint8)[np.arange(64).reshape(8, 8) % 3])  # fmt: skip
image("transparent PNG", "a cut-out: what is transparent becomes white", "right", "", "cat/odd.png",
      lambda: encoded(np.dstack([ODD, ALPHA])), lambda: on_white(ODD, ALPHA))  # fmt: skip
image("PNG with a transparent colour", "black is transparent", "right", "", "cat/odd.png",
      lambda: encoded(ODD * (ALPHA > 99)[..., None], transparency=(0, 0, 0)),
      lambda: np.where(ALPHA[..., None] > 99, ODD, 255).astype(np.uint8))  # fmt: skip
image("transparent WebP", "lossless, with transparency", "right", "", "cat/odd.webp",
      lambda: encoded(np.dstack([ODD, np.maximum(ALPHA, 1)]), "WEBP", lossless=True, exact=True),
      lambda: on_white(ODD, np.maximum(ALPHA, 1)))  # fmt: skip
image("nothing to be seen", "fully transparent: white", "warned", "Blank images", "cat/odd.png",
      lambda: encoded(np.dstack([ODD, ALPHA * 0])), lambda: ODD * 0 + 255)  # fmt: skip
image("CMYK JPEG", "for a printing press", "warned", "CMYK images", "cat/odd.jpg",
      lambda: encoded(Image.fromarray(ODD).convert("CMYK"), "JPEG", quality=100, subsampling=0),
      lambda: reread(encoded(ODD, "JPEG", quality=100, subsampling=0)))  # fmt: skip
image("colour profile", "embedded: the values are used as they are", "right", "", "cat/odd.png",
      lambda: encoded(ODD, icc_profile=b"none that anyone could use"), ODD)  # fmt: skip


# ---------------------------------------------------------------------------- turned, moving, odd formats and shapes

TALL = grain(9, 6, 10)
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    3: lambda p: np.rot90(p, 2), 5: lambda p: p.transpose(1, 0, 2), 6: lambda p: np.rot90(p, -1), 8: np.rot90,
}  # fmt: skip
XMP = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:RDF><rdf:Description tiff:Orientation="6"/>'
for turn, kind, what in (
    (6, "JPEG", "a phone held upright"), (3, "JPEG", "a camera upside down"), (5, "JPEG", "mirrored and rotated"),
    (8, "PNG", "rotated by its eXIf chunk"), (6, "WEBP", "rotated by its EXIF chunk"), (6, "TIFF", "rotated by a tag"),
):  # fmt: skip
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    image(f"{kind} with EXIF orientation {turn}", what, "right", "", f"cat/odd.{kind.lower()}",
          lambda turn=turn, kind=kind, options=options: encoded(TALL, kind, exif=exif(turn), **options),
          lambda turn=turn, kind=kind, opts=options: TURNS[turn](reread(encoded(TALL, kind, **opts))))  # fmt: skip
image("HEIC", "a phone's photograph; the format rotates it itself, whatever its EXIF says", "right", "",
      "cat/odd.heic", lambda: encoded(TALL, "HEIF", exif=exif(6), quality=-1),
      lambda: reread(encoded(TALL, "HEIF", quality=-1)))  # fmt: skip
image("orientation in XMP alone", "no EXIF, but an editor's note", "right", "", "cat/odd.jpg",
      lambda: (lambda d: d[:2] + b"\xff\xe1" + struct.pack(">H", len(XMP) + 2) + XMP + d[2:])(jpeg(TALL)),
      lambda: TURNS[6](reread(jpeg(TALL))))  # fmt: skip
image("damaged EXIF", "unreadable EXIF in a valid picture", "right", "", "cat/odd.jpg",
      lambda: jpeg(TALL, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\0\1"), lambda: reread(jpeg(TALL)))  # fmt: skip
MOVES = [Image.fromarray(grain(20 + i)) for i in range(3)]
MOVING = "Animations and multi-page files"
image("animated GIF", "the first of its frames is used", "warned", MOVING, "cat/odd.gif",
      lambda: encoded(MOVES[0], "GIF", save_all=True, append_images=MOVES[1:]),
      lambda: reread(encoded(MOVES[0], "GIF")))  # fmt: skip
image("animated PNG", "the first of its frames is used", "warned", MOVING, "cat/odd.png",
      lambda: encoded(MOVES[0], save_all=True, append_images=MOVES[1:]), grain(20))  # fmt: skip
image("animated WebP", "the first of its frames is used", "warned", MOVING, "cat/odd.webp",
      lambda: encoded(MOVES[0], "WEBP", save_all=True, append_images=MOVES[1:], lossless=True), grain(20))  # fmt: skip
image("TIFF of several pages", "the first is used", "warned", MOVING, "cat/odd.tif",
      lambda: encoded(MOVES[0], "TIFF", save_all=True, append_images=MOVES[1:]), grain(20))  # fmt: skip
image("JPEG with a preview inside", "as cameras write them; the picture itself is used", "right", "", "cat/odd.jpg",
      lambda: encoded(MOVES[0], "MPO", save_all=True, append_images=MOVES[1:2], quality=95, subsampling=0),
      lambda: reread(encoded(MOVES[0], "JPEG", quality=95, subsampling=0)))  # fmt: skip
image("a single pixel", "1 × 1", "warned", "Blank images", "cat/odd.png", lambda: encoded(ODD[:1, :1]), ODD[:1, :1])
LINE = grain(30, 4000, 1)
image("a line", "4,000 × 1 pixels", "right", "", "cat/odd.png", lambda: encoded(LINE), LINE)
image("of one colour", "a blank picture", "warned", "Blank images", "cat/odd.png", lambda: encoded(ODD * 0 + 90),
      ODD * 0 + 90)  # fmt: skip
image("PNG named .jpg", "read by its content", "right", "", "cat/odd.jpg", lambda: encoded(ODD), ODD)
image("JPEG named .png", "read by its content", "right", "", "cat/odd.png", jpeg, lambda: reread(jpeg()))
image("suffix in capitals", ".PNG", "right", "", "cat/ODD.PNG", lambda: encoded(ODD), ODD)
image("progressive JPEG", "loads in several passes", "right", "", "cat/odd.jpg", lambda: jpeg(progressive=True),
      lambda: reread(jpeg()))  # fmt: skip
image("RGB inside a JPEG", "not YCbCr, as usual", "right", "", "cat/odd.jpg", lambda: jpeg(keep_rgb=True),
      lambda: reread(jpeg(keep_rgb=True)))  # fmt: skip
image("rubbish behind a JPEG", "bytes after its end", "right", "", "cat/odd.jpg", lambda: jpeg() + b"appended" * 99,
      lambda: reread(jpeg()))  # fmt: skip
image("BMP from bottom to top", "as Windows writes them", "right", "", "cat/odd.bmp", lambda: encoded(ODD, "BMP"), ODD)
image("JPEG 2000", "lossless", "right", "", "cat/odd.jp2", lambda: encoded(ODD, "JPEG2000"), ODD)
image("numbers in words", "a PPM in ASCII", "right", "", "cat/odd.ppm",
      lambda: b"P3 8 8 255\n" + b" ".join(b"%d" % value for value in ODD.ravel()), ODD)  # fmt: skip


# ---------------------------------------------------------------------------- folders


def folder(name: str, what: str, outcome: Outcome, says: str, make: Make, words: tuple[str, ...] = ()) -> None:
    """A case of a folder; what `make` returns are its rows."""
    CASES.append(Case("folder", name, what, outcome, says, lambda photos: rows_of(make(photos), outcome), words))


def rows_of(made: Any, outcome: Outcome) -> Rows | None:
    """The rows that `make` returned, if it is to be read; several are put together."""
    if outcome == "refused" or made is None:
        return None
    return made if isinstance(made, dict) else {path: row for rows in made for path, row in (rows or {}).items()}


def splits(photos: Path, train: str, valid: str, test: str = "") -> Rows:
    found: Rows = {}
    for place, split, count in ((train, "train", EACH), (valid, "valid", 2), (test, "test", 2)):
        for label in ("cat", "dog") if place else ():
            found |= plant(photos, f"{place}/{label}", label, count, split)
    return found


def linked(photos: Path, link: str, target: str) -> None:
    (photos / link).parent.mkdir(parents=True, exist_ok=True)
    (photos / link).symlink_to(target)


def copied(photos: Path, file: str, of: str, row: str) -> Rows:
    """A copy of the first picture of a folder."""
    write(photos / file, plain(of, 0))
    return {file: row}


def many_links(photos: Path) -> None:
    two(photos)
    for number in range(3_000):
        os.link(photos / f"cat/{number % EACH}.png", photos / f"cat/again{number}.png")


def read_only(photos: Path) -> Rows:
    found = two(photos)
    for place in (photos / "cat", photos / "dog", photos):
        place.chmod(0o555)
    return found


# fmt: off
folder("no such folder", "a missing name, beside a similar one", "refused", "did you mean 'photos'?", two,
       ("--path", "photo"))
folder("a file", "an image instead of a folder", "refused", "is a file, not a folder",
       lambda photos: write(photos.parent / "one.png", plain("one", 0)), ("--path", "one.png"))
folder("an archive", "not unpacked", "refused", "unpack it",
       lambda photos: write(photos.parent / "photos.zip", b"PK\x03\x04"), ("--path", "photos.zip"))
folder("the table for the folder", "--path names the CSV file", "refused", "--labels labels.csv",
       lambda photos: write(photos.parent / "labels.csv", b"file,label\n"), ("--path", "labels.csv"))
folder("empty", "an empty folder", "refused", "contains no files", lambda photos: photos.mkdir())
folder("text only", "class folders without any image", "refused", "contains no images",
       lambda photos: [write(photos / f"{name}/notes.txt", b"notes") for name in ("cat", "dog")])
folder("a camera's negatives", "only raw files, which are not read", "refused", "convert them to JPEG",
       lambda photos: [write(photos / f"{name}/IMG_1.NEF", b"MM\0*") for name in ("cat", "dog")])
folder("negatives among the rest", "one camera's photographs of several", "skipped", ".nef images are not supported",
       lambda photos: [two(photos), write(photos / "cat/IMG_1.NEF", b"MM\0*")])
folder("archives only", "the images are still in an archive", "refused", "Unpack cats.tar.gz",
       lambda photos: [write(photos / f"{name}.tar.gz", b"\x1f\x8b") for name in ("cats", "dogs")])
folder("images without labels", "no class folders", "refused", "without labels", lambda photos: plant(photos, "."))
folder("images beside their table", "the table is there, but was not named", "refused", "--labels labels.csv",
       lambda photos: [plant(photos, "."), write(photos / "labels.csv", b"file,label\n0,cat\n")])
folder("one class", "nothing to classify", "refused", "of one class, 'cat'", lambda photos: plant(photos, "cat"))
folder("one image a class", "none can be held out", "refused", "Every class has a single image",
       lambda photos: [plant(photos, "cat", count=1), plant(photos, "dog", count=1)])
folder("a class of one image", "it stays in train", "warned", "single image, kept in train: fox",
       lambda photos: [two(photos), plant(photos, "fox", "fox train", 1)])
folder("empty class", "an empty class folder", "skipped", "without images: ignored",
       lambda photos: [(photos / "fox").mkdir(parents=True), two(photos)])
folder("images beside the class folders", "in no class", "skipped", "1 image next to the class folders",
       lambda photos: [write(photos / "stray.png", plain("stray", 0)), two(photos)])
folder("uneven classes", "60 cats, 3 dogs", "warned", "Imbalanced classes",
       lambda photos: [plant(photos, "cat", count=60), plant(photos, "dog", count=3)])

for names in (("training", "validation", "testing"), ("Train", "VALID", "")):
    folder(f"{names[0]} and {names[1]}", "the validation folder has another name", "right", "",
           lambda photos, names=names: splits(photos, *names))
for names in (("Training_set", "val images", "seg_test"), ("train/train", "valid/valid", "test/testing")):
    folder(f"{names[0]} and {names[1]}", "as archives name them, or with a folder around", "right", "",
           lambda photos, names=names: splits(photos, *names))
folder("train and valid in each class", "the split below the class", "right", "", lambda photos: [
    plant(photos, f"{label}/{folder}", label, 4, split)
    for label in ("cat", "dog") for folder, split in (("train", "train"), ("val", "valid"))])
folder("an empty first image in train", "train/ and valid/ folders", "refused", "1 of 16 images cannot be read: ",
       lambda photos: [splits(photos, "train", "valid"), write(photos / "train/cat/0.png", b"")])
folder("train and test", "no validation split: one is drawn from train", "right", "", lambda photos: {
    path: row.removesuffix(" train") for path, row in splits(photos, "train", "", "test").items()})
folder("no training split", "only val/ and test/", "refused", "no train/ folder",
       lambda photos: splits(photos, "", "val", "test"))
folder("two validation splits", "val/ and valid/", "refused", "two folders for one split",
       lambda photos: [splits(photos, "train", "val"), splits(photos, "train", "valid")])
folder("a class in valid alone", "the network could never predict it", "refused", "of the valid split",
       lambda photos: [splits(photos, "train", "valid"), plant(photos, "valid/fox", count=2)])
folder("a class without validation images", "nothing can be measured for it", "warned", "without validation images",
       lambda photos: [splits(photos, "train", "valid"), plant(photos, "train/fox", split="train")])
folder("empty train", "an empty training folder", "refused", "contains no images",
       lambda photos: [splits(photos, "", "valid"), (photos / "train").mkdir()])
folder("empty valid", "an empty validation folder", "refused", "The validation folder",
       lambda photos: [splits(photos, "train", ""), (photos / "valid").mkdir()])
folder("test without labels", "images directly in test/", "skipped", "has no class folders",
       lambda photos: [plant(photos, "test") and None, splits(photos, "train", "valid")])
folder("test beside class folders", "is it a class or a split?", "skipped", "test/ is next to class folders",
       lambda photos: [plant(photos, "test") and None, two(photos)])
folder("something beside train", "a folder that belongs to no split", "skipped", "Left out extra/ next to train/",
       lambda photos: [plant(photos, "extra") and None, splits(photos, "train", "valid")])
folder("valid is a link to train", "the same files in both", "warned", "Leaks: one image in two splits",
       lambda photos: [linked(photos, "valid", "train"), found := splits(photos, "train", ""), {
           path.replace("train", "valid"): row.replace("train", "valid") for path, row in found.items()}])
folder("a copy in valid", "one image in two splits", "warned", "Leaks: one image in two splits", lambda photos: [
    splits(photos, "train", "valid"), copied(photos, "valid/cat/copy.png", "train/cat", "cat valid")])
folder("copies", "one file twice in a class", "warned", "Duplicates: 1 group, 2 images", lambda photos: [
    splits(photos, "train", "valid"), copied(photos, "train/cat/copy.png", "train/cat", "cat train")])
folder("one image under two labels", "a cat among the dogs", "warned", "One image under two labels",
       lambda photos: [two(photos), copied(photos, "dog/copy.png", "cat", "dog")])

for hidden in (".git", "__MACOSX"):
    folder(f"{hidden}/", "a folder that other programs create", "right", "", lambda photos, name=hidden: [
        plant(photos, f"{name}/cat") and None, plant(photos, f"cat/{name}") and None, two(photos)])
folder("._0.png and .DS_Store", "hidden files that macOS creates", "right", "", lambda photos: [
    write(photos / "cat/._0.png", b"\0\5\x16\7"), write(photos / "cat/.DS_Store", b"\0\0\0\1Bud1"), two(photos)])
folder("folders in a class", "read as one class", "warned", "with subfolders",
       lambda photos: [two(photos), plant(photos, "cat/kittens", "cat")])
folder("a folder around it all", "as archives are unpacked", "warned", "Using photos/data/",
       lambda photos: [plant(photos, "photos/data/cat"), plant(photos, "photos/data/dog")])
folder("300 folders deep", "one inside the other", "warned", "with subfolders",
       lambda photos: [two(photos), plant(photos, "/".join(["cat", *"d" * 300]), "cat", 1)])
folder("a link up", "a class folder that links back to the whole folder: a cycle", "right", "",
       lambda photos: [two(photos), linked(photos, "cat/again", "..")])
folder("a class folder elsewhere", "a link to it", "right", "", lambda photos: [
    two(photos), linked(photos, "fox", "../fox"),
    {f"fox/{path.rpartition('/')[2]}": "fox" for path in plant(photos.parent, "fox")}])
folder("a link to another class", "every dog is also a cat", "warned", "One image under two labels", lambda photos: [
    two(photos), linked(photos, "cat/more", "../dog"), {f"cat/more/{n}.png": "cat" for n in range(EACH)}])
folder("3,000 images", "of which --limit uses a few", "right", "", many_links, ("--limit", "20"))
folder("a folder that may not be written to", "a read-only medium", "right", "", read_only)
# fmt: on


# ---------------------------------------------------------------------------- tables of labels

TABLE = ("--labels", "labels.csv")


def table(
    name: str, what: str, outcome: Outcome, says: str = "", text: str | bytes = "",
    gives: tuple[str, str] = ("cat", "dog"), place: str = "labels.csv", left_out: str = "", words: tuple[str, ...] = (),
) -> None:  # fmt: skip
    """A table for twelve images, a0 … a5 and b0 … b5; `gives` are the labels of a and of b."""

    def make(photos: Path) -> Rows | None:
        found = {}
        for letter, label in zip("ab", gives, strict=True):
            for number in range(EACH):
                write(photos / f"{letter}{number}.png", plain(letter, number))
                found[f"{letter}{number}.png"] = label
        write(photos / place, text.encode() if isinstance(text, str) else text)
        found.pop(left_out, None)
        return None if outcome == "refused" else found

    CASES.append(Case("table", name, what, outcome, says, make, ("--labels", place, *words)))


def lines(
    first: str = "cat", second: str = "dog", form: str = "{file},{label}", end: str = "\n", head: str = ""
) -> str:
    head = head or form.format(file="file", label="label")
    rows = [form.format(file=f"a{i}.png", label=first) for i in range(EACH)]
    rows += [form.format(file=f"b{i}.png", label=second) for i in range(EACH)]
    return end.join([*([head] if head != "-" else []), *rows, ""])


def other_table(name: str, what: str, outcome: Outcome, says: str, make: Make) -> None:
    CASES.append(Case("table", name, what, outcome, says, lambda photos: rows_of(make(photos), outcome), TABLE))


def with_is_valid(photos: Path) -> Rows:
    found = {path: (row, path.endswith(("0.png", "1.png"))) for path, row in two(photos).items()}
    text = "".join(f"{path},{row},{is_valid}\n" for path, (row, is_valid) in found.items())
    write(photos / "labels.csv", b"file,label,is_valid\n" + text.encode())
    return {path: f"{row} {'valid' if is_valid else 'train'}" for path, (row, is_valid) in found.items()}


GOOD = lines()
HOLDS_LABELS, MISSING = "recognised as the labels", "a file that is missing"
ONE_HOT = "file,cat,dog\n" + "".join(f"{x}{i}.png,{int(x == 'a')},{int(x == 'b')}\n" for x in "ab" for i in range(EACH))
# fmt: off
table("byte order mark", "as Excel writes UTF-8", "right", "", b"\xef\xbb\xbf" + GOOD.encode())
table("semicolons", "as Excel writes it in Europe", "right", "", lines(form="{file};{label}"))
table("sep=;", "Excel's own line above the table", "right", "", "sep=;\n" + lines(form="{file};{label}"))
table("tabs", "between the columns", "right", "", lines(form="{file}\t{label}"))
table("UTF-16", "as Excel saves Unicode text", "right", "", lines("Kätzchen", form="{file}\t{label}").encode("utf-16"),
      ("Kätzchen", "dog"))
table("Windows-1252", "not UTF-8", "warned", "is not UTF-8", lines("Kätzchen").encode("cp1252"), ("Kätzchen", "dog"))
table("Windows line ends", "\\r\\n", "right", "", lines(end="\r\n"))
table("no header", "files and labels from the first row on", "right", "", lines(head="-"))
table("labels first", "the columns the other way round", "right", "", lines(form="{label},{file}"))
table("titles nobody knows", "the columns are recognised by their content", "right", "", lines(head="foto,tier"))
table("spaces", "around every cell", "right", "", lines(form="  {file} ,  {label}  "))
table("a comma in the labels", "in quotes", "right", "", lines("cat, small", form='{file},"{label}"'),
      ("cat, small", "dog"))
table("further columns", "an index and a remark", "right", "",
      lines(form="7,{file},{label},fine", head="index,file,label,remark"))
for title, what, first, second in (
    ("leading zeros", "007 and 7 are two classes", "007", "7"), ("NA and null", "labels, not gaps", "NA", "null"),
    ("True and False", "labels, not truth", "True", "False"),
):
    table(title, what, "right", "", lines(first, second), (first, second))
table("case twins", "Cat and cat", "warned", "differ by case", lines("Cat", "cat"), ("Cat", "cat"))
table("names without suffix", "a0 for a0.png", "right", "", GOOD.replace(".png", ""))
table("Windows paths", ".\\a0.png", "right", "", lines(form=".\\{file},{label}"))
table("repeated rows", "each row twice", "warned", "12 duplicate rows", GOOD + GOOD.partition("\n")[2])
table("unlisted images", "an image has no row", "skipped", "1 image not listed in labels.csv left out: b5.png",
      GOOD.replace("b5.png,dog\n", ""), left_out="b5.png")
table("a label missing", "an empty cell", "refused", "no label (1 of 12): row 4", GOOD.replace("a2.png,cat", "a2.png,"))
table("conflicting rows", "one file, two labels", "refused", "listed before with another label", GOOD + "a0.png,dog\n")
table("a cell missing", "a row of one cell", "refused", "too few columns (1 of 13): row 14", GOOD + "a0.png\n")
table("unknown files", "not in the folder", "refused", f"{MISSING} (1 of 13): c0.png", GOOD + "c0.png,cat\n")
table("a path out of the folder", "../secret.png", "refused", "outside the folder", GOOD + "../secret.png,cat\n")
table("a way out and back", "by way of the parent folder", "right", "", GOOD.replace("a0.png", "../photos/a0.png"))
table("empty", "no bytes at all", "refused", "is empty", "")
table("header alone", "no row below it", "refused", "has no rows", "file,label\n")
table("one column", "files without labels", "refused", "only one column", "file\na0.png\n")
table("no column of labels", "two candidates and no known column name", "refused", HOLDS_LABELS,
      lines(form="{file},{label},x", head="file,tier,art"))
table("three columns and no header", "which is which?", "refused", "3 columns and no header",
      lines(form="{file},{label},x", head="-"))
table("one-hot", "one column of 0 and 1 per class, one 1 per row", "right", "", ONE_HOT)
table("a quote that is never closed", "it swallows the rest", "refused", "too few columns",
      GOOD.replace("a3.png", '"a3.png'))
table("JSON", "named labels.csv", "refused", "recognised as the file names", '{"a0.png": "cat",\n "b0.png": "dog"}\n')
table("a spreadsheet", "labels.xlsx", "refused", "Save it as CSV", b"PK\x03\x04", place="labels.xlsx")
table("another name", "labels.csv exists, not label.csv", "refused", "contains labels.csv", GOOD,
      words=("--labels", "label.csv"))
table("a cell of 200,000 letters", "longer than any label", "refused", "not a CSV file",
      GOOD + "a" * 200_000 + ",cat\n")  # fmt: skip
table("all rows of one split", "none to train on", "refused", "no training images",
      lines(form="{file},{label},valid", head="file,label,split"))
table("a split nobody knows", "a fourth split", "refused", "a split other than train, valid or test",
      lines(form="{file},{label},holdout", head="file,label,split"))
other_table("a split column", "is_valid of True and False", "right", "", with_is_valid)
other_table("two columns of one title", "which of them is meant?", "refused", "several columns titled label",
            lambda photos: write(photos / "labels.csv", b"file,label,label\ncat/0.png,cat,dog\n"))
other_table("a name that two files have", "in two folders", "refused", "a file name that several files share",
            lambda photos: [plant(photos, "one"), plant(photos, "two"),
                            write(photos / "labels.csv", b"file,label\n0.png,cat\n1.png,dog\n")])
other_table("a pipe for the table", "a named pipe", "refused", "table of labels labels.csv is neither",
            lambda photos: [two(photos), os.mkfifo(photos / "labels.csv")])
# fmt: on


def pattern(name: str, what: str, outcome: Outcome, says: str, regex: str, code: int = 3, stray: bool = False) -> None:
    """Labels in file names."""

    def make(photos: Path) -> Rows | None:
        found = {}
        for label in ("cat", "dog"):
            for number in range(EACH):
                write(photos / f"{label}_{number}.png", plain(label, number))
                found[f"{label}_{number}.png"] = label
        if stray:
            write(photos / "stray.png", plain("stray", 0))
        return None if outcome == "refused" else found

    CASES.append(Case("table", name, what, outcome, says, make, ("--label-regex", regex), code))


pattern("a pattern that some names do not match", "--label-regex", "skipped", "1 image left out", r"^(\w+)_\d", 3, True)
pattern("a pattern that no name matches", "--label-regex", "refused", "matches the label pattern", r"^(\d+)-")
pattern("a pattern without a group", "--label-regex", "refused", "no group", r"^\w+_", code=2)
pattern("a pattern that is none", "an unclosed parenthesis", "refused", "regular expression", r"^(\w+_", code=2)


# ---------------------------------------------------------------------------- several labels an image
# fmt: off


def several(
    name: str, what: str, outcome: Outcome, says: str, cells: list[str], gives: list[str] | None = None,
    head: str = "file,labels", words: tuple[str, ...] = (), code: int = 3,
) -> None:
    """A table for eight images, a0 … a7, a cell of labels each; `gives` are their labels as splits.csv has them."""

    def make(photos: Path) -> Rows | None:
        for number in range(8):
            write(photos / f"a{number}.png", plain("a", number))
        rows = [f"a{i % 8}.png,{cell}" for i, cell in enumerate(cells)]
        write(photos / "labels.csv", "\n".join([head, *rows, ""]).encode())
        return None if gives is None else {f"a{number}.png": label for number, label in enumerate(gives)}

    CASES.append(Case("several", name, what, outcome, says, make, ("--labels", "labels.csv", *words), code))


YES, NO_MULTI = ("--multi-label", "yes"), ("--multi-label", "no")
SETS = ["cat", "dog", "cat|dog", "cat", "dog", "cat|dog", "cat", "dog"]
BARE = ["cat", "dog", "cat|dog", "", "dog", "cat|dog", "cat", ""]
BREEDS = ["golden retriever", "labrador retriever"] * 4
several("bars", "cat|dog", "warned", "separated by '|'", SETS, SETS)
several("semicolons", "cat;dog", "warned", "separated by ';'", [x.replace("|", ";") for x in SETS], SETS)
several("commas", "in quotes", "warned", "separated by commas", [f'"{x}"'.replace("|", ", ") for x in SETS], SETS)
several("spaces", "cat dog", "warned", "separated by spaces", [x.replace("|", " ") for x in SETS], SETS)
several("the other order", "dog;cat and cat;dog are one", "warned", "separated by ';'",
        ["cat", "dog", "cat;dog", "cat", "dog", "dog;cat", "cat", "dog"], SETS)
several("both orders of two words", "dog grass and grass dog are one", "warned", "separated by spaces",
        [*["dog grass", "grass dog"] * 3, "dog", "grass"], [*["dog|grass"] * 6, "dog", "grass"])
several("a label twice in a cell", "cat;cat, on request", "warned", "separated by ';'",
        ["cat;cat", *[x.replace("|", ";") for x in SETS[1:]]], SETS, words=YES)
several("separators at the ends", ";cat;dog;, on request", "warned", "separated by ';'",
        [x.replace("|", ";") + ";" for x in SETS], SETS, words=YES)
several("spaces around separators", "cat ; dog", "warned", "separated by ';'", [x.replace("|", " ; ") for x in SETS],
        SETS)
several("JSON lists", 'each cell a list', "warned", "a list in each cell",
        ['"[' + ", ".join(f'""{n}""' for n in x.split("|") if n) + ']"' for x in BARE], BARE)
several("Python lists", "['cat', 'dog']", "warned", "a list in each cell",
        ['"[' + ", ".join(f"'{n}'" for n in x.split("|") if n) + ']"' for x in BARE], BARE)
several("images without a label", "an empty cell", "warned", "2 images without a label",
        [x.replace("|", ";") for x in BARE], BARE)
several("a list that is never closed", "one cell among lists", "refused", "not a list of labels (1 of 12)",
        ['"[\'cat\']"', '"[\'dog\']"'] * 4 + ["[cat", '"[\'cat\']"', '"[\'dog\']"', '"[\'cat\']"'])
several("a list of lists", "one cell among lists", "refused", "not a list of labels (1 of 8)",
        ['"[[\'cat\']]"', *['"[\'dog\']"', '"[\'cat\']"'] * 3, '"[\'dog\']"'])
several("names with spaces", "golden retriever", "right", "", BREEDS, BREEDS)
several("names with commas", "as in ImageNet", "right", "", ['"tench, Tinca tinca"', '"goldfish, Carassius"'] * 4,
        ["tench, Tinca tinca", "goldfish, Carassius"] * 4)
several("names with semicolons", "Pipistrellus; dwarf", "right", "", ["bat; dwarf", "bat; grey"] * 4,
        ["bat; dwarf", "bat; grey"] * 4)
several("ranks of a taxonomy", "Animalia;Chordata", "right", "", ["Animalia;Chordata", "Animalia;Mollusca"] * 4,
        ["Animalia;Chordata", "Animalia;Mollusca"] * 4)
several("names with spaces beside semicolons", "a breed and a colour", "warned", "separated by ';'",
        ["golden retriever", "red", "golden retriever;red", "red"] * 2,
        ["golden retriever", "red", "golden retriever|red", "red"] * 2)
several("sets as classes", "on request", "right", "", [x.replace("|", ";") for x in SETS],
        [x.replace("|", ";") for x in SETS], words=NO_MULTI)
several("an empty cell among classes", "on request", "refused", "no label (2 of 8)",
        [x.replace("|", ";") for x in BARE], words=NO_MULTI)
several("a row a label", "a file in several rows, on request", "warned", "one row each",
        [*["cat", "dog"] * 4, *["dog", "cat"] * 2], ["cat|dog"] * 4 + ["cat", "dog"] * 2, words=YES)
several("a row a label, not asked for", "a file in two rows", "refused", "listed before with another label",
        [*["cat", "dog"] * 4, "dog"], head="file,label")
several("one file, two sets of labels", "contradictory rows", "refused", "listed before with another label",
        [*[x.replace("|", ";") for x in SETS], "cat;dog"])
several("a set in two orders and two rows", "no contradiction", "warned", "1 duplicate row",
        ["cat;dog", "dog", "cat;dog", "cat", "dog", "cat;dog", "cat", "dog", "dog;cat"], ["cat|dog", *SETS[1:]])
several("columns of 0 and 1", "one per label", "warned", "several labels per image, from 2 columns of 0 and 1",
        ["1,0", "0,1", "1,1", "0,0"] * 2, ["cat", "dog", "cat|dog", ""] * 2, head="file,cat,dog")
several("columns of true and false", "one per label", "warned", "from 2 columns of 0 and 1",
        ["True,False", "False,True", "True,True", "False,False"] * 2, ["cat", "dog", "cat|dog", ""] * 2,
        head="file,cat,dog")
several("columns of 1 and -1", "as in CelebA", "warned", "from 2 columns of 0 and 1",
        ["1,-1", "-1,1", "1,1", "-1,-1"] * 2, ["cat", "dog", "cat|dog", ""] * 2, head="file,cat,dog")
several("columns of 0 and 1 for one class", "on request", "refused",
        "not exactly one 1, without --multi-label yes (4 of 8)",
        ["1,0", "0,1", "1,1", "0,0"] * 2, head="file,cat,dog", words=NO_MULTI)
several("a 2 among 0 and 1", "one cell", "refused", "a cell other than 0 or 1 (1 of 12): '2' in row 13",
        [*["1,0", "0,1", "1,1", "0,0"] * 2, "1,0", "0,1", "1,1", "2,1"], head="file,cat,dog")
several("a gap among 0 and 1", "one empty cell", "refused", "a cell other than 0 or 1 (1 of 12): '' in row 13",
        [*["1,0", "0,1", "1,1", "0,0"] * 2, "1,0", "0,1", "1,1", ",1"], head="file,cat,dog")
several("a label that no image has", "a column of zeros", "warned", "1 label without an image left out: bird",
        ["1,0,0", "0,1,0", "1,1,0", "0,0,0"] * 2, ["cat", "dog", "cat|dog", ""] * 2, head="file,cat,dog,bird")
several("one label alone", "present or not", "refused", "of one class, 'cat'", ["cat", "", "cat", ""] * 2, words=YES)
several("no label anywhere", "empty cells", "refused", "has a label", [""] * 8, words=YES)
several("a bar in a name", "escaped by a backslash", "warned", "separated by ';'",
        ["a|b", "c", "a|b;c", "c"] * 2, [r"a\|b", "c", r"a\|b|c", "c"] * 2, words=YES)
several("a word for yes", "--multi-label maybe", "refused", "expected yes, no or auto", SETS,
        words=("--multi-label", "maybe"), code=2)
# fmt: on


# ---------------------------------------------------------------------------- names


def named(name: str, what: str, label: str, file: str = "", other: str = "dog", says: str = "") -> None:
    """A class folder of this name, a file of that, and another class."""

    def make(photos: Path) -> Rows:
        found = plant(photos, label, label) | plant(photos, other, other)
        return found | (copied(photos, f"{label}/{file}", file, label) if file else {})

    CASES.append(Case("name", name, what, "warned" if says else "right", says, make))


def not_utf8(photos: Path) -> Rows:
    found = two(photos)
    write(photos / "cat" / os.fsdecode(b"\xe9.png"), plain("bytes", 0))
    return found


named("Chinese", "a class in Chinese", "猫")
named("an accent as two characters", "e and a combining accent, as macOS writes it", "cafe\u0301")
named("right to left", "with a character that reverses the text", "\u202etac")
named("a newline", "in the class and in the file", "two\nlines", "a\nb.png")
named("quotes", "of both kinds", '"cat\'s"', "\"'.png")
named("markup", "a script, if a page did not escape it", "<script>alert(1)<", "<img src=x onerror=alert(1)>.png")
named("a terminal's colours", "an escape sequence, if a terminal obeyed it", "\x1b[31mred")
named("brackets", "[bold] and [/], which Rich would read as its own", "[bold]cat[", "[red].png")
named("a backslash", "in the class and in the file", "back\\slash", "a\\b.png")
named("a dash in front", "like a command-line option", "-rf")
named("a space", "a class name that is only a space", " ")
named("nan", "a class that pandas would read as a gap", "nan")
named("the longest class", "255 bytes", "c" * 255)
named("the longest file", "255 bytes", "cat", "f" * 251 + ".png")
named("stars", "*, ? and [a-z], as in patterns", "*?[a-z]")
named("twins by case", "Cat and cat", "Cat", other="cat", says="differ by case")
named("twins by an accent", "é as one character and as two", "caf\u00e9", other="cafe\u0301", says="differ by case")
for name, what, outcome, says, make, words in (
    ("bytes that are not text", "a name in another encoding", "skipped", "their names are not UTF-8", not_utf8, ()),
    ("a folder of stars", "--path 'pho*s[1]', which is no pattern here", "right", "",
     lambda photos: two(photos.parent / "pho*s[1]") and None, ("--path", "pho*s[1]")),
):  # fmt: skip
    CASES.append(Case("name", name, what, outcome, says, make, words))


# ---------------------------------------------------------------------------- settings


def knob(says: str, what: str, *words: str, code: int = 2) -> None:
    name = " ".join(words).strip()
    CASES.append(Case("knob", name, what, "refused", says, lambda photos: two(photos) and None, words, code))


knob("--size 0", "no pixels", "--size", "0")
knob("--size 8.5", "half a pixel", "--size", "8.5")
knob("--bs", "no images per batch", "--bs", "0")
knob("--epochs 0", "nothing would be trained", "--epochs", "0")
knob("--valid-pct", "a share of nothing", "--valid-pct", "0")
knob("--lr", "not finite", "--lr", "nan")
knob("--limit 0", "no images", "--limit", "0")
knob("--precision", "an unknown word", "--precision", "fp7")
knob("'--size'", "a misspelt knob", "--sise", "8")
knob("--size", "a knob without its value", "--size")
knob("--group: empty", "an unset shell variable", "--group", "")
knob("--labels: empty", "the same", "--labels", "")
knob("--checkpoints: empty", "the same", "--checkpoints", "")
knob("--checkpoints s3://: incomplete address", "an unset bucket variable", "--checkpoints", "s3://")
knob("--best-by: empty", "the same", "--best-by", "")
knob("not both", "labels from a table and from names", "--labels", "labels.csv", "--label-regex", "(a)")
knob("No folder of images was given", "an empty path", "--path", "", code=3)
knob("--dropout", "nothing is left", "--dropout", "1")
knob("--filters 0,4", "a layer without channels", "--filters", "0,4")
knob("--filters", "no layer at all", "--filters", "")


def group(says: str, what: str, given: str, patients: str = "", code: int = 3) -> None:
    """--group with the patients of cat/0.png …, dog/5.png in a table, a letter each, where there is one."""

    def make(photos: Path) -> None:
        rows = zip(two(photos).items(), patients, strict=bool(patients))
        write(
            photos / "labels.csv",
            "".join(["file,label,patient\n", *(f"{file},{label},{p.strip()}\n" for (file, label), p in rows)]).encode(),
        )

    words = ("--group", given, *(TABLE if patients else ()))
    CASES.append(Case("knob", f"--group {given}: {patients or 'no table'}", what, "refused", says, make, words, code))


group("is empty for 2 of 12 images: cat/1.png, dog/5.png", "a column with gaps", "patient", "a bcdefghij ")
group("All 12 images are in one group, 'a'", "a column of one value", "patient", "aaaaaaaaaaaa")
group("cat (6 images, all of 'a')", "a class with only one group", "patient", "aaaaaaabcdea")
group("did you mean 'patient'?", "a misspelt column", "pateint", "abcdefabcdef", code=2)
group("There is no table with further columns", "a column, and no table", "patient", code=2)
group("does not match 11 of 12 paths: cat/1.png", "a pattern that some paths do not have", "cat/0")
group("regular expression", "a pattern that never ends", "(cat", code=2)
group("All 12 images are in one group, 'png'", "a pattern that gives every path the same group", "png$")
knob("there is no such column", "a column of times, and no table", "--split-by", "taken")
knob("leave no images to train on", "everything is held out", "--test-pct", "0.9")
