"""Height and width of the image, followed through tensor operations: where they lie, and what the units along them see.

`RULES` holds how an operation changes an axis; `receptive` applies them. The arithmetic, of several paths too, is in
Araujo, Norris and Sim 2019 (Computing receptive fields of convolutional neural networks, Distill).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any, NamedTuple

Shape = Sequence[int]
Arguments = dict[str, Any]  # of an operation, by the names that torch gives them


class Place(NamedTuple):
    """A digit of a unit's number: (index along `dim` // `inner`) modulo `size`."""

    dim: int  # -1 is the last, so that broadcasting changes nothing
    inner: int
    size: int


LOST = Place(0, 1, 1)  # in no dimension: some units are gone, so that the others together need not see everything


class Axis(NamedTuple):
    """Height or width of the image in some tensor: unit i sees the pixels first + i·jump to last + i·jump.

    Pixels beyond the border count: padding stands for them. Where `known` is False, no more is known than what the
    units see together, and that is first to last. jump 0: all units see the same.
    """

    places: tuple[Place, ...]  # where i is found in the tensor: one place, more after reshaping; highest digit first
    first: int
    last: int
    jump: int
    side: int  # of the image, in pixels
    known: bool = True

    @property
    def dims(self) -> set[int]:
        return {place.dim for place in self.places}

    @property
    def constant(self) -> bool:
        """Whether all units are known to see the same."""
        return self.known and self.jump == 0

    def together(self, known: bool = False) -> Axis:
        """What all units see together, within the image."""
        units = prod(place.size for place in self.places)
        last = min(self.last + self.jump * (units - 1), self.side - 1)
        return self._replace(first=max(self.first, 0), last=last, jump=0, known=known)

    def mixed(self, dims: Iterable[int]) -> Axis:
        """After a sum or the like over these dimensions."""
        left = tuple(place for place in self.places if place.dim not in dims)
        if self.constant or (left and left == self.places):
            return self
        return self.together(known=not left)._replace(places=left)

    def meet(self, other: Axis) -> Axis:
        """After two tensors are added, multiplied or joined: a unit sees what both show it."""
        if self.known and other.known and (self.places, self.jump) == (other.places, other.jump):
            return self._replace(first=min(self.first, other.first), last=max(self.last, other.last))
        one, two = self.together(), other.together()
        first, last = min(one.first, two.first), max(one.last, two.last)
        covered = any(axis.constant and (axis.first, axis.last) == (first, last) for axis in (self, other))
        places = tuple(dict.fromkeys(self.places + other.places))
        return one._replace(first=first, last=last, known=covered, places=places)

    def windows(self, d: int, kernel: int, step: int, padding: int, dilation: int, before: int, after: int) -> Axis:
        """After windows of `kernel` units, `step` apart, along dimension `d`, which had `before` units."""
        reach = (kernel - 1) * dilation
        if reach == 0 and step == 1 and before == after:
            return self
        if not self.known or self.places != (Place(d, 1, before),):  # not this axis alone lies along it
            return self.blurred(d, after)
        if after == 1 and padding == 0 and kernel == before > 1:  # global pooling, by a window of the map's size
            return self.mixed([d])
        first, last = self.first - padding * self.jump, self.last + (reach - padding) * self.jump
        return self._replace(places=(Place(d, 1, after),), first=first, last=last, jump=self.jump * step)

    def blurred(self, d: int, after: int) -> Axis:
        """After something irregular along dimension `d`."""
        places = (Place(d, 1, after) if place.dim == d else place for place in self.places)
        return self.together()._replace(places=tuple(dict.fromkeys(places)))

    def thinned(self) -> Axis:
        """After some units were left out."""
        return self.together()._replace(places=(*self.places, LOST))

    def moved(self, change: Callable[[int], int]) -> Axis:
        """After the tensor's dimensions changed their order or number."""
        places = (place if place is LOST else place._replace(dim=change(place.dim)) for place in self.places)
        return self._replace(places=tuple(places))

    def without(self, gone: Sequence[int]) -> Axis:
        """After these dimensions left the tensor."""
        left = self._replace(places=tuple(place for place in self.places if place.dim not in gone))
        return left.moved(lambda d: d + sum(g > d for g in gone))


def same(axis: Axis, arguments: Arguments, before: Shape, after: Shape) -> Axis:
    return axis


