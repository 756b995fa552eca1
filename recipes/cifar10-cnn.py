"""CIFAR-10: three convolutions, whose activation, normalisation, filters and optimiser you can compare.

Claim:   test accuracy 83.83 % (n = 1), 494 s of training (Intel(R) Xeon(R) Processor, 1 thread, fp32)
Data:    CIFAR-10, 10 classes, 50,000 training and 10,000 test images of 32 × 32 pixels
Network: conv 32-64-128 with Mish and batch norm, a pool after each, linear 256, dropout 0.3
Needs:   0.2 GB of images to download, or --path; minutes on a CPU
Run:     fastcls recipe cifar10-cnn
         fastcls compare cifar10-cnn --vary norm=none,batch,evonorm-s0 --vary act=relu,mish --seeds 3
Source:  a student project: a three-layer CNN with Mish (Misra 2020), then batch normalisation (Ioffe and Szegedy 2015),
         filter sizes, EvoNorm (Liu et al. 2020) and AdamW (Loshchilov and Hutter 2019); its results are not published
"""
from typing import Literal

from fastai.vision.all import *

from fastcls import data, datasets, models, training, transforms


def get_learner(
    path: str = '',                                   # folder with train/ and test/; empty downloads the dataset
    act: Literal['relu', 'mish', 'gelu', 'silu'] = 'mish',     # activation
    norm: Literal['none', 'batch', 'group', 'evonorm-b0', 'evonorm-s0'] = 'batch',   # normalisation; EvoNorm is both
    filters: tuple[int, ...] = (32, 64, 128),         # channels of the convolutions
    kernel: int = 3,                                  # side of their filters, pixels
    hidden: int = 256,                                # units of the hidden linear layer
    dropout: float = 0.3,                             # before the last layer
    opt: Literal['adam', 'adamw', 'sgd'] = 'adamw',   # optimiser; 'sgd' needs an --lr of about 0.1
    bs: int = 256,                                    # batch size
    pad: int = 4,                                     # augmentation: shift by up to this many pixels
    flip: float = 0.5,                                # augmentation: share of mirrored images
    valid_pct: float = 0.1,                           # share of the training images that is held out
) -> Learner:
    "A tenth of train/ held out for validation; shifts and flips"
    root = datasets.cifar10(path)
    block = DataBlock(blocks=(ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label,
                      splitter=data.stratified(parent_label, valid_pct), batch_tfms=transforms.Crop(pad, flip=flip))
    dls = data.loaders(block, root/'train', bs=bs, test=get_image_files(root/'test'))
    net = models.cnn(3, dls.c, filters, kernel=kernel, act=act, norm=norm, side=32, hidden=(hidden,), dropout=dropout)
    return models.learner(dls, net, stats=cifar_stats, opt_func=training.optimizer(opt), metrics=accuracy)

def fit(
    learn: Learner,
    schedule: Literal['one-cycle', 'step', 'flat-cos', 'constant'] = 'one-cycle',    # of the learning rate
    epochs: int = 10,                                 # passes over the training images
    lr: float = 4e-3,                                 # highest learning rate
    wd: float = 0.02,                                 # weight decay
):
    "The whole network from random weights, by any schedule"
    training.fit_schedule(learn, schedule, epochs, lr, wd=wd)
