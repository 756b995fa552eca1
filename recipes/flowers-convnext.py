"""Oxford 102 Flower: a ConvNeXt-Tiny fine-tuned on ten images of each flower.

Claim:   not measured yet (needs the dataset, ImageNet weights and a GPU)
Data:    Oxford 102 Flower, 102 classes, the official split: 1,020 training, 1,020 validation, 6,149 test images
Network: ConvNeXt-Tiny (any torchvision or timm classifier), ImageNet weights
Needs:   0.3 GB of images and 0.1 GB of weights to download, or --path and --weights; a GPU for speed
Run:     fastcls recipe flowers-convnext
         fastcls compare flowers-convnext --vary tune=full,head --vary arch=convnext_tiny,resnet50
Source:  a course project: how well a pretrained network learns from few images per class. Data: Nilsback and Zisserman 2008
"""
from typing import Literal

from fastai.vision.all import *

from fastcls import data, datasets, models, training, transforms


def get_learner(
    path: str = '',                                   # folder of jpg/ and the .mat files; empty downloads the dataset
    arch: str = 'convnext_tiny',                      # torchvision or timm name
    size: int = 224,                                  # image side, pixels
    bs: int = 32,                                     # batch size
    weights: str = 'imagenet',                        # 'imagenet', 'none', a run folder or a .safetensors file
    min_scale: float = 0.35,                          # smallest share of an image that a random crop may show
    fit: Literal['crop', 'squish', 'pad'] = 'crop',    # how an image becomes square: centre crop, squished, padded with black
    smoothing: float = 0.1,                           # label smoothing
) -> Learner:
    "The official split: the validation images choose the epoch, the test images are evaluated once at the end"
    table = datasets.flowers_table(datasets.flowers(path))
    block = DataBlock(blocks=(ImageBlock, CategoryBlock), get_x=ColReader('path'), get_y=ColReader('label'),
                      splitter=data.by_column,
                      item_tfms=transforms.resize(size, min_scale, fit), batch_tfms=transforms.augment())
    dls = data.loaders(block, table, bs=bs)
    return models.transfer_learner(dls, arch, weights=weights, metrics=[accuracy, top_k_accuracy],
                                   loss_func=LabelSmoothingCrossEntropyFlat(eps=smoothing))

def fit(
    learn: Learner,
    tune: Literal['full', 'head', 'probe'] = 'full',  # train the whole network, only its head, or keep the solved head
    epochs: int = 10,                                 # epochs after the head is solved on frozen features (epoch 0)
    lr: float = 5e-4,                                 # highest learning rate of the head; the stem's is a hundredth
    wd: float = 0.05,                                 # weight decay
):
    "The head solved on frozen features, then the whole network trained from there, early stages at the lowest rates"
    if tune == 'full' and not learn.pretrained: return learn.fit_one_cycle(epochs, 10*lr, wd=wd)   # nothing to start from
    models.fit_head(learn)
    if tune == 'probe': return
    learn.unfreeze() if tune == 'full' else learn.freeze()
    learn.fit_one_cycle(epochs, slice(lr/100, lr), wd=wd, cbs=training.PolyakAverage())
