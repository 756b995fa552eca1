"""The stages of a pretrained body, by name: which of them to train, each with a learning rate of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastai.data.all import L, params
from fastai.learner import Learner
from torch import nn

from fastcls.errors import UsageError, did_you_mean

CONTAINERS = ("features", "blocks", "stages", "layers")  # what both libraries call the children that hold the stages
HEAVY = 0.85  # so does any other child with more than this share of the weights
LAYERS = 10  # a container of more children than this lists layers or blocks, of which several are a stage
POOLS = nn.modules.pooling._MaxPoolNd | nn.modules.pooling._AvgPoolNd

Stage = tuple[str, list[nn.Parameter]]


def stages(body: nn.Module) -> list[Stage]:
    """(name, parameters) from the image on: conv1, layer1 … layer4 of a ResNet, blocks.0 … blocks.11 of a ViT.

    A part without a matrix of weights, such as a norm, belongs to the stage before it; tokens and position embeddings
    belong to the first one. Where a network lists its layers one by one, as VGGs and MobileNets of torchvision do, a
    stage begins wherever the image becomes smaller.
    """
    found: list[Stage] = []
    loose: list[nn.Parameter] = []
    seen: set[nn.Parameter] = set()  # few networks use a layer in several stages
    for name, parameters, begins in _parts(body):
        own = [p for p in parameters if p not in seen]
        seen.update(own)
        if not own:
            continue
        if not name:
            loose += own
        elif found and (not begins or all(p.ndim < 2 for p in own)):
            found[-1][1].extend(own)
        else:
            found.append((name, own))
    if loose:
        found[0][1].extend(loose)
    return found


def _parts(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, list[nn.Parameter], bool]]:
    """(name, parameters, whether a stage may begin there), from the image on; a container's own have no name."""
    total = sum(p.numel() for p in module.parameters())
    children = list(module.named_children())
    yield "", list(module.parameters(recurse=False)), False
    listing = len(children) > LAYERS and sum(_downsamples(child) for _, child in children) > 1
    begins = True
    for name, child in children:
        begins = begins or not listing or _downsamples(child)
        heavy = sum(p.numel() for p in child.parameters()) > HEAVY * total
        if (heavy or name in CONTAINERS) and sum(any(True for _ in m.parameters()) for m in child.children()) > 1:
            yield from _parts(child, f"{prefix}{name}.")
            begins = True
        else:
            own = list(child.parameters())
            yield prefix + name, own, begins
            begins = begins and not own  # a pool begins the stage of the layer after it


def _downsamples(module: nn.Module) -> bool:
    strides: list[Any] = [m.stride for m in module.modules() if isinstance(m, nn.Conv2d | POOLS)]
    return any((stride if isinstance(stride, int) else max(stride)) > 1 for stride in strides)


def split(model: nn.Sequential) -> Any:
    """A splitter with one parameter group for each stage of the body and one for the head."""
    return L(*[group for _, group in stages(model[0])], params(model[1:]))


def unfreeze(learn: Learner, what: str) -> None:
    """Train 'all', the 'head', or the head and the stages from `what` on: a stage's name, or a number of late ones.

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
            f"Use all, head, one of {', '.join(names)}, or a number of late stages, 1 to {len(names)}.",
        )
