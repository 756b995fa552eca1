"""What the JSON files of a run folder hold; a file that holds anything else there is refused before it is used.

A run folder may be untrusted, or off a damaged disk. `load` reads a file within bounds and checks it against
its declaration, so that the code behind it can take `record["data"]["images"]` for what it is called. Keys may lack,
or be null, and strange ones may be there, for older and newer versions of fastcls write others.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
from pathlib import Path
from typing import Any, Literal, TypedDict, Union, get_args, get_origin, get_type_hints, is_typeddict

from fastcls.runfolder import inside
from fastcls.settings.options import Options

LARGEST = 16_000_000  # bytes; 10,000 classes take 0.3 million, and Python 20 times as many for the worst of lists
LONGEST = 18  # digits of an integer, which 64 bits hold


class Data(TypedDict, total=False):
    """Of run.json: which images."""

    root: str
    fingerprint: str
    images: dict[str, int]
    classes: int


class Run(TypedDict, total=False):
    """run.json."""

    format: int
    recipe: str
    title: str
    claim: str
    command: str
    folder: str
    knobs: dict[str, dict[str, Any]]
    options: Options
    extra: dict[str, Any]
    seed: int
    versions: dict[str, Any]
    device: dict[str, Any]
    status: str
    reason: str
    started: str
    notes: list[str]
    data: Data
    wall_seconds: float
    train_seconds: float
    network: dict[str, float | None]
    speed: dict[str, float | None]
    loss: dict[str, float | None]
    peak_memory_bytes: float | None
    best_epoch: int | None
    weights: str
    resumed: list[str]
    extensions: list[int]
    tracking: dict[str, dict[str, str | None]]


class Preprocessing(TypedDict, total=False):
    """Of model.json: the specification that `fastcls.images.preprocessing` follows."""

    mode: Literal["RGB", "L"]
    method: Literal["crop", "squish", "pad", ""]
    resize: list[int] | None
    size: list[int] | None
    pad_mode: Literal["reflection", "border", "zeros", ""]
    interpolation: Literal["bilinear", "bicubic"]
    mean: list[float] | None
    std: list[float] | None


class Model(TypedDict, total=False):
    """model.json."""

    format: int
    arch: str
    build: dict[str, Any]
    classes: list[str]
    preprocessing: Preprocessing | None
    temperature: float | None
    parameters: int | None
    trainable: int | None
    sha256: dict[str, str]
    summary: list[dict[str, Any]]


class Figure(TypedDict, total=False):
    """Of metrics.json: a figure with its 95 % interval."""

    value: float | None
    low: float | None
    high: float | None
    n: int | None


Metrics = dict[str, dict[str, Figure | float | None]]  # a split, then a figure
KINDS: dict[str, Any] = {"run.json": Run, "model.json": Model, "metrics.json": Metrics}


def load(path: Path, errors: str = "strict") -> dict[str, Any]:
    """A JSON object, checked against what a file of its name holds; OSError or ValueError where it is not that.

    errors: what becomes of bytes that are not UTF-8.
    """
    if path.name == "run.json":  # which is read before all else of a run folder
        inside.check(path.parent)
    with inside.opened(path) as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST // 1_000_000} MB")
    try:
        value = json.loads(data.decode("utf-8", errors), parse_int=_whole)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("it does not hold a JSON object")
    if errors == "strict" and b"\\u" in data:  # half a character may be written so
        json.dumps(value, ensure_ascii=False).encode()
    check(value, KINDS.get(path.name, Any))
    return value


def _whole(digits: str) -> int:
    if len(digits.lstrip("-")) > LONGEST:
        raise ValueError(f"it has a number of {len(digits):,} digits")
    return int(digits)


def check(value: Any, kind: Any, where: str = "") -> None:
    """ValueError, naming the place, where a value is not of a kind: a class, a record, list[…], dict[…], a union.

    What is null in a record and may not be is taken out of it.
    """
    if kind is Any:
        return
    if _is_record(kind):
        _require(isinstance(value, dict), value, "an object", where)
        for name, inner in _fields(kind).items():
            if value.get(name, 0) is None and not _is(None, inner):
                del value[name]
            elif name in value:
                check(value[name], inner, f"{where}.{name}".lstrip("."))
        return
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if not any(_is(value, one) for one in inner):
            check(value, max(inner, key=lambda one: _meant(value, one)), where)
    elif origin is Literal:
        _require(value in inner, value, " or ".join(map(repr, inner)), where)
    elif origin in (list, tuple):
        _require(isinstance(value, list), value, "a list", where)
        for index, item in enumerate(value):
            check(item, inner[0], f"{where}[{index}]")
    elif origin is dict:
        _require(isinstance(value, dict), value, "an object", where)
        for name, item in value.items():
            check(item, inner[1], f"{where}.{_shown(name)}".lstrip("."))
    elif kind is float:
        _require(isinstance(value, int | float) and not isinstance(value, bool), value, "a number", where)
    elif kind is int:
        _require(isinstance(value, int) and not isinstance(value, bool), value, "an integer", where)
    else:
        _require(isinstance(value, kind), value, NAMES.get(kind, kind.__name__), where)


NAMES = {str: "text", bool: "true or false", type(None): "null"}


def _is_record(kind: Any) -> bool:
    return is_typeddict(kind) or dataclasses.is_dataclass(kind)


@functools.cache
def _fields(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _is(value: Any, kind: Any) -> bool:
    try:
        check(value, kind)
    except ValueError:
        return False
    return True


def _meant(value: Any, kind: Any) -> int:
    """Which member of a union a wrong value was meant to be: that of its own JSON kind, else the first but null."""
    origin = get_origin(kind) or kind
    if (isinstance(value, dict) and (origin is dict or _is_record(kind))) or (
        isinstance(value, list) and origin is list
    ):
        return 2
    return int(kind is not type(None))


def _require(holds: bool, value: Any, wanted: str, where: str) -> None:
    if not holds:
        raise ValueError(f"{where or 'it'} is {_shown(value)}, where {wanted} belongs")


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
