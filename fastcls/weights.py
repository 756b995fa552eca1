"""Weights of an earlier run, or of any .safetensors file, into the body of a new network. No pickle."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from fastcls import options, runs
from fastcls.errors import OutputError

Stats = tuple[tuple[float, ...], tuple[float, ...]]


def weights_file(name: str) -> Path:
    """The .safetensors file that `--weights NAME` means: a file, or the weights of a run folder."""
    path = Path(name).expanduser()
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise OutputError(f"--weights {name}: there is no such file.", "List the runs:  fastcls runs")
        return path
    if path.is_file():
        raise OutputError(
            f"--weights {name}: only .safetensors files are read (other formats can run code when loaded).",
            "Convert it with safetensors.torch.save_file.",
        )
    file = runs.find(name) / "model.safetensors"
    if not file.is_file():
        raise OutputError(f"--weights {name}: that run has no model.safetensors; it did not finish.")
    return file


def preprocessing_of(weights: Path) -> Stats | None:
    """Mean and std that these weights were trained with, from the model.json beside them."""
    file = weights.parent / "model.json"
    spec = runs.read_json(file).get("preprocessing") if file.is_file() else None
    return (tuple(spec["mean"]), tuple(spec["std"])) if spec and spec.get("mean") else None


def read(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .safetensors file; OutputError where it is not one."""
    try:
        return load_file(file)
    except (SafetensorError, OSError) as problem:
        raise OutputError(f"{file} is not a readable .safetensors file: {problem}.") from None


def save(model: nn.Module, file: Path) -> None:
    """Write a network's weights; tensors that share memory are written once each."""
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    runs.atomic_path(file, lambda temporary: save_file(state, temporary))


def load(model: nn.Module, file: Path) -> None:
    """Load every weight of a network; OutputError where file and network differ."""
    try:
        model.load_state_dict(read(file))
    except RuntimeError as problem:
        raise OutputError(f"{file} does not fit this network: {str(problem).splitlines()[-1].strip()}") from None


def load_body(model: nn.Sequential, file: Path) -> None:
    """Load the body (everything but the head) from `file`; OutputError where a body tensor is missing there.

    Accepts the names of our own runs (`0.…`) and a body's own names without that prefix, as torchvision and timm
    publish them. A first convolution of colours is summed for gray images, one of gray shared out over the colours.
    """
    tensors = read(file)
    wanted = {name: value for name, value in model.state_dict().items() if name.startswith("0.")}
    found = {}
    for name, value in wanted.items():
        for candidate in (name, name.removeprefix("0.")):
            tensor = _for_channels(tensors.get(candidate), value)
            if tensor is not None and tensor.shape == value.shape:
                found[name] = tensor
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise OutputError(
            f"{file} does not fit this network: {len(missing)} of the body's {len(wanted)} tensors are missing or "
            f"have another shape ({', '.join(missing[:3])}, …).",
            "Use the --arch (and the image channels) that the weights were trained with.",
        )
    model.load_state_dict(found, strict=False)
    options.note(f"the body starts from {file}; the head is new.")


def _for_channels(tensor: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor | None:
    """The weights of a convolution, made to take the input channels of `like`: gray or colour."""
    if tensor is None or tensor.ndim != 4 or tensor.shape[:1] + tensor.shape[2:] != like.shape[:1] + like.shape[2:]:
        return tensor
    match tensor.shape[1], like.shape[1]:
        case 3, 1:
            return tensor.sum(1, keepdim=True)
        case 1, 3:
            return tensor.expand_as(like) / 3
    return tensor
