"""A learner's state as plain values and tensors, and back: weights, optimiser, schedule, callbacks, gradients.

Random numbers are no part of it: all that is random in training depends on (seed, epoch, step) alone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from fastai.callback.core import Callback
from fastai.data.all import L, to_device
from fastai.learner import Learner, Recorder
from fastai.torch_core import get_model

from fastcls.training import trees

SMOOTH = "smooth_loss"  # of the Recorder, an object of its own


def state_of(learn: Learner) -> dict[str, Any]:
    """All that the next step depends on."""
    return {
        "trained": {"pct_train": learn.pct_train, "train_iter": learn.train_iter},
        "model": dict(get_model(learn.model).state_dict()),
        "loss_func": dict(learn.loss_func.state_dict()) if isinstance(learn.loss_func, torch.nn.Module) else {},
        "optimizer": learn.opt.state_dict(),
        "gradients": [_gradient(p) for p in learn.model.parameters()],
        "scaler": learn.scaler.state_dict() if getattr(learn, "scaler", None) is not None else None,
        "callbacks": {name: _remembered(callback) for name, callback in _named(learn)},
    }


def _gradient(parameter: torch.Tensor) -> Any:
    """None, or True for zeros, or what is accumulated."""
    if parameter.grad is None:
        return None
    return parameter.grad if parameter.grad.any() else True


def restore(learn: Learner, state: Mapping[str, Any]) -> None:
    """Make a learner what it was when `state_of` was asked."""
    trees.load_weights(get_model(learn.model), state["model"])
    if state["loss_func"]:
        learn.loss_func.load_state_dict(state["loss_func"])
    learn.opt.load_state_dict(_placed(learn, state["optimizer"]))
    for parameter, held in zip(learn.model.parameters(), state["gradients"], strict=True):
        zeros = None if held is None else torch.zeros_like(parameter)
        parameter.grad = zeros if held is None or held is True else zeros.copy_(held)  # type: ignore[union-attr]
    if state["scaler"] and getattr(learn, "scaler", None) is not None:
        learn.scaler.load_state_dict(state["scaler"])
    restore_callbacks(learn, state)


def restore_callbacks(learn: Learner, state: Mapping[str, Any]) -> None:
    """Give callbacks back what they had counted and collected."""
    held = state["callbacks"]
    for name, callback in _named(learn):
        values = held.get(name)
        if values is None:
            continue
        values = copy.deepcopy(values)  # restored twice where an epoch had begun
        if hasattr(type(callback), "load_state_dict"):
            callback.load_state_dict(values)
        else:
            if SMOOTH in values:
                vars(callback.smooth_loss).update(values.pop(SMOOTH))
            vars(callback).update(values)
    for name, value in state["trained"].items():
        setattr(learn, name, value)


def _named(learn: Learner) -> Iterator[tuple[str, Callback]]:
    """Every callback with its class's name and how many of that class come before it."""
    seen: dict[str, int] = {}
    for callback in learn.cbs.sorted("order"):
        kind = type(callback).__name__
        yield f"{kind}#{seen.setdefault(kind, 0)}", callback
        seen[kind] += 1


def _remembered(callback: Callback) -> dict[str, Any]:
    """A callback's state: what it says itself, or its attributes that are numbers, text, tensors, or hold such."""
    if hasattr(type(callback), "state_dict"):
        return dict(callback.state_dict())
    found = {name: value for name, value in vars(callback).items() if name != "run" and trees.packable(value)}
    if isinstance(callback, Recorder):
        found[SMOOTH] = {name: getattr(callback.smooth_loss, name) for name in ("count", "val")}
    return found


def _placed(learn: Learner, state: Any) -> Any:
    """An optimiser's state on the device, in the memory format of the parameters that its tensors belong to."""
    if not isinstance(state.get("state"), list):
        return state  # torch's, whose own load_state_dict does it
    device = learn.dls.device
    parameters = [p for group in learn.opt.param_lists for p in group]
    entries = [
        {name: _beside(parameter, value) for name, value in entry.items()}
        for parameter, entry in zip(parameters, state["state"], strict=True)
    ]
    return {**to_device(state, device), "state": entries, "hypers": L(state["hypers"])}


def _beside(parameter: torch.Tensor, value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    if value.shape == parameter.shape:
        return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    return value.to(parameter.device)
