"""Whether what no network should need, the files' sizes and formats or the light, predicts the class by itself.

A forest on a few measurements, cross-validated. Where it does well, a network may learn the camera instead of the cat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import numpy as np

from fastcls.audit.finding import Finding
from fastcls.datasets.walk import file_size
from fastcls.evaluation import grouped, metrics
from fastcls.images.measure import Measured

MOST, CLASSES = 5000, 50  # images and classes looked at, drawn by chance, the commonest
FEWEST, EACH, FOLDS = 40, 10, 3  # images in all and of a class, below which nothing is said
FEW = 200  # images, below which the files have to predict more, and the look says nothing
KINDS = {"files": ("size", "bytes", "format", "folder"), "look": ("light", "colour", "sharpness")}
NAMES = {"size": "width and height", "bytes": "file size", "format": "file format", "folder": "source folder"}
# of the way from chance to always right: Imagenette, CIFAR-10, pets and birds reach 0.09 by files and 0.31 by look
STRONG = {"files": 0.2, "look": 0.5}
STRONG_OF_FEW = {"files": 0.5, "look": 1.0}


@dataclass(frozen=True)
class Shortcuts:
    """How often the class is predicted by the files' properties, by the look of the images, and by each alone.

    accuracy, alone: share right. shuffled: that with labels exchanged by chance. majority: always the commonest class.
    """

    n: int
    classes: int
    majority: float
    accuracy: dict[str, float]  # of 'files' and 'look'
    shuffled: dict[str, float] = field(default_factory=dict)  # of those that are strong
    alone: dict[str, float] = field(default_factory=dict)
    effect: float = 1.0  # images that one by itself is worth, where some belong together

    def __post_init__(self) -> None:
        if {*self.accuracy} - {*STRONG} or self.n < 1:
            raise ValueError("a check.json of other shortcuts")

    def interval(self, accuracy: float) -> tuple[float, float]:
        """The 95 % score interval."""
        return metrics.score(accuracy, self.n / self.effect, metrics.Z)

    def skill(self, accuracy: float) -> float:
        """The lower end of its interval, from 0 at chance to 1 where all are right."""
        return (self.interval(accuracy)[0] - self.majority) / max(1e-9, 1 - self.majority)

    @property
    def strong(self) -> list[str]:
        """'files' or 'look', where they predict more than is innocent."""
        bounds = STRONG if self.n >= FEW else STRONG_OF_FEW
        return [name for name, accuracy in self.accuracy.items() if self.skill(accuracy) >= bounds[name]]

    def sentence(self, name: str) -> str:
        """What 'files' or 'look' alone predict, compared with chance."""
        low, high = self.interval(self.accuracy[name])
        best = sorted(((self.alone[k], k) for k in KINDS[name] if k in self.alone), reverse=True)
        each = ", ".join(f"{NAMES.get(k, k)} {v:.0%}" for v, k in best if self.skill(v) > 0) or "none"
        what = "of the files (size, bytes, format, folder)" if name == "files" else "of light, colour and sharpness"
        own, majority, shuffled = self.accuracy[name], self.majority, self.shuffled.get(name, self.majority)
        return (
            f"a random forest trained only on measurements {what} predicts the class of {own:.0%} of {self.n:,} "
            f"images ({low:.0%} to {high:.0%}); always predicting the most common class would be right for "
            f"{majority:.0%}, shuffled labels give {shuffled:.0%}. Each alone: {each}."
        )

    def findings(self) -> list[Finding]:
        """A warning for each that is strong."""
        titles = {"files": "Shortcut: the files predict the class", "look": "Shortcut: light and colour predict it"}
        fix = (
            "A network may learn this instead of the content. Check how the classes were collected; save all images in "
            "the same format, size and quality, or collect all classes in the same way."
        )
        return [Finding("shortcut", "warning", titles[name], self.sentence(name), fix) for name in self.strong]


def find(
    rows: Sequence[tuple[str, str, str]], measured: Mapping[str, Measured], together: Mapping[str, str] = {}
) -> Shortcuts | None:
    """Of rows (path, label, split); None where there are too few images to say anything.

    together: the group of a path, copies or others that belong together; one of them must not predict another.
    """
    rng = np.random.default_rng(0)
    known = [(measured[path], label) for path, label, _ in rows if path in measured and not measured[path].fault]
    names, labels, counts = np.unique([label for _, label in known], return_inverse=True, return_counts=True)
    common = np.argsort(-counts, kind="stable")[:CLASSES]
    kept = np.flatnonzero(np.isin(labels, common[counts[common] >= EACH]))
    kept = np.sort(rng.choice(kept, MOST, replace=False)) if len(kept) > MOST else kept
    classes, labels = np.unique(labels[kept], return_inverse=True)
    if len(kept) < FEWEST or len(classes) < 2 or np.bincount(labels).min() < FOLDS:
        return None
    images = [known[i][0] for i in kept]
    codes = grouped.codes_of([together.get(image.path, "") for image in images])
    if codes is not None and len(np.unique(codes)) < FOLDS:
        return None
    columns = _columns(images, [names[i] for i in classes[labels]])
    by_kind = {name: [column for kind in kinds for column in columns[kind]] for name, kinds in KINDS.items()}
    majority = float(np.bincount(labels).max() / len(labels))
    right = {k: _predicted(v, labels, codes) for k, v in by_kind.items()}
    effect = max(grouped.effect(hits.astype(float), codes) for hits in right.values())
    accuracy = {k: float(hits.mean()) for k, hits in right.items()}
    found = Shortcuts(len(labels), len(classes), majority, accuracy, effect=effect)
    for name in found.strong:
        found.shuffled[name] = float(_predicted(by_kind[name], rng.permutation(labels), codes).mean())
        for k in KINDS[name]:
            found.alone[k] = float(_predicted(columns[k], labels, codes).mean())
    return found


def _columns(images: Sequence[Measured], labels: Sequence[str]) -> dict[str, list[np.ndarray]]:
    """(n,) numbers of each kind of measurement."""
    width, height = (np.array([getattr(image, side) for image in images], float) for side in ("width", "height"))
    size = np.array([file_size(image.path) for image in images])
    colours = np.array([np.zeros(3) if i.small is None else i.small.mean((0, 1)) for i in images], float)
    return {
        "size": [width, height, width / np.maximum(height, 1)],
        "bytes": [size, size / np.maximum(width * height, 1)],
        "format": [_codes(f"{i.format} {i.mode} {i.bits} {i.frames > 1} {i.transparent}" for i in images)],
        "folder": _folders(images, labels),
        "light": [np.array([i.brightness for i in images]), np.array([i.contrast for i in images])],
        "colour": [colours[:, 0] - colours[:, 1], colours[:, 2] - colours[:, 1]],
        "sharpness": [np.array([i.sharpness for i in images])],
    }


def _codes(values: Any) -> np.ndarray:
    return np.unique(list(values), return_inverse=True)[1]


def _folders(images: Sequence[Measured], labels: Sequence[str]) -> list[np.ndarray]:
    """The folder of each image; nothing where folders are what names the classes, one each or several of one class."""
    folders = [PurePath(image.path).parent.name for image in images]
    pairs = set(zip(folders, labels, strict=True))
    return [] if len(pairs) == len(set(folders)) else [_codes(folders)]


def _predicted(columns: Sequence[np.ndarray], labels: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """(n,) whether the images of other groups predict an image's class rightly, in FOLDS folds."""
    columns = [column for column in columns if np.ptp(column)]
    if not columns:
        return labels == np.bincount(labels).argmax()
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict

    forest = ExtraTreesClassifier(30, min_samples_leaf=3, random_state=0)
    kind: Any = StratifiedKFold if groups is None else StratifiedGroupKFold  # which takes long
    folds = kind(FOLDS, shuffle=True, random_state=0)
    found = cross_val_predict(forest, np.column_stack(columns), labels, groups=groups, cv=folds)
    return found == labels
