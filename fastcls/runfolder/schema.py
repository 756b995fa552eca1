"""What the JSON files of a run folder hold; a file that holds anything else there is refused before it is used.

A run folder may be untrusted, or off a damaged disk. `load` reads a file within bounds and checks it against
its declaration, so that the code behind it can take `record["data"]["images"]` for what it is called. Keys may be
missing or null, and unknown ones may be present: older and newer versions of fastcls write others.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args, get_type_hints, is_typeddict

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
    target: str


class Fold(TypedDict):
    """Of run.json: one of the runs that the run of all folds is made of."""

    folder: str  # below the run's own
    started: str
    seed: int
    fold: str
    accuracy: float | None
    images: int
    epoch: int | None


class Folds(TypedDict, total=False):
    """Of run.json: the runs that the run of all folds is made of, and their mean accuracy with its interval."""

    folds: int
    repeats: int
    accuracy: dict[str, float | None]
    runs: list[Fold]


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
    folds: Folds


class Compared(TypedDict, total=False):
    """Of evaluation.json: one thing that new images and those of the run were compared by."""

    name: str
    p: float
    old: float | None
    new: float | None


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
    pool: str  # of a pretrained network's last maps
    build: dict[str, Any]
    classes: list[str]
    preprocessing: Preprocessing | None
    temperature: float | None
    target: str
    thresholds: list[float] | None
    parameters: int | None
    trainable: int | None
    sha256: dict[str, str]
    summary: list[dict[str, Any]]
    members: list[str] | None  # of the mean of several folds: their folders, below this one


class Figure(TypedDict, total=False):
    """Of metrics.json: a figure with its 95 % interval."""

    value: float | None
    low: float | None
    high: float | None
    n: int | None
    groups: int | None  # that the interval is over, where it is not over images


Metrics = dict[str, dict[str, Figure | float | None]]  # a split, then a figure


class Evaluation(TypedDict, total=False):
    """evaluation.json: a run on images that came later."""

    run: str
    own: Metrics  # the run's metrics.json
    split: str  # of the run's images, with which the new ones are compared
    expected: float | None  # accuracy with the new class shares, each class as good as in that split
    unknown: dict[str, int]  # classes that the network does not know: images
    missing: list[str]  # classes without a new image
    trained: int  # images left out, for the run was trained on them
    chosen_on: int  # images whose files are of the run's own validation split
    gaps: list[Compared] | None
    compared: int  # images of each side


Heatmaps = dict[str, dict[str, dict[str, Any]]]  # a split, then an image: the shape and values of its map, its class
KINDS: dict[str, Any] = {
    "run.json": Run,
    "model.json": Model,
    "metrics.json": Metrics,
    "evaluation.json": Evaluation,
    "heatmaps.json": Heatmaps,
}


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
        raise ValueError("it does not contain a JSON object")
    if errors == "strict" and b"\\u" in data:  # half a character may be written so
        json.dumps(value, ensure_ascii=False).encode()
    check(value, KINDS.get(path.name, Any))
    return value


def _whole(digits: str) -> int:
    if len(digits.lstrip("-")) > LONGEST:
        raise ValueError(f"it has a number of {len(digits):,} digits")
    return int(digits)


def check(value: Any, kind: Any) -> None:
    """ValueError, naming the place, where a value is not of a kind: a type, a record, list[…], dict[…], a union.

    What is null in a record and may not be is removed from it.
    """
    import msgspec

    if is_typeddict(kind) and isinstance(value, dict):
        for name, inner in get_type_hints(kind).items():
            if value.get(name, "") is None and type(None) not in get_args(inner):
                del value[name]
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as problem:
        raise ValueError(str(problem).replace("`", "").replace(" - at $.", " at ").replace("[...]", "")) from None
