"""The images of a run that lie nearest to another in the network's eyes: its mistakes, and as many right answers.

Near a mistake alone means little: what is typical of a class is near everything, mistakes included. So the mistakes are
compared with as many right answers: if most of the nearest images are mistakes, the network is on ground it fails on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from threading import Event

import numpy as np

from fastcls.inference.predictor import DECODING_ERRORS
from fastcls.runfolder.predictions import Predicted

MOST = 500  # mistakes that are looked at, by chance, and as many right answers
BATCH = 8  # images looked at together, while a visitor waits
NEAREST, TELLING = 10, 7  # if so many of the nearest are mistakes, it is said
ENOUGH = 20  # mistakes; of fewer, the nearest say nothing
SHOWN = 4
TWIN = 0.9999  # of cosine similarity: the same picture, or nearly

Features = Callable[[Sequence[str]], np.ndarray | None]


@dataclass(frozen=True)
class Near:
    """The neighbours of one image."""

    mistakes: list[tuple[Predicted, float]]  # the nearest mistakes, each with its cosine similarity
    wrong: int | None  # mistakes among the NEAREST images; None where too few are known
    error: float | None  # share of the run's own answers that are wrong where so many neighbours are

    @property
    def telling(self) -> bool:
        return self.wrong is not None and self.wrong >= TELLING

    @property
    def twin(self) -> bool:
        return bool(self.mistakes) and self.mistakes[0][1] >= TWIN


class Neighbours:
    """Some images of a run and their features, which are looked at once, in `look`."""

    def __init__(self, images: Sequence[Predicted], root: Path) -> None:
        self.root = root
        order = np.random.default_rng(0).permutation(len(images)).tolist()  # the first few stand for all
        wrong = [images[i] for i in order if images[i].wrong][:MOST]
        right = [images[i] for i in order if not images[i].wrong][: len(wrong)]
        self.error = sum(image.wrong for image in images) / max(1, len(images))
        chosen = [image for pair in zip_longest(wrong, right) for image in pair if image]
        self.known = [image for image in chosen if (root / image.path).is_file()]
        self.lost = len(chosen) - len(self.known)
        self.mistakes = sum(image.wrong for image in self.known)
        self.looked = 0  # so many of `known` are done
        self._seen: tuple[list[Predicted], np.ndarray] = [], np.empty((0, 0))
        self._telling_error: float | None = None

    def look(self, features: Features, stop: Event) -> None:
        """Find the features of every image, unless `stop` is set meanwhile."""
        rows: list[np.ndarray] = []
        images: list[Predicted] = []
        for start in range(0, len(self.known), BATCH):
            if stop.is_set():
                return
            for image, row in self._batch(self.known[start : start + BATCH], features):
                images.append(image)
                rows.append(row / max(float(np.linalg.norm(row)), 1e-12))
            self.looked = min(start + BATCH, len(self.known))
            if rows:
                self._seen = images[:], np.stack(rows)
        self._telling_error = self._error_where_telling()

    def near(self, features: np.ndarray) -> Near:
        """The neighbours of an image with these features (d,), among the images looked at so far."""
        images, known = self._seen
        if not images:
            return Near([], None, None)
        alike = known @ (features / max(float(np.linalg.norm(features)), 1e-12))
        nearest = np.argsort(-alike, kind="stable")
        mistakes = [(images[i], float(alike[i])) for i in nearest.tolist() if images[i].wrong][:SHOWN]
        enough = sum(image.wrong for image in images) >= ENOUGH
        wrong = sum(images[i].wrong for i in nearest[:NEAREST].tolist()) if enough else None
        return Near(mistakes, wrong, self._telling_error)

    def _batch(self, images: Sequence[Predicted], features: Features) -> Iterable[tuple[Predicted, np.ndarray]]:
        try:
            rows = features([str(self.root / image.path) for image in images])
        except DECODING_ERRORS:  # one of them is damaged by now
            rows = None
            if len(images) > 1:
                return [pair for image in images for pair in self._batch([image], features)]
        return [] if rows is None else zip(images, rows, strict=True)

    def _error_where_telling(self) -> float | None:
        """How often the run was wrong where TELLING neighbours are mistakes: each image is compared with the others.

        Mistakes are half of the images here, and fewer in the split: Bayes' rule puts that right.
        """
        images, known = self._seen
        wrong = np.array([image.wrong for image in images], dtype=bool)  # of no images too
        if min(wrong.sum(), (~wrong).sum()) < ENOUGH:
            return None
        alike = known @ known.T
        np.fill_diagonal(alike, -np.inf)
        nearest = np.argpartition(-alike, NEAREST, axis=1)[:, :NEAREST]
        telling = wrong[nearest].sum(1) >= TELLING
        among_wrong, among_right = telling[wrong].mean() * self.error, telling[~wrong].mean() * (1 - self.error)
        with contextlib.suppress(ZeroDivisionError):
            return float(among_wrong) / float(among_wrong + among_right)
        return None
