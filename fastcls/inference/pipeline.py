"""A network with what is done before and after it, as one ONNX graph: pixels of any size to probabilities.

    images: uint8 (n, height, width, 3), or (n, height, width) for gray  →  probabilities, calibrated: (n, classes)

What `fastcls.images.preprocessing` does is written in ONNX's own text, operation by operation, and gives the same
bytes. ONNX Runtime's Resize with antialias is Pillow's algorithm with places in 32 bits: of 10,000 values it rounds one
to the other side, which moved a probability by 0.0012.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import PIL
from onnx import compose, parser

from fastcls.runfolder.model_files import CHANNELS
from fastcls.runfolder.target import SINGLE

NEXT = "\n"
BITS = 22  # of a weight's fraction: Pillow's PRECISION_BITS


def whole(
    network: onnx.ModelProto, spec: Mapping[str, Any], temperature: float, activation: str = SINGLE.activation
) -> onnx.ModelProto:
    """The network (prepared images to logits) between the preprocessing of model.json and the target's activation.

    temperature: of the second output, `calibrated`. activation: an operator of ONNX, from logits to probabilities.
    """
    versions = f'<ir_version: {network.ir_version}, opset_import: ["": {_opset(network)}]>'
    classes = network.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    before = parser.parse_model(f"{versions} before {_before(spec)}")
    after = parser.parse_model(f"{versions} after {_after(classes, temperature, activation)}")
    image, logits = network.graph.input[0].name, network.graph.output[0].name
    joined = compose.merge_models(
        before, compose.add_prefix(network, "network/"), io_map=[("prepared", f"network/{image}")]
    )
    joined = compose.merge_models(joined, after, io_map=[(f"network/{logits}", "logits")])
    onnx.checker.check_model(joined)
    return joined


def _opset(network: onnx.ModelProto) -> int:
    return max(version.version for version in network.opset_import if version.domain in ("", "ai.onnx"))


def _before(spec: Mapping[str, Any]) -> str:
    """The graph from pixels to what the network takes."""
    channels = CHANNELS[spec["mode"]]
    shape = "n, h, w" + (", 3" if channels == 3 else "")
    steps = [f"pixels = {'Identity (images)' if channels == 3 else 'Unsqueeze (images, last_axis)'}"]
    steps[:0] = [] if channels == 3 else ["last_axis = Constant <value_ints = [3]> ()"]
    name = "pixels"
    if spec["method"]:
        steps += _sized(spec)
        name = "cropped"
    mean, std = (np.asarray(spec[key] or [default] * channels) for key, default in (("mean", 0.0), ("std", 1.0)))
    steps += [
        f"planes = Transpose <perm = [0, 3, 1, 2]> ({name})",
        f"numbers = Cast <to = {onnx.TensorProto.FLOAT}> (planes)",
        _constant("factor", f"float[1, {channels}, 1, 1]", (1 / (255 * std)).astype(np.float32)),
        _constant("offset", f"float[1, {channels}, 1, 1]", (mean / std).astype(np.float32)),
        "scaled = Mul (numbers, factor)",
        "prepared = Sub (scaled, offset)",
    ]
    return f"(uint8[{shape}] images) => (float[n, {channels}, y, x] prepared) {{\n{NEXT.join(steps)}\n}}"


def _sized(spec: Mapping[str, Any]) -> list[str]:
    """The part with the target's aspect ratio, resized, and the centre of that.

    Pillow resizes by two passes, each of which is rounded: columns first, or rows where height shrinks most.
    """
    (height, width), (crop_height, crop_width) = spec["resize"], spec["size"]
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    steps, name = [], "pixels"
    if spec["method"] != "squish":
        steps, name = _to_aspect(spec, height, width), "part"
    kernel = KERNELS[spec.get("interpolation", "bilinear")]
    return [
        *steps,
        *(_constant(f"number{value}", "int64", value) for value in (0, 1, 2)),
        *(_constant(name, "int64", value) for name, value in (("height", height), ("width", width))),
        *(_constant(name, "double", value) for name, value in (("unit", 1.0), ("nothing", 0.0), ("middle_of", 0.5))),
        *(_constant(name, "double", value) for name, value in kernel.constants.items()),
        _constant("reach", "double", kernel.reach),
        _constant("parts", "double", 2.0**BITS),
        _constant("bits", "int32", 2**BITS),
        *(_constant(name, "int32", value) for name, value in (("darkest", 0), ("brightest", 255))),
        f"before_it = Shape ({name})",
        "rows = Gather <axis = 0> (before_it, number1)",
        "columns = Gather <axis = 0> (before_it, number2)",
        *_rows_first(),
        f"first = If (rows_first) <{_either(name, 'first')}>",
        "first_side = Where (rows_first, height, width)",
        "second_side = Where (rows_first, width, height)",
        *_resampled("once", "first", "first_side", kernel),
        "second = Transpose <perm = [0, 2, 1, 3]> (once)",
        *_resampled("twice", "second", "second_side", kernel),
        f"resized = If (rows_first) <{_either('twice', 'last', turned=True)}>",
        _constant("begins", "int64[2]", [top, left]),
        _constant("ends", "int64[2]", [top + crop_height, left + crop_width]),
        _constant("sides", "int64[2]", [1, 2]),
        "cropped = Slice (resized, begins, ends, sides)",
    ]


def _rows_first() -> list[str]:
    """Pillow's own rule since 13 (ImagingResample); before, columns always came first."""
    if int(PIL.__version__.partition(".")[0]) < 13:
        return ["rows_first = Less (height, number0)"]
    return [
        "row_shrinkage = Sub (rows, height)",
        "column_shrinkage = Sub (columns, width)",
        "column_shrinkage_twice = Mul (column_shrinkage, number2)",
        "shrinks = Greater (row_shrinkage, number0)",
        "more = Greater (row_shrinkage, column_shrinkage_twice)",
        "rows_first = And (shrinks, more)",
    ]


