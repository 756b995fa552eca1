"""A network with what is done before and after it, as one ONNX graph: pixels of any size to probabilities.

    images: uint8 (n, height, width, 3), or (n, height, width) for gray  →  probabilities, calibrated: (n, classes)

What `fastcls.images.preprocessing` does is written here in ONNX's operations, and gives the same bytes. ONNX Runtime's
Resize with antialias is Pillow's algorithm with places in 32 bits: of 10,000 values it rounds one to the other side,
which moved a probability by 0.0012.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import PIL
from onnx import compose, helper, numpy_helper, parser

from fastcls.runfolder.model_files import CHANNELS
from fastcls.runfolder.target import SINGLE

BITS = 22  # of a weight's fraction: Pillow's PRECISION_BITS
TURNED = [0, 2, 1, 3]  # rows and columns of (n, h, w, c) exchanged


class Graph:
    """An ONNX graph that is written while it is computed with; prefix: of the names in it."""

    def __init__(self, prefix: str) -> None:
        self.prefix, self.nodes = prefix, list[onnx.NodeProto]()

    def add(self, operator: str, inputs: Sequence[str], kind: Any, name: str = "", **attributes: Any) -> Tensor:
        """The result of an operation, which may be named."""
        name = name or f"{self.prefix}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return Tensor(self, name, kind)

    def constant(self, value: Any, kind: Any) -> Tensor:
        return self.add("Constant", [], kind, value=numpy_helper.from_array(np.asarray(value, kind)))

    def closed(self, inputs: Sequence[tuple[Tensor, Any]], outputs: Sequence[tuple[Tensor, Any]]) -> onnx.GraphProto:
        """The graph from inputs to outputs, each with its shape."""
        takes, gives = ([_described(one, shape) for one, shape in part] for part in (inputs, outputs))
        return helper.make_graph(self.nodes, self.prefix, takes, gives)


class Tensor:
    """A value in a graph: what is computed with it becomes an operation there, a number beside it a constant."""

    def __init__(self, graph: Graph, name: str, kind: Any) -> None:
        self.graph, self.name, self.kind = graph, name, kind

    def op(self, operator: str, *others: Any, kind: Any = None, **attributes: Any) -> Tensor:
        inputs = [self.name, *(self._like(other).name for other in others)]
        return self.graph.add(operator, inputs, kind or self.kind, **attributes)

    def _like(self, value: Any) -> Tensor:
        return value if isinstance(value, Tensor) else self.graph.constant(value, self.kind)

    def __add__(self, other: Any) -> Tensor:
        return self.op("Add", other)

    def __sub__(self, other: Any) -> Tensor:
        return self.op("Sub", other)

    def __mul__(self, other: Any) -> Tensor:
        return self.op("Mul", other)

    def __truediv__(self, other: Any) -> Tensor:
        return self.op("Div", other)

    def __lt__(self, other: Any) -> Tensor:
        return self.op("Less", other, kind=np.bool_)

    def __gt__(self, other: Any) -> Tensor:
        return self.op("Greater", other, kind=np.bool_)

    def __getitem__(self, place: int) -> Tensor:
        return self.op("Gather", self.graph.constant(place, np.int64), axis=0)

    def max(self, other: Any) -> Tensor:
        return self.op("Max", other)

    def min(self, other: Any) -> Tensor:
        return self.op("Min", other)

    def to(self, kind: Any) -> Tensor:
        return self.op("Cast", kind=kind, to=helper.np_dtype_to_tensor_dtype(np.dtype(kind)))

    def where(self, yes: Tensor, no: Any) -> Tensor:
        return self.op("Where", yes, yes._like(no), kind=yes.kind)

    def unsqueeze(self, *axes: int) -> Tensor:
        return self.op("Unsqueeze", self.graph.constant(axes, np.int64))

    def range(self, start: Any = 0) -> Tensor:
        """The integers from `start` to this one."""
        return self._like(start).op("Range", self, 1)


def _described(one: Tensor, shape: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(one.name, helper.np_dtype_to_tensor_dtype(np.dtype(one.kind)), shape)


def whole(
    network: onnx.ModelProto, spec: Mapping[str, Any], temperature: float, activation: str = SINGLE.activation
) -> onnx.ModelProto:
    """The network (prepared images to logits) between the preprocessing of model.json and the target's activation.

    temperature: of the second output, `calibrated`. activation: an operator in ONNX's text, of logits.
    """
    opset = max(version.version for version in network.opset_import if version.domain in ("", "ai.onnx"))
    versions = {"ir_version": network.ir_version, "opset_imports": [helper.make_opsetid("", opset)]}
    classes = network.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    before, after = (
        helper.make_model(graph, **versions) for graph in (_before(spec), _after(classes, temperature, activation))
    )
    image, logits = network.graph.input[0].name, network.graph.output[0].name
    joined = compose.merge_models(
        before, compose.add_prefix(network, "network/"), io_map=[("prepared", f"network/{image}")]
    )
    joined = compose.merge_models(joined, after, io_map=[(f"network/{logits}", "logits")])
    onnx.checker.check_model(joined)
    return joined


def _before(spec: Mapping[str, Any]) -> onnx.GraphProto:
    """The graph from pixels to what the network takes."""
    graph, channels = Graph("before"), CHANNELS[spec["mode"]]
    images = Tensor(graph, "images", np.uint8)
    pixels = images if channels == 3 else images.unsqueeze(3)
    if spec["method"]:
        pixels = _sized(pixels, spec)
    mean, std = (np.asarray(spec[key] or [default] * channels) for key, default in (("mean", 0.0), ("std", 1.0)))
    numbers = pixels.op("Transpose", perm=[0, 3, 1, 2]).to(np.float32)
    scaled = numbers * (1 / (255 * std)).reshape(1, channels, 1, 1)
    offset = graph.constant((mean / std).reshape(1, channels, 1, 1), np.float32)
    prepared = graph.add("Sub", [scaled.name, offset.name], np.float32, name="prepared")
    shape = ["n", "h", "w", *([3] if channels == 3 else [])]
    return graph.closed([(images, shape)], [(prepared, ["n", channels, "y", "x"])])


def _after(classes: int, temperature: float, activation: str) -> onnx.GraphProto:
    """The graph from logits to probabilities, as they are and at the temperature."""
    graph, shape = Graph("after"), ["n", classes or "classes"]
    logits = Tensor(graph, "logits", np.float32)
    named = {"probabilities": logits, "calibrated": logits / temperature}
    graph.nodes += [parser.parse_node(f"{name} = {activation} ({one.name})") for name, one in named.items()]
    return graph.closed([(logits, shape)], [(Tensor(graph, name, np.float32), shape) for name in named])


# ------------------------------------------------------------------ resizing


def _sized(pixels: Tensor, spec: Mapping[str, Any]) -> Tensor:
    """The part with the target's aspect ratio, resized, and the centre of that.

    Pillow resizes by two passes, each of which is rounded: columns first, or rows where height shrinks most.
    """
    (height, width), (crop_height, crop_width) = spec["resize"], spec["size"]
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    part = pixels if spec["method"] == "squish" else _to_aspect(pixels, spec, height, width)
    graph, weight = part.graph, KERNELS[spec.get("interpolation", "bilinear")]
    new_rows, new_columns = graph.constant(height, np.int64), graph.constant(width, np.int64)
    shape = part.op("Shape", kind=np.int64)
    fewer = shape[1] - new_rows
    rows_first = (fewer > 0).op("And", fewer > (shape[2] - new_columns) * 2)  # Pillow's own rule since 13
    if int(PIL.__version__.partition(".")[0]) < 13:
        rows_first = graph.constant(False, np.bool_)
    first = _turned_unless(rows_first, part)
    once = _resampled(first, rows_first.where(new_rows, new_columns), *weight)
    twice = _resampled(once.op("Transpose", perm=TURNED), rows_first.where(new_columns, new_rows), *weight)
    resized = _turned_unless(rows_first.op("Not"), twice)
    ends = [
        graph.constant(values, np.int64) for values in ([top, left], [top + crop_height, left + crop_width], [1, 2])
    ]
    return resized.op("Slice", *ends)


def _turned_unless(condition: Tensor, image: Tensor) -> Tensor:
    """An image (n, h, w, c) as it is, or else with rows and columns exchanged."""
    branches = {}
    ways: dict[str, tuple[str, dict[str, Any]]]
    ways = {"then_branch": ("Identity", {}), "else_branch": ("Transpose", {"perm": TURNED})}
    for branch, (operator, how) in ways.items():
        graph = Graph(f"{image.name}_{branch}")
        found = graph.add(operator, [image.name], image.kind, **how)
        branches[branch] = graph.closed([], [(found, ["n", f"{branch}_a", f"{branch}_b", "c"])])
    return condition.op("If", kind=image.kind, **branches)


def _bilinear(distance: Tensor) -> Tensor:
    return (distance._like(1) - distance).max(0)


def _bicubic(distance: Tensor) -> Tensor:
    near = (distance * 1.5 - 2.5) * distance * distance + 1
    far = (((distance - 5) * distance + 8) * distance - 4) * -0.5  # a = -0.5
    return (distance < 1).where(near, (distance < 2).where(far, 0))


# Pillow's filters: how far each reaches, and its weights at distances from its centre
KERNELS = {"bilinear": (1.0, _bilinear), "bicubic": (2.0, _bicubic)}


def _resampled(source: Tensor, side: Tensor, reach: float, weight: Callable[[Tensor], Tensor]) -> Tensor:
    """One of Pillow's passes (Resample.c), to the bit: `side` rows in place of those of `source`, (n, h, w, c).

    A row is a sum over the rows near its centre, of weights in integers of 2 ** -BITS, rounded; one turn of the loop
    adds the t-th of each row's.
    """
    rows = source.op("Shape", kind=np.int64)[1]
    scale = rows.to(np.float64) / side.to(np.float64)
    stretch = scale.max(1)
    support = stretch * reach
    centres = (side.range().to(np.float64) + 0.5) * scale
    start = (centres - support + 0.5).to(np.int64).max(0)
    stop = (centres + support + 0.5).to(np.int64).min(rows)
    most = (stop - start).op("ReduceMax", keepdims=0)
    taken = start + most.range().unsqueeze(1)  # (turns, side): rows of the source
    distance = ((taken.to(np.float64) - centres + 0.5) * (stretch._like(1) / stretch)).op("Abs")
    shown = (taken < stop).where(weight(distance), 0)
    share = shown / shown.op("ReduceSum", source.graph.constant([0], np.int64)) * 2.0**BITS
    weights = (share + share.op("Sign") * 0.5).to(np.int32).unsqueeze(2, 3)
    outer, rest = (source.op("Shape", kind=np.int64, **part) for part in ({"end": 1}, {"start": 2}))
    sizes = outer.op("Concat", side.unsqueeze(0), rest, axis=0)
    half = numpy_helper.from_array(np.array([2 ** (BITS - 1)], np.int32))
    begin = sizes.op("ConstantOfShape", kind=np.int32, value=half)

    body = Graph(f"{begin.name}_")
    turn, goes_on, so_far = (
        Tensor(body, f"{body.prefix}{name}", kind)
        for name, kind in (("turn", np.int64), ("goes_on", np.bool_), ("so_far", np.int32))
    )
    values = Tensor(body, source.name, source.kind).op("Gather", (turn + start).min(rows - 1), axis=1)
    further = so_far + values.to(np.int32) * Tensor(body, weights.name, weights.kind).op("Gather", turn, axis=0)
    image = ["n", "h", "w", "c"]
    inputs = [(turn, []), (goes_on, []), (so_far, image)]
    loop = body.closed(inputs, [(goes_on.op("Identity"), []), (further, image)])
    total = source.graph.add("Loop", [most.name, "", begin.name], np.int32, body=loop)
    clipped = (total / 2**BITS).op("Clip", 0, 255)
    return clipped.to(np.uint8)


def _to_aspect(pixels: Tensor, spec: Mapping[str, Any], height: int, width: int) -> Tensor:
    """`preprocessing._to_aspect`: rows and columns are gathered, those beyond the edge as the padding has them."""
    padded = spec["method"] == "pad"
    extent = pixels.op("Shape", kind=np.int64, start=1, end=3)
    wanted = pixels.graph.constant([height, width], np.float64)
    scale = (extent.to(np.float64) / wanted).op("ReduceMax" if padded else "ReduceMin", keepdims=1)
    spans = (scale * wanted).to(np.int64)
    starts = ((extent - spans).to(np.float64) * 0.5).to(np.int64)
    stops = starts + spans
    for axis in (0, 1):
        along, last = stops[axis].range(starts[axis]), extent[axis] - 1
        if padded and spec["pad_mode"] == "reflection":
            index = last - (last - along.op("Mod", (last + last).max(1))).op("Abs")
        else:
            index = along.max(0).min(last)
        pixels = pixels.op("Gather", index, axis=1 + axis)
        if padded and spec["pad_mode"] == "zeros":
            inside = along.op("Equal", index, kind=np.bool_).to(np.uint8)
            pixels = pixels * inside.unsqueeze(*((0, 2, 3) if axis == 0 else (0, 1, 3)))
    return pixels
