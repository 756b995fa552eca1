"""How many pixels of the image a unit of a network sees: its theoretical receptive field, for any network that runs.

    image = torch.zeros(2, 3, 224, 224)
    with torch.no_grad(), ReceptiveFields(image) as fields:
        features = network.eval()(image)
    fields.of(features)  # (435, 435), or WHOLE, or None where it cannot be known

Intervals of pixels are carried through every tensor operation that the network calls, however its code is written;
where paths meet, a unit sees what any of them shows it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from fastcls.models.axes import RULES, SUMMED, Arguments, Axis, Place, Shape, same, unknown

WHOLE = "whole image"
Field = tuple[Axis, Axis]  # of height and width


class ReceptiveFields(TorchDispatchMode):
    """Follows all that is computed from `image` (n, channels, height, width), n > 1, while it is entered.

    What a module called ...Norm gives sees what the module was given sees: statistics of the whole image, which group
    norm takes, are left out by convention.
    """

    def __init__(self, image: torch.Tensor) -> None:
        super().__init__()
        height, width = image.shape[-2:]
        field = (Axis((Place(-2, 1, height),), 0, 0, 1, height), Axis((Place(-1, 1, width),), 0, 0, 1, width))
        self._fields: Any = WeakTensorKeyDictionary({image: field})

    def of(self, tensor: torch.Tensor) -> tuple[int, int] | str | None:
        """Pixels of height and of width that a unit of this tensor sees; WHOLE; None where that cannot be known."""
        field: Field | None = self._fields.get(tensor)
        if field is None or not all(axis.known for axis in field):
            return None
        if all(axis.constant and (axis.first, axis.last) == (0, axis.side - 1) for axis in field):
            return WHOLE
        height, width = (axis.last - axis.first + 1 for axis in field)
        return height, width

    def __enter__(self) -> ReceptiveFields:
        self._fused = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # one operation that does too much at once
        self._hook = nn.modules.module.register_module_forward_hook(self._after_module)
        return super().__enter__()

    def __exit__(self, *problem: Any) -> None:
        self._hook.remove()
        torch.backends.mha.set_fastpath_enabled(self._fused)
        super().__exit__(*problem)

    def _after_module(self, module: nn.Module, inputs: Any, output: Any) -> None:
        norm = "Norm" in type(module).__name__ and all("." not in name for name, _ in module.named_parameters())
        tensors = [x for x in (*inputs[:1], output) if isinstance(x, torch.Tensor)]
        if norm and len(tensors) == 2 and tensors[0] in self._fields:
            self._fields[output] = self._fields[tensors[0]]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        outputs = [output for output in tree_leaves(result) if isinstance(output, torch.Tensor)]
        schema = func._schema.arguments
        arguments = {a.name: a.default_value for a in schema if a.has_default_value()}
        arguments |= dict(zip([a.name for a in schema], args, strict=False)) | (kwargs or {})
        field = self._after(func, arguments, outputs[0].shape) if outputs else None
        if field is not None:
            for output in outputs:
                self._fields[output] = field
            whole = outputs[0]._base if func._schema.is_mutable else None
            if whole is not None:  # only a part of this tensor was written to
                old = self._fields.get(whole, field)
                self._fields[whole] = tuple(a.meet(b).thinned() for a, b in zip(old, field, strict=True))
        return result

    def _after(self, func: Any, arguments: Arguments, after: Shape) -> Field | None:
        """The field of an operation's output; None where no input comes from the image."""
        name = func.overloadpacket.__name__.removesuffix("_")
        if name.startswith("new_") or name.endswith("_like"):
            return None
        fields: list[Field] = []
        before: Shape = ()
        for argument, value in arguments.items():
            for tensor in tree_leaves(value):
                if isinstance(tensor, torch.Tensor) and tensor in self._fields:
                    height, width = self._fields[tensor]
                    if summed := SUMMED.get(name, {}).get(argument):
                        height, width = height.mixed(summed), width.mixed(summed)
                    fields.append((height, width))
                    before = before or tensor.shape
        if not fields:
            return None
        rule = RULES.get(name, same if torch.Tag.pointwise in func.tags else unknown)
        found: list[Axis] = []
        for axis, *others in zip(*fields, strict=True):
            for other in others:
                axis = axis.meet(other)
            try:
                found.append(axis if axis.constant else rule(axis, arguments, before, after))
            except (LookupError, TypeError, ValueError):  # arguments of a kind that the rule does not foresee
                found.append(axis.thinned())
        return found[0], found[1]
