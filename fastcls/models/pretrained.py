"""What a pretrained network brings along: how its images were prepared, and its tensors under whatever names.

Not read: the names and layers that Transformers gives its networks, and weights cut into several files.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models import get_model_weights
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from fastcls import lazy
from fastcls.errors import OutputError
from fastcls.models import weights
from fastcls.models.weights import Stats
from fastcls.runfolder import model_files, schema
from fastcls.training.checkpoints import load_weights

with lazy.imports():
    import timm

HEADS = ("classifier", "head", "heads", "head_dist", "fc", "aux", "aux1", "aux2", "AuxLogits", "pre_logits")
WRAPPERS = ("state_dict.", "model.", "module.", "backbone.", "encoder.", "_orig_mod.", "timm_model.")
FILTERS = ("checkpoint_filter_fn", "_filter_fn", "_filter_torchvision_pretrained")  # timm's, one a family
BUFFERS = ("num_batches_tracked", "relative_position_index", "attn_mask")  # a network makes these itself
DEEPEST = 6  # parts of a name that wrappers may take


@dataclass(frozen=True)
class Config:
    """How the images were prepared that a network's weights were trained and evaluated with."""

    stats: Stats
    interpolation: str  # 'bilinear' or 'bicubic'
    crop_pct: float  # side of the centre that is shown, of the resized image's
    squash: bool  # resized without regard to the aspect ratio
    size: tuple[int, int]  # height, width
    origin: str  # where this is taken from
    has_weights: bool = True  # whether the library publishes some


def config(library: str, name: str) -> Config:
    """The library's own for the weights of that name; ImageNet's for a network that has none."""
    if library == "timm":
        cfg = timm.get_pretrained_cfg(name)
        return replace(
            of_timm(cfg.to_dict() if cfg else {}, f"timm's {name}"), has_weights=bool(cfg and cfg.has_weights)
        )
    preset = get_model_weights(name).DEFAULT.transforms()
    return Config(
        (tuple(preset.mean), tuple(preset.std)),
        "bicubic" if preset.interpolation.value == "bicubic" else "bilinear",
        preset.crop_size[0] / preset.resize_size[0],
        False,
        (preset.crop_size[0], preset.crop_size[0]),
        f"torchvision's {name}",
    )


def of_timm(cfg: Mapping[str, Any], origin: str) -> Config:
    """A `pretrained_cfg` of timm or of a config.json; what it lacks is timm's default."""
    whole = {**timm.models.PretrainedCfg().to_dict(), **{key: value for key, value in cfg.items() if value is not None}}
    return Config(
        (tuple(whole["mean"]), tuple(whole["std"])),
        "bilinear" if whole["interpolation"] == "bilinear" else "bicubic",
        float(whole["crop_pct"]),
        whole["crop_mode"] == "squash",
        tuple(whole["input_size"][1:]),
        origin,
    )


def config_of_file(file: Path, default: Config) -> Config:
    """The configuration in a weights file's metadata, in the model.json of our run or the config.json beside it."""
    spec = weights.preprocessing_of(file)
    beside = file.parent / "config.json"
    if spec is not None:
        if spec.get("mean") and spec.get("std"):
            default = replace(default, stats=(tuple(spec["mean"]), tuple(spec["std"])), origin=str(file))
        if spec.get("size") and spec.get("resize"):
            default = replace(
                default,
                interpolation=spec.get("interpolation", "bilinear"),
                crop_pct=spec["size"][0] / spec["resize"][0],
                squash=spec["method"] == "squish",
                size=tuple(spec["size"]),
                origin=str(file),
            )
    elif beside.is_file():
        try:
            found = schema.load(beside)
            cfg = {"input_size": (3, *default.size), **found.get("pretrained_cfg", found)}
            return _sound(of_timm(cfg, str(beside)))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as problem:
            raise OutputError(f"{beside} is not a timm configuration: {problem}.") from None
    return default


def _sound(config: Config) -> Config:
    mean, std = config.stats
    spec = {"mode": "RGB", "method": "", "resize": None, "size": None, "mean": mean, "std": std}
    if reason := model_files.problem_of(spec):
        raise ValueError(reason)
    if not 0.2 <= config.crop_pct <= 2 or not all(1 <= side <= model_files.LONGEST_SIDE for side in config.size):
        raise ValueError(f"it shows {config.crop_pct} of images of {config.size} pixels")
    return config


# ------------------------------------------------------------------ tensors


