"""Caltech-UCSD Birds-200-2011, 200 species: a ResNet-50 as a fixed feature extractor, or fine-tuned as a whole.

Claim:   EfficientNet-Lite0 in its place: test accuracy 80.56 % (n = 1), 3746 s of training (AMD EPYC, 1
         thread, fp32), 50 of the 200 classes, short side 224, quality 74; itself not measured yet
Data:    Caltech-UCSD Birds-200-2011, 200 classes, the official split: 5,994 training and 5,794 test images
Network: ResNet-50 (any torchvision or timm classifier), ImageNet weights
Needs:   1.2 GB of images and 0.1 GB of weights to download, or --path and --weights; a GPU for speed
Run:     fastcls recipe birds-resnet50
         fastcls compare birds-resnet50 --vary tune=full,head --vary dropout=0,0.5
Source:  a course project: features of a frozen ResNet compared with the whole network, dropout, regularisation.
         Data: Wah et al. 2011; some of its images are also in ImageNet's training set, which favours ImageNet weights
"""
from typing import Literal

from fastai.vision.all import *

from fastcls import data, datasets, models, training, transforms


def get_learner(
    path: str = '',                                   # folder of CUB_200_2011/; empty downloads the dataset
    arch: str = 'resnet50',                           # torchvision or timm name
    size: int = 224,                                  # image side, pixels
    bs: int = 32,                                     # batch size
    weights: str = 'imagenet',                        # 'imagenet', 'none', a run folder or a .safetensors file
    valid_pct: float = 0.1,                           # share of the training images that is held out
    min_scale: float = 0.35,                          # smallest share of an image that a random crop may show
    fit: Literal['crop', 'squish', 'pad'] = 'crop',    # how an image becomes square: centre crop, squished, padded with black
    dropout: float = 0.5,                             # before the last layer
    smoothing: float = 0.1,                           # label smoothing
) -> Learner:
    "The official test split for the end, a tenth of the training split held out to choose the epoch"
    table = datasets.birds_table(datasets.birds(path))
    block = DataBlock(blocks=(ImageBlock, CategoryBlock), get_x=ColReader('path'), get_y=ColReader('label'),
                      splitter=data.stratified('label', valid_pct),
                      item_tfms=transforms.resize(size, min_scale, fit), batch_tfms=transforms.augment())
    dls = data.loaders(block, table, bs=bs)
    return models.transfer_learner(dls, arch, weights=weights, pool='avgmax', ps=dropout,
                                   metrics=[accuracy, top_k_accuracy], loss_func=LabelSmoothingCrossEntropyFlat(eps=smoothing))

def fit(
    learn: Learner,
    tune: Literal['full', 'head', 'probe'] = 'full',  # train the whole network, only its head, or keep the solved head
    epochs: int = 12,                                 # epochs after the head is solved on frozen features (epoch 0)
    lr: float = 1e-3,                                 # highest learning rate of the head; the stem's is a hundredth
    wd: float = 0.01,                                 # weight decay
):
    "The head solved on frozen features, then the whole network trained from there, early stages at the lowest rates"
    if tune == 'full' and not learn.pretrained: return learn.fit_one_cycle(epochs, 5*lr, wd=wd)   # nothing to start from
    models.fit_head(learn)
    if tune == 'probe': return
    learn.unfreeze() if tune == 'full' else learn.freeze()
    learn.fit_one_cycle(epochs, slice(lr/100, lr), wd=wd, cbs=training.PolyakAverage())
