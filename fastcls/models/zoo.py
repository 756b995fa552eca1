"""The zoo: every torchvision and timm classifier that fastcls trains, what it costs, and where each figure comes from.

torchvision publishes parameters, GMACs, input side and ImageNet top-1 with its weights; taken are those that
            `--weights imagenet` loads (`DEFAULT`)
timm        tells the input size and whether weights exist (its `pretrained_cfg`); parameters and GMACs are computed
            here, from the network built without weights, and kept with the list in the cache folder
"""

from __future__ import annotations

import contextlib
import fnmatch
import importlib.util
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from fastcls.datasets.downloads import cache_dir
from fastcls.datasets.walk import natural
from fastcls.errors import OutputError, UsageError, did_you_mean
from fastcls.machine.extras import check_installation
from fastcls.runfolder import runs
from fastcls.version import __version__

if TYPE_CHECKING:
    from torch import nn

TIMM = "timm/"  # before every name of timm's, so that it means timm's network where torchvision has the name too

# top-1 of ImageNet in %, as timm publishes it (results/results-imagenet.csv). A name ends in the tag of its weights, so
# that a later default of timm's changes nothing. From the cheapest to the most accurate, 288 pixels (the first: 224).
PUBLISHED = {
    "timm/mobilenetv3_large_100.miil_in21k_ft_in1k": 77.9,
    "timm/convnext_nano.in12k_ft_in1k": 82.9,
    "timm/convnext_tiny.in12k_ft_in1k": 84.5,
    "timm/convnext_small.in12k_ft_in1k": 85.3,
    "timm/convnext_base.fb_in22k_ft_in1k": 86.3,
}
WORDS = {  # what `--arch small`, `base` and `large` name; the choice is in docs/networks.md
    "small": "timm/mobilenetv3_large_100.miil_in21k_ft_in1k",
    "base": "timm/convnext_nano.in12k_ft_in1k",
    "large": "timm/convnext_small.in12k_ft_in1k",
}

# how both libraries mark the functions that build their networks
REGISTERED = re.compile(rb"^@register_model.*\n(?:[@ )].*\n)*def (\w+)", re.MULTILINE)


@dataclass(frozen=True)
class Architecture:
    """A classifier as `--arch` names it; None is what nobody publishes, or what is not computed yet."""

    name: str
    library: str  # 'torchvision' or 'timm'
    input: tuple[int, int]  # height and width of the images that the figures are for, pixels
    weights: bool  # whether pretrained weights exist; not whether they lie on this disk
    parameters: int | None = None  # with the library's own head
    gmacs: float | None = None  # 10⁹ multiply-accumulates: the forward pass of one image
    top1: float | None = None  # % of ImageNet's validation images


def resolve(name: str) -> str:
    """The full name for small, base or large; `hf_hub:` as timm writes it now; any other name unchanged."""
    return WORDS.get(name, name).replace("hf_hub:", "hf-hub:", 1)


def catalogue() -> list[Architecture]:
    """Every architecture, torchvision's first; the list is made once for each version of the libraries."""
    kept = _kept()
    if kept is None:
        check_installation()
        kept = [*_torchvision(), *_timm()]
        _keep(kept)
    return kept


def named(name: str) -> Architecture:
    """One architecture; a timm name may end in the tag of its weights: timm/convnext_nano.in12k_ft_in1k.

    UsageError with the nearest names where there is none.
    """
    untagged, _, tag = name.partition(".")
    known = {architecture.name: architecture for architecture in catalogue()}
    found = known.get(untagged) or known.get(TIMM + untagged)
    if found is None or (tag and found.library != "timm"):
        guess = did_you_mean(name, [a.removeprefix(TIMM) for a in known])
        raise UsageError(
            f"--arch {name}: neither torchvision nor timm has an image classifier of that name{guess or '.'}"
        )
    if not tag:
        return found
    import timm

    full = f"{found.name}.{tag}"
    refuse_unknown_tag(full)
    cfg = timm.get_pretrained_cfg(full.removeprefix(TIMM))
    assert cfg is not None
    return replace(found, name=full, input=cfg.input_size[1:], top1=PUBLISHED.get(full))


def refuse_unknown_tag(name: str) -> None:
    """UsageError with the tags there are, where a network of timm's has no weights of the tag that its name ends in."""
    import timm

    plain, _, tag = name.removeprefix(TIMM).partition(".")
    tags = timm.list_pretrained(f"{plain}.*")
    if tag and f"{plain}.{tag}" not in tags:
        guess = did_you_mean(tag, [known.partition(".")[2] for known in tags])
        hint = (
            f"Use one of {', '.join(TIMM + known for known in tags)}." if tags else f"It has none: use {TIMM}{plain}."
        )
        raise UsageError(f"--arch {name}: timm has no weights with the tag {tag!r}{guess or '.'}", hint)