def unknown(axis: Axis, arguments: Arguments, before: Shape, after: Shape) -> Axis:
    return axis.thinned()


def _shuffle(axis: Axis, arguments: Arguments, before: Shape, after: Shape) -> Axis:
    """Units change places, or are drawn from their neighbours: together they see what they saw."""
    for d in axis.dims - {0}:
        axis = axis.blurred(d, after[d])
    return axis


def _slide(axis: Axis, arguments: Arguments, before: Shape, after: Shape) -> Axis:
    """A convolution or a pool, of one dimension or two."""
    weight = arguments.get("weight")
    kernel = arguments["kernel_size"] if weight is None else weight.shape[2:]
    settings = (kernel, arguments["stride"] or kernel, arguments["padding"], arguments.get("dilation", [1]))
    if weight is not None:
        axis = axis.mixed([1 - len(before)])  # channels are summed
    for d in axis.dims & set(range(2 - len(before), 0)):
        if arguments.get("transposed"):
            return axis.thinned()
        size, step, padding, dilation = (values[d] if len(values) > 1 else values[0] for values in settings)
        axis = axis.windows(d, size, step, padding, dilation, before[d], after[d])
    return axis


def _adapt(axis: Axis, arguments: Arguments, before: Shape, after: Shape) -> Axis:
    """Adaptive pooling: regular windows where the sizes divide."""
    for d in axis.dims - {0}:
        size, rest = divmod(before[d], after[d])
        if after[d] == 1:
            axis = axis.mixed([d])
        elif rest:
            axis = axis.blurred(d, after[d])
        else:
            axis = axis.windows(d, size, size, 0, 1, before[d], after[d])
    return axis


def _pad(axis: Axis, arguments: Arguments, before: Shape, after: Shape) -> Axis:
    padding = arguments["pad" if "pad" in arguments else "padding"]  # last dimension first: left, right, top, ...
    for d in axis.dims - {0}:
        if before[d] != after[d]:
            axis = axis.windows(d, 1, 1, padding[-2 * d - 2], 1, before[d], after[d])
    return axis


def _slice(axis: Axis, arguments: Arguments, before: Shape, after: Shape) -> Axis:
    (d,) = _dims(arguments, before)
    if d not in axis.dims or before == after:
        return axis
    start, _, step = slice(arguments["start"], arguments["end"], arguments["step"]).indices(before[d])
    axis = axis.windows(d, 1, step, -start, 1, before[d], after[d])
    return axis if axis.known else axis.thinned()


def _split(axis: Axis, arguments: Arguments, before: Shape, after: Shape) -> Axis:
    """Pieces along one dimension, or its positions one by one."""
    (d,) = _dims(arguments, before)
    if d in axis.dims:
        axis = axis.blurred(d, after[d] if len(before) == len(after) else 1).thinned()
    return axis if len(before) == len(after) else axis.without([d])


def _join(axis: Axis, arguments: Arguments, before: Shape, after: Shape) -> Axis:
    (d,) = _dims(arguments, after)
    return axis.blurred(d, after[d]) if d in axis.dims else axis


def _reduce(axis: Axis, arguments: Arguments, before: Shape, after: Shape) -> Axis:
    """A mean, sum, maximum, ... over some dimensions, or over all."""
    summed = _dims(arguments, before)
    axis = axis.mixed(summed)
    return axis if len(before) == len(after) else axis.without(summed)


def _weigh(axis: Axis, arguments: Arguments, before: Shape, after: Shape) -> Axis:
    """Softmax and its like: a unit sees all those along one dimension."""
    return axis.mixed(_dims(arguments, before))


