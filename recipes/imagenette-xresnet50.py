"""Imagenette with the leaderboard's settings: five epochs at 128 pixels from random weights.

Claim:   test accuracy 82.47 % (n = 1), 10015 s of training (Intel(R) Xeon(R) Processor, 1 thread, bf16)
Data:    Imagenette, 10 classes, 9,469 training and 3,925 test images (its val/ folder)
Network: fastai's XResNet-50 (any of its xresnets) with Mish and self-attention
Needs:   0.3 GB of images to download, or --path; a GPU, or hours on a CPU
Run:     fastcls recipe imagenette-xresnet50 --keep last
         fastcls recipe imagenette-xresnet50 --keep last --grow-from 96 --epochs 7
Source:  fastai's Imagenette leaderboard, 128 pixels, 5 epochs: 87.43 %. Its script's settings: XResNet-50, Mish,
         self-attention, average pools in the shortcuts, Ranger, label smoothing, a flat rate that ends with a cosine,
         random crops of 35 % or more. Its rules allow no test-time augmentation; 2 % of train/ is held out here.
         The second command spends the same pixels on seven epochs, and is more accurate (docs/results.md)
"""
from typing import Literal

from fastai.vision.all import *

from fastcls import data, datasets, models, training, transforms


def name(file): return datasets.WNID_NAMES[parent_label(file)]

def get_learner(
    path: str = '',                                   # folder with train/ and val/; empty downloads the dataset
    arch: str = 'xresnet50',                          # xresnet18 … 152, xse_resnext50 and the like
    act: Literal['mish', 'relu', 'silu', 'gelu'] = 'mish',     # activation
    attention: bool = True,                           # simple self-attention after the first stage
    size: int = 128,                                  # image side, pixels
    valid_size: int | None = None,                    # side of whole validation and test images; none: their centre, at size
    grow_from: int | None = None,                     # image side at the start of training, growing up to size; none: size
    min_scale: float = 0.35,                          # smallest share of an image that a random crop may show
    fit: Literal['crop', 'squish', 'pad'] = 'crop',    # how an image becomes square: centre crop, squished, padded with black
    smoothing: float = 0.1,                           # label smoothing
    opt: Literal['ranger', 'adamw'] = 'ranger',    # optimiser
    bs: int = 64,                                     # batch size
    source: Literal['160', '320', 'full'] = '320',    # which of the published sizes to download
    valid_pct: float = 0.02,                          # share of the training images that is held out
) -> Learner:
    "Random crops and flips; val/, the published test set, is evaluated once at the end"
    root = datasets.imagenette(path, source)
    block = DataBlock(blocks=(ImageBlock, CategoryBlock), get_items=get_image_files, get_y=name,
                      splitter=data.stratified(name, valid_pct), item_tfms=transforms.resize(size, min_scale, fit, valid_size=valid_size),
                      batch_tfms=transforms.Flip())
    dls = data.loaders(block, root/'train', bs=bs, test=get_image_files(root/'val'))
    net = models.xresnet(arch, dls.c, act_cls=models.ACTIVATIONS[act], sa=attention)
    return models.learner(dls, net, stats=imagenet_stats, opt_func=partial(training.optimizer(opt), mom=0.95, eps=1e-6),
                          loss_func=LabelSmoothingCrossEntropyFlat(eps=smoothing), metrics=accuracy,
                          cbs=transforms.grow(grow_from))

def fit(
    learn: Learner,
    schedule: Literal['flat-cos', 'one-cycle', 'step', 'constant'] = 'flat-cos',     # of the learning rate
    epochs: int = 5,                                  # passes over the training images
    lr: float = 8e-3,                                 # highest learning rate
    wd: float = 0.01,                                 # weight decay
):
    "A flat rate, then a cosine down to zero"
    training.fit_schedule(learn, schedule, epochs, lr, wd=wd)
