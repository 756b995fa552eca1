"""Weights of an earlier run, or of any .safetensors file, into the body of a new network. No pickle."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from fastcls.errors import OutputError
from fastcls.models import defaults, hub
from fastcls.runfolder import model_files, runs, schema
from fastcls.settings import shell
from fastcls.training.trees import load_weights

Stats = tuple[tuple[float, ...], tuple[float, ...]]
PICKLES = {".pth", ".pt", ".pkl", ".ckpt", ".bin"}


def weights_file(name: str) -> Path:
    """The .safetensors file that `--weights NAME` means, its sum checked if it is a run's.

    NAME is a file, a run, a folder as the Hugging Face Hub has them, or a repository there, `hf-hub:OWNER/NAME`.
    """
    name = defaults.resolve(name)
    if name.startswith(hub.HUB):
        return hub.fetched(name, hub.WEIGHTS)
    path = shell.path(name.removeprefix(hub.LOCAL))
    if hub.is_folder(path):
        return hub.weights(path)
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise OutputError(f"--weights {name}: there is no such file.", "List the runs:  fastcls runs")
        ours = path.name == model_files.WEIGHTS and (path.parent / model_files.RECORD).is_file()
        return model_files.verify(path.parent, path.name) if ours else path
    if path.is_file():
        if path.suffix in PICKLES:
            raise OutputError(
                f"--weights {name}: this is a pickle, which can run code when it is loaded; it was not read.",
                f"If you trust who made it, convert it, once:  {shell.command('import', name, '--trust-pickle')}",
            )
        raise OutputError(
            f"--weights {name}: only .safetensors files are read (other formats can run code when loaded).",
            "Convert it with safetensors.torch.save_file.",
        )
    file = model_files.verify(runs.find(name), model_files.WEIGHTS)
    if not file.is_file():
        raise OutputError(f"--weights {name}: that run has no model.safetensors; it did not finish.")
    return file


def preprocessing_of(weights: Path) -> dict[str, Any] | None:
    """The specification that these weights were trained with: of the file's metadata, or of the model.json beside."""
    with opened(weights) as tensors:
        text = tensors.metadata.get("preprocessing")
    if text is not None:
        try:
            spec = json.loads(text)
            schema.check(spec, schema.Preprocessing | None)
        except (ValueError, RecursionError) as problem:
            raise OutputError(f"{weights}: its metadata's preprocessing cannot be read: {problem}.") from None
        if reason := model_files.problem_of(spec):
            raise OutputError(f"{weights} cannot be right: {reason}.")
    else:
        beside = weights.parent / model_files.RECORD
        spec = model_files.read(beside.parent).get("preprocessing") if beside.is_file() else None
    return spec


class Tensors:
    """The tensors of an open .safetensors file, each read when it is asked for."""

    def __init__(self, file: Path, handle: Any) -> None:
        self.file, self.handle = file, handle
        self.metadata: dict[str, str] = handle.metadata() or {}
        self.names = set(handle.keys())

    def shape(self, name: str) -> torch.Size | None:
        """Its shape; None where there is none of that name."""
        return torch.Size(self.handle.get_slice(name).get_shape()) if name in self.names else None

    def shapes(self) -> dict[str, torch.Size]:
        """The shape of each."""
        return {name: torch.Size(self.handle.get_slice(name).get_shape()) for name in self.names}

    def read(self, name: str, like: torch.Tensor) -> torch.Tensor:
        """One of them, of the kind of numbers that `like` has; OutputError where they are none."""
        return of_kind(self.file, name, self.handle.get_tensor(name), like)


def of_kind(file: Path, name: str, tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A tensor of a file with the kind of numbers that `like` has; OutputError where they are none."""
    if tensor.is_floating_point() != like.is_floating_point():
        raise OutputError(f"{file}: {name} holds {tensor.dtype}, where {like.dtype} belongs.")
    tensor = tensor.to(like.dtype)
    if not tensor.isfinite().all():
        raise OutputError(f"{file}: {name} holds values that are not finite; this network is broken.")
    return tensor


@contextlib.contextmanager
def opened(file: Path) -> Iterator[Tensors]:
    """The tensors of a .safetensors file; OutputError where it is not one."""
    try:
        model_files.refuse_long_header(file)
        with safe_open(file, framework="pt") as handle:
            yield Tensors(file, handle)
    except (SafetensorError, OSError, RuntimeError, TypeError, ValueError) as problem:
        raise OutputError(f"{file} is not a readable .safetensors file: {problem}.") from None


def save(model: nn.Module, file: Path) -> None:
    """Write a network's weights; tensors that share memory are written once each."""
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    runs.atomic_path(file, lambda temporary: save_file(state, temporary))


def load(model: nn.Module, file: Path) -> None:
    """Load every weight of a network; OutputError where file and network differ."""
    own = model.state_dict()
    with opened(file) as tensors:
        differ = sorted(tensors.names - set(own))
        differ += [name for name, value in own.items() if tensors.shape(name) != value.shape]
        if differ:
            raise OutputError(f"{file} does not fit this network: {len(differ)} tensors differ ({_some(differ)}).")
        load_weights(model, {name: tensors.read(name, value) for name, value in own.items()})


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
