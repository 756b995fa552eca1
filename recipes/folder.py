"""Your own photographs: a pretrained network on class folders, a flat folder or a CSV, with one or several labels per image.

Claim:   not measured yet: it depends on your images
Data:    yours: train/valid/test or class folders, a flat folder with --label-regex, or a CSV with --labels
Network: ConvNeXt-Nano of 2022, weights from ImageNet-12k and 1k (--arch small or large; any torchvision or timm name)
Needs:   --path, and 62 MB of weights to download or --weights; a GPU for speed
Run:     fastcls recipe folder --path photos
Source:  the template of a course project: augmentation, pretrained models, losses and optimisers to choose from
"""
from typing import Literal
from fastai.vision.all import *
from fastcls import data, datasets, models, training, transforms

def get_learner(
    path: str,                                        # folder with the images
    labels: str = '',                                 # CSV file with a path and a label column
    label_regex: str = '',                            # pattern whose first group is the label in a file name
    multi_label: Literal['auto', 'yes', 'no'] = 'auto',       # may an image have several labels, or none? auto detects it
    valid_pct: float = 0.2,                           # share of each class held out if no split is given
    test_pct: float = 0.,                             # share held out as a test split, for the metrics at the end
    group: str = '',                                  # column of the table, or pattern of paths: images of one group stay together
    split_by: str = '',                               # column of dates or numbers: the newest images are the test split
    newest: float = 0.2,                              # share of the newest images, with --split-by
    arch: str = 'base',                               # small, base, large; torchvision or timm name
    weights: str = 'imagenet',                        # 'imagenet', 'none', a run folder or a .safetensors file
    size: int = 224,                                  # image side, pixels
    bs: int = 32,                                     # batch size
    min_scale: float = 0.5,                           # random crop: smallest share of the image; 1 crops the centre
    fit: Literal['crop', 'squish', 'pad'] = 'crop',    # how an image becomes square: centre crop, squished, padded with black
    flip: bool = True,                                # mirror half of the images
    rotate: float = 10.,                              # rotate by up to this many degrees
    translate: float = 0.,                            # shift by up to this fraction of the side
    jitter: float = 0.2,                              # brightness, contrast and colour by up to this fraction
    erase: float = 0.,                                # probability of erasing a random rectangle
    policy: Literal['none', 'trivial', 'rand'] = 'none',      # TrivialAugment or RandAugment on top
    mixup: float = 0.,                                # blend pairs of images: alpha of their shares, such as 0.4
    balanced: bool = False,                           # draw rare classes as often as others
    ema: float = 0.,                                  # decay of a moving average of the weights, which replaces them; such as 0.99
    loss: Literal['cross-entropy', 'label-smoothing', 'focal', 'asymmetric'] = 'cross-entropy',   # 'asymmetric' is for several labels
    class_weights: bool = False,                      # give rare classes more weight
    opt: Literal['adam', 'adamw', 'sgd', 'radam', 'ranger'] = 'adamw',              # optimiser
) -> Learner:
    "Detects the layout, then puts a new head on a pretrained body"
    table = datasets.folder(path, labels=labels, label_regex=label_regex, valid_pct=None, multi_label=multi_label)
    table = data.split(table, valid_pct, test_pct, group, split_by, newest)
    block = DataBlock(blocks=(ImageBlock, data.label_block(table)), get_x=ColReader('path'), get_y=ColReader('label'),
                      splitter=data.by_column, item_tfms=transforms.resize(size, min_scale, fit),
                      batch_tfms=[*transforms.policy(policy), *transforms.augment(flip, rotate, translate, jitter=jitter, erase=erase)])
    dls = data.loaders(block, table, bs=bs, balanced=balanced)
    return models.transfer_learner(dls, arch, weights=weights, pool='avgmax', opt_func=training.optimizer(opt),
                                   loss_func=training.loss(loss, dls, class_weights), metrics=training.metrics(dls),
                                   cbs=transforms.mix(mixup) + training.ema(ema))

def fit(
    learn: Learner,
    tune: Literal['full', 'head', 'probe'] = 'full',  # train the whole network, only its head, or keep the solved head
    epochs: int = 6,                                  # epochs after the head is solved on frozen features (epoch 0)
    lr: float = 5e-4,                                 # highest learning rate of the head; the stem's is a hundredth
):
    "The head solved on frozen features, then the whole network trained from there, early stages at the lowest rates"
    if tune == 'full' and not learn.pretrained: return learn.fit_one_cycle(epochs, 10*lr)   # nothing to start from
    models.fit_head(learn)
    if tune == 'probe': return
    learn.unfreeze() if tune == 'full' else learn.freeze()
    learn.fit_one_cycle(epochs, slice(lr/100, lr), cbs=training.PolyakAverage())
