"""Labels that the network contradicts: confident learning (Northcutt et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Suspect:
    """An image whose label is doubted: its row, the class it looks like, and the two probabilities."""

    row: int
    looks_like: int
    of_label: float
    of_other: float

    @property
    def margin(self) -> float:
        return self.of_other - self.of_label


def suspects(
    labels: np.ndarray, rows: np.ndarray, classes: np.ndarray, probabilities: np.ndarray, own: np.ndarray, count: int
) -> list[Suspect]:
    """Those images of which another class is more probable than it is, on average, of images that bear its name.

    labels, own (n,): the label of each image and the probability it gets. rows, classes, probabilities: the further
    probabilities, an entry each, sparse or all of them; `count` classes. The threshold of a class is the mean
    probability that images with its label get (equation 2 there); the ranking is by normalised margin, the widest
    first. Images on which the network has not been trained, or the network will believe their labels.
    """
    support = np.bincount(labels, minlength=count)
    with np.errstate(invalid="ignore"):  # a class without an image has no threshold: nothing looks like it
        thresholds = np.bincount(labels, own, minlength=count) / support
    above = (classes != labels[rows]) & (probabilities >= np.nan_to_num(thresholds, nan=np.inf)[classes])
    above &= probabilities > own[rows]
    rows, classes, probabilities = rows[above], classes[above], probabilities[above]
    likeliest = np.lexsort((-probabilities, rows))
    first = likeliest[np.unique(rows[likeliest], return_index=True)[1]]
    found = [Suspect(int(rows[i]), int(classes[i]), float(own[rows[i]]), float(probabilities[i])) for i in first]
    return sorted(found, key=lambda suspect: -suspect.margin)
