"""CIFAR-10: five convolutions with batch norm, from scratch.

Claim:   not measured yet
Data:    CIFAR-10, 10 classes, 50,000 training and 10,000 test images of 32 × 32 pixels
Network: conv 64-64-128-128-256 with batch norm and three pools, linear 512, dropout 0.5
Needs:   0.2 GB of images to download, or --path; minutes on a CPU
Run:     fastcls recipe cifar10-cnn5
Source:  a student's first good CNN; the network that this project's speed is measured on
"""
from typing import Literal

from fastai.vision.all import *

from fastcls import data, datasets, mixing, models, networks, optimizers, transforms

def get_learner(
    path: str = '',                                   # folder with train/ and test/; empty downloads the dataset
    bs: int = 256,                                    # batch size
    valid_pct: float = 0.1,                           # share of the training images that is held out
    pad: int = 4,                                     # augmentation: shift by up to so many pixels
    jitter: float = 0.1,                              # augmentation: brightness, contrast and saturation
    dropout: float = 0.5,                             # before the last layer
    opt: Literal['adamw', 'adam', 'sgd'] = 'adamw',   # optimiser
) -> Learner:
    "A tenth of train/ held out for validation; crop, flip and colour jitter"
    root = datasets.cifar10(path)
    block = DataBlock(blocks=(ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label,
                      splitter=data.stratified(parent_label, valid_pct),
                      batch_tfms=[transforms.Crop(pad, flip=0.5), transforms.ColorJitter(jitter)])
    dls = data.loaders(block, root/'train', bs=bs, test=get_image_files(root/'test'))
    return models.learner(dls, networks.vgg_cnn(3, dls.c, dropout=dropout), stats=cifar_stats,
                          opt_func=optimizers.optimizer(opt), metrics=accuracy)

def fit(
    learn: Learner,
    epochs: int = 10,                                 # passes over the training images
    lr: float = 4e-3,                                 # highest learning rate
    wd: float = 0.02,                                 # weight decay
    schedule: Literal['one-cycle', 'step'] = 'one-cycle',   # 'step' divides the rate by ten at 60 % and 85 %
    mix: Literal['none', 'mixup', 'cutmix'] = 'none', # blend images, or paste a part of another
):
    "One cycle, or a constant rate that falls in steps"
    if schedule == 'one-cycle': learn.fit_one_cycle(epochs, lr, wd=wd, cbs=mixing.mix(mix))
    else:
        steps = combine_scheds([0.6, 0.25, 0.15], [SchedNo(r, r) for r in (lr, lr/10, lr/100)])
        learn.fit(epochs, lr, wd=wd, cbs=[ParamScheduler({'lr': steps}), *mixing.mix(mix)])
