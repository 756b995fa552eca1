"""An ONNX file looked through before it is run: nothing outside of it is read, and nothing in it runs for ever.

onnxruntime refuses what is malformed, unknown operators and weights that are not as large as they say. Two things it
does are more than a classifier of images needs: weights in other files, which may be any file that this user can
read, and loops, which need not end. Only the fields that tell of these are looked at, for the package onnx takes as
long to import as `fastcls predict` has for its first answer.

Source: onnx.proto, version 1.20; https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

LOOPS = {b"Loop", b"Scan", b"SequenceMap"}
MOST_FIELDS = 400_000  # looked at, in half a second; the largest networks of timm have some 100,000
DEEPEST = 20  # graphs within operators within graphs

MODEL, FUNCTION, GRAPH, NODE, ATTRIBUTE, TENSOR, SPARSE = range(7)  # kinds of messages
# of each kind: the numbers of the fields that hold messages, and their kind
INSIDE: dict[int, dict[int, int]] = {
    MODEL: {7: GRAPH, 25: FUNCTION},
    GRAPH: {1: NODE, 5: TENSOR, 15: SPARSE},
    FUNCTION: {7: NODE},
    NODE: {5: ATTRIBUTE},
    ATTRIBUTE: {5: TENSOR, 6: GRAPH, 10: TENSOR, 11: GRAPH, 22: SPARSE, 23: SPARSE},
    SPARSE: {1: TENSOR, 2: TENSOR},
    TENSOR: {},
}
OP_TYPE, EXTERNAL_DATA, DATA_LOCATION = 4, 13, 14


class Unsafe(ValueError):
    """What an ONNX file asks for that no classifier needs."""


def look_through(file: Path) -> None:
    """Unsafe where an ONNX file keeps weights elsewhere or loops; ValueError where it is no ONNX file."""
    with file.open("rb") as stream:
        if not stream.read(1):
            raise ValueError("it is empty")
        data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)  # closed when nothing looks at it any more
    _look(memoryview(data), MODEL, 0, iter(range(MOST_FIELDS)))


def _look(message: memoryview, kind: int, depth: int, left: Iterator[int]) -> None:
    """left: one for each field that may still be looked at."""
    if depth > DEEPEST:
        raise Unsafe("its graphs are nested too deeply")
    for number, value in _fields(message):
        if next(left, None) is None:
            raise Unsafe(f"it has more than {MOST_FIELDS:,} parts")
        if kind == TENSOR and (number == EXTERNAL_DATA or (number == DATA_LOCATION and value != 0)):
            raise Unsafe("it stores weights in another file")
        if isinstance(value, int):
            continue
        if kind == NODE and number == OP_TYPE and bytes(value[:20]) in LOOPS:
            raise Unsafe(f"it contains a loop ({bytes(value).decode()}), which may not end")
        if number in INSIDE[kind]:
            _look(value, INSIDE[kind][number], depth + (kind == ATTRIBUTE), left)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """(number, what it holds) of each field of a message."""
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        match key & 7:
            case 0:
                value, at = _varint(message, at)
                yield key >> 3, value
            case 1:
                at += 8
            case 2:
                size, at = _varint(message, at)
                if size > end - at:
                    raise ValueError("it is truncated")
                yield key >> 3, message[at : at + size]
                at += size
            case 5:
                at += 4
            case _:
                raise ValueError("it is not an ONNX file")
    if at > end:
        raise ValueError("it is truncated")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError("it is not an ONNX file")
