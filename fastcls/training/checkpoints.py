"""Checkpoints on disk that are whole or not there: safetensors and JSON, a manifest of sha256 sums last, two kept.

RUN/checkpoints/00000007/ holds state.json (numbers), state.safetensors (tensors), best.safetensors (the best weights
so far) and MANIFEST, which `sha256sum -c` reads. A folder is written under a temporary name, synced and renamed. One
whose files are not exactly those of its manifest is refused, and the one before it is taken.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastcore.foundation import L
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fastcls.errors import OutputError
from fastcls.runfolder import runs
from fastcls.settings import shell

FOLDER = "checkpoints"
STATE, TENSORS, BEST, MANIFEST = "state.json", "state.safetensors", "best.safetensors", "MANIFEST"
KEPT = 2
FORMAT = 1
MARK = "$"  # a dict with a single key that starts so is one of ours
LONG = 64  # lists of more numbers than this become a tensor


@dataclass(frozen=True)
class Checkpoint:
    """One that was read and found whole: where it lies, what it holds, the best weights so far (empty: none yet)."""

    folder: Path
    state: dict[str, Any]
    best: dict[str, torch.Tensor] = field(default_factory=dict)


class Damaged(Exception):
    """A checkpoint folder is not what its manifest says."""


class Store:
    """The checkpoints of a run; `saved` is called with each new one."""

    def __init__(self, run: Path, saved: Callable[[Path], object] = lambda folder: None) -> None:
        self.home, self.saved = run / FOLDER, saved

    def sweep(self) -> None:
        """Remove what an interrupted save left behind."""
        for leftover in self.home.glob(".*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def folders(self) -> list[Path]:
        """Oldest first, whole or not."""
        return sorted(folder for folder in self.home.glob("[0-9]*") if folder.name.isdigit())

    def save(self, state: Mapping[str, Any], best: Mapping[str, torch.Tensor]) -> Path:
        """Write a checkpoint and drop all but the newest KEPT. OutputError where the disk refuses; the others stay.

        Everything in it comes from memory, the best weights too: linked to the checkpoint before, both would be
        damaged by one fault of the disk, and the manifest would be that of the damaged bytes.
        """
        existing = self.folders()
        number = int(existing[-1].name) + 1 if existing else 1
        temporary, final = self.home / f".{number:08d}", self.home / f"{number:08d}"
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            tensors: dict[str, torch.Tensor] = {}
            text = json.dumps({"format": FORMAT, "state": pack(state, tensors)})
            (temporary / STATE).write_text(text + "\n", encoding="utf-8")
            save_file(tensors, temporary / TENSORS)
            save_file({name: tensor.contiguous() for name, tensor in best.items()}, temporary / BEST)
            files = [temporary / name for name in (STATE, TENSORS, BEST)]
            for file in files:
                _sync(file)
            (temporary / MANIFEST).write_text(_manifest(files), encoding="ascii")
            _sync(temporary / MANIFEST)
            _sync(temporary)
            temporary.rename(final)
            _sync(self.home)
        except (OSError, SafetensorError) as problem:
            shutil.rmtree(temporary, ignore_errors=True)
            go_on = shell.command("resume", self.home.parent)
            hint = f"Earlier checkpoints are complete. Free some space, then continue  {go_on}"
            raise OutputError(f"Cannot write a checkpoint to {self.home}: {_why(problem)}.", hint) from problem
        for old in existing[: 1 - KEPT]:
            _remove(old)
        self.saved(final)
        return final

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest checkpoint that is whole, and what was wrong with those that are newer."""
        refused: list[str] = []
        for folder in reversed(self.folders()):
            try:
                return read(folder), refused
            except Damaged as problem:
                refused.append(f"{folder.name} was refused: {problem}")
        return None, refused

    def keep_newest(self) -> None:
        """Drop all but the newest, at the end of a run."""
        for old in self.folders()[:-1]:
            _remove(old)


def read(folder: Path) -> Checkpoint:
    """A checkpoint, every byte checked against its manifest first; Damaged if any differs."""
    files = [folder / name for name in (STATE, TENSORS, BEST)]
    try:
        written = (folder / MANIFEST).read_bytes()
        if written != _manifest(files).encode("ascii"):
            raise Damaged("its files do not match its manifest")
        record = json.loads((folder / STATE).read_text(encoding="utf-8"))
        if record["format"] > FORMAT:
            raise OutputError(f"{folder} was written by a newer fastcls.", "Upgrade:  pip install -U fastcls")
        tensors = load_file(folder / TENSORS)
        return Checkpoint(folder, unpack(record["state"], tensors), load_file(folder / BEST))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as problem:
        raise Damaged(f"{type(problem).__name__}: {problem}") from None


