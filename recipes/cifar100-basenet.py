"""CIFAR-100: a plain LeNet-like network, and the knobs that improve it.

Claim:   test accuracy 30.38 % (n = 1), 87 s of training (Intel(R) Xeon(R) Processor, 1 thread, bf16)
Data:    CIFAR-100, 100 classes, 50,000 training and 10,000 test images of 32 × 32 pixels
Network: conv 6 and 16, both 5 × 5 with a pool, linear 400-200-100; no normalisation, no augmentation
Needs:   0.2 GB of images to download, or --path; minutes on a CPU
Run:     fastcls recipe cifar100-basenet
         fastcls compare cifar100-basenet --one-at-a-time --vary normalize=yes --vary flip=0.5 --vary convs=2 --vary norm=batch
Source:  a course project that improves this baseline with normalisation, augmentation, depth and normalisation layers.
         The network is LeNet-5 (LeCun et al. 1998) with ReLU, for colour images and 100 classes
"""
from typing import Literal

from fastai.vision.all import *

from fastcls import data, datasets, models, training, transforms


def get_learner(
    path: str = '',                                   # folder with train/ and test/; empty downloads the dataset
    normalize: bool = False,                          # normalise the colours to mean 0 and standard deviation 1
    pad: int = 0,                                     # augmentation: shift by up to this many pixels
    flip: float = 0.,                                 # augmentation: share of mirrored images
    filters: tuple[int, ...] = (6, 16),               # channels of the stages; each ends with a pool
    convs: int = 1,                                   # convolutions per stage
    kernel: int = 5,                                  # side of their filters, pixels
    padding: Literal['valid', 'same'] = 'valid',      # 'same' keeps the borders, which deep networks need
    norm: Literal['none', 'batch', 'group', 'evonorm-b0', 'evonorm-s0'] = 'none',    # normalisation layers
    act: Literal['relu', 'mish', 'gelu', 'silu'] = 'relu',     # activation
    hidden: tuple[int, ...] = (200,),                 # units of the hidden linear layers
    dropout: float = 0.,                              # before the last layer
    smoothing: float = 0.,                            # label smoothing
    opt: Literal['adam', 'adamw', 'sgd'] = 'adamw',   # optimiser
    bs: int = 128,                                    # batch size
    valid_pct: float = 0.1,                           # share of the training images that is held out
) -> Learner:
    "A tenth of train/ held out for validation; everything beyond the baseline is a knob"
    root = datasets.cifar100(path)
    block = DataBlock(blocks=(ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label,
                      splitter=data.stratified(parent_label, valid_pct), batch_tfms=transforms.Crop(pad, flip=flip))
    dls = data.loaders(block, root/'train', bs=bs, test=get_image_files(root/'test'))
    net = models.cnn(3, dls.c, filters, convs, kernel, padding, act, norm, side=32, hidden=hidden, dropout=dropout)
    return models.learner(dls, net, stats=cifar_stats if normalize else None, opt_func=training.optimizer(opt),
                          loss_func=LabelSmoothingCrossEntropyFlat(eps=smoothing), metrics=[accuracy, top_k_accuracy])

def fit(
    learn: Learner,
    schedule: Literal['one-cycle', 'step', 'flat-cos', 'constant'] = 'one-cycle',    # of the learning rate
    epochs: int = 10,                                 # passes over the training images
    lr: float = 3e-3,                                 # highest learning rate
    wd: float = 0.01,                                 # weight decay
):
    "The whole network from random weights, by any schedule"
    training.fit_schedule(learn, schedule, epochs, lr, wd=wd)
