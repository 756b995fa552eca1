"""A page of a run whose images have several labels: what was missed and seen instead, thresholds, calibration a label.

It gives what `classes`, `trust`, `deciding` and `gallery` give of one class an image, so that the page is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from fastcls.evaluation import calibration, judging, labels
from fastcls.evaluation.grouped import codes_in, effect, proportion, within
from fastcls.evaluation.selection import PAIRS
from fastcls.evaluation.suspects import suspects
from fastcls.reports import classes
from fastcls.reports.classes import ClassRow, Outcome, Pair
from fastcls.reports.curves import Curves, ranking
from fastcls.reports.deciding import tuned_and_judged
from fastcls.reports.figures import Figure
from fastcls.reports.gallery import Doubts, doubt, gallery
from fastcls.reports.thumbnails import Thumbnails
from fastcls.reports.trust import Trust, error_sentences, reliability
from fastcls.reports.wording import grouped, percent, points
from fastcls.runfolder import predictions as from_file
from fastcls.runfolder.run import Run
from fastcls.runfolder.target import MULTI
from fastcls.runfolder.text import clean

MOST = 2000  # rows of tables of labels
NONE = "no label"


@dataclass(frozen=True)
class Held:
    """A split's images: rows of predictions.csv, truth and predictions (n, labels), probabilities where they are."""

    table: pd.DataFrame
    truth: np.ndarray
    predicted: np.ndarray
    p: np.ndarray | None

    def __len__(self) -> int:
        return len(self.table)

    def part(self, rows: np.ndarray) -> Held:
        """Some of the images."""
        p = None if self.p is None else self.p[rows]
        return Held(self.table[rows], self.truth[rows], self.predicted[rows], p)


def held(files: Run, names: Sequence[str]) -> dict[str, Held]:
    """The evaluated images of each split; without probabilities where predictions.csv has none that can be read."""
    try:
        whole = from_file.read(files.folder / from_file.FILE, probabilities=True)
    except (OSError, ValueError):
        whole = None
    found = {}
    for split in files.predictions["split"].unique() if names else ():
        kept = (files.predictions["split"] == split).to_numpy(bool)
        table = files.predictions[kept].reset_index(drop=True)
        truth, predicted = (judging.Labels().truth(table[column].tolist(), names) for column in ("label", "prediction"))
        entries = None if whole is None else from_file.entries(whole[kept], names)
        p = entries.dense(len(table), len(names)) if entries and entries.whole else None
        found[split] = Held(table, truth, predicted, p)
    return found


def shown(text: str) -> str:
    """Labels as a page has them."""
    return ", ".join(MULTI.names(text)) or NONE


def outcome(own: Held, names: list[str], thumbnails: Thumbnails, each: int = 0) -> Outcome:
    """What `classes.outcome` says of one class an image; a mistake is an image with any label wrong."""
    table, truth, predicted = own.table, own.truth, own.predicted
    counts = labels.instead(truth, predicted)
    support = truth.sum(0)
    wrong = (truth != predicted).any(1)
    sets = table["label"].value_counts()
    rows = _rows(own, names, counts)
    off = counts.copy()
    np.fill_diagonal(off, 0)
    at = np.argwhere(off)
    at = at[np.argsort(-off[tuple(at.T)], kind="stable")]
    return Outcome(
        n=len(table),
        classes=len(names),
        mistakes=int(wrong.sum()),
        accuracy=float(1 - wrong.mean()),
        majority=shown(str(sets.index[0])),
        majority_share=float(sets.iloc[0] / len(table)),
        matrix=_matrix(names, counts, support, at),
        pairs=[_pair(own, names, counts, support, i, j, thumbnails) for i, j in at[:PAIRS].tolist()],
        confused_pairs=len(at),
        rows=rows[:MOST],
        left_off=max(0, len(rows) - MOST),
        absent=[name for name, n in zip(names, support, strict=True) if not n],
        shown=[
            replace(
                image,
                label=shown(image.label),
                prediction=shown(image.prediction),
                label_names=MULTI.names(image.label),
                prediction_names=MULTI.names(image.prediction),
                remark=clean(thumbnails.heatmaps.get(image.path, {}).get("class", "")),  # what its heat map speaks of
            )
            for image in gallery(table, thumbnails, each)
        ],
    )


