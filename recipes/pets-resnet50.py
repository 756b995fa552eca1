"""Oxford-IIIT Pet, 37 breeds: a pretrained ResNet-50, head first, then the whole network.

Claim:   EfficientNet-Lite0 in its place: test accuracy 86.94 % ± 1.03 (mean ± sd, n = 3 seeds), 646 s of
         training (AMD EPYC, 1 thread, fp32), a fifth of them, squashed to 224 × 224, split of its own: 735 +
         735; itself not measured yet
Data:    Oxford-IIIT Pet, 37 classes, 7,390 images
Network: ResNet-50 (any torchvision or timm classifier), ImageNet weights
Needs:   0.8 GB of images and 0.1 GB of weights to download, or --path and --weights; a GPU for speed
Run:     fastcls recipe pets-resnet50
Source:  Howard and Gugger, Deep Learning for Coders, chapter 5 (pet breeds); ResNet: He et al. 2016.
         Compare --tune full with --tune head: full fine-tuning and fixed features
"""
from typing import Literal

from fastai.vision.all import *

from fastcls import data, datasets, models, training, transforms

breed = using_attr(RegexLabeller(r'^(.+)_\d+\.jpe?g$'), 'name')

def get_learner(
    path: str = '',                                   # folder holding images/; empty downloads the dataset
    arch: str = 'resnet50',                           # torchvision or timm name
    size: int = 224,                                  # image side, pixels
    bs: int = 64,                                     # batch size
    weights: str = 'imagenet',                        # 'imagenet', 'none', a run folder or a .safetensors file
    split: Literal['random', 'official'] = 'random',  # 'official' evaluates the published test images at the end
    valid_pct: float = 0.2,                           # share of each breed's training images that is held out
    min_scale: float = 0.35,                          # smallest share of an image that a random crop may show
    fit: Literal['crop', 'squish', 'pad'] = 'crop',    # how an image becomes square: centre crop, squished, padded with black
) -> Learner:
    "37 breeds from the file names, a new head on a pretrained body"
    files, test = datasets.pets_parts(get_image_files(datasets.pets(path)), split)
    block = DataBlock(blocks=(ImageBlock, CategoryBlock), get_y=breed, splitter=data.stratified(breed, valid_pct),
                      item_tfms=transforms.resize(size, min_scale, fit), batch_tfms=transforms.augment())
    dls = data.loaders(block, files, bs=bs, test=test)
    return models.transfer_learner(dls, arch, weights=weights, pool='avgmax', metrics=[accuracy, error_rate])

def fit(
    learn: Learner,
    tune: Literal['full', 'head', 'probe'] = 'full',  # train the whole network, only its head, or keep the solved head
    epochs: int = 6,                                  # epochs after the head is solved on frozen features (epoch 0)
    lr: float = 5e-4,                                 # highest learning rate of the head; the stem's is a hundredth
    wd: float = 0.01,                                 # weight decay
):
    "The head solved on frozen features, then the whole network trained from there, early stages at the lowest rates"
    if tune == 'full' and not learn.pretrained: return learn.fit_one_cycle(epochs, 10*lr, wd=wd)   # nothing to start from
    models.fit_head(learn)
    if tune == 'probe': return
    learn.unfreeze() if tune == 'full' else learn.freeze()
    learn.fit_one_cycle(epochs, slice(lr/100, lr), wd=wd, cbs=training.PolyakAverage())
