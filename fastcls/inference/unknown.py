"""Whether an image is like those that a network was trained on: how far it is from what the network knows.

How far its features lie from the nearest class plus the energy of its logits (Liu et al. 2020), each in standard
deviations of held-out images: the former finds other kinds of things, the latter new classes of the same kind
(docs/decisions.md). The distance is Mahalanobis's, of features of length one, with the covariance within classes (Lee
et al. 2018; Mueller and Hein 2025). What is typical of the sum, held-out images say: an image is `p_known` likely where
so large a share of them is as far away, so that of known images a share r has p_known ≤ r.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fastcls.errors import DataError, OutputError, UsageError
from fastcls.evaluation.grouped import codes_of
from fastcls.inference.predictor import Features, Prediction
from fastcls.runfolder import model_files, runs, splits

FILE = "unknown.safetensors"
MOST = 5000  # images of a split that are looked at, drawn by chance


@dataclass(frozen=True)
class Known:
    """Where the classes are, means (classes, d), precision (d, d), and the sorted scores (n,) of held-out images.

    scales (2,): the standard deviations of these images' distances and energies. groups (n,): a number for each score's
    group; empty where there are none.
    """

    means: np.ndarray
    precision: np.ndarray
    scales: np.ndarray
    scores: np.ndarray
    groups: np.ndarray

    def score(self, features: np.ndarray, energy: np.ndarray) -> np.ndarray:
        """(n, d) and (n,) to (n,): distance to the nearest class and energy, each over its scale, added up."""
        return _distance(_unit(features), self.means, self.precision) / self.scales[0] + energy / self.scales[1]

    def p_known(self, features: np.ndarray, energy: np.ndarray) -> np.ndarray:
        """(n, d) and (n,) to (n,): the share of held-out images, and of these, that are as far away."""
        nearer = np.searchsorted(self.scores, self.score(features, energy), side="left")
        return (len(self.scores) - nearer + 1) / (len(self.scores) + 1)


def _unit(features: np.ndarray) -> np.ndarray:
    features = features.astype(np.float64)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def _distance(features: np.ndarray, means: np.ndarray, precision: np.ndarray) -> np.ndarray:
    own, of_means = features @ precision, means @ precision
    squares = np.einsum("ij,ij->i", own, features)[:, None] + np.einsum("ij,ij->i", of_means, means)
    return (squares - 2 * own @ means.T).min(1)


def fit(
    features: np.ndarray, labels: np.ndarray, held_out: np.ndarray, energy: np.ndarray, codes: np.ndarray | None = None
) -> Known:
    """Of training features (n, d) with class indices (n,), and features, energy and groups of held-out images."""
    from sklearn.covariance import LedoitWolf

    features = _unit(features)
    names, places = np.unique(labels, return_inverse=True)
    means = np.stack([features[places == k].mean(0) for k in range(len(names))])
    precision = LedoitWolf(assume_centered=True).fit(features - means[places]).precision_
    spread = [part.std() for part in (_distance(_unit(held_out), means, precision), energy)]
    known = Known(means, precision, np.array([one or 1.0 for one in spread]), np.empty(0), np.empty(0, np.int64))
    scores = known.score(held_out, energy)
    order = np.argsort(scores, kind="stable")
    return replace(known, scores=scores[order], groups=known.groups if codes is None else codes[order])


class Knower(Features):
    """A Predictor that adds to each prediction how likely so strange an image is among known ones, `p_known`.

    What is known of a run is found once, from its images, and kept in its FILE. DataError where the images are gone.
    """

    def __init__(self, run: Path, temperature: float = 1) -> None:
        super().__init__(run, temperature)
        if self.target.several:
            message = "--unknown needs one class per image, and this run has several labels."
            raise UsageError(message, "Omit --unknown.")
        if not self.width:
            message = f"{self.file} does not end in a linear layer, so it has no features to compare."
            raise OutputError(message, "Omit --unknown.")
        self.network = runs.digest(self.file)
        self.known = self._read(run) or self._learn(run)

    def predict(self, paths: Iterable[str]) -> Iterator[Prediction]:
        for answer in super().predict(paths):
            if answer.features is not None:
                p = self.known.p_known(answer.features[None], np.array([answer.energy]))
                answer = replace(answer, p_known=float(p[0]))
            yield answer

    def look(self, paths: Sequence[str]) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Features (n, d) and energy (n,) of the images that can be read, and what is wrong with the others."""
        answers = list(super().predict(paths))
        read = [answer for answer in answers if answer.features is not None]
        lost = [f"{answer.path} ({answer.error})" for answer in answers if answer.error]
        return np.array([one.features for one in read]), np.array([one.energy for one in read]), lost

    def _read(self, run: Path) -> Known | None:
        from safetensors import SafetensorError, safe_open

        file = run / FILE
        try:
            model_files.refuse_long_header(file)
            with safe_open(file, framework="np") as tensors:
                kept = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
                known = Known(**({"groups": np.empty(0, np.int64)} | kept))  # files of 0.1 have no groups
                mine = (tensors.metadata() or {}).get("network") == self.network
        except (SafetensorError, OSError, OutputError, TypeError, ValueError):
            return None
        d = len(known.precision)
        fits = known.precision.shape == (d, d) and known.means.shape[1:] == (d,) and known.scores.ndim == 1
        fits = fits and known.scales.shape == (2,) and bool((known.scales > 0).all())
        fits = fits and known.groups.shape in ((0,), known.scores.shape)
        return known if mine and fits and all(np.isfinite(part).all() for part in vars(known).values()) else None

    def _learn(self, run: Path) -> Known:
        from safetensors.numpy import save_file

        root = Path((runs.read_json(run / "run.json").get("data") or {}).get("root") or "")
        place = {name: i for i, name in enumerate(self.classes)}
        rows = [(str(root / path), place[label], split) for path, label, split in splits.read(run) if label in place]
        random.Random(0).shuffle(rows)
        held = "test" if any(split == "test" for _, _, split in rows) else "valid"
        chosen = {name: [row for row in rows if row[2] == name][:MOST] for name in ("train", held)}
        seen = {}
        for name, images in chosen.items():
            *seen[name], lost = self.look([path for path, _, _ in images])
            if lost or not images:
                raise DataError(
                    f"--unknown compares with the images of {run}, of which {len(lost):,} cannot be read: "
                    f"{', '.join(lost[:2]) or f'it has none for {name}'}.",
                    f"Predict once with --unknown where they are; then {run / FILE} has everything needed.",
                )
        groups = {str(root / path): group for path, group, _ in splits.read_groups(run)}
        codes = codes_of([groups.get(path, "") for path, _, _ in chosen[held]]) if groups else None
        labels = np.array([label for _, label, _ in chosen["train"]])
        known = fit(seen["train"][0], labels, seen[held][0], seen[held][1], codes)
        runs.atomic_path(run / FILE, lambda temporary: save_file(vars(known), temporary, {"network": self.network}))
        return known