def load(
    body: nn.Module, file: Path, arch: str, filter_fn: Callable[..., Any] | None, hint: Callable[[], str]
) -> tuple[int, list[str]]:
    """Load the tensors of `file` into a body; OutputError where they are another network's, or not finite.

    Gives how many came from the file, and the names of those that did not.

    Names may have wrappers before them (`module.`, `model.`, our runs' `0.`) or numbers for the body's children, as
    fastai writes them; the classifier is passed over. filter_fn: timm's, which translates names of the original authors
    and resamples position embeddings. A first convolution of colours is summed for gray images, one of gray is shared
    out over the colours. hint: called where the file does not fit.
    """
    with weights.opened(file) as handle:
        state = {new: handle.get_tensor(old) for new, old in _named_for(body, list(handle.keys())).items()}
    own = body.state_dict()
    with contextlib.suppress(KeyError, RuntimeError, ValueError, IndexError, AttributeError, AssertionError, TypeError):
        state = _converted(body, state, filter_fn)  # it may fail for tensors of another network, which are found below
    new, wrong, extra = _compared(body, own, {name: tensor.shape for name, tensor in state.items()})
    if wrong or extra:
        what = (
            f"{len(wrong)} of the body's {len(own)} tensors are missing or have another shape ({weights.some(wrong)})"
        )
        if not wrong:
            what = f"it has {len(extra)} extra tensors ({weights.some(extra)})"
        raise OutputError(f"{file} does not fit {arch}: {what}.", hint())
    found = {name: _checked(file, name, state[name], value) for name, value in own.items() if name in state}
    load_weights(body, found, strict=False)
    return len(found), new


def fits(body: nn.Module, shapes: Mapping[str, torch.Size]) -> bool:
    """Whether tensors of these names and shapes are this body's, a head left aside."""
    named = {new: shapes[old] for new, old in _named_for(body, shapes).items()}
    _, wrong, extra = _compared(body, body.state_dict(), named)
    return not wrong and not extra


def _compared(
    body: nn.Module, own: Mapping[str, torch.Tensor], shapes: Mapping[str, torch.Size]
) -> tuple[list[str], ...]:
    """The body's tensors that are left new, those that are missing or of another shape, and those that it has not."""
    lacking = [name for name in own if name not in shapes and not name.endswith(BUFFERS)]
    new = [name for name in lacking if name.split(".")[0] in HEADS]
    if len(new) == len(own):
        new = []
    wrong = [name for name in lacking if name not in new]
    wrong += [name for name in own if name in shapes and not _fits(shapes[name], own[name].shape)]
    return new, wrong, [name for name in shapes if name not in own and _is_of(body, name)]


def _named_for(body: nn.Module, names: Collection[str]) -> dict[str, str]:
    """The file's names by those that the body has for them, without what stands before most of them."""
    own = set(body.state_dict())
    numbers = {str(place): child for place, (child, _) in enumerate(body.named_children())}
    votes: Counter[tuple[str, bool]] = Counter()
    for name in names:
        parts = name.split(".")
        for start in range(min(len(parts), DEEPEST)):
            child, prefix = numbers.get(parts[start]), "".join(f"{part}." for part in parts[:start])
            rest = ".".join(parts[start + 1 :])
            votes[prefix, False] += ".".join(parts[start:]) in own
            votes[prefix, True] += child is not None and f"{child}.{rest}" in own
    if not votes or max(votes.values()) < 0.3 * len(own):  # names of the original authors, which a filter may know
        prefix = ""
        while wrapper := next((w for w in WRAPPERS if all(name.startswith(prefix + w) for name in names)), None):
            prefix += wrapper
        return {name.removeprefix(prefix): name for name in names}
    (prefix, numbered), _ = votes.most_common(1)[0]
    found = {name.removeprefix(prefix): name for name in names if name.startswith(prefix)}
    if not numbered:
        return found
    parted = {name: name.partition(".") for name in found}
    return {f"{numbers.get(head, head)}.{rest}": found[name] for name, (head, _, rest) in parted.items()}


def _converted(body: nn.Module, state: dict[str, torch.Tensor], filter_fn: Callable[..., Any] | None) -> dict[str, Any]:
    if isinstance(body, VisionTransformer) and "encoder.pos_embedding" in state:
        return interpolate_embeddings(body.image_size, body.patch_size, state)
    if filter_fn is None:
        return state
    try:
        return filter_fn(state, body)
    except TypeError:  # those of few families take the tensors alone
        return filter_fn(state)


def timm_filter(name: str) -> Callable[..., Any] | None:
    """What timm puts a published file's tensors through before they are loaded into a network of that name."""
    module = vars(sys.modules[timm.models.model_entrypoint(name.split(".")[0]).__module__])
    return next((module[function] for function in FILTERS if function in module), None)


def _is_of(body: nn.Module, name: str) -> bool:
    """Whether a tensor that the body lacks would be one of its own, were it larger: no head's, no decoder's."""
    child = name.split(".")[0]
    return child not in HEADS and hasattr(body, child) and "." in name and not name.endswith(BUFFERS)


def _fits(shape: torch.Size, wanted: torch.Size) -> bool:
    """Whether a tensor has a shape, or is a convolution that takes gray where colour is wanted, or colour for gray."""
    if shape == wanted:
        return True
    alike = len(shape) == len(wanted) == 4 and shape[:1] + shape[2:] == wanted[:1] + wanted[2:]
    return alike and {shape[1], wanted[1]} == {1, 3}


def _checked(file: Path, name: str, tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A tensor of the kind of numbers and the input channels of `like`; OutputError where it holds none."""
    tensor = weights.of_kind(file, name, tensor, like)
    if tensor.shape == like.shape:
        return tensor
    return tensor.sum(1, keepdim=True) if like.shape[1] == 1 else tensor.expand_as(like) / 3
