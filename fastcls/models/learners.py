"""Networks become Learners: custom CNNs, and pretrained torchvision and timm classifiers with a new head.

learn = models.transfer_learner(dls, 'resnet50', metrics=accuracy)     # body, new head, parameter groups
learn = models.learner(dls, my_cnn, metrics=accuracy)                  # any nn.Module
"""

from __future__ import annotations

import inspect
import re
from functools import partial
from typing import Any, Literal

from fastai.callback.schedule import fine_tune  # noqa: F401  this import gives Learner its fit_one_cycle & co.
from fastai.data.all import DataLoaders, L, Normalize, get_c
from fastai.learner import Learner
from fastai.vision.core import imagenet_stats  # noqa: F401  for those who write recipes
from fastai.vision.models import xresnet as xresnets
from torch import nn

from fastcls.errors import FastclsError, UsageError, WeightsError, nearest
from fastcls.models import backbones, pretrained, stages
from fastcls.models.weights import WEIGHTS, Stats, weights_file
from fastcls.models.zoo import resolve
from fastcls.settings import options
from fastcls.training.optimizers import optimizer
from fastcls.training.probe import FreezeStatistics, fit_head  # noqa: F401  for recipes
from fastcls.training.step import configure
from fastcls.transforms import resizing
from fastcls.transforms.batchwise import NormalizeInPlace

POOLS = ("own", "avgmax")
LEARNER = set(inspect.signature(Learner.__init__).parameters) - {"self", "dls", "model"}


def learner(dls: DataLoaders, model: nn.Module, stats: Stats | None = None, **kwargs: Any) -> Learner:
    """A Learner for any network; images are normalised with `stats` (mean, std), one value per channel."""
    if stats is not None:
        normalize(dls, stats)
    kwargs = {"opt_func": optimizer(), **kwargs, **options.current().extra.get("Learner", {})}
    learn = Learner(dls, model.to(dls.device), **kwargs)
    learn.arch_name = type(model).__name__
    configure(learn)
    return learn


def normalize(dls: DataLoaders, stats: Stats) -> None:
    """Add normalisation to the loaders, unless they have it; a grey image uses the mean over the colours."""
    if any(isinstance(tfm, Normalize) for tfm in dls.train.after_batch.fs):
        return
    mean, std = stats
    if channels(dls) == 1 and len(mean) == 3:
        mean, std = (sum(mean) / 3,), (sum(std) / 3,)
    dls.add_tfms([NormalizeInPlace.from_stats(mean, std, cuda=False)], "after_batch")
    for dl in (dls.train, dls.valid):
        dl.to(dls.device)


def channels(dls: DataLoaders) -> int:
    """Number of colour channels of these loaders' images: 1 or 3."""
    return len(dls.valid_ds[0][0].getbands())


def xresnet(arch: str, n_out: int, **kwargs: Any) -> nn.Module:
    """fastai's XResNet of this name (He et al. 2019, bag of tricks), with random weights.

    Keywords are those of XResNet. UsageError with the nearest names if there is none.
    """
    known = [name for name in xresnets.__all__ if re.fullmatch(r"x(se_)?resne(t|xt)\d+(_deep|_deeper)?", name)]
    if arch not in known:
        close = nearest(arch, known, 3)
        raise UsageError(f"--arch {arch}: fastai has no XResNet of that name.", f"Use {', '.join(close or known)}.")
    return getattr(xresnets, arch)(n_out=n_out, **kwargs)


