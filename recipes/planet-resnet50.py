"""Planet, the Amazon from space: several of 17 labels per satellite image, with a fine-tuned ResNet-50.

Claim:   not measured yet (needs the dataset, ImageNet weights and a GPU)
Data:    Planet: Understanding the Amazon from Space, 17 labels, 40,479 images, a stratified fifth of them held out
Network: ResNet-50 (any torchvision or timm classifier), ImageNet weights
Needs:   --path, the training images and train_v2.csv of the Kaggle competition; 0.1 GB of weights to download, or
         --weights; a GPU for speed
Run:     fastcls recipe planet-resnet50 --path planet
Source:  fastai's course, lesson 3 of 2019: ResNet-50 at 128, then 256 pixels, F2 at a threshold of 0.2
"""
from typing import Literal

from fastai.vision.all import *

from fastcls import data, datasets, models, training, transforms


def get_learner(
    path: str,                                        # folder that holds train-jpg/ and train_v2.csv
    arch: str = 'resnet50',                           # torchvision or timm name
    size: int = 128,                                  # image side, pixels; the originals have 256
    bs: int = 64,                                     # batch size
    weights: str = 'imagenet',                        # 'imagenet', 'none', a run folder or a .safetensors file
    valid_pct: float = 0.2,                           # share of the images with each label that is held out
    loss: Literal['cross-entropy', 'label-smoothing', 'focal', 'asymmetric'] = 'cross-entropy',   # loss function
    thresh: float = 0.2,                              # probability from which a label counts for F2
) -> Learner:
    "Seventeen labels from the competition's table; images from above may be rotated and mirrored"
    table = datasets.planet_table(datasets.planet(path))
    block = DataBlock(blocks=(ImageBlock, MultiCategoryBlock), get_x=ColReader('path'), get_y=ColReader('label'),
                      splitter=data.stratified('label', valid_pct), item_tfms=transforms.resize(size),
                      batch_tfms=[Dihedral(), *transforms.augment(flip=False, rotate=0, zoom=1.05, jitter=0.1)])
    dls = data.loaders(block, table, bs=bs)
    return models.transfer_learner(dls, arch, weights=weights, pool='avgmax', loss_func=training.loss(loss, dls),
                                   metrics=[FBetaMulti(2, thresh=thresh, average='samples'), *training.metrics(dls)])

def fit(
    learn: Learner,
    tune: Literal['full', 'head', 'probe'] = 'full',  # train the whole network, only its head, or keep the solved head
    epochs: int = 5,                                  # epochs after the head is solved on frozen features (epoch 0)
    lr: float = 5e-4,                                 # highest learning rate of the head; the stem's is a hundredth
    wd: float = 0.01,                                 # weight decay
):
    "The head solved on frozen features, then the whole network trained from there, early stages at the lowest rates"
    if tune == 'full' and not learn.pretrained: return learn.fit_one_cycle(epochs, 10*lr, wd=wd)   # nothing to start from
    models.fit_head(learn)
    if tune == 'probe': return
    learn.unfreeze() if tune == 'full' else learn.freeze()
    learn.fit_one_cycle(epochs, slice(lr/100, lr), wd=wd, cbs=training.PolyakAverage())
