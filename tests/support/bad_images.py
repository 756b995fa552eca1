"""Image files: damaged, disguised, deep, transparent, turned, moving and oddly shaped."""

from __future__ import annotations

import io
import os
import stat
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bad_case import CASES, SIDE, Case, Outcome, Rows, encoded, grain, plain, two, write
from PIL import Image


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG file of any header and chunks; `rows` begin with their filters."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", head), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def rows(values: np.ndarray) -> bytes:
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
    "web page": ("odd.jpg", b"<!DOCTYPE html><html><title>404</title></html>", "an error page, downloaded instead"),
    "HEIC photograph": ("odd.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(300), "a telephone's file, renamed"),
    "film": ("odd.jpg", b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(300), "an MP4 film, renamed"),
    "archive": ("odd.png", b"PK\x03\x04\x14\0\0\0\x08\0" + bytes(200), "a ZIP archive, renamed"),
    "drawing": ("odd.png", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing, renamed"),
    "pickle": ("odd.png", b"\x80\x04cos\nsystem\n(S'touch owned'\ntR.", "would run a command if it were loaded"),
    "PostScript": ("odd.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
                   "a PostScript program, which Pillow would have Ghostscript run"),
    "nothing but zeros": ("odd.png", bytes(4096), "a file that a crashed disk left full of zeros"),
}  # fmt: skip
for title, (name, data, what) in DOCUMENTS.items():
    image(title, what, "refused", "not an image", f"cat/{name}", lambda data=data: data)
image("empty file", "0 bytes under an image's name", "refused", "an empty file", "cat/odd.png", lambda: b"")
image("half a JPEG", "a download that was cut off", "refused", "truncated", "dog/odd.jpg",
      lambda: encoded(BIG, "JPEG")[:-500])  # fmt: skip
image(
    "half a PNG",
    "cut off amid its pixels",
    "refused",
    "odd.png: image file is truncated",
    "dog/odd.png",
    lambda: encoded(BIG)[:9000],
)
image("JPEG without pixels", "nothing after its first bytes", "refused", "odd.jpg: not an image", "dog/odd.jpg",
      lambda: jpeg()[:20])  # fmt: skip
image("PNG signature alone", "eight bytes", "refused", "not an image", "dog/odd.png", lambda: encoded(ODD)[:8])
image("PNG with a wrong checksum", "a bit of its pixels was flipped", "refused", "broken data stream", "cat/odd.png",
      lambda: (lambda d: d[:60] + bytes([d[60] ^ 1]) + d[61:])(encoded(BIG)))  # fmt: skip
image("WebP cut short", "cut off amid its pixels", "refused", "odd.webp: ", "cat/odd.webp",
      lambda: (lambda d: d[: len(d) // 2])(encoded(BIG, "WEBP")))  # fmt: skip
image("GIF without pixels", "nothing after its header", "refused", "odd.gif: not an image", "cat/odd.gif",
      lambda: encoded(BIG, "GIF")[:30])  # fmt: skip
image("JPEG damaged within", "some bytes are garbled: libjpeg complains and fills up", "warned", "Damaged JPEG",
      "cat/odd.jpg", lambda: (lambda d: d[:-2] + b"\0\x11\x22" * 9 + d[-2:])(encoded(BIG, "JPEG")))  # fmt: skip
image("bomb", "a few bytes that say they are 20,000 × 20,000 pixels", "refused", "decompression bomb", "cat/odd.png",
      lambda: png(20_000, 20_000, 8, 2, b""))  # fmt: skip
image("bomb in a GIF", "65,535 × 65,535 pixels by its header", "refused", "decompression bomb", "cat/odd.gif",
      lambda: b"GIF89a\xff\xff\xff\xff\0\0\0" + b",\0\0\0\0\xff\xff\xff\xff\0\x08\0;")  # fmt: skip
image("41 million pixels", "more than decodes in a blink", "warned", "Huge images", "cat/odd.png",
      lambda: encoded(Image.fromarray(GRAY > 100).resize((6400, 6464), Image.Resampling.NEAREST)))  # fmt: skip
for suffix in (".txt", ".mp4", ".heic", ".svg", ".psd", ".part", ""):
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


special("named pipe", "would be waited for for ever", "skipped", "neither file nor folder", os.mkfifo)
special("socket", "left behind by a program", "skipped", "neither file nor folder",
        lambda file: os.mknod(file, stat.S_IFSOCK | 0o600))  # fmt: skip
special("link to a pipe", "leads to a named pipe", "skipped", "neither file nor folder", _link_to_a_pipe)
special("dangling link", "leads to a file that was removed", "refused", "odd.png: No such file",
        lambda file: file.symlink_to("removed.png"))  # fmt: skip
special("link to itself", "goes round in a circle", "refused", "Too many levels of symbolic links",
        lambda file: file.symlink_to("odd.png"))  # fmt: skip
special("link to an image", "leads out of the folder, to a good one", "right", "", _linked)


# ---------------------------------------------------------------------------- depths, colours, transparency

DEEP_SAYS = "16-bit gray images"
EIGHT = gray(np.rint(DEEP / 257).astype(np.uint8))
image("16-bit gray PNG", "0 … 65,535", "warned", DEEP_SAYS, "cat/odd.png", lambda: encoded(DEEP), EIGHT)
image("16-bit gray TIFF", "little-endian", "warned", DEEP_SAYS, "cat/odd.tif", lambda: encoded(DEEP, "TIFF"), EIGHT)
image("16-bit gray TIFF, big-endian", "as microscopes write it", "warned", DEEP_SAYS, "cat/odd.tif",
      lambda: encoded(Image.frombytes("I;16B", (SIDE, SIDE), DEEP.astype(">u2").tobytes()), "TIFF"), EIGHT)  # fmt: skip
image("16-bit PGM", "0 … 65,535", "warned", DEEP_SAYS, "cat/odd.pgm",
      lambda: b"P5 8 8 65535\n" + DEEP.astype(">u2").tobytes(), EIGHT)  # fmt: skip
image("10-bit PGM", "its header says that 1,023 is white", "warned", DEEP_SAYS, "cat/odd.pgm",
      lambda: b"P5 8 8 1023\n" + (DEEP // 64).astype(">u2").tobytes(),
      lambda: gray(np.rint((DEEP // 64) / 1023 * 255).astype(np.uint8)))  # fmt: skip
image("12 bits in 16", "an X-ray of 0 … 4,095 in a 16-bit file: almost black", "warned", DEEP_SAYS,
      "cat/odd.png", lambda: encoded(DEEP // 16),
      lambda: gray(np.rint(DEEP // 16 / 257).astype(np.uint8)))  # fmt: skip
image("16-bit gray with a transparent value", "one value stands for nothing", "warned", DEEP_SAYS, "cat/odd.png",
      lambda: png(SIDE, SIDE, 16, 0, rows(DEEP), (b"tRNS", struct.pack(">H", int(DEEP[3, 3])))),
      lambda: np.where(gray(DEEP[3, 3] == DEEP), 255, EIGHT).astype(np.uint8))  # fmt: skip
image("16-bit colours", "a PNG of three channels of 16 bits", "right", "", "cat/odd.png",
      lambda: png(SIDE, SIDE, 16, 2, rows(ODD.astype(np.uint16) * 257 + 3)), ODD)  # fmt: skip
image("16-bit colours and transparency", "four channels of 16 bits", "right", "", "cat/odd.png",
      lambda: png(SIDE, SIDE, 16, 6, rows(np.dstack([ODD, ALPHA]).astype(np.uint16) * 257)),
      lambda: on_white(ODD, ALPHA))  # fmt: skip
image("floats from 0 to 1", "a TIFF of floating-point numbers: nothing says which is white", "refused",
      "floating-point numbers", "cat/odd.tif", lambda: encoded((DEEP / 65535).astype(np.float32), "TIFF"))  # fmt: skip
image("32-bit integers", "a TIFF whose white nobody knows", "refused", "32-bit integers", "cat/odd.tif",
      lambda: encoded(DEEP.astype(np.int32) * 9, "TIFF"))  # fmt: skip
image("float map", "a portable float map named .pgm", "refused", "floating-point numbers", "cat/odd.pgm",
      lambda: b"Pf\n8 8\n-1.0\n" + (DEEP / 65535).astype("<f4").tobytes())  # fmt: skip
image("black and white", "one bit a pixel", "right", "", "cat/odd.png",
      lambda: encoded(Image.fromarray(GRAY > 100)), lambda: gray((GRAY > 100).astype(np.uint8) * 255))  # fmt: skip
image("two bits a pixel", "four grays", "right", "", "cat/odd.png",
      lambda: png(SIDE, SIDE, 2, 0, b"".join(b"\0\x1b\xe4" for _ in range(SIDE))),
      lambda: gray(np.tile(np.array([0, 85, 170, 255, 255, 170, 85, 0], np.uint8), (SIDE, 1))))  # fmt: skip
image("gray among coloured", "a JPEG of one channel", "right", "", "cat/odd.jpg", lambda: encoded(GRAY, "JPEG"),
      lambda: reread(encoded(GRAY, "JPEG")))  # fmt: skip
image("palette", "256 colours at most", "right", "", "cat/odd.png", lambda: encoded(Image.fromarray(ODD).quantize(32)),
      lambda: np.asarray(Image.fromarray(ODD).quantize(32).convert("RGB")))  # fmt: skip
image("palette with a transparent colour", "what is transparent becomes white", "right", "", "cat/odd.png",
      lambda: png(SIDE, SIDE, 8, 3, rows(np.arange(64, dtype=np.uint8).reshape(SIDE, SIDE) % 3),
                  (b"PLTE", bytes([255, 0, 0, 0, 255, 0, 0, 0, 255])), (b"tRNS", bytes([255, 0]))),
      lambda: np.array([[255, 0, 0], [255] * 3, [0, 0, 255]], np.uint8)[np.arange(64).reshape(8, 8) % 3])  # fmt: skip
image("palette of half-transparent colours", "each colour with its own transparency", "right", "", "cat/odd.png",
      lambda: png(SIDE, SIDE, 8, 3, rows(np.arange(64, dtype=np.uint8).reshape(SIDE, SIDE) % 2),
                  (b"PLTE", bytes([200, 0, 0, 0, 100, 0])), (b"tRNS", bytes([51, 204]))),
      lambda: np.array([[244, 204, 204], [51, 131, 51]], np.uint8)[np.arange(64).reshape(8, 8) % 2])  # fmt: skip
image("transparent PNG", "a cut-out: what is transparent becomes white", "right", "", "cat/odd.png",
      lambda: encoded(np.dstack([ODD, ALPHA])), lambda: on_white(ODD, ALPHA))  # fmt: skip
image("transparent gray PNG", "gray with transparency", "right", "", "cat/odd.png",
      lambda: encoded(Image.merge("LA", [Image.fromarray(GRAY), Image.fromarray(ALPHA)])),
      lambda: on_white(gray(GRAY), ALPHA))  # fmt: skip
image("PNG with a transparent colour", "black stands for nothing", "right", "", "cat/odd.png",
      lambda: encoded(ODD * (ALPHA > 99)[..., None], transparency=(0, 0, 0)),
      lambda: np.where(ALPHA[..., None] > 99, ODD, 255).astype(np.uint8))  # fmt: skip
image("transparent WebP", "lossless, with transparency", "right", "", "cat/odd.webp",
      lambda: encoded(np.dstack([ODD, np.maximum(ALPHA, 1)]), "WEBP", lossless=True, exact=True),
      lambda: on_white(ODD, np.maximum(ALPHA, 1)))  # fmt: skip
image("transparent TIFF", "four channels", "right", "", "cat/odd.tif",
      lambda: encoded(np.dstack([ODD, ALPHA]), "TIFF"), lambda: on_white(ODD, ALPHA))  # fmt: skip
image("nothing to be seen", "transparent all over: white", "warned", "Blank images", "cat/odd.png",
      lambda: encoded(np.dstack([ODD, ALPHA * 0])), lambda: ODD * 0 + 255)  # fmt: skip
image("CMYK JPEG", "for a printing press", "warned", "CMYK images", "cat/odd.jpg",
      lambda: encoded(Image.fromarray(ODD).convert("CMYK"), "JPEG", quality=100, subsampling=0),
      lambda: reread(encoded(ODD, "JPEG", quality=100, subsampling=0)))  # fmt: skip
image("CMYK TIFF", "for a printing press", "warned", "CMYK images", "cat/odd.tif",
      lambda: encoded(Image.fromarray(ODD).convert("CMYK"), "TIFF"), ODD)  # fmt: skip
image("colour profile", "a profile is inside: the numbers are taken as they are", "right", "", "cat/odd.png",
      lambda: encoded(ODD, icc_profile=b"none that anyone could use"), ODD)  # fmt: skip


# ---------------------------------------------------------------------------- turned, moving, odd formats and shapes

TALL = grain(9, 6, 10)
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    3: lambda p: np.rot90(p, 2), 5: lambda p: p.transpose(1, 0, 2), 6: lambda p: np.rot90(p, -1), 8: np.rot90,
}  # fmt: skip
XMP = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:RDF><rdf:Description tiff:Orientation="6"/>'
for turn, kind, what in (
    (6, "JPEG", "a telephone held upright"), (3, "JPEG", "a camera upside down"), (5, "JPEG", "mirrored and turned"),
    (8, "PNG", "turned by its eXIf chunk"), (6, "WEBP", "turned by its EXIF chunk"), (6, "TIFF", "turned by its tag"),
):  # fmt: skip
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    image(f"{kind} with EXIF orientation {turn}", what, "right", "", f"cat/odd.{kind.lower()}",
          lambda turn=turn, kind=kind, options=options: encoded(TALL, kind, exif=exif(turn), **options),
          lambda turn=turn, kind=kind, opts=options: TURNS[turn](reread(encoded(TALL, kind, **opts))))  # fmt: skip
image("orientation in XMP alone", "no EXIF, but a note of an editor", "right", "", "cat/odd.jpg",
      lambda: (lambda d: d[:2] + b"\xff\xe1" + struct.pack(">H", len(XMP) + 2) + XMP + d[2:])(jpeg(TALL)),
      lambda: TURNS[6](reread(jpeg(TALL))))  # fmt: skip
image("EXIF orientation 9", "there are only eight", "right", "", "cat/odd.jpg", lambda: jpeg(TALL, exif=exif(9)),
      lambda: reread(jpeg(TALL)))  # fmt: skip
image("damaged EXIF", "nothing that can be read, in a good picture", "right", "", "cat/odd.jpg",
      lambda: jpeg(TALL, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\0\1"), lambda: reread(jpeg(TALL)))  # fmt: skip
MOVES = [Image.fromarray(grain(20 + i)) for i in range(3)]
MOVING = "Animations and several pages"
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
image(
    "a column", "1 × 4,000 pixels", "right", "", "cat/odd.png", lambda: encoded(grain(31, 1, 4000)), grain(31, 1, 4000)
)
image(
    "of one colour",
    "a blank picture",
    "warned",
    "Blank images",
    "cat/odd.png",
    lambda: encoded(ODD * 0 + 90),
    ODD * 0 + 90,
)
image("PNG named .jpg", "read by what it holds", "right", "", "cat/odd.jpg", lambda: encoded(ODD), ODD)
image("JPEG named .png", "read by what it holds", "right", "", "cat/odd.png", jpeg, lambda: reread(jpeg()))
image("suffix in capitals", ".PNG", "right", "", "cat/ODD.PNG", lambda: encoded(ODD), ODD)
image("progressive JPEG", "sharpens as it loads", "right", "", "cat/odd.jpg", lambda: jpeg(progressive=True),
      lambda: reread(jpeg()))  # fmt: skip
image("RGB inside a JPEG", "not YCbCr, as usual", "right", "", "cat/odd.jpg", lambda: jpeg(keep_rgb=True),
      lambda: reread(jpeg(keep_rgb=True)))  # fmt: skip
image("rubbish behind a JPEG", "bytes after its end", "right", "", "cat/odd.jpg", lambda: jpeg() + b"appended" * 99,
      lambda: reread(jpeg()))  # fmt: skip
image("BMP from bottom to top", "as Windows writes them", "right", "", "cat/odd.bmp", lambda: encoded(ODD, "BMP"), ODD)
image("JPEG 2000", "lossless", "right", "", "cat/odd.jp2", lambda: encoded(ODD, "JPEG2000"), ODD)
image("numbers in words", "a PPM in ASCII", "right", "", "cat/odd.ppm",
      lambda: b"P3 8 8 255\n" + b" ".join(b"%d" % value for value in ODD.ravel()), ODD)  # fmt: skip
