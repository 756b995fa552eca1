"""A network with what is done before and after it, as one ONNX graph: pixels of any size to probabilities.

    images: uint8 (n, height, width, 3), or (n, height, width) for gray  →  probabilities, calibrated: (n, classes)

What `fastcls.images.preprocessing` does is written in ONNX's own text, operation by operation; ONNX Runtime's Resize
with antialias is Pillow's algorithm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import PIL
from onnx import compose, parser

from fastcls.runfolder.model_files import CHANNELS
from fastcls.runfolder.target import SINGLE

NEXT = "\n"
KINDS = {"bilinear": 'mode = "linear"', "bicubic": 'mode = "cubic", cubic_coeff_a = -0.5'}


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
    steps = ["planes = Transpose <perm = [0, 3, 1, 2]> (images)"] if channels == 3 else []
    if channels == 1:
        steps = ["one = Constant <value_ints = [1]> ()", "planes = Unsqueeze (images, one)"]
    name = "planes"
    if spec["method"]:
        steps += _sized(spec)
        name = "cropped"
    mean, std = (np.asarray(spec[key] or [default] * channels) for key, default in (("mean", 0.0), ("std", 1.0)))
    steps += [
        f"numbers = Cast <to = {onnx.TensorProto.FLOAT}> ({name})",
        _constant("factor", f"float[1, {channels}, 1, 1]", (1 / (255 * std)).astype(np.float32)),
        _constant("offset", f"float[1, {channels}, 1, 1]", (mean / std).astype(np.float32)),
        "scaled = Mul (numbers, factor)",
        "prepared = Sub (scaled, offset)",
    ]
    return f"(uint8[{shape}] images) => (float[n, {channels}, y, x] prepared) {{\n{NEXT.join(steps)}\n}}"


def _sized(spec: Mapping[str, Any]) -> list[str]:
    """The part with the target's aspect ratio, resized, and the centre of that."""
    (height, width), (crop_height, crop_width) = spec["resize"], spec["size"]
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    steps, name = [], "planes"
    if spec["method"] != "squish":
        steps, name = _to_aspect(spec, height, width), "part"
    kind = KINDS[spec.get("interpolation", "bilinear")]
    resize = f"Resize <{kind}, antialias = 1, exclude_outside = 1>"
    return [
        *steps,
        _constant("target", "int64[2]", [height, width]),
        f"outer = Shape <start = 0, end = 2> ({name})",
        "sizes = Concat <axis = 0> (outer, target)",
        *_first_pass(name),
        f"once = {resize} ({name}, , , first_sizes)",
        f"resized = {resize} (once, , , sizes)",
        _constant("begins", "int64[2]", [top, left]),
        _constant("ends", "int64[2]", [top + crop_height, left + crop_width]),
        _constant("sides", "int64[2]", [2, 3]),
        "cropped = Slice (resized, begins, ends, sides)",
    ]


def _first_pass(name: str) -> list[str]:
    """The sizes after one of Pillow's two passes, whose result is rounded: rows first where height shrinks most.

    Pillow's own rule since 13 (ImagingResample); before, columns always came first.
    """
    if int(PIL.__version__.partition(".")[0]) < 13:
        choose = "rows_first = Less (shrinks, shrinks)"
    else:
        choose = "rows_first = And (row_shrinks, more)"
    return [
        f"before_it = Shape <start = 2, end = 4> ({name})",
        "shrinks = Sub (before_it, target)",
        _constant("first_side", "int64[1]", [0]),
        _constant("second_side", "int64[1]", [1]),
        _constant("double", "int64[1]", [2]),
        "of_rows = Gather <axis = 0> (shrinks, first_side)",
        "of_columns = Gather <axis = 0> (shrinks, second_side)",
        "of_columns_twice = Mul (of_columns, double)",
        "row_shrinks = Greater (of_rows, first_side)",
        "more = Greater (of_rows, of_columns_twice)",
        choose,
        _constant("is_row", "bool[2]", [1, 0]),
        "is_first = Equal (is_row, rows_first)",
        "first_sides = Where (is_first, target, before_it)",
        "first_sizes = Concat <axis = 0> (outer, first_sides)",
    ]


def _to_aspect(spec: Mapping[str, Any], height: int, width: int) -> list[str]:
    """`preprocessing._to_aspect`: rows and columns are gathered, those beyond the edge as the padding has them."""
    whole_number, double = onnx.TensorProto.INT64, onnx.TensorProto.DOUBLE
    steps = [
        "extent = Shape <start = 2, end = 4> (planes)",
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
    name = "planes"
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
            f"{axis}_taken = Gather <axis = {2 + number}> ({name}, {axis}_index)",
        ]
        name = f"{axis}_taken"
        if spec["method"] == "pad" and spec["pad_mode"] == "zeros":
            steps += [
                f"{axis}_inside = Equal ({axis}_all, {axis}_index)",
                f"{axis}_flat = Cast <to = {onnx.TensorProto.UINT8}> ({axis}_inside)",
                f"{axis}_along = Constant <value_ints = {[0, 1, 3] if number == 0 else [0, 1, 2]}> ()",
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