def _either(name: str, prefix: str, turned: bool = False) -> str:
    """Branches: the image as it is, or with rows and columns exchanged; `turned`: the other way round."""
    ways = ("Identity", "Transpose <perm = [0, 2, 1, 3]>")
    branches = zip(("then_branch", "else_branch"), reversed(ways) if turned else ways, strict=True)
    return ", ".join(
        f"{branch} = {prefix}_{branch} () => (uint8[n, {branch}_a, {branch}_b, c] {prefix}_{branch}_out) "
        f"{{ {prefix}_{branch}_out = {way} ({name}) }}"
        for branch, way in branches
    )


@dataclass(frozen=True)
class Kernel:
    """A filter of Pillow's: how far it reaches, and its `weight` at a `distance` from its centre."""

    reach: float
    constants: Mapping[str, float]
    weight: Sequence[str]


KERNELS = {
    "bilinear": Kernel(1.0, {}, ["{p}_slope = Sub (unit, {p}_distance)", "{p}_weight = Max ({p}_slope, nothing)"]),
    "bicubic": Kernel(  # a = -0.5
        2.0,
        {"c1_5": 1.5, "c2_5": 2.5, "c4": 4.0, "c5": 5.0, "c8": 8.0, "a": -0.5},
        [
            "{p}_near1 = Mul ({p}_distance, c1_5)",
            "{p}_near2 = Sub ({p}_near1, c2_5)",
            "{p}_near3 = Mul ({p}_near2, {p}_distance)",
            "{p}_near4 = Mul ({p}_near3, {p}_distance)",
            "{p}_near = Add ({p}_near4, unit)",
            "{p}_far1 = Sub ({p}_distance, c5)",
            "{p}_far2 = Mul ({p}_far1, {p}_distance)",
            "{p}_far3 = Add ({p}_far2, c8)",
            "{p}_far4 = Mul ({p}_far3, {p}_distance)",
            "{p}_far5 = Sub ({p}_far4, c4)",
            "{p}_far = Mul ({p}_far5, a)",
            "{p}_is_near = Less ({p}_distance, unit)",
            "{p}_is_far = Less ({p}_distance, reach)",
            "{p}_beyond = Where ({p}_is_far, {p}_far, nothing)",
            "{p}_weight = Where ({p}_is_near, {p}_near, {p}_beyond)",
        ],
    ),
}


