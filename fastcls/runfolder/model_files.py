"""A run's network as it is in its folder: model.json, model.safetensors and model.onnx, checked before use.

model.json keeps the sha256 of the other two, so that a damaged file, or one of another run with other classes in
another order, is refused. What a network may ask of this machine is bounded too: the folder may be untrusted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fastcls.errors import OutputError
from fastcls.runfolder import runs

RECORD, WEIGHTS, NETWORK = "model.json", "model.safetensors", "model.onnx"
CHANNELS = {"RGB": 3, "L": 1}
LONGEST_SIDE = 4096  # pixels of a prepared image; ImageNet classifiers take 224, the largest of timm 1,024
LONGEST_HEADER = 2_000_000  # bytes of a .safetensors file; a network of 10,000 tensors needs one million


def read(run: Path) -> dict[str, Any]:
    """model.json; OutputError where its classes or its preprocessing cannot be what a network was trained with."""
    record = runs.read_json(run / RECORD)
    if reason := next(_faults(record), ""):
        raise OutputError(f"{run / RECORD} is invalid: {reason}.", "Restore the file that the run wrote.")
    return record


def _faults(record: Mapping[str, Any]) -> Iterator[str]:
    for name in record.get("sha256", {}):
        if Path(name).name != name:
            yield f"it names {name!r}, a file that is not in the same folder"
    for name, times in Counter(record.get("classes", [])).items():
        if times > 1:
            yield f"it has the class {name!r} twice"
    for name in record.get("members") or []:
        if not name or Path(name).is_absolute() or ".." in Path(name).parts:
            yield f"it names {name!r}, a folder that is not inside it"
    if reason := problem_of(record.get("preprocessing")):
        yield reason


def problem_of(spec: Mapping[str, Any] | None) -> str:
    """What cannot be about a specification of `fastcls.images.preprocessing`, or ''."""
    if spec is None:
        return ""
    lacking = [key for key in ("mode", "method", "resize", "size", "mean", "std") if key not in spec]
    if lacking:
        return f"its preprocessing has no {', '.join(lacking)}"
    if spec["method"]:
        resize, size = spec["resize"], spec["size"]
        for key, sides in (("resize", resize), ("size", size)):
            if sides is None or len(sides) != 2 or not all(1 <= side <= LONGEST_SIDE for side in sides):
                return f"its preprocessing has {key} {sides} instead of a height and a width from 1 to {LONGEST_SIDE}"
        if any(own > whole for own, whole in zip(size, resize, strict=True)):
            return f"its preprocessing crops {size} from {resize}"
        if spec["method"] == "pad" and not spec.get("pad_mode"):
            return "its preprocessing pads without a pad_mode"
    for key in ("mean", "std"):
        values = spec[key]
        if values is None:
            continue
        if len(values) not in (1, CHANNELS[spec["mode"]]) or not all(map(math.isfinite, values)):
            return f"its preprocessing has {key} {values} instead of one number per channel"
        if key == "std" and min(values) <= 0:
            return f"its preprocessing divides by std {values}"
    return ""


def refuse_several(run: Path, record: Mapping[str, Any]) -> None:
    """OutputError where a run has no network of its own, but one a fold."""
    if members := record.get("members"):
        raise OutputError(
            f"{run} has {len(members)} networks, one per fold; this needs a single one.",
            f"Use the run of one fold: {run / members[0]}. Only predict and evaluate use the mean of all.",
        )


def verify(run: Path, name: str, record: Mapping[str, Any] | None = None) -> Path:
    """The file `name` of a run; OutputError where its sha256 is not the one in model.json.

    record: model.json, where it has been read. Runs of before checksums were kept have none, and pass; so does a
    file that is not there.
    """
    file = run / name
    expected = (runs.read_json(run / RECORD) if record is None else record).get("sha256", {}).get(name)
    if expected is None or not file.is_file():
        return file
    try:
        found = runs.digest(file)
    except OSError as problem:
        raise OutputError(f"{file} cannot be read: {problem.strerror or problem}.") from None
    if found != expected:
        raise OutputError(
            f"{file} is not the file that its run wrote: its sha256 is {found[:12]}…, {RECORD} has {expected[:12]}….",
            "It is damaged, or from another run, whose classes may be in another order. Restore the run's own file. "
            f'If you changed it yourself, remove its line under "sha256" in {run / RECORD}.',
        )
    return file


def refuse_long_header(file: Path) -> None:
    """OutputError for a .safetensors file whose header would take long to read; safetensors itself allows 100 MB."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
    if length > LONGEST_HEADER:
        raise OutputError(f"{file} is not a readable .safetensors file: its header would have {length:,} bytes.")


def sums(run: Path) -> dict[str, str]:
    """The sha256 of each of the network's files that is there, as model.json keeps them."""
    return {name: runs.digest(run / name) for name in (WEIGHTS, NETWORK) if (run / name).is_file()}
