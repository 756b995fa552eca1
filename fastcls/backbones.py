"""The bodies of torchvision's and timm's classifiers: an image batch in, one pooled feature vector an image out.

Both libraries pool in their own way; a body is the whole network without its last linear layer and the dropout before.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import torchvision
from torch import nn
from torchvision.models import get_model, list_models

from fastcls import lazy
from fastcls.architectures import defaults
from fastcls.errors import KnobError, UsageError, did_you_mean, nearest

with lazy.imports():  # timm takes a second, and custom networks need nothing of it
    import timm


def find(name: str) -> tuple[str, str]:
    """('torchvision' or 'timm', model name); a name that both have is torchvision's, `timm/NAME` is timm's.

    small, base and large are names too (`architectures.defaults`). UsageError with the nearest names where there is
    none.
    """
    name = defaults.resolve(name)
    in_torchvision = list_models(module=torchvision.models)
    plain = name.removeprefix("timm/")
    if plain == name and name in in_torchvision:
        return "torchvision", name
    if timm.is_model(plain.split(".")[0]):
        return "timm", plain
    close = nearest(name, [*in_torchvision, *timm.list_models()], 3)
    raise UsageError(
        f"--arch {name}: neither torchvision nor timm has an image classifier of that name.",
        f"Did you mean {', '.join(close)}?" if close else "Any name of timm.list_models() is taken, or resnet50.",
    )


def build(library: str, name: str, pretrained: bool, n_in: int, **kwargs: Any) -> tuple[nn.Module, int]:
    """A body for images of `n_in` channels and its number of features; further keywords go to its constructor.

    pretrained: with the library's own weights, downloaded where they are not on this machine. KnobError for a keyword
    that the network's constructor does not have.
    """
    try:
        return (_timm if library == "timm" else _torchvision)(name, pretrained, n_in, **kwargs)
    except TypeError as problem:
        match = re.search(r"(?:unexpected|multiple values for) keyword argument '(\w+)'", str(problem))
        if match is None or match[1] not in kwargs:
            raise
        network = type(build(library, name, False, n_in)[0])
        guess = did_you_mean(match[1], set(inspect.signature(network).parameters) - {match[1]})
        raise KnobError(
            f"--arch {name}: its constructor, {library}'s {network.__name__}, does not take {match[1]}{guess or '.'}",
            "Keywords of -o that no other function has go to the network's constructor.",
        ) from None


def _timm(name: str, pretrained: bool, n_in: int, **kwargs: Any) -> tuple[nn.Module, int]:
    body = timm.create_model(name, pretrained=pretrained, num_classes=0, in_chans=n_in, **kwargs)
    return body, int(getattr(body, "head_hidden_size", None) or body.num_features)  # type: ignore[arg-type]


def _torchvision(name: str, pretrained: bool, n_in: int, **kwargs: Any) -> tuple[nn.Module, int]:
    if not pretrained and name in ("googlenet", "inception_v3"):
        kwargs = {"aux_logits": False, "init_weights": True, **kwargs}
    body = get_model(name, weights="DEFAULT" if pretrained else None, **kwargs)
    for auxiliary in ("aux1", "aux2", "AuxLogits"):
        if hasattr(body, auxiliary):
            body.aux_logits = False
            setattr(body, auxiliary, None)
    n_features = _remove_classifier(body)
    if n_in != 3:
        _adapt_stem(body, n_in)
    return body, n_features


def _remove_classifier(body: nn.Module) -> int:
    """Replace the last linear layer (SqueezeNet's is a convolution) and a dropout before it; gives its inputs."""
    path, last = [(n, m) for n, m in body.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    path, _, leaf = path.rpartition(".")
    parent = body.get_submodule(path)
    siblings = [name for name, _ in parent.named_children()]
    before = siblings[max(0, siblings.index(leaf) - 1)]
    if isinstance(getattr(parent, before), nn.Dropout):
        setattr(parent, before, nn.Identity())
    setattr(parent, leaf, nn.Identity())
    return last.in_features if isinstance(last, nn.Linear) else last.in_channels


def _adapt_stem(body: nn.Module, n_in: int) -> None:
    """Let the first convolution take `n_in` channels; for one, its weights are summed over the colours."""
    stem = next(module for module in body.modules() if isinstance(module, nn.Conv2d))
    stem.weight = nn.Parameter(timm.models.adapt_input_conv(n_in, stem.weight.data))
    stem.in_channels = n_in
