"""The bodies of torchvision's and timm's classifiers: an image batch in, one pooled feature vector an image out.

Both libraries pool in their own way; a body is the whole network without its last linear layer and the dropout before.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import time
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from torch import nn
from torchvision.models import get_model, get_model_weights, list_models
from torchvision.models.vision_transformer import interpolate_embeddings

from fastcls import lazy
from fastcls.errors import KnobError, OutputError, UsageError, did_you_mean, nearest
from fastcls.models import pretrained, weights, zoo
from fastcls.runfolder import hub

with lazy.imports():  # timm takes a second, and custom networks need nothing of it
    import timm

REFUSALS = (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError)  # of a size, by networks
LADDER = (8, 16, 24, 32, 48, 64, 96, 128, 192)  # sides of images, pixels, tried for a hint
FLOOR = -0.4  # below the least value of ReLU, GELU, SiLU and hard swish
SECONDS = 1.0  # that the search for a network which a file does fit may take


class Arch(NamedTuple):
    """An architecture: 'torchvision' or 'timm', its name there, and the folder of a network that is kept by itself."""

    library: str
    name: str
    folder: Path | None = None


class Backbone(NamedTuple):
    """A body, how many features it gives, and (height, width) of its images, if it takes none of those asked for."""

    body: nn.Module
    n_features: int
    size: tuple[int, int] | None


def find(name: str) -> Arch:
    """The architecture that `--arch` means: torchvision/NAME, timm/NAME, or a name, torchvision's where both have it.

    `hf-hub:OWNER/NAME` and `local-dir:PATH` are as in timm, small, base and large those of `zoo.WORDS`.
    UsageError with the nearest names where there is none.
    """
    name = zoo.resolve(name).removeprefix("torchvision/")
    if name.startswith((weights.HUB, weights.LOCAL)):
        folder = weights.fetched(name, weights.CONFIG).parent
        if not timm.is_model(found := weights.architecture(folder)):
            raise UsageError(f"--arch {name}: timm has no architecture {found!r}.", "A newer timm may have it.")
        return Arch("timm", found, folder)
    in_torchvision = list_models(module=torchvision.models)
    plain = name.removeprefix("timm/")
    if plain == name and name in in_torchvision:
        return Arch("torchvision", name)
    if timm.is_model(plain.split(".")[0]):
        zoo.refuse_unknown_tag(name)
        return Arch("timm", plain.removesuffix("."))
    close = nearest(name, [*in_torchvision, *timm.list_models()], 3)
    raise UsageError(
        f"--arch {name}: neither torchvision nor timm has an image classifier of that name.",
        f"Did you mean {', '.join(close)}?" if close else "Use any name of timm.list_models(), or resnet50.",
    )


def build(
    arch: Arch, pretrained: bool, n_in: int, sizes: Collection[tuple[int, int]], own: tuple[int, int], **kwargs: Any
) -> Backbone:
    """A body for images of `n_in` channels and of these sizes (height, width); keywords go to its constructor.

    pretrained: with the library's own weights, downloaded where they are not on this machine. A network of one input
    size is built for the size asked for; where it cannot be, it takes `own`, that of its weights. UsageError for a size
    that it cannot take, KnobError for a keyword that its constructor does not have.
    """
    for further in _attempts(arch, sizes, own, kwargs):
        with contextlib.suppress(KnobError, *REFUSALS):
            body = _built(arch, pretrained, n_in, **kwargs, **further)
            if n_features := _features(body, n_in, sizes):
                return Backbone(body, n_features, None)
    body = _built(arch, pretrained, n_in, **kwargs)
    if n_features := _features(body, n_in, sizes):
        return Backbone(body, n_features, None)
    asked = min(sizes)
    larger = [side for side in LADDER if asked < (side, side) < own]
    smallest = next((side for side in larger if _features(body, n_in, [(side, side)])), 0)
    if "img_size" in kwargs:
        own = (kwargs["img_size"],) * 2 if isinstance(kwargs["img_size"], int) else tuple(kwargs["img_size"])
    n_features = 0 if smallest else _features(body, n_in, [own])
    if not n_features:
        hint = f"Use --size {smallest} or more; " if smallest else ""
        raise UsageError(
            f"{arch.name} does not accept images of {asked[0]} × {asked[1]} pixels.",
            f"{hint}its default size is {own[0]}.".capitalize(),
        )
    return Backbone(body, n_features, own)


def pool_by_maximum_too(body: nn.Module, n_in: int, size: tuple[int, int]) -> bool:
    """Have a body whose features are the mean over its last maps give the mean of that and of their maximum.

    False, and nothing is changed, where something follows the mean (a norm, a layer), it is no module of its own, or
    the maps do not come from an activation, which has a floor: a transformer's normalised tokens, say.
    """
    found: list[tuple[str, torch.Tensor]] = []

    def look(name: str, _: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        maps = given[0] if given else None
        if isinstance(maps, torch.Tensor) and isinstance(output, torch.Tensor) and maps.dim() == 4:
            means = maps.mean((2, 3))
            fits = maps.shape[2:].numel() > 1 and output.numel() == means.numel() and output.shape[:2] == means.shape
            if fits and maps.min() > FLOOR and torch.allclose(output.flatten(1), means, atol=1e-5):
                found.append((name, output))

    hooks = [module.register_forward_hook(partial(look, name)) for name, module in body.named_modules() if name]
    training = body.training
    with torch.no_grad():
        features = body.eval()(torch.rand(1, n_in, *size)).flatten(1)
    body.train(training)
    for hook in hooks:
        hook.remove()
    for name, output in found:  # the innermost first
        if torch.equal(output.flatten(1), features):
            body.set_submodule(
                name, timm.layers.SelectAdaptivePool2d(pool_type="fastavgmax", flatten=output.dim() == 2)
            )
            return True
    return False


def _attempts(arch: Arch, sizes: Collection[tuple[int, int]], own: tuple[int, int], given: Any) -> list[dict[str, Any]]:
    """Keywords with which a network of one input size may take another one."""
    if set(sizes) == {own} or {"img_size", "image_size", "dynamic_img_size"} & set(given):
        return []
    size = next(iter(sizes)) if len(sizes) == 1 else None
    if arch.library == "torchvision":
        return [{"image_size": size[0]}] if size and size[0] == size[1] and arch.name.startswith("vit_") else []
    cfg = timm.get_pretrained_cfg(arch.name)
    if not (cfg and cfg.fixed_input_size):
        return []
    return [*([{"img_size": size}] if size else []), {"dynamic_img_size": True}]


def _features(body: nn.Module, n_in: int, sizes: Collection[tuple[int, int]]) -> int:
    """How many features a body gives for an image of any of these sizes; 0 where it does not take one of them."""
    training, found = body.training, {0}
    body.eval()
    try:
        with torch.no_grad():
            found = {body(torch.zeros(1, n_in, *size)).shape[1:].numel() for size in sizes}
    except REFUSALS:
        return 0
    finally:
        body.train(training)
    return min(found)


def _built(arch: Arch, pretrained: bool, n_in: int, **kwargs: Any) -> nn.Module:
    try:
        return (_timm if arch.library == "timm" else _torchvision)(arch, pretrained, n_in, **kwargs)
    except TypeError as problem:
        match = re.search(r"(?:unexpected|multiple values for) keyword argument '(\w+)'", str(problem))
        if match is None or match[1] not in kwargs:
            raise
        network = type(_built(arch, False, n_in))
        guess = did_you_mean(match[1], set(inspect.signature(network).parameters) - {match[1]})
        raise KnobError(
            f"--arch {arch.name}: its constructor, {arch.library}'s {network.__name__}, does not accept {match[1]}"
            f"{guess or '.'}",
            "Keywords of --set that no other function accepts go to the network's constructor.",
        ) from None


def _timm(arch: Arch, pretrained: bool, n_in: int, **kwargs: Any) -> nn.Module:
    name = f"{weights.LOCAL}{arch.folder}" if arch.folder else arch.name
    cfg = timm.get_pretrained_cfg(arch.name) if pretrained and not arch.folder else None
    if cfg and cfg.hf_hub_id and not is_kept(arch):
        hub.connect()
    return timm.create_model(name, pretrained=pretrained, num_classes=0, in_chans=n_in, **kwargs)


def _torchvision(arch: Arch, pretrained: bool, n_in: int, **kwargs: Any) -> nn.Module:
    weights = get_model_weights(arch.name).DEFAULT if pretrained else None
    if not pretrained and arch.name in ("googlenet", "inception_v3"):
        kwargs = {"aux_logits": False, "init_weights": True, **kwargs}
    if weights is not None and "image_size" in kwargs:  # the builder takes no other size than the weights'
        body = get_model(arch.name, **kwargs)
        state = weights.get_state_dict(progress=True, check_hash=True)
        body.load_state_dict(interpolate_embeddings(kwargs["image_size"], body.patch_size, state))
    else:
        body = get_model(arch.name, weights=weights, **kwargs)
    for auxiliary in ("aux1", "aux2", "AuxLogits"):
        if hasattr(body, auxiliary):
            body.aux_logits = False
            setattr(body, auxiliary, None)
    _remove_classifier(body)
    if n_in != 3:
        _adapt_stem(body, n_in)
    return body


def kept_weights(arch: Arch) -> Path:
    """Where the libraries keep the weights that they download: a file, or a folder of the Hugging Face Hub's cache."""
    if arch.library == "timm":
        from huggingface_hub.constants import HF_HUB_CACHE

        cfg = timm.get_pretrained_cfg(arch.name)
        return Path(HF_HUB_CACHE) / f"models--{str(cfg and cfg.hf_hub_id).replace('/', '--')}"
    return Path(torch.hub.get_dir()) / "checkpoints" / get_model_weights(arch.name).DEFAULT.url.rpartition("/")[2]


