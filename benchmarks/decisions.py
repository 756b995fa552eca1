"""The figures of docs/decisions.md.

python -m benchmarks.decisions coverage RUN…              sets over 20 random halves of the held-out predictions
python -m benchmarks.decisions unknown RUN FOLDER…        twelve scores, AUROC against each folder of odd pictures
python -m benchmarks.decisions near RUN                    the same, half of a run's classes known, the others unknown
python -m benchmarks.decisions shortcuts FOLDER SCRATCH   shortcuts planted in copies of class folders of photographs
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from fastcls.audit import contents, shortcuts
from fastcls.datasets.inputs import collect
from fastcls.evaluation import decisions
from fastcls.images import preprocessing
from fastcls.images.measurements import measure_all
from fastcls.inference.explain import Explainer
from fastcls.runfolder import model_files, predictions, runs, splits

SPLITS, MOST, ODD, EACH, HALVES = 20, 3000, 500, 100, 10
LEVELS = (0.8, 0.9, 0.95, 0.99)
SUM = ("unit, Mahalanobis", "energy")


def coverage(run: Path) -> Iterator[list[str]]:
    """Of both splits together where there are two: mean and sd of coverage, mean size of the sets."""
    held = predictions.held_out(run, model_files.read(run)["classes"]).values()
    probabilities, labels = np.concatenate([h.dense for h in held]), np.concatenate([h.labels for h in held])
    for level in LEVELS:
        found = []
        for seed in range(SPLITS):
            order = np.random.default_rng(seed).permutation(len(labels))
            a, b = np.array_split(order, 2)
            own = probabilities[a, labels[a]]
            thresholds, apart = decisions.set_thresholds(own, labels[a], probabilities.shape[1], level)
            plain = probabilities[b] >= -decisions.bound(-own, level)
            inside = decisions.sets(probabilities[b], thresholds)
            rows = np.arange(len(b))
            found.append([plain[rows, labels[b]].mean(), inside[rows, labels[b]].mean(), inside.sum(1).mean(), apart])
        mean, sd = np.mean(found, 0), np.std(found, 0, ddof=1)
        cells = [f"{mean[0]:.1%} ± {sd[0]:.1%}", f"{mean[1]:.1%} ± {sd[1]:.1%}", f"{mean[2]:.2f}", f"{mean[3]:.0f}"]
        yield [run.name, f"{len(labels) // 2:,}", f"{level:.0%}", *cells]


def unknown(run: Path, folders: list[str]) -> Iterator[list[str]]:
    """A row a score: AUROC, and the share of odd pictures flagged where 5 % of held-out images are."""
    explainer, (train, labels), held = _split_features(run)
    score = Scores(*train, labels)
    own = score(*held[0])
    known = _with_sum(own, own)
    odd = []
    for folder in folders:
        paths = list(collect([folder]))
        random.Random(0).shuffle(paths)
        odd.append(_with_sum(score(*features(explainer, paths[:ODD])), own))
    for name, own in known.items():
        cells, bound = [], decisions.bound(own, 0.95)
        for other in odd:
            cells.append(f"{_area(own, other[name]):.3f} ({(other[name] > bound).mean():.0%})")
        yield [run.name, name, *cells]


def _with_sum(scores: dict[str, np.ndarray], known: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The scores, and the sum of two in standard deviations of known held-out images: what `--unknown` takes."""
    return scores | {" + ".join(SUM): np.add(*(scores[name] / known[name].std() for name in SUM))}


def _split_features(run: Path) -> tuple[Explainer, *tuple[tuple[tuple[np.ndarray, np.ndarray], np.ndarray], ...]]:
    """Features, logits and classes of at most MOST training and 2 × ODD held-out images."""
    explainer, root = Explainer(run), Path(runs.read_json(run / "run.json")["data"]["root"])
    rows = splits.read(run)
    random.Random(0).shuffle(rows)
    held = "test" if any(row[2] == "test" for row in rows) else "valid"
    found = []
    for split, most in (("train", MOST), (held, 2 * ODD)):
        own = [row for row in rows if row[2] == split][:most]
        labels = np.searchsorted(np.unique([row[1] for row in rows]), [row[1] for row in own])
        found.append((features(explainer, [str(root / row[0]) for row in own]), labels))
    return explainer, *found


def _area(known: np.ndarray, odd: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(np.r_[np.zeros(len(known)), np.ones(len(odd))], np.r_[known, odd]))


