"""Linear probes of pretrained networks on the user's images, before any training: which network, which labels.

Of each network one pass over the images, and a linear layer cross-validated on the frozen features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from fastai.data.all import CategoryBlock, ColReader, DataBlock
from fastai.vision.data import ImageBlock

from fastcls import transforms
from fastcls.audit.audit import Audit
from fastcls.audit.finding import Finding, Item
from fastcls.data import blocks, splitting
from fastcls.datasets.walk import count
from fastcls.errors import DataError
from fastcls.evaluation.metrics import Z, score
from fastcls.evaluation.suspects import suspects
from fastcls.models import learners as models
from fastcls.settings import options
from fastcls.training import probe

A_CLASS, MOST = 30, 1500  # images of the sample: some 20 CPU seconds with ResNet-34 at 224 pixels for every 300
BATCH = 32
MOST_DOUBTS = 1000  # labels in doubt that are listed, the most doubtful first


@dataclass(frozen=True)
class Measured:
    """The cross-validated probe of one network."""

    arch: str
    weights: str  # 'imagenet', a file or a run, as --weights takes them
    right: int
    n: int

    @property
    def accuracy(self) -> float:
        return self.right / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, Wilson's; the networks see the same images, so their difference is known better than this."""
        return score(self.accuracy, self.n, Z)


def sample(files: Sequence[Sequence[str]]) -> pd.DataFrame:
    """Some of the images that are not test images, evenly over the classes; from rows of path, label and split.

    DataError where fewer than two classes have two images each.
    """
    table = pd.DataFrame(list(files), columns=["path", "label", "split"])
    table = table[table.split != "test"].sample(frac=1, random_state=options.current().seed)
    turn = table.groupby("label").cumcount()
    table = table.assign(turn=turn)[turn < A_CLASS].sort_values("turn", kind="stable").head(MOST)
    return crossed(table.drop(columns="turn").sort_values(["label", "path"]), "--probe")


def crossed(table: pd.DataFrame, option: str) -> pd.DataFrame:
    """The images, path and label, whose class has two or more; DataError where fewer than two classes have."""
    table = table[table.groupby("label").path.transform("size") > 1]
    if table.label.nunique() < 2:
        raise DataError(
            f"{option}: fewer than two classes have two images each, so nothing can be cross-validated.",
            f"Omit {option}, or add images.",
        )
    first = table.groupby("label").cumcount() == 0  # fastai wants a validation split; every image is cross-validated
    return table.assign(split=np.where(first, "valid", "train")).reset_index(drop=True)


def measure(images: pd.DataFrame, arch: str, weights: str, size: int) -> Measured:
    """Probe one network on a `sample`, at `size` pixels; WeightsError where its weights cannot be had."""
    x, y, classes = features(images, arch, weights, size)
    found = probe.solve(x, y, len(classes), views=1)
    return Measured(arch, weights, found.right, found.held_out)


def features(images: pd.DataFrame, arch: str, weights: str, size: int) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """What a pretrained body makes of `crossed` images: (n, d), their classes (n,), and the names of these."""
    block = DataBlock(
        (ImageBlock, CategoryBlock),
        get_x=ColReader("path"),
        get_y=ColReader("label"),
        splitter=splitting.by_column,
        item_tfms=transforms.resize(size),
    )
    dls = blocks.loaders(block, images, bs=BATCH)
    body = models.transfer_learner(dls, arch, weights=weights).model[0].eval()
    with torch.no_grad():
        batches = dls.test_dl(images)
        x = torch.cat([body(batch[0].as_subclass(torch.Tensor)).float() for batch in batches])
    y = torch.as_tensor(pd.Categorical(images.label, categories=list(dls.vocab)).codes.copy(), dtype=torch.long)
    return x, y.to(x.device), list(map(str, dls.vocab))


def doubts(audit: Audit, arch: str, weights: str, size: int) -> Finding | None:
    """The labels that the network contradicts, those most likely to be wrong first; None where there are none.

    Each is judged by a head that has not seen it, of images that can be read, in classes of two or more. WeightsError
    where the weights cannot be had.
    """
    rows = [row for row in audit.contents.rows if not audit.measured[row[0]].fault]
    table = pd.DataFrame(rows, columns=["path", "label", "drawn"])
    with options.using(options.current()):  # its notes are of a training
        images = crossed(table, "--suspects")
        x, y, classes = features(images, arch, weights, size)
    together = [audit.together.get(path, "") for path in images["path"]]
    p = probe.out_of_fold(x, y, len(classes), together)
    labels = y.cpu().numpy()
    n = len(labels)
    entries = np.tile(np.arange(n), len(classes)), np.repeat(np.arange(len(classes)), n), p.T.ravel()
    found, noise = suspects(labels, *entries, p[np.arange(n), labels], len(classes))
    if not found:
        return None
    groups = []
    for one in found[:MOST_DOUBTS]:
        image, other = images.iloc[one.row], classes[one.looks_like]
        remark = f"looks like {other} ({one.of_other:.0%}), its label {one.of_label:.0%}"
        remark += f"; {one.wrong:.0%} likely wrong" if noise.shown else ""
        groups.append((Item(image.path, image.label, image.drawn, remark),))
    right = int((p.argmax(1) == labels).sum())
    what = (
        f"A linear head on {arch}'s features, with a cross-validated accuracy of {right / n:.1%} on {n:,} images, "
        f"contradicts {count(len(found), 'label')}"
    )
    if noise.shown:
        likely = sum(one.wrong for one in found)
        what += f"; about {likely:.0f} of them are likely to be wrong, most likely those at the top."
    else:
        what += ": about as many as its own mistakes explain, so there is no evidence that any label is wrong."
    fix = "Look at them, starting from the top; correct wrong labels, and keep those that are only difficult."
    return Finding("suspect-labels", "warning" if noise.shown else "note", "Suspect labels", what, fix, tuple(groups))