def _rows(own: Held, names: Sequence[str], counts: np.ndarray) -> list[ClassRow]:
    """A row a label, the worst F1 first."""
    truth, predicted = own.truth, own.predicted
    images = (part.sum(0).tolist() for part in (truth, predicted, truth & predicted))
    codes, rows = codes_in(own.table), []
    for k, (name, support, said, hits) in enumerate(zip(names, *images, strict=True)):
        there = truth[:, k]
        interval = proportion(predicted[there, k], within(codes, there)) if there.any() else (None, None)
        others = counts[k].copy()
        others[k] = 0
        most = int(others.argmax())
        instead = (names[most], int(others[most])) if others[most] else ("", 0)
        average = None if own.p is None or not there.any() else float(average_precision_score(there, own.p[:, k]))
        rows.append(classes.class_row(name, support, said, hits, interval, instead, average))
    return classes.weakest_first(rows)


def _matrix(names: list[str], counts: np.ndarray, support: np.ndarray, at: np.ndarray) -> classes.Matrix:
    """What was seen instead of a label that was missed; of many labels those with most of it."""
    if len(names) <= classes.WHOLE_MATRIX:
        return classes.Matrix(names, counts, support, True)
    chosen = classes.most_confused(at.tolist()) or np.argsort(-support)[: classes.BLOCK].tolist()
    return classes.Matrix([names[k] for k in chosen], counts[np.ix_(chosen, chosen)], support[chosen], False)


def _pair(
    own: Held, names: Sequence[str], counts: np.ndarray, support: np.ndarray, i: int, j: int, thumbnails: Thumbnails
) -> Pair:
    """A label that was missed where another was seen that is not there, with pictures."""
    truth, predicted, table = own.truth, own.predicted, own.table
    mistakes = truth[:, i] & ~predicted[:, i] & predicted[:, j] & ~truth[:, j]
    costly = table[mistakes].sort_values("loss", ascending=False, kind="stable")["path"].iloc[0]

    def example(k: int) -> Any:
        found = table[truth[:, k] & predicted[:, k]].sort_values("confidence", ascending=False, kind="stable")
        return thumbnails.tile(found["path"].iloc[0]) if len(found) else None

    return Pair(
        label=names[i],
        prediction=names[j],
        count=int(counts[i, j]),
        support=int(support[i]),
        back=int(counts[j, i]),
        mistake=thumbnails.tile(costly),
        label_example=example(i),
        prediction_example=example(j),
    )


def together(own: Held, names: Sequence[str], most: int = PAIRS) -> list[tuple[str, str, int, float]]:
    """Pairs of labels that are wrong in the same images, and how often chance alone would have it so.

    Two labels, images with both wrong, and the number that independent mistakes would give; the most beyond it first.
    """
    wrong = (own.truth != own.predicted).astype(int)
    both, each = wrong.T @ wrong, wrong.sum(0)
    expected = np.outer(each, each) / max(1, len(wrong))
    i, j = np.triu_indices(len(names), 1)
    order = np.argsort(-(both - expected)[i, j], kind="stable")[:most]
    pairs = zip(i[order].tolist(), j[order].tolist(), strict=True)
    found = [(names[a], names[b], int(both[a, b]), float(expected[a, b])) for a, b in pairs]
    return [row for row in found if row[2] > max(1, row[3])]


# ------------------------------------------------------------------ curves


def curves(own: Held) -> Curves | None:
    """Precision over recall and ROC of each label."""
    if own.p is None:
        return None
    truth, p = own.truth, own.p
    if not (truth.any(0) & ~truth.all(0)).any():
        return None
    return ranking(truth.sum(0), len(truth), lambda k: (truth[:, k], p[:, k], None), (truth.ravel(), p.ravel(), None))


# ------------------------------------------------------------------ calibration


