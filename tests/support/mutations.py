"""Sound files, damaged: bytes flipped and cut, JSON values and CSV cells replaced by odd ones, headers that lie.

Every function takes a `random.Random`, so that hypothesis may choose, and try again with less.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from random import Random
from typing import Any

from PIL import Image

ODD_TEXT = [
    *("", " ", "\0", "\n", '"', ",", "nan", "-1", "1e999", "0x10", "../../../etc/passwd", "/dev/zero", "a" * 5000),
    *("<script>alert(1)</script>", "{{ 7*7 }}", "$x^$", "\ufeff", "\u202e", "é", "樹", "C:\\", "%s", "'; --", "true"),
]
ODD_VALUES = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**17, -(10**17), 10**400, 0.5, -0.0, 1e308, -1e308, 1e-320),
    *(float("nan"), float("inf"), float("-inf"), [], {}, [[]], [None], {"": None}, [1, "a", None], [10**9], [0, 0]),
    *ODD_TEXT,
]


def in_bytes(data: bytes, rng: Random) -> bytes:
    """One to four blows at the bytes."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(found)) if found else 0
        size = min(rng.choice([1, 1, 2, 4, 16, 300]), max(1, len(found) - at))
        blow = rng.randrange(7)
        if not found or blow == 0:
            found[at:at] = bytes(rng.randrange(256) for _ in range(min(size, 16)))
        elif blow == 1:
            found[at] ^= 1 << rng.randrange(8)
        elif blow == 2:
            found[at : at + size] = bytes([rng.choice([0, 1, 127, 128, 255])]) * size
        elif blow == 3:
            del found[at : at + size]
        elif blow == 4:
            found[at:at] = found[at : at + size]
        elif blow == 5:
            del found[at:]
        else:
            other = rng.randrange(len(found))
            found[at : at + size] = found[other : other + size]
    return bytes(found)


def in_json(data: bytes, rng: Random) -> bytes:
    """One to three values replaced, removed, wrapped, called otherwise."""
    if rng.randrange(6) == 0:
        return in_bytes(data, rng)
    value = json.loads(data)
    for _ in range(rng.randint(1, 3)):
        holder, key = _place(value, rng)
        if holder is None:
            return json.dumps(rng.choice(ODD_VALUES)).encode()
        change = rng.randrange(8)
        if change == 0:
            del holder[key]
        elif change == 1:
            holder[key] = [holder[key]]
        elif change == 2:
            holder[key] = {"a": holder[key]}
        elif change == 3 and isinstance(holder, dict):
            holder[rng.choice([*ODD_TEXT, "format", "value"])] = holder.pop(key)
        elif change == 4 and isinstance(holder[key], int | float):
            holder[key] = holder[key] * rng.choice([-1, 0, 1000, 1e9, 0.001])
        else:
            holder[key] = rng.choice(ODD_VALUES)
    return json.dumps(value).encode()


def _place(value: Any, rng: Random) -> tuple[Any, Any]:
    """Somewhere in a value: what holds it, and its key there."""
    holder, key = None, None
    while isinstance(value, dict | list) and value and (holder is None or rng.randrange(4)):
        holder, key = value, rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        value = holder[key]
    return holder, key


def in_csv(data: bytes, rng: Random) -> bytes:
    """One to three rows, columns or cells."""
    if rng.randrange(6) == 0:
        return in_bytes(data, rng)
    rows = [line.split(",") for line in data.decode().splitlines()]
    for _ in range(rng.randint(1, 3)):
        row, column = rng.choice([0, rng.randrange(len(rows))]), rng.randrange(max(1, len(rows[0])))
        change = rng.randrange(9)
        if change == 0 and len(rows) > 1:
            del rows[row]
        elif change == 1:
            rows.insert(row, list(rows[row]))
        elif change == 2:
            rows = [cells[:column] + cells[column + 1 :] for cells in rows]
        elif change == 3:
            rows[row].insert(column, rng.choice(ODD_TEXT))
        elif change == 4:
            rows[row] = rows[row][:column]
        elif change == 5:
            rows = rows[:1]
        elif change == 6:
            rows[0][column : column + 1] = [rows[0][0]] if rows[0] else []
        elif column < len(rows[row]):
            rows[row][column] = rng.choice([*ODD_TEXT, rows[-1][0] if rows[-1] else ""])
    text = "\n".join(map(",".join, rows)) + rng.choice(["\n", "", "\r\n", '"', "\0"])
    return text.encode("utf-16" if rng.randrange(30) == 0 else "utf-8", "surrogateescape")


def in_safetensors(data: bytes, rng: Random) -> bytes:
    """The header's length, its JSON, or bytes anywhere."""
    (length,) = struct.unpack("<Q", data[:8])
    header, rest = data[8 : 8 + length], data[8 + length :]
    change = rng.randrange(4)
    if change == 0:
        return in_bytes(data, rng)
    if change == 1:
        return struct.pack("<Q", rng.choice([0, 1, length - 1, length + 1, 2**20, 2**40, 2**64 - 1])) + header + rest
    if change == 2:
        return data[:8] + in_bytes(header[:400], rng) + header[400:] + rest
    header = in_json(header, rng)
    return struct.pack("<Q", len(header)) + header + rest


def pictures() -> dict[str, bytes]:
    """A small picture in each format that is read, upright and turned."""
    found = {}
    base = Image.linear_gradient("L").resize((24, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    for suffix, image, options in [
        ("jpg", base.convert("RGB"), {"exif": exif}),
        ("gray.jpg", base, {}),
        ("cmyk.jpg", base.convert("CMYK"), {}),
        ("progressive.jpg", base.convert("RGB"), {"progressive": True}),
        ("png", base.convert("RGBA"), {"exif": exif}),
        ("palette.png", base.convert("P"), {"transparency": 3}),
        ("deep.png", base.convert("I;16"), {}),
        ("gif", base.convert("P"), {"save_all": True, "append_images": [base.rotate(90)]}),
        ("webp", base.convert("RGBA"), {}),
        ("bmp", base.convert("RGB"), {}),
        ("tif", base.convert("RGB"), {"compression": "tiff_lzw"}),
        ("tiff", base.convert("RGB"), {"exif": exif}),
        ("ppm", base.convert("RGB"), {}),
    ]:
        buffer = io.BytesIO()
        kind = {"jpg": "JPEG", "tif": "TIFF", "tiff": "TIFF", "ppm": "PPM"}.get(suffix.split(".")[-1])
        image.save(buffer, kind or suffix.split(".")[-1].upper(), **options)
        found[f"odd.{suffix}"] = buffer.getvalue()
    return found


Mutation = Callable[[bytes, Random], bytes]