def near(train: np.ndarray, labels: np.ndarray, held: np.ndarray, truth: np.ndarray) -> Iterator[list[str]]:
    """A row a score, over HALVES draws of the known classes: features of training and held-out images, their classes.

    AUROC; of the unknown the share flagged where 5 % of known images are; the share of known ones flagged, whose
    bound the other half of the held-out known images sets. The head is solved on the known classes.
    """
    import torch

    from fastcls.training import probe

    found: dict[str, list[list[float]]] = {}
    for seed in range(HALVES):
        rng = np.random.default_rng(seed)
        every = np.unique(labels)
        chosen = rng.permutation(every)[: len(every) // 2]
        own, inside = np.isin(labels, chosen), np.isin(truth, chosen)
        codes = np.searchsorted(np.sort(chosen), labels[own])
        head = probe.solve(torch.from_numpy(train[own]).float(), torch.from_numpy(codes), len(chosen), 1)
        weight, bias = head.weight.double().numpy(), head.bias.double().numpy()
        score = Scores(train[own], train[own] @ weight.T + bias, codes)
        scores = score(held, held @ weight.T + bias)
        calibrating = inside & (rng.random(len(held)) < 0.5)
        scores = _with_sum(scores, {name: values[calibrating] for name, values in scores.items()})
        for name, values in scores.items():
            bound = decisions.bound(values[calibrating], 0.95)
            new, odd = values[inside & ~calibrating], values[~inside]
            cells = [_area(values[inside], odd), (odd > bound).mean(), (new > bound).mean()]
            found.setdefault(name, []).append(cells)
    for name, cells in sorted(found.items(), key=lambda item: -np.mean(item[1], axis=0)[0]):
        mean, sd = np.mean(cells, axis=0), np.std(cells, axis=0, ddof=1)
        yield [name, f"{mean[0]:.3f} ± {sd[0]:.3f}", f"{mean[1]:.0%}", f"{mean[2]:.1%}"]


def features(explainer: Explainer, paths: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, d) and logits (n, classes)."""
    found = []
    for start in range(0, len(paths), 16):
        images = np.stack([explainer._prepare(path) for path in paths[start : start + 16]])
        logits, own, _ = explainer._parts(preprocessing.normalise(images, explainer.spec))
        found.append((own, logits))
    own, logits = (np.concatenate(part).astype(float) for part in zip(*found, strict=True))
    return own, logits


class Scores:
    """A higher one is less like what is known."""

    def __init__(self, features: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> None:
        self.parts = {"": self._fit(features, labels), "unit, ": self._fit(unit(features), labels)}
        self.known = unit(features)

    @staticmethod
    def _fit(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, ...]:
        from sklearn.covariance import ledoit_wolf

        means = np.stack([features[labels == k].mean(0) for k in range(labels.max() + 1)])
        covariance, shrinkage = ledoit_wolf(features - means[labels], assume_centered=True)
        whole = np.cov(features, rowvar=False, bias=True)  # as much shrunken, or the two do not compare
        whole = (1 - shrinkage) * whole + shrinkage * np.trace(whole) / len(whole) * np.eye(len(whole))
        return means, np.linalg.inv(covariance), features.mean(0, keepdims=True), np.linalg.inv(whole)

    def __call__(self, features: np.ndarray, logits: np.ndarray) -> dict[str, np.ndarray]:
        from scipy.special import logsumexp, softmax

        near = -np.sort(-unit(features) @ self.known.T, axis=1)
        found = {"1 - confidence": -softmax(logits, 1).max(1), "max logit": -logits.max(1)}
        found |= {"energy": -logsumexp(logits, 1), "cosine, nearest": -near[:, 0], "cosine, 10th": -near[:, 9]}
        found |= {"cosine, mean of 10": -near[:, :10].mean(1)}
        found |= {"cosine, class mean": -(unit(features) @ unit(self.parts["unit, "][0]).T).max(1)}
        for name, (means, precision, mean, whole) in self.parts.items():
            own = unit(features) if name else features
            nearest = _distance(own, means, precision)
            found[f"{name}Mahalanobis"] = nearest
            found[f"{name}relative Mahalanobis"] = nearest - _distance(own, mean, whole)
        return found


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _distance(rows: np.ndarray, means: np.ndarray, precision: np.ndarray) -> np.ndarray:
    from fastcls.inference.unknown import _distance

    return _distance(rows, means, precision)


def planted(folder: Path, scratch: Path) -> Iterator[list[str]]:
    """EACH images of the first two class folders, saved again: all in one way, then a shortcut in one class."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())[:2]
    kinds = {"none": 0, "PNG": 1, "quality 60": 1, "one pixel wider": 1, "PNG in half": 0.5, "PNG in a fifth": 0.2}
    for kind, share in kinds.items():
        for k, own in enumerate(classes):
            out = scratch / kind.replace(" ", "-") / own.name
            out.mkdir(parents=True)
            for i, file in enumerate(sorted(own.iterdir())[:EACH]):
                image, plant = Image.open(file).convert("RGB"), k == 1 and i < share * EACH
                if plant and kind.startswith("one"):
                    image = image.resize((image.width + 1, image.height))
                form = "png" if plant and kind.startswith("PNG") else "jpg"
                image.save(out / f"{i}.{form}", quality=60 if plant and kind.startswith("q") else 90)
        held = contents.read(str(scratch / kind.replace(" ", "-")))
        measured = {image.path: image for image in measure_all([row[0] for row in held.rows])}
        started = time.perf_counter()
        found = shortcuts.find(held.rows, measured)
        assert found is not None
        spent = time.perf_counter() - started
        shares = [f"{found.accuracy[name]:.0%}" for name in ("files", "look")]
        yield [
            kind,
            str(found.n),
            f"{found.majority:.0%}",
            *shares,
            ", ".join(found.strong) or "quiet",
            f"{spent:.1f} s",
        ]


def main() -> None:
    what, *words = sys.argv[1:]
    if what == "coverage":
        rows = [row for run in words for row in coverage(Path(run))]
    elif what == "near":
        _, ((train, _), labels), ((held, _), truth) = _split_features(Path(words[0]))
        rows = list(near(train, labels, held, truth))
    elif what == "unknown":
        rows = list(unknown(Path(words[0]), words[1:]))
    else:
        rows = list(planted(*map(Path, words)))
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
