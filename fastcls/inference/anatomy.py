"""Where an ONNX classifier keeps its features and its last feature maps, and the part of it that comes after these."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx
from onnx.utils import Extractor

LINEAR = {"Gemm", "MatMul"}
SMALL = 32  # maps of up to this side may be as large as the image; larger ones that are, attention between tokens
EARLY = 0.25  # of the operations: maps that end there are a patch embedding's, no network's last


@dataclass(frozen=True)
class Anatomy:
    """Names of tensors in an ONNX graph; None for what the network has not.

    features: input of the last linear layer, (n, d).  maps: the last feature maps that every later operation reads
    instead of the image, (n, c, h, w), or (n, h, w, c) with `channels_last`.  outlet: what the maps are asked for,
    (n, classes): the logits, or those of the first view where the network averages several views of an image.
    """

    outlet: str
    features: str | None
    maps: str | None
    channels_last: bool = False

    def body(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The network with features and maps as further outputs, in this order."""
        whole = onnx.ModelProto()
        whole.CopyFrom(model)
        known = {value.name: value for value in model.graph.value_info}
        for name in filter(None, (self.features, self.maps)):
            whole.graph.output.append(known.get(name) or onnx.ValueInfoProto(name=name))
        return whole

    def head(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The network from the maps, which it must have, to the outlet."""
        assert self.maps
        whole = onnx.ModelProto()
        whole.CopyFrom(model)
        for node in whole.graph.node:
            if _asks_for_batch_size(node):
                node.input[0] = self.maps
        return Extractor(whole).extract_model([self.maps], [self.outlet])


def dissect(model: onnx.ModelProto) -> Anatomy:
    """Find the parts of an exported classifier, one input (n, channels, height, width) to one output (n, classes)."""
    graph = _Graph(model)
    linear = graph.last_linear()
    features = graph.variable(linear.input)[0] if linear else None
    outlet = linear.output[0] if linear else model.graph.output[0].name
    for name, channels_last in graph.maps_before(outlet):
        if graph.is_passage(name, outlet):
            return Anatomy(outlet, features, name, channels_last)
    return Anatomy(outlet, features, None)


def _asks_for_batch_size(node: onnx.NodeProto) -> bool:
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    return node.op_type == "Shape" and attributes.get("start", 0) == 0 and attributes.get("end") == 1


class _Graph:
    """Who makes and who reads which tensor, and what shape it has."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.nodes = list(graph.node)
        self.maker = {name: i for i, node in enumerate(self.nodes) for name in node.output if name}
        self.image, self.logits = graph.input[0].name, graph.output[0].name
        self.shapes = {
            value.name: [d.dim_value or d.dim_param for d in value.type.tensor_type.shape.dim]
            for value in (*graph.input, *graph.value_info, *graph.output)
        }
        self.constants = {value.name for value in graph.initializer}
        for node in self.nodes:  # in the order in which they run
            if all(name in self.constants for name in node.input if name):
                self.constants.update(node.output)

    def variable(self, names: object) -> list[str]:
        """Those of some inputs that depend on the image."""
        return [name for name in names if name and name not in self.constants]  # type: ignore[attr-defined]

    def last_linear(self) -> onnx.NodeProto | None:
        """The linear layer that gives the logits; the first of them where several views or heads are summed."""
        found, waiting, seen = [], [self.logits], set()
        while waiting:
            place = self.maker.get(waiting.pop())
            if place is None or place in seen:
                continue
            seen.add(place)
            node = self.nodes[place]
            inputs = self.variable(node.input)
            if node.op_type in LINEAR and len(inputs) == 1:
                if self.shapes.get(node.output[0], [])[1:] == self.shapes[self.logits][1:]:
                    found.append(place)
            else:
                waiting += inputs
        return self.nodes[min(found)] if found else None

    def maps_before(self, outlet: str) -> Iterator[tuple[str, bool]]:
        """Small images of many channels that the outlet depends on, last first, and whether their channels are last."""
        above = sorted(self._above(outlet))
        batch, _, height, width = self.shapes[self.image]
        for place in reversed(above[int(len(above) * EARLY) :]):
            name = self.nodes[place].output[0]
            shape = self.shapes.get(name, [])
            if len(shape) != 4 or shape[0] != batch or not all(isinstance(side, int) for side in shape[1:]):
                continue
            last = shape[1] == shape[2] != shape[3]
            h, w = shape[1:3] if last else shape[2:]
            if 1 < h <= max(SMALL, height // 2) and round(h * width / height) == w:
                yield name, last

    def is_passage(self, name: str, outlet: str) -> bool:
        """Whether the outlet sees nothing of the image but through this tensor, its batch size excepted."""
        nodes = (self.nodes[place] for place in self._above(outlet, name))
        read = (one for node in nodes if not _asks_for_batch_size(node) for one in self.variable(node.input))
        return self.image not in set(read) - {name}

    def _above(self, outlet: str, stop: str = "") -> set[int]:
        """The operations that the outlet depends on, up to a tensor."""
        found: set[int] = set()
        waiting = [outlet]
        while waiting:
            name = waiting.pop()
            place = self.maker.get(name)
            if name != stop and place is not None and place not in found:
                found.add(place)
                waiting += self.nodes[place].input
        return found
