"""CIFAR-10: five convolutions with batch norm, from scratch.

Claim:   test accuracy 87.92 % (n = 1), 1511 s of training (Intel(R) Xeon(R) Processor, 1 thread, bf16)
Data:    CIFAR-10, 10 classes, 50,000 training and 10,000 test images of 32 × 32 pixels
Network: conv 64-64-128-128-256 with batch norm and three pools, linear 512, dropout 0.5
Needs:   0.2 GB of images to download, or --path; minutes on a CPU
Run:     fastcls recipe cifar10-cnn5
         fastcls recipe cifar10-cnn5 --dropout 0 --epochs 16
Source:  a student project: 89.11 % with --opt adam --lr 1e-3 --wd 0 --schedule step --epochs 30 --bs 64. Its next
         steps are here: CutOut, mixup and CutMix, one-cycle. This project's speed is measured on this network.
         The second command exceeds that accuracy (docs/results.md)
"""
from typing import Literal

from fastai.vision.all import *

from fastcls import data, datasets, models, training, transforms


def get_learner(
    path: str = '',                                   # folder with train/ and test/; empty downloads the dataset
    bs: int = 256,                                    # batch size
    valid_pct: float = 0.1,                           # share of the training images that is held out
    pad: int = 4,                                     # augmentation: shift by up to this many pixels
    rotate: float = 0.,                               # augmentation: rotate by up to this many degrees
    jitter: float = 0.1,                              # augmentation: brightness, contrast and saturation
    cutout: float = 0.,                               # augmentation: side of a blanked square, as a share of the image's
    erase: float = 0.,                                # augmentation: probability of a rectangle of noise
    policy: Literal['none', 'trivial', 'rand'] = 'none',      # TrivialAugment or RandAugment on top
    dropout: float = 0.5,                             # before the last layer
    smoothing: float = 0.,                            # label smoothing
    opt: Literal['adamw', 'adam', 'sgd'] = 'adamw',   # optimiser; 'sgd' needs an --lr of about 0.1
) -> Learner:
    "A tenth of train/ held out for validation; crop, flip and colour jitter"
    root = datasets.cifar10(path)
    augment = [transforms.Crop(pad, flip=0.5), *transforms.policy(policy),
               *transforms.augment(flip=False, rotate=rotate, zoom=1, jitter=jitter, erase=erase), *([transforms.Cutout(cutout)] if cutout else [])]
    block = DataBlock(blocks=(ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label,
                      splitter=data.stratified(parent_label, valid_pct), batch_tfms=augment)
    dls = data.loaders(block, root/'train', bs=bs, test=get_image_files(root/'test'))
    net = models.cnn(3, dls.c, (64, 64, 128, 128, 256), pools=(2, 4, 5), side=32, hidden=(512,), dropout=dropout)
    return models.learner(dls, net, stats=cifar_stats, opt_func=training.optimizer(opt), metrics=accuracy,
                          loss_func=LabelSmoothingCrossEntropyFlat(eps=smoothing))

def fit(
    learn: Learner,
    epochs: int = 10,                                 # passes over the training images
    lr: float = 4e-3,                                 # highest learning rate
    wd: float = 0.02,                                 # weight decay
    schedule: Literal['one-cycle', 'step', 'flat-cos', 'constant'] = 'one-cycle',    # 'step' halves the rate after each third
    warmup: float | None = None,                      # share of training in which the rate rises; none: the schedule's
    ema: float = 0.,                                  # decay of a moving average of the weights, which replaces them; such as 0.99
    mixup: float = 0.,                                # blend pairs of images: alpha of their shares, such as 0.4
    cutmix: float = 0.,                               # paste a part of another image: alpha of its share, such as 1
):
    "One cycle, or another schedule"
    training.fit_schedule(learn, schedule, epochs, lr, wd=wd, warmup=warmup,
                           cbs=[*transforms.mix(mixup, cutmix), *training.ema(ema)])