def trust(own: Held | None, names: Sequence[str], temperature: float | None, split: str) -> Trust | None:
    """Of the probability of each label in each image."""
    if own is None or own.p is None:
        return None
    p, y = own.p, own.truth
    flat, present = p.ravel().astype(float), y.ravel()
    codes = codes_in(own.table)
    worth = effect(present - flat, None if codes is None else codes.repeat(len(names)))
    softened = None if temperature is None else MULTI.softened(p, temperature)
    scaled = None if softened is None else softened.ravel()
    lines = {"as trained": flat, **({} if scaled is None else {"after scaling": scaled})}
    decisions = f"{grouped(len(y))} images and {len(names)} labels"
    first = f"Over {decisions} the mean probability of a label is {percent(float(flat.mean()))}; "
    sentences = [f"{first}{percent(float(present.mean()))} of them are present."]
    sentences += error_sentences(flat, present, worth, scaled, temperature)
    error = calibration.calibration_error
    rows = []
    for k, name in enumerate(names[:MOST]):
        own_errors = [error(p[:, k], y[:, k])] + ([] if softened is None else [error(softened[:, k], y[:, k])])
        shares = (float(p[:, k].mean()), float(y[:, k].mean()))
        rows.append([name, grouped(int(y[:, k].sum())), *map(percent, shares), *map(points, own_errors)])
    title = f"Share of images with the label over its probability, {split} split; the diagonal is perfect calibration"
    figure = Figure("reliability", "Reliability", title, 5.4, 3.9, reliability(lines, present, *_WORDS))
    return Trust(len(y), sentences, [figure], scaled is not None, rows=rows)


_WORDS = ("probability of a label", "Share of images with the label over its probability")


# ------------------------------------------------------------------ decisions


@dataclass(frozen=True)
class Decisions:
    """Thresholds a label, tuned on some images and judged on others; rows of text."""

    of: str
    rows: list[list[str]]
    sentence: str


def decided(splits: Mapping[str, Held], names: Sequence[str]) -> Decisions | None:
    """What the threshold of each label is worth beside 0.5: tuned on valid and judged on test, else on halves."""
    known = {name: splits[name] for name in ("valid", "test") if name in splits and splits[name].p is not None}
    if not known:
        return None
    tuned, judged, of = tuned_and_judged(known, lambda own: codes_in(own.table), Held.part)
    if not len(tuned) or not len(judged):
        return None
    assert tuned.p is not None and judged.p is not None
    thresholds = labels.best_thresholds(tuned.p, tuned.truth)
    scores = [
        np.stack(precision_recall_fscore_support(judged.truth, judged.p >= at, average=None, zero_division=0)[:3])
        for at in (thresholds, labels.HALF)
    ]
    present = judged.truth.any(0)
    rows = []
    for k in np.flatnonzero(present)[:MOST]:
        (precision, recall, f1), (*_, half) = (each[:, k] for each in scores)
        cells = (percent(float(value)) for value in (precision, recall, f1, half))
        rows.append([names[k], f"{thresholds[k]:.3f}", *cells])
    means = [float(each[2, present].mean()) if present.any() else 0.0 for each in scores]
    gain = (means[0] - means[1]) * 100
    sentence = f"Macro F1 is {percent(means[0])} with them and {percent(means[1])} at 0.5 ({gain:+.1f} points)."
    return Decisions(of, rows, sentence)


# ------------------------------------------------------------------ doubts


def doubtful(own: Held | None, names: Sequence[str]) -> Doubts:
    """Labels that the network contradicts, and labels that it misses: confident learning, a label against the rest."""
    if own is None or own.p is None:
        return Doubts([])
    rows: list[tuple[Any, ...]] = []
    paths, n = own.table["path"].to_numpy(), len(own.truth)
    for k, name in enumerate(names):
        y, p = own.truth[:, k].astype(int), own.p[:, k].astype(float)
        if not 0 < y.sum() < n:
            continue
        both = np.concatenate([1 - p, p])
        entries = np.tile(np.arange(n), 2), np.repeat([0, 1], n), both
        found, noise = suspects(y, *entries, np.where(y == 1, p, 1 - p), 2)
        if not noise.shown:
            continue
        words = f"without {name}", name
        for one in found:
            rows.append(doubt(one, paths[one.row], words[y[one.row]], words[one.looks_like]))
    return Doubts(sorted(rows, key=lambda row: (-row[-1], -row[-2])))