def _resampled(p: str, source: str, side: str, kernel: Kernel) -> list[str]:
    """One of Pillow's passes (Resample.c), to the bit: `p` has `side` rows in place of those of `source`, (n, h, w, c).

    A row is a sum over the rows near its centre, of weights in integers of 2 ** -BITS, rounded; one turn of the loop
    adds the t-th of each row's.
    """
    double, integer = onnx.TensorProto.DOUBLE, onnx.TensorProto.INT32
    image = f"int32[{p}_n, {p}_h, {p}_w, {p}_c]"
    return [
        f"{p}_shape = Shape ({source})",
        f"{p}_rows = Gather <axis = 0> ({p}_shape, number1)",
        f"{p}_old = Cast <to = {double}> ({p}_rows)",
        f"{p}_new = Cast <to = {double}> ({side})",
        f"{p}_scale = Div ({p}_old, {p}_new)",
        f"{p}_stretch = Max ({p}_scale, unit)",
        f"{p}_support = Mul ({p}_stretch, reach)",
        f"{p}_numbers = Range (number0, {side}, number1)",
        f"{p}_begins = Cast <to = {double}> ({p}_numbers)",
        f"{p}_middles = Add ({p}_begins, middle_of)",
        f"{p}_centres = Mul ({p}_middles, {p}_scale)",
        f"{p}_above = Sub ({p}_centres, {p}_support)",
        f"{p}_above_rounded = Add ({p}_above, middle_of)",
        f"{p}_above_row = Cast <to = {onnx.TensorProto.INT64}> ({p}_above_rounded)",
        f"{p}_start = Max ({p}_above_row, number0)",
        f"{p}_below = Add ({p}_centres, {p}_support)",
        f"{p}_below_rounded = Add ({p}_below, middle_of)",
        f"{p}_below_row = Cast <to = {onnx.TensorProto.INT64}> ({p}_below_rounded)",
        f"{p}_stop = Min ({p}_below_row, {p}_rows)",
        f"{p}_counts = Sub ({p}_stop, {p}_start)",
        f"{p}_most = ReduceMax <keepdims = 0> ({p}_counts)",
        f"{p}_turns = Range (number0, {p}_most, number1)",
        f"{p}_axes = Constant <value_ints = [1]> ()",
        f"{p}_down = Unsqueeze ({p}_turns, {p}_axes)",
        f"{p}_taken = Add ({p}_start, {p}_down)",  # (turns, side): rows of the source
        f"{p}_places = Cast <to = {double}> ({p}_taken)",
        f"{p}_from_centre = Sub ({p}_places, {p}_centres)",
        f"{p}_from_middle = Add ({p}_from_centre, middle_of)",
        f"{p}_shrink = Div (unit, {p}_stretch)",
        f"{p}_signed = Mul ({p}_from_middle, {p}_shrink)",
        f"{p}_distance = Abs ({p}_signed)",
        *(line.format(p=p) for line in kernel.weight),
        f"{p}_inside = Less ({p}_taken, {p}_stop)",
        f"{p}_shown = Where ({p}_inside, {p}_weight, nothing)",
        f"{p}_first_axis = Constant <value_ints = [0]> ()",
        f"{p}_total = ReduceSum ({p}_shown, {p}_first_axis)",
        f"{p}_share = Div ({p}_shown, {p}_total)",
        f"{p}_exact = Mul ({p}_share, parts)",
        f"{p}_sign = Sign ({p}_exact)",
        f"{p}_half = Mul ({p}_sign, middle_of)",
        f"{p}_rounded = Add ({p}_exact, {p}_half)",
        f"{p}_integers = Cast <to = {integer}> ({p}_rounded)",
        f"{p}_inner = Constant <value_ints = [2, 3]> ()",
        f"{p}_weights = Unsqueeze ({p}_integers, {p}_inner)",
        f"{p}_last = Sub ({p}_rows, number1)",
        f"{p}_outer = Shape <end = 1> ({source})",
        f"{p}_own = Unsqueeze ({side}, {p}_first_axis)",
        f"{p}_rest = Shape <start = 2> ({source})",
        f"{p}_sizes = Concat <axis = 0> ({p}_outer, {p}_own, {p}_rest)",
        f"{p}_begin = ConstantOfShape <value = int32[1] {{ {2 ** (BITS - 1)} }}> ({p}_sizes)",
        f"{p}_sum = Loop <body = {p}_body (int64 {p}_t, bool {p}_go, {image} {p}_so_far) "
        f"=> (bool {p}_goes, {image} {p}_further) {{",
        f"{p}_row = Add ({p}_start, {p}_t)",
        f"{p}_index = Min ({p}_row, {p}_last)",
        f"{p}_bytes = Gather <axis = 1> ({source}, {p}_index)",
        f"{p}_values = Cast <to = {integer}> ({p}_bytes)",
        f"{p}_weighed_by = Gather <axis = 0> ({p}_weights, {p}_t)",
        f"{p}_weighed = Mul ({p}_values, {p}_weighed_by)",
        f"{p}_further = Add ({p}_so_far, {p}_weighed)",
        f"{p}_goes = Identity ({p}_go)",
        f"}}> ({p}_most, , {p}_begin)",
        f"{p}_quotient = Div ({p}_sum, bits)",
        f"{p}_clipped = Clip ({p}_quotient, darkest, brightest)",
        f"{p} = Cast <to = {onnx.TensorProto.UINT8}> ({p}_clipped)",
    ]


