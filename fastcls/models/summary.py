"""The network, layer by layer: output shape, kernel, stride, parameters, multiply-adds, receptive field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from fastcls.machine.flops import flop_counter
from fastcls.models.receptive import ReceptiveFields


def summarize(model: nn.Module, input_shape: Sequence[int]) -> list[dict[str, Any]]:
    """A row a layer that computes something, in the order of the computation.

    input_shape: (channels, height, width). A module with layers inside has a row for what it holds or computes itself.
    A layer that is used several times has as many rows, and its parameters are in the first; so the sums over rows of
    `parameters` and `multiply_adds` (an image's) are those of the network. `receptive_field` is in pixels of the
    image: [height, width], 'whole image', or None where it cannot be known (`receptive`).
    RuntimeError where the network does not take such images.
    """
    names = {module: name for name, module in model.named_modules()}
    calls = _calls(model, input_shape)
    owned = _owned_parameters(model, {call["module"] for call in calls})
    rows = []
    for call in calls:
        module: nn.Module = call["module"]
        parameters = owned.pop(module, [])
        has_layers = any(True for _ in module.children())
        if has_layers and not parameters and not call["multiply_adds"]:
            continue
        rows.append(
            {
                "layer": names[module] or "(network)",
                "type": type(module).__name__,
                "output_shape": call["output_shape"],
                "kernel": _pair(getattr(module, "kernel_size", None)),
                "stride": _pair(getattr(module, "stride", None)),
                "parameters": sum(p.numel() for p in parameters),
                "multiply_adds": call["multiply_adds"],
                "receptive_field": call["receptive_field"],
                "trainable": any(p.requires_grad for p in parameters) if parameters else None,
            }
        )
    return rows


def count(model: nn.Module) -> tuple[int, int]:
    """Parameters in all, and those that are being trained."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained)


def _calls(model: nn.Module, input_shape: Sequence[int]) -> list[dict[str, Any]]:
    """Every call of a module of the network: output shape, receptive field, and its own multiply-adds, an image's."""
    device = next((p.device for p in model.parameters()), None)
    images = torch.zeros(1, *input_shape, device=device)
    flops, fields = flop_counter(), ReceptiveFields(images)
    calls: list[dict[str, Any]] = []
    running: list[dict[str, Any]] = []

    def before(module: nn.Module, _: Any) -> None:
        call = {"module": module, "started": flops.get_total_flops(), "inside": 0}
        calls.append(call)
        running.append(call)

    def after(module: nn.Module, _: Any, output: Any) -> None:
        call = running.pop()
        total = flops.get_total_flops() - call["started"]
        if running:
            running[-1]["inside"] += total
        call["multiply_adds"] = (total - call["inside"]) // 2 // len(images)
        outputs = [leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)]
        call["output_shape"] = [1, *outputs[0].shape[1:]] if outputs else []
        seen = fields.of(outputs[0]) if outputs else None
        call["receptive_field"] = list(seen) if isinstance(seen, tuple) else seen

    training = {module: module.training for module in model.modules()}
    trained = [p for p in model.parameters() if p.requires_grad]
    model.eval().requires_grad_(False)  # torch's counter fails where a parameter is itself a module's input
    hooks = [module.register_forward_pre_hook(before) for module in training]
    hooks += [module.register_forward_hook(after) for module in training]
    try:
        with torch.no_grad(), fields, flops:  # what fields computes itself is not counted
            model(images)
    except Exception as problem:  # whatever the network's own code raises
        raise RuntimeError(f"it does not accept images of shape {tuple(input_shape)} ({problem})") from problem
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in training.items():
            module.training = mode
        for parameter in trained:
            parameter.requires_grad_(True)
    return calls


def _owned_parameters(model: nn.Module, called: set[nn.Module]) -> dict[nn.Module, list[nn.Parameter]]:
    """Each parameter once: with the module that holds it, or where that is not called, with the next larger one."""
    owned: dict[nn.Module, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        path = name.rpartition(".")[0]
        while path and model.get_submodule(path) not in called:
            path = path.rpartition(".")[0]
        owned.setdefault(model.get_submodule(path), []).append(parameter)
    return owned


def _pair(value: Any) -> list[int] | None:
    if value is None or isinstance(value, str):
        return None
    return [value, value] if isinstance(value, int) else [int(v) for v in value]
