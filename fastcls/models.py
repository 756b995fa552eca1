"""Networks become Learners: custom CNNs, and pretrained torchvision and timm classifiers with a new head.

learn = models.transfer_learner(dls, 'resnet50', metrics=accuracy)     # body, new head, parameter groups
learn = models.learner(dls, my_cnn, metrics=accuracy)                  # any nn.Module
"""

from __future__ import annotations

import inspect
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
import torchvision
from fastai.callback.schedule import fine_tune  # noqa: F401  this import gives Learner its fit_one_cycle & co.
from fastai.data.all import DataLoaders, L, Normalize, get_c, params
from fastai.learner import Learner
from fastai.vision.core import imagenet_stats
from fastai.vision.learner import TimmBody, add_head, default_split, model_meta, vision_learner
from fastai.vision.models import xresnet as xresnets
from torch import nn
from torchvision.models import get_model, get_model_builder, list_models

from fastcls import lazy
from fastcls.batches.batchwise import NormalizeInPlace
from fastcls.errors import DownloadError, UsageError, nearest
from fastcls.files.weights import Stats, load_body, preprocessing_of, weights_file
from fastcls.fit.probe import fit_head  # noqa: F401  for recipes
from fastcls.fit.step import configure
from fastcls.optimizers import optimizer
from fastcls.settings import options

with lazy.imports():  # timm takes a second, and custom networks need nothing of it
    import timm

CUT_BY_FASTAI = {"resnet", "vgg", "densenet", "alexnet", "squeezenet"}  # torchvision modules that fastai can cut


def learner(dls: DataLoaders, model: nn.Module, stats: Stats | None = None, **kwargs: Any) -> Learner:
    """A Learner around any network; images are normalised with `stats` (mean, std), one value a channel."""
    if stats is not None:
        normalize(dls, stats)
    kwargs = {"opt_func": optimizer(), **kwargs, **options.current().extra.get("Learner", {})}
    learn = Learner(dls, model.to(dls.device), **kwargs)
    learn.arch_name = type(model).__name__
    configure(learn)
    return learn


def normalize(dls: DataLoaders, stats: Stats) -> None:
    """Add normalisation to the loaders, unless they have one; a gray image takes the colours' mean."""
    if any(isinstance(tfm, Normalize) for tfm in dls.train.after_batch.fs):
        return
    mean, std = stats
    if channels(dls) == 1 and len(mean) == 3:
        mean, std = (sum(mean) / 3,), (sum(std) / 3,)
    dls.add_tfms([NormalizeInPlace.from_stats(mean, std, cuda=False)], "after_batch")
    for dl in (dls.train, dls.valid):
        dl.to(dls.device)


def channels(dls: DataLoaders) -> int:
    """Colour channels of the images that these loaders give: 1 or 3."""
    return len(dls.valid_ds[0][0].getbands())


def xresnet(arch: str, n_out: int, **kwargs: Any) -> nn.Module:
    """fastai's XResNet of that name (He et al. 2019, bag of tricks), with random weights.

    Keywords are those of XResNet. UsageError with the nearest names where there is none.
    """
    known = [name for name in xresnets.__all__ if re.fullmatch(r"x(se_)?resne(t|xt)\d+(_deep|_deeper)?", name)]
    if arch not in known:
        close = nearest(arch, known, 3)
        raise UsageError(f"--arch {arch}: fastai has no XResNet of that name.", f"Take {', '.join(close or known)}.")
    return getattr(xresnets, arch)(n_out=n_out, **kwargs)


def find_arch(name: str) -> tuple[str, str]:
    """('torchvision' or 'timm', model name); a name that both have is torchvision's, `timm/NAME` is timm's.

    UsageError with the nearest names where there is none.
    """
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


