"""Imagenette, gray or in colour: a ResNet-18 from scratch, from which other recipes can start.

Claim:   test accuracy 73.43 % (n = 1), 625 s of training (Intel(R) Xeon(R) Processor, 1 thread, bf16)
Data:    Imagenette (160 px), 10 classes, 9,469 training and 3,925 test images (its val/ folder)
Network: ResNet-18 (any torchvision or timm classifier), random weights
Needs:   0.1 GB of images to download, or --path; a GPU, or half an hour on a CPU
Run:     fastcls recipe imagenette-resnet18
         fastcls recipe cifar10-resnet18 --weights imagenette-resnet18
Source:  a student project: test accuracy 0.5640 in gray at 64 pixels. ResNet: He et al. 2016. ImageNet weights were
         trained on these very images: --weights imagenet would measure memorisation
"""
from typing import Literal

from fastai.vision.all import *

from fastcls import data, datasets, models, training, transforms


def name(file): return datasets.WNID_NAMES[parent_label(file)]

def get_learner(
    path: str = '',                                   # folder with train/ and val/; empty downloads the dataset
    channels: Literal['gray', 'rgb'] = 'rgb',         # colour of the images; for gray, a pretrained stem is summed over its channels
    arch: str = 'resnet18',                           # torchvision or timm name
    weights: str = 'none',                            # 'imagenet', 'none', a run folder or a .safetensors file
    size: int = 64,                                   # image side, pixels
    dropout: float = 0.5,                             # before the last layer
    drop_path: float = 0.,                            # stochastic depth of timm's networks: share of branches that are dropped
    valid_size: int | None = None,                    # side of whole validation and test images; none: their centre, at size
    grow_from: int | None = None,                     # image side at the start of training, growing up to size; none: size
    min_scale: float = 0.35,                          # smallest share of an image that a random crop may show
    fit: Literal['crop', 'squish', 'pad'] = 'crop',    # how an image becomes square: centre crop, squished, padded with black
    rotate: float = 0.,                               # rotate by up to this many degrees
    jitter: float = 0.,                               # brightness, contrast and colour by up to this fraction
    bs: int = 64,                                     # batch size
    valid_pct: float = 0.1,                           # share of the training images that is held out
) -> Learner:
    "A tenth of train/ held out to choose the epoch; val/, the published test set, is evaluated once at the end"
    root, mode = datasets.imagenette(path), {'gray': PILImageBW, 'rgb': PILImage}[channels]
    block = DataBlock(blocks=(ImageBlock(mode), CategoryBlock), get_items=get_image_files, get_y=name,
                      splitter=data.stratified(name, valid_pct), item_tfms=transforms.resize(size, min_scale, fit, valid_size=valid_size),
                      batch_tfms=transforms.augment(rotate=rotate, zoom=1, jitter=jitter))
    dls = data.loaders(block, root/'train', bs=bs, test=get_image_files(root/'val'))
    return models.transfer_learner(dls, arch, weights=weights, ps=dropout, drop_path=drop_path, metrics=accuracy,
                                   cbs=transforms.grow(grow_from))

def fit(
    learn: Learner,
    schedule: Literal['one-cycle', 'step', 'flat-cos', 'constant'] = 'one-cycle',    # of the learning rate
    epochs: int = 10,                                 # passes over the training images
    lr: float = 2e-3,                                 # highest learning rate
    wd: float = 0.05,                                 # weight decay
):
    "The whole network at one learning rate; --patience N stops early"
    learn.unfreeze()
    training.fit_schedule(learn, schedule, epochs, lr, wd=wd)