def is_kept(arch: Arch) -> bool:
    """Whether the libraries have downloaded these weights already."""
    kept = kept_weights(arch)
    return kept.is_file() or any(kept.glob("snapshots/*/*.safetensors"))


def _remove_classifier(body: nn.Module) -> None:
    """Replace the last linear layer (SqueezeNet's is a convolution) and a dropout before it by nothing."""
    last = [name for name, module in body.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    path, _, leaf = last.rpartition(".")
    parent = body.get_submodule(path)
    siblings = [name for name, _ in parent.named_children()]
    before = siblings[max(0, siblings.index(leaf) - 1)]
    if isinstance(getattr(parent, before), nn.Dropout):
        setattr(parent, before, nn.Identity())
    setattr(parent, leaf, nn.Identity())


def _adapt_stem(body: nn.Module, n_in: int) -> None:
    """Let the first convolution take `n_in` channels; for one, its weights are summed over the colours."""
    stem = next(module for module in body.modules() if isinstance(module, nn.Conv2d))
    stem.weight = nn.Parameter(timm.models.adapt_input_conv(n_in, stem.weight.data))
    stem.in_channels = n_in


# ------------------------------------------------------------------ what a file of weights fits


def hint(file: Path, arch: Arch) -> str:
    """For a file that does not fit `arch`: the first of the likely networks that it does fit, if one is found soon."""
    deadline = time.monotonic() + SECONDS
    with weights.opened(file) as handle:
        shapes = weights.shapes_in(handle)
    for candidate in _candidates(file, shapes, arch):
        if time.monotonic() > deadline:
            break
        with contextlib.suppress(Exception), torch.device("meta"):  # whatever a network's constructor does without data
            if pretrained.fits(_built(find(candidate), False, 3), shapes):
                return f"It fits  --arch {candidate}"
    return "Use the --arch (and the image channels) of these weights."


def _candidates(file: Path, shapes: Mapping[str, torch.Size], arch: Arch) -> Iterator[str]:
    """Likely first: what file and folder are called, torchvision's of as many weights, names like those of timm's."""
    names, every = zoo.names("timm"), list_models(module=torchvision.models)  # without importing timm
    called = [text for text in (file.stem, file.parent.name) for text in (text, text.partition(".")[0])]
    with contextlib.suppress(OutputError):
        called.insert(0, weights.architecture(file.parent))
    yield from (text for text in called if text in names or text in every)
    count = sum(shape.numel() for name, shape in shapes.items() if "running_" not in name and len(shape))
    known = {name: get_model_weights(name).DEFAULT.meta["num_params"] for name in every}
    yield from sorted(known, key=lambda name: abs(known[name] - count))[:4]
    family = [name for name in names if name[:4] == arch.name[:4]]
    yield from (f"timm/{name}" for name in [*nearest(file.stem, names, 5), *nearest(arch.name, family, 20)])
