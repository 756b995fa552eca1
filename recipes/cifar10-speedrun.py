"""CIFAR-10 in minutes: a small whitened network, Muon, a few epochs in bfloat16, six views at test time.

Claim:   test accuracy 93.37 % (n = 1; 95 % interval 92.87 to 93.84), 13 min in all on 2 CPU cores, with other programs running
Data:    CIFAR-10, 10 classes, 50,000 + 10,000 images; the claim is for JPEGs of quality 95 instead of lossless images
Network: speednet, a fixed whitening layer and six 3 × 3 convolutions
Needs:   0.2 GB to download, or --path; a CPU with bfloat16 or any CUDA GPU for the time above
Run:     fastcls recipe cifar10-speedrun --keep last --seed 1     (AMD EPYC, bf16, torch 2.15)
Source:  Jordan 2024, 94% on CIFAR-10 in 3.29 seconds on a single GPU (arXiv 2404.00498), and Jordan et al. 2024, Muon:
         94.01 % (n = 200), 8 epochs of batches of 2,000. Here: fastai's loop, image files, batches of 500, AdamW
         instead of SGD for biases and head
"""
from typing import Literal

from fastai.vision.all import *

from fastcls import data, datasets, models, training, transforms


def get_learner(
    path: str = '',                                   # folder of train/<class> and test/<class>; empty downloads the dataset
    bs: int = 500,                                    # batch size
    widths: tuple[int, ...] = (64, 256, 256),         # channels of the three blocks, two convolutions each
    pad: int = 2,                                     # augmentation: shift by up to this many pixels
    smoothing: float = 0.2,                           # label smoothing
    views: Literal[1, 2, 6] = 6,                      # views that a prediction averages: 1, 2 (mirrored), 6 (shifted)
    valid_pct: float = 0.02,                          # share of the training images that is held out
) -> Learner:
    "Random shifts and flips, a first layer set from the training images, Muon for the others"
    root = datasets.cifar10(path)
    block = DataBlock(blocks=(ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label,
                      splitter=data.stratified(parent_label, valid_pct=valid_pct),
                      batch_tfms=transforms.Crop(pad, flip=0.5, alternate=True))
    dls = data.loaders(block, root/'train', bs=bs, test=get_image_files(root/'test'))
    net = models.speednet(3, dls.c, widths, views)
    learn = models.learner(dls, net, stats=cifar_stats, opt_func=training.Muon, moms=(0.6,)*3, metrics=accuracy,
                           loss_func=LabelSmoothingCrossEntropyFlat(eps=smoothing))
    models.whiten(net, dls.one_batch()[0])
    return learn

def fit(
    learn: Learner,
    epochs: int = 8,                                  # passes over the training images
    lr: float = 0.17,                                 # highest learning rate: the relative step of a filter
):
    "The rate falls linearly to zero"
    learn.fit(epochs, lr, cbs=ParamScheduler({'lr': SchedLin(lr, 0)}))
