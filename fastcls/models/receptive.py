"""How many pixels of the image a unit of a network sees: its theoretical receptive field, for any network that runs.

    image = torch.zeros(1, 3, 224, 224)
    with torch.no_grad(), ReceptiveFields(image) as fields:
        features = network.eval()(image)
    fields.of(features)  # (435, 435), or WHOLE, or None where it cannot be known

Beside every tensor go four others of its shape, the first and last row and column that each unit sees. Operations that
move numbers are called on these as well; others take the maximum over what they compute from. The arithmetic is in
Araujo, Norris and Sim 2019 (Computing receptive fields of convolutional neural networks, Distill).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import inf, nan
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

WHOLE = "whole image"
MATRICES = {"query": [-1], "key": [-2, -1], "value": [-2]}
SUMMED: dict[str, dict[str, list[int]]] = {  # over which dimensions of its arguments a product of matrices sums
    "mm": {"self": [-1], "mat2": [-2]},
    "bmm": {"self": [-1], "mat2": [-2]},
    "addmm": {"mat1": [-1], "mat2": [-2]},
    "baddbmm": {"batch1": [-1], "batch2": [-2]},
    "linear": {"input": [-1]},
    "cat": {"tensors": [1]},  # of maps along their channels: a unit sees what any of its channels sees
    "_scaled_dot_product_flash_attention_for_cpu": MATRICES,
    "_scaled_dot_product_flash_attention": MATRICES,
    "_scaled_dot_product_efficient_attention": MATRICES,
    "_scaled_dot_product_cudnn_attention": MATRICES,
}
NORMS = ("batch_norm", "layer_norm", "group_norm")  # in their names
UNITWISE = {"hardswish", "mish", "_prelu_kernel", "rrelu_with_noise", "log_sigmoid_forward", "hardtanh"}
UNITWISE |= {"leaky_relu", "elu", "clone", "_to_copy", "copy"}  # torch tags the others as pointwise
REDUCTIONS = {"mean", "sum", "prod", "amax", "amin", "max", "min", "var", "std", "var_mean", "linalg_vector_norm"}
REDUCTIONS |= {"_softmax", "_log_softmax"}
MOVES = {"view", "_unsafe_view", "permute", "transpose", "t", "select", "unbind", "split", "split_with_sizes", "slice"}
MOVES |= {"expand", "squeeze", "unsqueeze", "stack", "cat", "roll", "flip", "unfold", "repeat", "index", "detach"}
MOVES |= {"alias", "upsample_nearest2d", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle"}
PADS = {"constant_pad_nd", "reflection_pad2d", "replication_pad2d"}
SLIDES = {"convolution", "max_pool2d_with_indices", "avg_pool2d"}


class Field(NamedTuple):
    """What each unit of a tensor sees, in tensors of its shape.

    bounds: minus the first row, the last row, minus the first column, the last column. All are infinite where the unit
    sees the whole side, minus infinite where it sees nothing of the image, NaN where that is unknown. Pixels beyond the
    border count: padding stands for them. jump: pixels from a unit to the next, along the rows and along the columns.
    """

    bounds: tuple[Tensor, ...]
    jump: tuple[float, float]


class ReceptiveFields(TorchDispatchMode):
    """Follows all that is computed from `image` (n, channels, height, width) while it is entered.

    What a module called ...Norm gives sees what the module was given sees: statistics of the whole image, which group
    norm takes, are left out by convention.
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self._sides = image.shape[-2:]
        rows, columns = (torch.arange(float(side), device=image.device) for side in self._sides)
        rows, columns = rows[:, None].expand(image.shape), columns.expand(image.shape)
        self._fields: Any = WeakTensorKeyDictionary({image: Field((-rows, rows, -columns, columns), (1, 1))})

    def of(self, tensor: Tensor) -> tuple[int, int] | str | None:
        """Pixels of height and width that a unit of this tensor sees; WHOLE; None: they differ, or it is unknown."""
        field: Field | None = self._fields.get(tensor)
        if field is None:
            return None
        found = []
        with _disable_current_modes():
            top, bottom, left, right = map(_distinct, field.bounds)
            for pixels in (top + bottom + 1, left + right + 1):
                pixels = pixels[pixels != -inf]
                if not len(pixels) or pixels.min() != pixels.max():
                    return None
                found.append(float(pixels[0]))
        if found == [inf, inf]:
            return WHOLE
        height, width = (int(side if seen == inf else seen) for seen, side in zip(found, self._sides, strict=True))
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
        tensors = [x for x in (*inputs[:1], output) if isinstance(x, Tensor)]
        if norm and len(tensors) == 2 and tensors[0] in self._fields:
            self._fields[output] = self._fields[tensors[0]]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        outputs = [output for output in tree_leaves(result) if isinstance(output, Tensor)]
        name = func.overloadpacket.__name__
        tracked = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x in self._fields]
        if not tracked or not outputs or name.startswith("new_") or name.endswith("_like"):
            return result
        channels = name == "cat" and outputs[0].ndim == 4 and (*args, kwargs.get("dim", 0))[1] in (1, -3)
        try:
            if name in MOVES and not channels:
                fields = self._moved(func, args, kwargs, self._fields[tracked[0]].jump)
            else:
                schema = func._schema.arguments
                arguments = {a.name: a.default_value for a in schema if a.has_default_value()}
                arguments |= dict(zip([a.name for a in schema], args, strict=False)) | kwargs
                name = name.removesuffix("_")
                unitwise = name in UNITWISE or torch.Tag.pointwise in func.tags or any(norm in name for norm in NORMS)
                fields = [self._computed(name, unitwise, arguments, outputs[0].shape)] * len(outputs)
        except (RuntimeError, LookupError, TypeError, ValueError):  # of arguments that no rule here foresees
            fields = [_constant(nan, output) for output in outputs]
        for output, field in zip(outputs, fields, strict=True):
            if output.shape == field.bounds[0].shape:
                self._fields[output] = field
        whole = outputs[0]._base if func._schema.is_mutable else None
        if whole is not None:  # only a part of this tensor was written to
            self._fields[whole] = _constant(nan, whole)
        return result

    def _moved(self, func: Any, args: Any, kwargs: Any, jump: tuple[float, float]) -> list[Field]:
        """Of an operation that only moves numbers: its results on the bounds."""

        def on_bound(k: int, value: Any) -> Any:
            if not isinstance(value, Tensor) or not value.is_floating_point():
                return value
            field = self._fields.get(value)
            return field.bounds[k] if field else value.new_full(value.shape, -inf, dtype=torch.float)

        if func.overloadpacket.__name__ in ("view", "_unsafe_view"):
            func = torch.reshape  # bounds are expanded, and have no memory of their own
        results = []
        for k in range(4):
            words, named = tree_map(partial(on_bound, k), (args, kwargs))
            results.append(tree_leaves(func(*words, **named)))
        return [Field(bounds, jump) for bounds in zip(*results, strict=True)]

    def _computed(self, name: str, unitwise: bool, arguments: dict[str, Any], after: torch.Size) -> Field:
        """Of one that computes: what its inputs see, of every unit that it takes for one of its own."""
        fields: list[Field] = []
        for argument, value in arguments.items():
            for tensor in tree_leaves(value):
                if isinstance(tensor, Tensor) and tensor in self._fields:
                    field = self._fields[tensor]
                    if dims := SUMMED.get(name, {}).get(argument):
                        field = self._mixed(field, dims)
                    fields.append(field)
        field = fields[0]
        before = field.bounds[0].shape
        if name in SLIDES and not arguments.get("transposed"):
            return self._slid(field, arguments, after)
        if name in PADS:
            pads = arguments["pad" if "pad" in arguments else "padding"]  # last dimension first: left, right, top, …
            for i, d in enumerate(range(-1, -1 - len(pads) // 2, -1)):
                places = torch.arange(after[d]) - pads[2 * i]
                field = field._replace(bounds=tuple(_at(field, k, d, places) for k in range(4)))
            return field._replace(bounds=tuple(bound.expand(after) for bound in field.bounds))
        if name in ("_adaptive_avg_pool2d", "adaptive_max_pool2d"):
            pooled = [F.adaptive_max_pool2d(bound, after[-2:]) for bound in field.bounds]
            return field._replace(bounds=tuple(self._seen_whole(pooled)))
        if name in REDUCTIONS:
            dim = arguments.get("dim")
            summed = [dim] if isinstance(dim, int) else dim or list(range(len(before)))
            field = self._mixed(field, [d % len(before) - len(before) for d in summed])
            return field._replace(bounds=tuple(_fitted(bound, after) for bound in field.bounds))
        if not unitwise and name not in SUMMED:
            whole = all(bool((_distinct(bound) == inf).all()) for field in fields for bound in field.bounds)
            return _constant(inf if whole else nan, field.bounds[0].new_empty(after))
        if len(fields) == 1 and before == after:
            return field
        bounds = []
        for k in range(4):
            joined = _distinct(fields[0].bounds[k])
            for other in fields[1:]:
                joined = torch.maximum(joined, _distinct(other.bounds[k]))
            bounds.append(joined.expand(after))
        return field._replace(bounds=tuple(bounds))

    def _slid(self, field: Field, arguments: dict[str, Any], after: torch.Size) -> Field:
        """Of a convolution or a pool, of one dimension or two."""
        weight = arguments.get("weight")
        kernel = arguments["kernel_size"] if weight is None else weight.shape[2:]
        if weight is not None:  # channels are summed
            field = field._replace(bounds=tuple(_distinct(bound).amax(1, keepdim=True) for bound in field.bounds))
        settings = (kernel, arguments["stride"] or kernel, arguments["padding"], arguments.get("dilation", [1]))
        for d in range(2 - len(after), 0):
            size, step, padding, dilation = (values[d] if len(values) > 1 else values[0] for values in settings)
            if after[d] == 1 and padding == 0 and size == field.bounds[0].shape[d] > 1:  # global pooling
                field = self._mixed(field, [d])
                continue
            bounds = []
            for k in range(4):
                starts = torch.arange(after[d]) * step - padding
                bound = _at(field, k, d, starts)
                for tap in range(1, size):
                    bound = torch.maximum(bound, _at(field, k, d, starts + tap * dilation))
                bounds.append(bound)
            jump = list(field.jump)
            jump[d] = step * float(_step(field, 2 * d + 5, d).max())
            field = Field(tuple(bounds), (jump[0], jump[1]))
        return field._replace(bounds=tuple(bound.expand(after) for bound in field.bounds))

    def _mixed(self, field: Field, dims: list[int]) -> Field:
        """After a sum or the like over these dimensions, which are kept with a size of 1."""
        before = [_distinct(bound) for bound in field.bounds]
        most = [bound.amax(dims, keepdim=True) for bound in before]
        places = field.bounds[0].ndim == 4 and {-1, -2} & set(dims)
        if places or any((a.amin(dims, keepdim=True) != b).any() for a, b in zip(before, most, strict=True)):
            most = self._seen_whole(most)
        shape = list(field.bounds[0].shape)
        for d in dims:
            shape[d] = 1
        return field._replace(bounds=tuple(bound.expand(shape) for bound in most))

    def _seen_whole(self, bounds: Sequence[Tensor]) -> list[Tensor]:
        """The same, but infinite along each side that all units see from end to end."""
        found: list[Tensor] = []
        for side, first, last in zip(self._sides, bounds[::2], bounds[1::2], strict=True):
            whole = bool((first >= 0).all() and (last >= side - 1).all())
            found += [torch.full_like(first, inf), torch.full_like(last, inf)] if whole else [first, last]
        return found


def _constant(value: float, like: Tensor) -> Field:
    """The same for all units of a tensor."""
    return Field((torch.tensor(value, device=like.device).expand(like.shape),) * 4, (1, 1))


def _distinct(bound: Tensor, but: int | None = None) -> Tensor:
    """With size 1 along dimensions that were expanded, `but` one (from the end): there is nothing new to see."""
    steps = zip(range(-bound.ndim, 0), bound.stride(), strict=True)
    return bound[tuple(slice(None if step or d == but else 1) for d, step in steps)]


def _at(field: Field, k: int, d: int, places: Tensor) -> Tensor:
    """A bound at these places along dimension `d`, continued beyond its ends as it begins."""
    bound = _distinct(field.bounds[k], but=d)
    places = places.to(bound.device)
    nearest = places.clamp(0, bound.shape[d] - 1)
    beyond = (places - nearest).view(-1, *[1] * (-1 - d))
    return bound.index_select(d, nearest) + beyond * _step(field, k, d)


def _step(field: Field, k: int, d: int) -> Tensor:
    """How much a bound changes from a unit to the next along dimension `d`; of a single unit, by the field's jump."""
    bound = _distinct(field.bounds[k], but=d)
    if bound.shape[d] > 1:
        return (bound.narrow(d, 1, 1) - bound.narrow(d, 0, 1)).nan_to_num(0, 0, 0)
    own = bound.ndim == 4 and k // 2 == d + 2
    return bound.new_tensor(field.jump[d] * (1 if k % 2 else -1) if own else 0)


def _fitted(bound: Tensor, shape: torch.Size) -> Tensor:
    """With dimensions of size 1 removed, or repeated."""
    return bound.reshape(shape) if bound.numel() == shape.numel() else bound.expand(shape)