def transfer_learner(
    dls: DataLoaders,
    arch: str,
    weights: str = "imagenet",
    ps: float = 0.0,
    drop_path: float = 0.0,
    pool: Literal["own", "avgmax"] = "own",
    **kwargs: Any,
) -> Learner:
    """A new linear head on the body of a torchvision or timm classifier, frozen up to the head if it is pretrained.

    `learn.model` is Sequential(body, head): body(images) returns one feature vector per image; head is
    Sequential(Dropout(ps), Linear). There is one parameter group for each stage of the body (`stages.stages`) and one
    for the head, so that a slice of learning rates is spread over the stages.

    weights: 'imagenet', 'none', a run, or a .safetensors file, folder or Hub repository (`hf-hub:OWNER/NAME`) as
    torchvision, timm or Hugging Face publish them. Images are resized, cropped and normalised as for the pretrained
    network, and have its size if it accepts no other. `learn.pretrained` says whether the body is pretrained.
    drop_path: stochastic depth of timm's networks (Huang et al. 2016): the share of residual branches dropped in the
    last block, fewer in earlier ones.
    pool: 'avgmax' changes average pooling of a pretrained network to the mean of average and maximum pooling (see
    docs/transfer.md for the gain); 'own' keeps the network's pooling. Further keywords go to fastai's Learner or, if
    it does not have them, to the network's constructor.
    """
    extra = options.current().extra
    kwargs = {"opt_func": optimizer(), "splitter": stages.split, **kwargs}
    kwargs |= {**extra.get("transfer_learner", {}), **extra.get("Learner", {})}
    ps, drop_path, pool = kwargs.pop("ps", ps), kwargs.pop("drop_path", drop_path), kwargs.pop("pool", pool)
    if pool not in POOLS:
        raise UsageError(f"pool={pool!r}: expected one of {', '.join(POOLS)}.")
    for_learner = {key: kwargs.pop(key) for key in LEARNER & set(kwargs)}
    found = backbones.find(arch)
    if drop_path and found.library != "timm":
        raise UsageError(
            f"--drop-path: torchvision's {found.name} does not support stochastic depth.",
            f"Use timm's, for example --arch timm/{found.name}.",
        )
    kwargs |= {"drop_path_rate": drop_path} if drop_path else {}
    if weights == "imagenet" and found.folder:
        weights = arch
    source = None if weights in ("imagenet", "none") else weights_file(weights)
    download = weights == "imagenet"
    config = pretrained.config(found.library, found.name)
    if download and not config.has_weights:
        raise UsageError(f"--arch {arch}: timm has no pretrained weights for it.", "Use --weights none.")
    if found.folder:
        config = pretrained.config_of_file(found.folder / WEIGHTS, config)
    if source is not None:
        config = pretrained.config_of_file(source, config)
    sizes = _sizes(dls)
    growing = [cb for cb in L(for_learner.get("cbs")) if isinstance(cb, resizing.Grow)]
    smaller = {one for cb in growing for size in sizes for one in cb.sizes(*size)}
    asked = channels(dls), sizes | smaller, config.size
    try:
        body, n_features, size = backbones.build(found, download, *asked, **kwargs)
    except FastclsError:
        raise
    except Exception as problem:
        if not download:
            raise
        why = (str(problem) or type(problem).__name__).splitlines()[0]
        if _is_network(problem):
            full = f" ({resolve(arch)})" if resolve(arch) != arch else ""
            where = "the Hugging Face Hub" if found.library == "timm" else "download.pytorch.org"
            raise WeightsError(
                f"The ImageNet weights of {arch}{full} could not be downloaded from {where}: {why}.",
                "Connect to the internet, or give weights that are on this disk, with their network:  "
                "--arch resnet18 --weights FILE  (a run or a .safetensors file).  Random weights:  --weights none",
            ) from problem
        backbones.build(found, False, *asked, **kwargs)  # which raises where it is not the weights
        kept = backbones.kept_weights(found)
        if isinstance(problem, OSError) and not kept.exists():
            raise WeightsError(
                f"The ImageNet weights of {arch} cannot be saved in {kept}: {problem.strerror or why}.",
                "Set TORCH_HOME, or HF_HOME for timm's, to a writable folder.",
            ) from problem
        raise WeightsError(
            f"The ImageNet weights of {arch} in {kept} cannot be read: {why}",
            "Remove it, so that they are downloaded again.",
        ) from problem
    if growing and size:
        raise UsageError(f"--grow-from: {arch} only accepts images of one size.", "Omit it, or use another --arch.")
    if source is not None:
        filter_fn = pretrained.timm_filter(found.name) if found.library == "timm" else None
        count, names = pretrained.load(body, source, arch, filter_fn, partial(backbones.hint, source, found))
        new = f"{len(names)} new ({', '.join(names)})" if names else "none new"
        options.note(f"the body starts from {weights} ({count} tensors, {new}); the head is new.")
    _prepare(dls, arch, config, size, pretrained=download or source is not None)
    own = pool == "own" or "global_pool" in kwargs or not (download or source)
    changed = not own and backbones.pool_by_maximum_too(body, channels(dls), size or min(sizes))
    if changed:
        options.note("features are the mean of average and maximum pooling; --set pool=own uses average pooling alone.")
    model = nn.Sequential(body, nn.Sequential(nn.Dropout(ps), nn.Linear(n_features, get_c(dls))))
    learn = Learner(dls, model.to(dls.device), **for_learner)
    learn.pretrained = download or source is not None
    learn.arch_name = resolve(arch)
    learn.pool = "avgmax" if changed else "own"
    if learn.pretrained:
        learn.freeze()
    configure(learn)
    return learn


def _sizes(dls: DataLoaders) -> set[tuple[int, int]]:
    """(height, width) of the images that a network is given in validation, and in training where that is another."""
    batch = dls.valid.new(bs=1, num_workers=0).one_batch()
    sizing = [tfm for tfm in dls.train.after_item.fs if getattr(tfm, "fixed", False)]
    return {tuple(batch[0].shape[2:]), *((tfm.size[1], tfm.size[0]) for tfm in sizing)}


def _prepare(
    dls: DataLoaders, arch: str, config: pretrained.Config, size: tuple[int, int] | None, pretrained: bool
) -> None:
    """Have images normalised and, of a pretrained network, resized as its own were; of `size`, if it takes no other."""
    normalize(dls, config.stats)
    changed = False
    if pretrained:
        changed = resizing.adapt(dls, size, config.interpolation, config.crop_pct, config.squash)
    elif size:
        changed = resizing.adapt(dls, size)
    if size and not changed:
        raise UsageError(
            f"--arch {arch}: it only accepts images of {size[0]} × {size[1]} pixels.",
            f"Pass item_tfms=transforms.resize({size[0]}) to the DataBlock.",
        )
    if size:
        options.note(f"{arch} only accepts images of {size[0]} × {size[1]} pixels; they are resized.")
    if pretrained:
        resized = f", {config.interpolation} resizing and crop share {config.crop_pct:.3g}" if changed else ""
        options.note(f"normalisation{resized} are those of {config.origin}.")


def _is_network(problem: BaseException | None) -> bool:
    while problem is not None:
        modules = {cls.__module__.split(".")[0] for cls in type(problem).__mro__}
        if modules & {"urllib", "requests", "httpx", "httpx2", "httpcore", "huggingface_hub", "socket", "urllib3"}:
            return True
        problem = problem.__cause__ or problem.__context__
    return False