def transfer_learner(
    dls: DataLoaders, arch: str, weights: str = "imagenet", drop_path: float = 0.0, **kwargs: Any
) -> Learner:
    """A new head on the body of a torchvision or timm classifier, frozen up to the head if it is pretrained.

    weights: 'imagenet', 'none', a run folder or a .safetensors file. Parameter groups, from the image on:
    ResNets of either library have three (stem and early stages, late stages, head), torchvision's densenets,
    VGGs with batch norm, AlexNet and SqueezeNets the three of fastai, all others two (body, head); one a stage with
    `splitter=stages.split`. drop_path: stochastic depth of timm's networks (Huang et al. 2016): the share of residual
    branches that the last block leaves out, the others fewer. `learn.pretrained` says whether the body knows anything.
    Further keywords go to fastai's `vision_learner`.
    """
    library, name = find_arch(arch)
    if drop_path and library != "timm":
        raise UsageError(
            f"--drop-path: torchvision's {name} leaves out no branches.", f"Take timm's: --arch timm/{name}, say."
        )
    source = None if weights in ("imagenet", "none") else weights_file(weights)
    pretrained = weights == "imagenet"
    stats: Stats = imagenet_stats
    if library == "timm":
        cfg = timm.get_pretrained_cfg(name)
        if pretrained and not (cfg and cfg.has_weights):
            raise UsageError(f"--arch {arch}: timm has no pretrained weights for it.", "Use --weights none.")
        if cfg:
            stats = (cfg.mean, cfg.std)
    normalize(dls, (source and preprocessing_of(source)) or stats)
    kwargs = {"n_in": channels(dls), "normalize": False, "pretrained": pretrained, "opt_func": optimizer(), **kwargs}
    kwargs |= {"drop_path_rate": drop_path} if drop_path else {}
    kwargs |= options.current().extra.get("vision_learner", {})
    try:
        learn = _build(dls, library, name, **kwargs)
    except Exception as problem:
        if not (pretrained and _is_network(problem)):
            raise
        raise DownloadError(
            f"The ImageNet weights of {arch} could not be downloaded ({type(problem).__name__}).",
            "Connect to the internet, or give --weights a run folder, a .safetensors file or none.",
        ) from problem
    if source is not None:
        load_body(learn.model, source)
        learn.freeze()
    learn.pretrained = pretrained or source is not None
    learn.model.to(dls.device)
    learn.arch_name = arch
    configure(learn)
    return learn


def _build(dls: DataLoaders, library: str, name: str, **kwargs: Any) -> Learner:
    """fastai's vision_learner where it can cut the network, else the same on a body that pools by itself."""
    if library == "timm":
        if _channels_first(name):
            return vision_learner(dls, name, **{"splitter": timm_split, **kwargs})
        return _pooled_learner(dls, name, _timm_features, **kwargs)
    builder = get_model_builder(name)
    family = builder.__module__.rsplit(".", 1)[-1]
    if family not in CUT_BY_FASTAI:
        return _pooled_learner(dls, name, _torchvision_features, **kwargs)
    known = model_meta.get(builder) or (model_meta[torchvision.models.resnet50] if family == "resnet" else {})
    arch = builder if builder in model_meta else _from_builder(name)
    learn = vision_learner(dls, arch, **{"splitter": known.get("split", default_split), **kwargs})
    learn.model[0] = _named(learn.model[0], name)
    return learn


def _named(body: nn.Sequential, name: str) -> nn.Sequential:
    """A cut body with its layers under the network's own names, as reports show them and weight files have them."""
    with torch.device("meta"):  # without weights, hence at once
        names = [child for child, _ in get_model(name).named_children()]
    return nn.Sequential(OrderedDict(zip(names, body.children(), strict=False)))


def _channels_first(name: str) -> bool:
    """Whether a timm network's features are (n, channels, height, width): it knows that itself, once it is built."""
    try:
        with torch.device("meta"):  # without weights, hence at once
            network = timm.create_model(name, num_classes=0)
    except (RuntimeError, NotImplementedError):  # it computes with its weights while it is built
        network = timm.create_model(name, num_classes=0)
    return getattr(network, "output_fmt", "NCHW") == "NCHW"