def names(library: str) -> list[str]:
    """The names of a library's classifiers, out of its source: in a tenth of a second, without importing it.

    library: 'torchvision' or 'timm', whose names come without `timm/`.
    """
    spec = importlib.util.find_spec(library)
    home = Path(spec.origin).parent / "models" if spec and spec.origin else Path("nowhere")
    found = [name.decode() for file in home.glob("*.py") for name in REGISTERED.findall(file.read_bytes())]
    return sorted(found, key=natural)


def is_kept() -> bool:
    """Whether `catalogue` answers at once, without importing torch."""
    return _kept() is not None


def matching(pattern: str, among: Iterable[Architecture]) -> list[Architecture]:
    """Those whose name matches a glob (`resnet*`, `timm/vit_*`) or, without *, ? and [, contains `pattern`.

    timm's match with and without `timm/`. UsageError with the nearest names where there is none.
    """
    glob = pattern.lower() if any(sign in pattern for sign in "*?[") else f"*{pattern.lower()}*"
    every = list(among)
    found = [a for a in every if any(fnmatch.fnmatchcase(name, glob) for name in {a.name, a.name.removeprefix(TIMM)})]
    if not found:
        guess = did_you_mean(pattern.strip("*?"), [architecture.name.removeprefix(TIMM) for architecture in every])
        raise UsageError(
            f"{pattern}: no torchvision or timm classifier matches{guess or '.'}",
            "Use a part of a name (vgg) or a glob ('resnet*', 'timm/vit_*').",
        )
    return found


def figured(every: Iterable[Architecture], names: Sequence[str]) -> list[Architecture]:
    """`every`, with the parameters and GMACs of `names` computed (0.1 to 3 s each) and kept for later calls."""
    known = {architecture.name: architecture for architecture in every}
    for name in names:
        known[name] = _computed(known[name])
    _keep(known.values())
    return list(known.values())


def on_meta(architecture: Architecture) -> nn.Module:
    """The network on torch's meta device: every shape, no numbers."""
    import torch

    try:
        with torch.device("meta"):
            return network(architecture)
    except (RuntimeError, NotImplementedError):  # it computes with numbers while it is built
        return network(architecture).to("meta")


def gmacs(network: nn.Module, size: tuple[int, int]) -> float:
    """10⁹ multiply-accumulates of the forward pass of one image (height, width) through a network on the meta device.

    Matrix products, convolutions and attention count, nothing else does: as torchvision counts.
    """
    import torch

    from fastcls.machine.flops import forward_flops

    network.requires_grad_(False)
    return forward_flops(network, torch.empty(1, 3, *size, device="meta"))[0] / 2e9


def network(architecture: Architecture) -> nn.Module:
    """With random weights, for images of `input` pixels."""
    if architecture.library == "timm":
        import timm

        return timm.create_model(architecture.name.removeprefix(TIMM))
    from torchvision.models import get_model

    return get_model(architecture.name)


def _computed(architecture: Architecture) -> Architecture:
    import warnings

    with warnings.catch_warnings(), contextlib.suppress(Exception):  # whatever the network's own code meets
        warnings.simplefilter("ignore")
        network = on_meta(architecture)
        architecture = replace(architecture, parameters=sum(p.numel() for p in network.parameters()))
        return replace(architecture, gmacs=round(gmacs(network, architecture.input), 4))
    return architecture


def _torchvision() -> list[Architecture]:
    import torchvision.models as library

    found = []
    for name in sorted(library.list_models(module=library), key=natural):
        weights = library.get_model_weights(name).DEFAULT
        meta, side = weights.meta, weights.transforms.keywords["crop_size"]
        top1 = meta["_metrics"].get("ImageNet-1K", {}).get("acc@1")
        found.append(Architecture(name, "torchvision", (side, side), True, meta["num_params"], meta["_ops"], top1))
    return found


def _timm() -> list[Architecture]:
    import timm

    found = []
    for name in sorted(timm.list_models(), key=natural):
        cfg = timm.get_pretrained_cfg(name)
        assert cfg is not None, name  # every listed network has one, with weights or without
        found.append(Architecture(TIMM + name, "timm", cfg.input_size[1:], bool(cfg.has_weights)))
    return found


def _file() -> Path:
    return cache_dir() / "architectures.json"


def _versions() -> dict[str, str]:
    found = {"fastcls": __version__}
    with contextlib.suppress(PackageNotFoundError):
        found |= {package: version(package) for package in ("torch", "torchvision", "timm")}
    return found


def _kept() -> list[Architecture] | None:
    with contextlib.suppress(OutputError, KeyError, TypeError):
        record = runs.read_json(_file())
        if record["versions"] == _versions():
            return [Architecture(name, library, tuple(size), *rest) for name, library, size, *rest in record["rows"]]
    return None


def _keep(architectures: Iterable[Architecture]) -> None:
    rows = [list(asdict(architecture).values()) for architecture in architectures]
    with contextlib.suppress(OutputError, OSError):  # a cache folder that cannot be written costs time, no more
        runs.atomic_write(_file(), json.dumps({"versions": _versions(), "rows": rows}))
