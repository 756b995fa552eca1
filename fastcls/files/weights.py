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
from fastcls.files import model_files, runs, schema
from fastcls.settings import options, shell

Stats = tuple[tuple[float, ...], tuple[float, ...]]
PICKLES = {".pth", ".pt", ".pkl", ".ckpt", ".bin"}


def weights_file(name: str) -> Path:
    """The .safetensors file that `--weights NAME` means: a file, or the weights of a run folder; its sum is checked."""
    path = Path(name).expanduser()
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


def preprocessing_of(weights: Path) -> Stats | None:
    """Mean and std that these weights were trained with: of the file's metadata, or of the model.json beside it."""
    with opened(weights) as tensors:
        text = tensors.metadata.get("preprocessing")
    if text is not None:
        try:
            spec = json.loads(text)
            schema.check(spec, schema.Preprocessing | None)
        except (ValueError, RecursionError) as problem:
            raise OutputError(f"{weights}: its metadata's preprocessing cannot be read: {problem}.") from None
        if reason := model_files.fault_of(spec):
            raise OutputError(f"{weights} cannot be right: {reason}.")
    else:
        beside = weights.parent / model_files.RECORD
        spec = model_files.read(beside.parent).get("preprocessing") if beside.is_file() else None
    return (tuple(spec["mean"]), tuple(spec["std"])) if spec and spec["mean"] and spec["std"] else None


class Tensors:
    """The tensors of an open .safetensors file, each read when it is asked for."""

    def __init__(self, file: Path, handle: Any) -> None:
        self.file, self.handle = file, handle
        self.metadata: dict[str, str] = handle.metadata() or {}
        self.names = set(handle.keys())

    def shape(self, name: str) -> torch.Size | None:
        """Its shape; None where there is none of that name."""
        return torch.Size(self.handle.get_slice(name).get_shape()) if name in self.names else None

    def read(self, name: str, like: torch.Tensor) -> torch.Tensor:
        """One of them, of the kind of numbers that `like` has; OutputError where they are none."""
        tensor = self.handle.get_tensor(name)
        if tensor.is_floating_point() != like.is_floating_point():
            raise OutputError(f"{self.file}: {name} holds {tensor.dtype}, where {like.dtype} belongs.")
        tensor = tensor.to(like.dtype)
        if not tensor.isfinite().all():
            raise OutputError(f"{self.file}: {name} holds values that are not finite; this network is broken.")
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
        model.load_state_dict({name: tensors.read(name, value) for name, value in own.items()})


def load_body(model: nn.Sequential, file: Path) -> None:
    """Load the body (everything but the head) from `file`; OutputError where a body tensor is missing there.

    Accepts the names of our own runs (`0.…`, once `0.model.…`), those of fastai, which numbers the layers of a body,
    and a body's own names without that prefix, as torchvision and timm publish them. A first convolution of colours is
    summed for gray images, one of gray shared out over the colours.
    """
    wanted = {name: value for name, value in model.state_dict().items() if name.startswith("0.")}
    numbers = {child: str(place) for place, (child, _) in enumerate(model[0].named_children())}
    found = {}
    with opened(file) as tensors:
        for name, value in wanted.items():
            _, child, rest = name.split(".", 2) if name.count(".") > 1 else ("0", name[2:], "")
            numbered = f"{numbers.get(child, child)}.{rest}"
            own = name.removeprefix("0.")
            for candidate in (name, own, f"0.model.{own}", f"0.{numbered}", numbered):
                shape = tensors.shape(candidate)
                if shape is not None and _fits(shape, value.shape):
                    found[name] = _for_channels(tensors.read(candidate, value), value)
                    break
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise OutputError(
            f"{file} does not fit this network: {len(missing)} of the body's {len(wanted)} tensors are missing or "
            f"have another shape ({_some(missing)}).",
            "Use the --arch (and the image channels) that the weights were trained with.",
        )
    model.load_state_dict(found, strict=False)
    options.note(f"the body starts from {file}; the head is new.")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _fits(shape: torch.Size, wanted: torch.Size) -> bool:
    """Whether a tensor has a shape, or is a convolution that takes gray where colour is wanted, or colour for gray."""
    if shape == wanted:
        return True
    alike = len(shape) == len(wanted) == 4 and shape[:1] + shape[2:] == wanted[:1] + wanted[2:]
    return alike and {shape[1], wanted[1]} == {1, 3}


def _for_channels(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The weights of a convolution, made to take the input channels of `like`: gray or colour."""
    if tensor.shape == like.shape:
        return tensor
    return tensor.sum(1, keepdim=True) if like.shape[1] == 1 else tensor.expand_as(like) / 3
