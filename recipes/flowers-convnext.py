"""Oxford 102 Flower: a ConvNeXt-Tiny fine-tuned on ten images of each flower.

Claim:   not measured yet (needs the dataset, ImageNet weights and a GPU)
Data:    Oxford 102 Flower, 102 classes, the official split: 1,020 training, 1,020 validation, 6,149 test images
Network: ConvNeXt-Tiny (any torchvision or timm classifier), ImageNet weights
Needs:   0.3 GB of images and 0.1 GB of weights to download, or --path and --weights; a GPU for speed
Run:     fastcls recipe flowers-convnext
         fastcls compare flowers-convnext --vary tune=full,head --vary arch=convnext_tiny,resnet50
Source:  a course project: what a pretrained network makes of few images a class. Data: Nilsback and Zisserman 2008
"""
from typing import Literal

from fastai.vision.all import *

from fastcls import data, datasets, models, transforms


def get_learner(
    path: str = '',                                   # folder of jpg/ and the .mat files; empty downloads the dataset
    arch: str = 'convnext_tiny',                      # torchvision or timm name
    size: int = 224,                                  # image side, pixels
    bs: int = 32,                                     # batch size
    weights: str = 'imagenet',                        # 'imagenet', 'none', a run folder or a .safetensors file
    min_scale: float = 0.35,                          # smallest share of an image that a random crop may show
    smoothing: float = 0.1,                           # label smoothing
) -> Learner:
    "The official split: the validation images choose the epoch, the test images are read once at the end"
    table = datasets.flowers_table(datasets.flowers(path))
    block = DataBlock(blocks=(ImageBlock, CategoryBlock), get_x=ColReader('path'), get_y=ColReader('label'),
                      splitter=data.by_column,
                      item_tfms=transforms.resize(size, min_scale), batch_tfms=transforms.augment())
    dls = data.loaders(block, table, bs=bs)
    return models.transfer_learner(dls, arch, weights=weights, metrics=[accuracy, top_k_accuracy],
                                   loss_func=LabelSmoothingCrossEntropyFlat(eps=smoothing))

def fit(
    learn: Learner,
    tune: Literal['full', 'head'] = 'full',           # the whole network, or only the new head on fixed features
    epochs: int = 20,                                 # epochs after unfreezing (all of them for 'head')
    freeze_epochs: int = 2,                           # epochs with the body frozen, before that
    lr: float = 2e-3,                                 # learning rate of the frozen phase; then lr/200 (stem) to lr/2 (head)
    wd: float = 0.05,                                 # weight decay
):
    "The head on a frozen body, then discriminative learning rates over the whole network"
    if tune == 'head': learn.freeze()
    if tune == 'full' and learn.pretrained: return learn.fine_tune(epochs, lr, freeze_epochs=freeze_epochs, wd=wd)
    learn.fit_one_cycle(epochs if tune == 'head' else freeze_epochs + epochs, lr, wd=wd)   # random weights: nothing to freeze