def _from_builder(name: str) -> Callable[..., nn.Module]:
    def arch(pretrained: bool = False) -> nn.Module:
        return get_model(name, weights="DEFAULT" if pretrained else None)

    return arch


def _pooled_learner(
    dls: DataLoaders, name: str, features: Callable[..., tuple[nn.Module, int]], **kwargs: Any
) -> Learner:
    """What vision_learner does, for a body whose output is already pooled to one vector an image."""
    learner_keys = set(inspect.signature(Learner).parameters) - {"dls", "model"}
    head_keys = set(inspect.signature(add_head).parameters) - {"body", "nf", "n_out", "head", "pool", "concat_pool"}
    depth = {key: value for key, value in kwargs.items() if key == "drop_path_rate"}
    body, n_features = features(name, kwargs["pretrained"], kwargs["n_in"], **depth)
    n_out = kwargs.get("n_out") or get_c(dls)
    head = {key: value for key, value in kwargs.items() if key in head_keys}
    model = add_head(body, n_features, n_out, head=kwargs.get("custom_head"), pool=False, **head)
    rest = {key: value for key, value in kwargs.items() if key in learner_keys}
    learn = Learner(dls, model, **{"splitter": default_split, **rest})
    if kwargs["pretrained"]:
        learn.freeze()
    return learn


def _timm_features(name: str, pretrained: bool, n_in: int, **kwargs: Any) -> tuple[nn.Module, int]:
    body = timm.create_model(name, pretrained=pretrained, num_classes=0, in_chans=n_in, **kwargs)
    return body, int(getattr(body, "head_hidden_size", body.num_features))  # type: ignore[arg-type]


def _torchvision_features(name: str, pretrained: bool, n_in: int) -> tuple[nn.Module, int]:
    """A torchvision network without its last linear layer and auxiliary heads, and its number of features."""
    aux = {} if pretrained or name not in ("googlenet", "inception_v3") else {"aux_logits": False}
    if aux:
        aux["init_weights"] = True
    body = get_model(name, weights="DEFAULT" if pretrained else None, **aux)
    for auxiliary in ("aux1", "aux2", "AuxLogits"):
        if hasattr(body, auxiliary):
            body.aux_logits = False
            setattr(body, auxiliary, None)
    path, classifier = [(n, m) for n, m in body.named_modules() if isinstance(m, nn.Linear)][-1]
    parent, _, leaf = path.rpartition(".")
    setattr(body.get_submodule(parent), leaf, nn.Identity())
    if n_in != 3:
        _adapt_stem(body, n_in)
    return body, classifier.in_features


def _adapt_stem(body: nn.Module, n_in: int) -> None:
    """Let the first convolution take `n_in` channels; for one, its weights are summed over the colours."""
    stem = next(module for module in body.modules() if isinstance(module, nn.Conv2d))
    stem.weight = nn.Parameter(timm.models.adapt_input_conv(n_in, stem.weight.data))
    stem.in_channels = n_in


def timm_split(model: nn.Sequential) -> Any:
    """Parameter groups of a timm body and its head: three for ResNets (stem to layer2, the rest, head), else two."""
    body, head = model[0], model[1:]
    if not (isinstance(body, TimmBody) and isinstance(body.model, timm.models.ResNet)):
        return default_split(model)
    late = ("layer3", "layer4")
    groups: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for name, parameter in body.model.named_parameters():
        groups[name.startswith(late)].append(parameter)
    return L(groups[0], groups[1], params(head))


def _is_network(problem: BaseException | None) -> bool:
    while problem is not None:
        modules = {cls.__module__.split(".")[0] for cls in type(problem).__mro__}
        if modules & {"urllib", "requests", "httpx", "httpcore", "huggingface_hub", "socket", "urllib3"}:
            return True
        problem = problem.__cause__ or problem.__context__
    return False
