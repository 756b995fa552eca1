"""CIFAR-10: a ResNet-18 from scratch, from ImageNet or from your own run, training as many late stages as you like.

Claim:   MobileNetV2 in its place: test accuracy 92.55 % (n = 1), 2501 s of training (AMD EPYC, 1 thread,
         fp32), JPEG, quality 95; itself not measured yet
Data:    CIFAR-10, 10 classes, 50,000 training and 10,000 test images of 32 × 32 pixels, enlarged
Network: ResNet-18 (any torchvision or timm classifier) with dropout before the last layer
Needs:   0.2 GB of images and 0.05 GB of weights to download, or --path and --weights; a GPU, or hours on a CPU
Run:     fastcls recipe cifar10-resnet18
         fastcls compare cifar10-resnet18 --vary weights=none,imagenette-resnet18 --size 64 --seeds 3
Source:  two student projects: 91.95 % at 224 pixels from ImageNet weights, layer4 and the last layer trained
         (--size 224 --unfreeze layer4 --opt adam); and, from Imagenette, 0.834 on valid, compared with 0.786 from scratch
"""
from typing import Literal

from fastai.vision.all import *

from fastcls import data, datasets, models, training, transforms


def get_learner(
    path: str = '',                                   # folder with train/ and test/; empty downloads the dataset
    arch: str = 'resnet18',                           # torchvision or timm name
    weights: str = 'imagenet',                        # 'imagenet', 'none', a run folder or a .safetensors file
    size: int = 128,                                  # image side, pixels; 32 is the original size
    dropout: float = 0.5,                             # before the last layer
    rotate: float = 10.,                              # augmentation: rotate by up to this many degrees
    jitter: float = 0.2,                              # augmentation: brightness, contrast and saturation
    cutout: float = 0.,                               # augmentation: side of a blanked square, as a share of the image's
    opt: Literal['adamw', 'adam', 'sgd'] = 'adamw',   # optimiser
    bs: int = 128,                                    # batch size
    valid_pct: float = 0.1,                           # share of the training images that is held out
) -> Learner:
    "A tenth of train/ held out for validation; shifts, flips, rotation and jitter"
    root = datasets.cifar10(path)
    augment = [transforms.Crop(size//8, flip=0.5), *transforms.augment(flip=False, rotate=rotate, zoom=1, jitter=jitter),
               *([transforms.Cutout(cutout)] if cutout else [])]
    block = DataBlock(blocks=(ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label,
                      splitter=data.stratified(parent_label, valid_pct), item_tfms=transforms.resize(size),
                      batch_tfms=augment)
    dls = data.loaders(block, root/'train', bs=bs, test=get_image_files(root/'test'))
    return models.transfer_learner(dls, arch, weights=weights, ps=dropout, opt_func=training.optimizer(opt),
                                   splitter=models.split, metrics=accuracy)

def fit(
    learn: Learner,
    unfreeze: str = 'all',                            # 'all', 'head', the first stage to train ('layer4'), or how many
    epochs: int = 12,                                 # epochs; with ImageNet weights 4 are enough, after the head is solved (epoch 0)
    lr: float = 1e-3,                                 # highest learning rate of the head
    div: float = 100.,                                # the stem's rate is the head's divided by this
    wd: float = 0.05,                                 # weight decay
):
    "The head solved on frozen features, then one rate per stage; a network with random weights is trained as a whole from the start"
    if not learn.pretrained: return learn.fit_one_cycle(epochs, 2*lr, wd=wd)
    models.fit_head(learn, views=1, freeze_statistics=False)
    models.unfreeze(learn, unfreeze)
    learn.fit_one_cycle(epochs, slice(lr/div, lr), wd=wd)
