"""The stages of a pretrained body, by name: which of them to train, each with a learning rate of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastai.data.all import L, params
from fastai.learner import Learner
from fastai.vision.learner import TimmBody
from torch import nn

from fastcls.errors import UsageError, did_you_mean

CONTAINER = 0.85  # a child with more than this share of the weights holds the stages rather than being one


def stages(body: nn.Module) -> list[tuple[str, list[nn.Parameter]]]:
    """(name, parameters) from the image on: conv1, layer1 … layer4 of a ResNet, 0 … 3 of a ConvNeXt's `stages`.

    A child without a layer of its own weights, such as a norm, belongs to the stage before it.
    """
    found: list[tuple[str, list[nn.Parameter]]] = []
    for name, child in _children(body.model if isinstance(body, TimmBody) else body):
        own = list(child.parameters())
        if not own:
            continue
        if found and all(p.ndim < 2 for p in own):
            found[-1][1].extend(own)
        else:
            found.append((name, own))
    return found


def _children(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    total = sum(p.numel() for p in module.parameters())
    for name, child in module.named_children():
        heavy = sum(p.numel() for p in child.parameters()) > CONTAINER * total
        if heavy and isinstance(child, nn.Sequential | nn.ModuleList) and len(child) > 1:
            yield from _children(child, f"{prefix}{name}.")
        else:
            yield prefix + name, child


def split(model: nn.Sequential) -> Any:
    """A splitter with a parameter group for each stage of the body and one for the head."""
    return L(*[group for _, group in stages(model[0])], params(model[1:]))


def unfreeze(learn: Learner, what: str) -> None:
    """Train 'all', the 'head', or the head and the stages from `what` on: a stage's name, or how many late ones.

    The learner's splitter must be `split`.
    """
    names = [name for name, _ in stages(learn.model[0])]
    if what == "all":
        learn.unfreeze()
    elif what == "head":
        learn.freeze()
    elif what in names:
        learn.freeze_to(names.index(what))
    elif what.isdigit() and 0 < int(what) <= len(names):
        learn.freeze_to(len(names) - int(what))
    else:
        raise UsageError(
            f"--unfreeze {what}: this network has no such stage{did_you_mean(what, names)}",
            f"Take all, head, one of {', '.join(names)}, or a number of late stages, 1 to {len(names)}.",
        )
