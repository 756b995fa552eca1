"""How probabilities are judged by the kind of target: losses, calibration, thresholds, figures, decisions.

judge = judging.of(target); truth and decisions are (n,) class indices, or (n, labels) booleans.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from fastcls.evaluation import calibration, grouped, labels, metrics
from fastcls.runfolder import target as targets


class OneClass:
    """One class an image."""

    target = targets.SINGLE
    losses = staticmethod(metrics.cross_entropy)
    confusion = staticmethod(metrics.confusion)
    temperature = staticmethod(calibration.fit_temperature)

    def thresholds(self, probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray | None:
        """The likeliest class is predicted, however likely."""
        return None

    def decide(self, probabilities: np.ndarray, thresholds: np.ndarray | None = None) -> np.ndarray:
        """What is predicted."""
        return probabilities.argmax(1)

    def confidence(self, probabilities: np.ndarray, decided: np.ndarray, thresholds: Any = None) -> np.ndarray:
        """(n,): the probability of what is predicted."""
        return probabilities.max(1)

    def figures(
        self,
        probabilities: np.ndarray,
        truth: np.ndarray,
        names: Sequence[str],
        thresholds: np.ndarray | None,
        temperature: float | None,
        codes: np.ndarray | None = None,
    ) -> dict[str, Any]:
        """Those of metrics.json; codes (n,): the groups of the images, where there are any."""
        found = metrics.figures(probabilities, truth, temperature)
        if codes is not None:
            grouped.widen(found, probabilities, truth, temperature, codes)
        return found

    def explained(self, probabilities: np.ndarray, truth: np.ndarray, decided: np.ndarray) -> np.ndarray:
        """(n,): the class that a heat map speaks of."""
        return decided

    def texts(self, truth: np.ndarray, names: Sequence[str]) -> list[str]:
        """Labels or decisions as the tables of a run have them."""
        return [names[index] for index in truth.tolist()]

    def truth(self, texts: Sequence[str], names: Sequence[str]) -> np.ndarray:
        """What `texts` was made of."""
        place = {name: at for at, name in enumerate(names)}
        return np.array([place[text] for text in texts], int)


class Labels:
    """Any number of labels an image; thresholds (labels,) decide, 0.5 where there are none."""

    target = targets.MULTI
    losses = staticmethod(labels.entropies)
    temperature = staticmethod(labels.fit_temperature)
    thresholds = staticmethod(labels.best_thresholds)
    figures = staticmethod(labels.figures)

    def decide(self, probabilities: np.ndarray, thresholds: np.ndarray | None = None) -> np.ndarray:
        """What is predicted."""
        return probabilities >= (labels.HALF if thresholds is None else thresholds)

    def confidence(self, probabilities: np.ndarray, decided: np.ndarray, thresholds: Any = None) -> np.ndarray:
        """(n,): the probability of the least sure of an image's decisions."""
        return np.where(decided, probabilities, 1 - probabilities).min(1)

    def confusion(self, truth: np.ndarray, decided: np.ndarray, classes: int) -> np.ndarray:
        """(labels, labels): missed down, seen instead across, found on the diagonal."""
        return labels.instead(truth, decided)

    def explained(self, probabilities: np.ndarray, truth: np.ndarray, decided: np.ndarray) -> np.ndarray:
        """(n,): the label that a heat map speaks of, the one that costs an image most."""
        return np.abs(probabilities - truth).argmax(1)

    def texts(self, truth: np.ndarray, names: Sequence[str]) -> list[str]:
        """Labels or decisions as the tables of a run have them."""
        return [targets.MULTI.text(names[k] for k in np.flatnonzero(row).tolist()) for row in truth]

    def truth(self, texts: Sequence[str], names: Sequence[str]) -> np.ndarray:
        """What `texts` was made of; names that are none of these are left out."""
        place = {name: at for at, name in enumerate(names)}
        found = np.zeros((len(texts), len(names)), bool)
        for row, text in enumerate(texts):
            found[row, [place[name] for name in targets.MULTI.names(text) if name in place]] = True
        return found


Judge = OneClass | Labels


def of(target: targets.Target) -> Judge:
    """The judge of a run's target."""
    return Labels() if target.several else OneClass()


def without(
    judge: Judge,
    clean: np.ndarray,
    probabilities: np.ndarray,
    truth: np.ndarray,
    names: Sequence[str],
    thresholds: np.ndarray | None,
    codes: np.ndarray | None,
) -> dict[str, Any]:
    """The first figure of the `clean` images alone, without a value where there is none; nothing where all are."""
    if clean.all():
        return {}
    found: dict[str, Any] = {}
    if clean.any():
        of = probabilities[clean], truth[clean], names, thresholds, None, grouped.within(codes, clean)
        found = judge.figures(*of)
    return {judge.target.without: found.get(judge.target.main, metrics.figure(None, None, None, int(clean.sum())))}


def answers(
    judge: Judge,
    names: Sequence[str],
    images: Iterable[tuple[str, str, str]],
    probabilities: np.ndarray,
    losses: np.ndarray,
    thresholds: np.ndarray | None,
    temperature: float | None,
) -> Iterator[tuple[list[str], list[float], np.ndarray]]:
    """The rows of predictions.csv: texts, confidence (also calibrated) and loss, probabilities.

    images: split, path and label of each; probabilities (n, classes); losses (n,), NaN where a label is no class.
    """
    decided = judge.decide(probabilities, thresholds)
    said, confidence = judge.texts(decided, names), judge.confidence(probabilities, decided)
    calibrated = np.full(len(probabilities), np.nan)
    if temperature is not None:
        for block, softened in calibration.blocks(probabilities, temperature, judge.target):
            calibrated[block] = judge.confidence(softened, decided[block])
    numbers = np.column_stack([confidence, calibrated, losses])
    for image, text, row, p in zip(images, said, numbers.tolist(), probabilities, strict=True):
        yield [*image, text], row, p