def _view(axis: Axis, arguments: Arguments, before: Shape, after: Shape) -> Axis:
    """Dimensions are flattened or unflattened: the order in memory stays."""
    places: list[Place] = []
    for old in axis.places:
        if old is LOST or before == after:
            places.append(old)
            continue
        low = old.inner * prod(before[len(before) + old.dim + 1 :])  # elements from one unit to the next
        for d in range(-len(after), 0):
            step = prod(after[len(after) + d + 1 :])
            start, end = max(low, step), min(low * old.size, step * after[d])
            if start >= end:
                continue
            if start % step or end % start:  # the unit's number can no longer be read from single dimensions
                return axis.thinned()
            new = Place(d, start // step, end // start)
            if places and places[-1].dim == d and places[-1].inner == new.inner * new.size:
                new = new._replace(size=new.size * places.pop().size)
            places.append(new)
        if old.size == 1:  # it is in any dimension of size 1, or else where its only unit is
            holders = [d for d in range(-len(after), 0) if prod(after[len(after) + d :]) > low]
            kept = old.dim >= -len(after) and after[old.dim] == 1
            places.append(Place(old.dim if kept else max(holders, default=-1), 1, 1))
    return axis._replace(places=tuple(places))


def _permute(axis: Axis, arguments: Arguments, before: Shape, after: Shape) -> Axis:
    n = len(before)
    if "dims" in arguments:
        order = [d % n for d in arguments["dims"]]
    else:  # transpose, t
        order, one, two = list(range(n)), arguments.get("dim0", 0) % n, arguments.get("dim1", n - 1) % n
        order[one], order[two] = two, one
    return axis.moved(lambda d: order.index(d + n) - n)


def _insert(axis: Axis, arguments: Arguments, before: Shape, after: Shape) -> Axis:
    (new,) = _dims(arguments, after)
    return axis.moved(lambda d: d if d > new else d - 1)


def _squeeze(axis: Axis, arguments: Arguments, before: Shape, after: Shape) -> Axis:
    return axis.without([d for d in _dims(arguments, before) if before[d] == 1])


def _dims(arguments: Arguments, shape: Shape) -> list[int]:
    """The dimensions that an operation names, from the end; all of them where it names none."""
    dim = arguments.get("dim")
    dims = [dim] if isinstance(dim, int) else dim or range(len(shape))
    return [d % len(shape) - len(shape) for d in dims]


MATRICES = {"key": [-2], "value": [-2]}
SUMMED: dict[str, dict[str, list[int]]] = {  # over which dimensions of its arguments a product of matrices sums
    "mm": {"self": [-1], "mat2": [-2]},
    "bmm": {"self": [-1], "mat2": [-2]},
    "addmm": {"mat1": [-1], "mat2": [-2]},
    "baddbmm": {"batch1": [-1], "batch2": [-2]},
    "linear": {"input": [-1]},
    "_scaled_dot_product_flash_attention_for_cpu": MATRICES,
    "_scaled_dot_product_flash_attention": MATRICES,
    "_scaled_dot_product_efficient_attention": MATRICES,
    "_scaled_dot_product_cudnn_attention": MATRICES,
}
NORMS = ["native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm", "native_layer_norm", "native_group_norm"]
REDUCTIONS = ["mean", "sum", "prod", "amax", "amin", "max", "min", "var", "std", "var_mean", "linalg_vector_norm"]
# that torch does not tag as pointwise; the last three it does since 2.8
ACTIVATIONS = ["hardswish", "mish", "_prelu_kernel", "rrelu_with_noise", "log_sigmoid_forward"]
ACTIVATIONS += ["hardtanh", "leaky_relu", "elu"]
COPIES = ["clone", "_to_copy", "copy", "detach", "alias", "expand"]
Rule = Callable[[Axis, Arguments, Shape, Shape], Axis]  # the shapes are those before and after
RULES: dict[str, Rule] = {
    **dict.fromkeys([*SUMMED, *NORMS, *ACTIVATIONS, *COPIES], same),
    **dict.fromkeys(["convolution", "max_pool2d_with_indices", "avg_pool2d"], _slide),
    **dict.fromkeys(["_adaptive_avg_pool2d", "adaptive_max_pool2d"], _adapt),
    **dict.fromkeys(["constant_pad_nd", "reflection_pad2d", "replication_pad2d"], _pad),
    **dict.fromkeys(["roll", "flip", "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"], _shuffle),
    **dict.fromkeys(REDUCTIONS, _reduce),
    **dict.fromkeys(["_softmax", "_log_softmax"], _weigh),
    **dict.fromkeys(["view", "_unsafe_view"], _view),
    **dict.fromkeys(["permute", "transpose", "t"], _permute),
    **dict.fromkeys(["select", "unbind", "split", "split_with_sizes", "glu"], _split),
    **dict.fromkeys(["unsqueeze", "stack"], _insert),
    "slice": _slice,
    "squeeze": _squeeze,
    "cat": _join,
}
