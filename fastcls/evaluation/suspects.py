"""Labels that the network contradicts: confident learning (Northcutt et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter

import numpy as np

FITTED_ON = 20_000  # images: more change nothing that matters


@dataclass(frozen=True)
class Suspect:
    """An image whose label is doubted: row, the class it looks like, both probabilities, and that of a wrong label."""

    row: int
    looks_like: int
    of_label: float
    of_other: float
    wrong: float

    @property
    def margin(self) -> float:
        return self.of_other - self.of_label


def suspects(
    labels: np.ndarray, rows: np.ndarray, classes: np.ndarray, probabilities: np.ndarray, own: np.ndarray, count: int
) -> tuple[list[Suspect], Noise]:
    """Those images of which another class is more probable than it is, on average, of images that bear its name.

    labels, own (n,): the label of each image and the probability it gets. rows, classes, probabilities: the further
    probabilities, an entry each, sparse or all of them; `count` classes. The threshold of a class is the mean
    probability that images with its label get (equation 2 there); the ranking is by the probability that the label is
    wrong (`noise`), then by margin. Images on which the network has not been trained, or it will believe their labels.
    """
    among, wrong = noise(own, rows, probabilities, count)
    above = (classes != labels[rows]) & (probabilities >= _thresholds(labels, own, count)[classes])
    above &= probabilities > own[rows]
    rows, classes, probabilities = rows[above], classes[above], probabilities[above]
    likeliest = np.lexsort((-probabilities, rows))
    first = likeliest[np.unique(rows[likeliest], return_index=True)[1]]
    found = [
        Suspect(int(rows[i]), int(classes[i]), float(own[rows[i]]), float(probabilities[i]), float(wrong[rows[i]]))
        for i in first
    ]
    return sorted(found, key=lambda suspect: (-suspect.wrong, -suspect.margin)), among


@dataclass(frozen=True)
class Noise:
    """How many labels are wrong, as far as a network can tell: a share of them, at a temperature of the network.

    evidence: twice the logarithm of the likelihood ratio to a world without wrong labels; above 2.7 chance hardly
    explains it (5 %, one-sided).
    """

    share: float
    temperature: float
    evidence: float
    count: int

    @property
    def shown(self) -> bool:
        return self.evidence > 2.706

    def wrong(self, own: np.ndarray) -> np.ndarray:
        """The probability that a label is wrong, of which the network at this temperature says `own` (n,)."""
        other = self.share / (self.count - 1) * (1 - own)
        return other / np.maximum(other + (1 - self.share) * own, 1e-300)


def noise(own: np.ndarray, rows: np.ndarray, probabilities: np.ndarray, count: int) -> tuple[Noise, np.ndarray]:
    """The noise among labels, and the probability that each is wrong: (n,).

    own (n,): the probability of each label. rows, probabilities: those of all classes, an entry each, or of the likely
    ones. A mixture, fitted by its likelihood: a label is drawn from what the network says, or with a share ε is any
    other. A weak network contradicts many labels by its own mistakes, which its temperature accounts for; what is
    wrong where it is sure is the labels'.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    most = np.flatnonzero(rows < FITTED_ON) if len(own) > FITTED_ON else slice(None)
    fitted, entries, values = own[:FITTED_ON], rows[most], probabilities[most]

    def loss(temperature: float, share: float) -> float:
        own = _scaled(fitted, entries, values, temperature, count)
        return -float(np.log(np.maximum((1 - share) * own + share / (count - 1) * (1 - own), 1e-300)).sum())

    if count < 2 or not len(own):
        return Noise(0.0, 1.0, 0.0, max(2, count)), np.zeros(len(own))
    # logarithms of the temperature and of the odds, from two starts: a share of 0 is flat ground
    tried = [
        minimize(lambda x: loss(np.exp(x[0]), expit(x[1])), start, method="Nelder-Mead", bounds=((-4, 4), (-20, 2)))
        for start in ((0.0, -4.0), (-1.0, -3.0))
    ]
    clean = [minimize(lambda x: loss(np.exp(x[0]), 0.0), [start], bounds=((-4, 4),)) for start in (0.0, 1.0)]
    best = min(tried, key=attrgetter("fun"))
    temperature, share = float(np.exp(best.x[0])), float(expit(best.x[1]))
    evidence = 2 * (min(result.fun for result in clean) - float(best.fun))
    found = Noise(share, temperature, evidence, count)
    return found, found.wrong(_scaled(own, rows, probabilities, temperature, count))


def _scaled(own: np.ndarray, rows: np.ndarray, probabilities: np.ndarray, temperature: float, count: int) -> np.ndarray:
    """(n,): what the network says of the labels at a temperature; what no entry says is shared by the other classes."""
    n = len(own)
    power = 1 / temperature
    rest = np.clip(1 - np.bincount(rows, probabilities, n), 0, 1)
    left = np.maximum(0, count - np.bincount(rows, minlength=n))
    sums = np.bincount(rows, probabilities**power, n) + left * (rest / np.maximum(1, left)) ** power
    return np.minimum(1.0, own**power / np.maximum(sums, 1e-300))


def _thresholds(labels: np.ndarray, own: np.ndarray, count: int) -> np.ndarray:
    """(count,): the mean probability that images of a class get for it; nothing looks like a class without any."""
    with np.errstate(invalid="ignore"):
        means = np.bincount(labels, own, minlength=count) / np.bincount(labels, minlength=count)
    return np.nan_to_num(means, nan=np.inf)
