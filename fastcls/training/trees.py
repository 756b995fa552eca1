"""Nested values with tensors in them as JSON and a flat table of tensors, and back: what pickle is not needed for.

tensors: dict[str, torch.Tensor] = {}
text = json.dumps(pack({"step": 3, "state": [{"grad_avg": t}]}, tensors))
value = unpack(json.loads(text), tensors)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from fastcore.foundation import L

MARK = "$"  # a dict with a single key that starts so is one of ours
LONG = 64  # lists of more numbers than this become a tensor


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
    if isinstance(value, Mapping):
        return all(packable(key) and packable(item) for key, item in value.items())
    if isinstance(value, (list, tuple, L)):
        return all(map(packable, value))
    return value is None or isinstance(value, (bool, int, float, str, torch.Tensor, np.ndarray, np.generic))


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