def _manifest(files: list[Path]) -> str:
    """A line a file, as `sha256sum` writes them."""
    return "".join(f"{runs.digest(file)}  {file.name}\n" for file in files)


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(folder: Path) -> None:
    """Under a name that `newest` never reads first: half a folder must not look like a checkpoint."""
    hidden = folder.with_name(f".{folder.name}-old")
    with contextlib.suppress(OSError):
        folder.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def _why(problem: Exception) -> str:
    full = "No space left" in str(problem) or getattr(problem, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    return "the disk is full" if full else getattr(problem, "strerror", None) or str(problem)


# ------------------------------------------------------------------ values as JSON and tensors: no pickle


def load_weights(model: torch.nn.Module, state: Mapping[str, torch.Tensor], strict: bool = True) -> None:
    """`load_state_dict` of plain tensors, taken as those of the model's own version: MNASNet refuses one unknown."""
    versioned = model.state_dict()  # its metadata has a version a module, which tensors alone do not
    versioned.clear()
    versioned.update(state)
    model.load_state_dict(versioned, strict=strict)


class Unpackable(TypeError):
    """A value of a kind that neither JSON nor a tensor can hold."""


def pack(value: Any, tensors: dict[str, torch.Tensor], name: str = "") -> Any:
    """`value` as JSON can hold it; its tensors go into `tensors`, by their place. Numbers keep every bit."""
    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach().as_subclass(torch.Tensor).cpu().clone(memory_format=torch.contiguous_format)
        return {"$tensor": name}
    if isinstance(value, np.ndarray):
        tensors[name] = torch.from_numpy(value.copy())
        return {"$array": name}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        pairs = [(key, pack(item, tensors, f"{name}.{key}")) for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith(MARK) for key, _ in pairs):
            return dict(pairs)
        return {"$pairs": [[pack(key, tensors), item] for key, item in pairs]}
    if isinstance(value, (list, tuple, L)):
        return _pack_list(value, tensors, name)
    raise Unpackable(f"{name}: {type(value).__name__}")


def packable(value: Any) -> bool:
    """Whether `pack` takes it."""
    try:
        pack(value, {})
    except Unpackable:
        return False
    return True


def _pack_list(value: Any, tensors: dict[str, torch.Tensor], name: str) -> Any:
    kind, items = type(value), list(value)
    if kind is list and items and all(type(item) is float for item in items) and len(items) > LONG:
        tensors[name] = _padded(torch.tensor(items, dtype=torch.float64))
        return {"$floats": [name, len(items)]}
    if kind is list and items and all(isinstance(item, torch.Tensor) and item.ndim == 0 for item in items):
        tensors[name] = _padded(torch.stack([item.detach().as_subclass(torch.Tensor).cpu() for item in items]))
        return {"$scalars": [name, len(items)]}
    packed = [pack(item, tensors, f"{name}.{i}") for i, item in enumerate(items)]
    return {"$tuple": packed} if kind is tuple else packed


def _padded(numbers: torch.Tensor) -> torch.Tensor:
    """With zeros behind, to a power of two: for every size of a tensor that it writes safetensors keeps 8 KB for good.

    Of lists that grow with every epoch that was a leak (numpy.ctypeslib.as_array makes a type a size).
    """
    return torch.cat([numbers, numbers.new_zeros((1 << (len(numbers) - 1).bit_length()) - len(numbers))])


def unpack(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """What `pack` was given; fastcore's L comes back as a list. KeyError where a tensor is missing."""
    if isinstance(value, list):
        return [unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    mark = next(iter(value), "")
    if len(value) != 1 or not mark.startswith(MARK):
        return {key: unpack(item, tensors) for key, item in value.items()}
    held = value[mark]
    if mark == "$pairs":
        return {unpack(key, tensors): unpack(item, tensors) for key, item in held}
    if mark == "$tuple":
        return tuple(unpack(item, tensors) for item in held)
    name, count = held if isinstance(held, list) else (held, None)  # without a count: older checkpoints
    tensor = tensors[name][:count] if count is not None else tensors[name]
    if mark == "$array":
        return tensor.numpy()
    if mark == "$floats":
        return tensor.tolist()
    return list(tensor.unbind()) if mark == "$scalars" else tensor
