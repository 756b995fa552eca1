"""Imagenette in gray, 64 × 64: three convolutions with pools, two linear layers.

Claim:   test accuracy 77.45 % (n = 1), 341 s of training (Intel(R) Xeon(R) Processor, 1 thread, bf16)
Data:    Imagenette (160 px), 10 classes, 9,469 training and 3,925 test images (its val/ folder)
Network: conv 32-64-128, a pool after each, linear 256, dropout 0.3
Needs:   0.1 GB of images to download, or --path; minutes on a CPU
Run:     fastcls recipe imagenette-cnn
Source:  a student project: test accuracy 0.6308 for such a network without normalisation layers (--norm none)
"""
from typing import Literal

from fastai.vision.all import *

from fastcls import data, datasets, models, training, transforms


def name(file): return datasets.WNID_NAMES[parent_label(file)]

def get_learner(
    path: str = '',                                   # folder with train/ and val/; empty downloads the dataset
    channels: Literal['gray', 'rgb'] = 'gray',        # colour of the images
    size: int = 64,                                   # image side, pixels
    filters: tuple[int, ...] = (32, 64, 128),         # channels of the convolutions
    norm: Literal['none', 'batch', 'group', 'evonorm-b0', 'evonorm-s0'] = 'batch',   # normalisation layers
    act: Literal['relu', 'mish', 'gelu', 'silu'] = 'relu',     # activation
    hidden: int = 256,                                # units of the first linear layer
    dropout: float = 0.3,                             # before the last layer
    min_scale: float = 0.35,                          # smallest share of an image that a random crop may show; 1: no crops
    fit: Literal['crop', 'squish', 'pad'] = 'crop',    # how an image becomes square: centre crop, squished, padded with black
    flip: bool = True,                                # mirror half of the images
    bs: int = 64,                                     # batch size
    valid_pct: float = 0.1,                           # share of the training images that is held out
) -> Learner:
    "A tenth of train/ held out to choose the epoch; val/, the published test set, is evaluated once at the end"
    root, mode = datasets.imagenette(path), {'gray': PILImageBW, 'rgb': PILImage}[channels]
    block = DataBlock(blocks=(ImageBlock(mode), CategoryBlock), get_items=get_image_files, get_y=name,
                      splitter=data.stratified(name, valid_pct), item_tfms=transforms.resize(size, min_scale, fit),
                      batch_tfms=[transforms.Flip(0.5 if flip else 0)])
    dls = data.loaders(block, root/'train', bs=bs, test=get_image_files(root/'val'))
    n_in = models.channels(dls)
    net = models.cnn(n_in, dls.c, filters, act=act, norm=norm, side=size, hidden=(hidden,), dropout=dropout)
    return models.learner(dls, net, stats=imagenet_stats, metrics=accuracy)

def fit(
    learn: Learner,
    schedule: Literal['one-cycle', 'step', 'flat-cos', 'constant'] = 'one-cycle',    # of the learning rate
    epochs: int = 20,                                 # passes over the training images
    lr: float = 2e-3,                                 # highest learning rate
    wd: float = 0.05,                                 # weight decay
):
    "The whole network from random weights; --patience N stops early"
    training.fit_schedule(learn, schedule, epochs, lr, wd=wd)