def _to_aspect(spec: Mapping[str, Any], height: int, width: int) -> list[str]:
    """`preprocessing._to_aspect`: rows and columns are gathered, those beyond the edge as the padding has them."""
    whole_number, double = onnx.TensorProto.INT64, onnx.TensorProto.DOUBLE
    steps = [
        "extent = Shape <start = 1, end = 3> (pixels)",
        f"sides_now = Cast <to = {double}> (extent)",
        _constant("wanted", "double[2]", [height, width]),
        "ratios = Div (sides_now, wanted)",
        f"scale = {'ReduceMax' if spec['method'] == 'pad' else 'ReduceMin'} <keepdims = 1> (ratios)",
        "exact = Mul (scale, wanted)",
        f"spans = Cast <to = {whole_number}> (exact)",
        "rest = Sub (extent, spans)",
        f"rest_exact = Cast <to = {double}> (rest)",
        _constant("half", "double[1]", [0.5]),
        "middle = Mul (rest_exact, half)",
        f"starts = Cast <to = {whole_number}> (middle)",
        "stops = Add (starts, spans)",
        "step = Constant <value_int = 1> ()",
    ]
    name = "pixels"
    for number, axis in enumerate(("rows", "columns")):
        first, last = f"{axis}_at", f"{axis}_last"
        steps += [
            _constant(first, "int64", number),
            f"{axis}_start = Gather <axis = 0> (starts, {first})",
            f"{axis}_stop = Gather <axis = 0> (stops, {first})",
            f"{axis}_count = Gather <axis = 0> (extent, {first})",
            f"{axis}_all = Range ({axis}_start, {axis}_stop, step)",
            f"{last} = Sub ({axis}_count, step)",
            *_index(axis, last, spec),
            f"{axis}_taken = Gather <axis = {1 + number}> ({name}, {axis}_index)",
        ]
        name = f"{axis}_taken"
        if spec["method"] == "pad" and spec["pad_mode"] == "zeros":
            steps += [
                f"{axis}_inside = Equal ({axis}_all, {axis}_index)",
                f"{axis}_flat = Cast <to = {onnx.TensorProto.UINT8}> ({axis}_inside)",
                f"{axis}_along = Constant <value_ints = {[0, 2, 3] if number == 0 else [0, 1, 3]}> ()",
                f"{axis}_mask = Unsqueeze ({axis}_flat, {axis}_along)",
                f"{axis}_shown = Mul ({name}, {axis}_mask)",
            ]
            name = f"{axis}_shown"
    return [*steps, f"part = Identity ({name})"]


def _index(axis: str, last: str, spec: Mapping[str, Any]) -> list[str]:
    """The row or column behind each of the target's: beyond the edge the nearest, or its mirror image."""
    if spec["method"] == "pad" and spec["pad_mode"] == "reflection":
        return [
            f"{axis}_twice = Add ({last}, {last})",
            f"{axis}_period = Max ({axis}_twice, step)",
            f"{axis}_phase = Mod ({axis}_all, {axis}_period)",
            f"{axis}_back = Sub ({last}, {axis}_phase)",
            f"{axis}_far = Abs ({axis}_back)",
            f"{axis}_index = Sub ({last}, {axis}_far)",
        ]
    return [
        _constant(f"{axis}_zero", "int64", 0),
        f"{axis}_least = Max ({axis}_all, {axis}_zero)",
        f"{axis}_index = Min ({axis}_least, {last})",
    ]


def _after(classes: int, temperature: float, activation: str) -> str:
    """The graph from logits to probabilities, as they are and at the temperature."""
    outputs = ", ".join(f"float[n, {classes or 'classes'}] {name}" for name in ("probabilities", "calibrated"))
    steps = [
        f"probabilities = {activation} (logits)",
        _constant("temperature", "float", temperature),
        "softened = Div (logits, temperature)",
        f"calibrated = {activation} (softened)",
    ]
    return f"(float[n, {classes or 'classes'}] logits) => ({outputs}) {{\n{NEXT.join(steps)}\n}}"


def _constant(name: str, kind: str, values: Sequence[float] | np.ndarray | float) -> str:
    numbers = ", ".join(
        repr(value.item() if isinstance(value, np.generic) else value) for value in np.atleast_1d(values)
    )
    return f"{name} = Constant <value = {kind} {{ {numbers} }}> ()"
