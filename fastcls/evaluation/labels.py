"""Figures of images with any number of labels, from probabilities (n, labels) and truth (n, labels).

scikit-learn computes what it has; the intervals are ours. A figure `precision:NAME` is that of one label.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fastcls.evaluation import calibration, grouped
from fastcls.evaluation.metrics import figure, logit_interval
from fastcls.runfolder.target import HALF, MULTI

DRAWS, NUMBERS = 400, 4_000_000  # of the bootstrap: at most, and weights drawn at once
FEWEST_DRAWS = 50
POSITIVES = 10  # images with a label, below which the labels share a threshold
BLOCK = 4_000_000  # comparisons of labels at once


# ------------------------------------------------------------------ probabilities


def entropies(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(n,): binary cross-entropy in nats, the mean over the labels of an image."""
    own = np.where(truth, probabilities, 1 - probabilities.astype(float))
    return -np.log(np.maximum(own, calibration.SMALLEST)).mean(1)


def fit_temperature(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The T for which sigmoid(logit p / T) has the least cross-entropy over all labels; 1 where none is best."""
    right = (probabilities >= HALF) == truth
    if right.all() or not right.any():
        return 1.0
    most = max(1, calibration.FITTED_ON // probabilities.shape[1])
    logits, signs = MULTI.logits(probabilities[:most]), np.where(truth[:most], -1.0, 1.0)
    return calibration.best_temperature(lambda inverse: np.logaddexp(0, signs * logits * inverse).mean())


# ------------------------------------------------------------------ thresholds


def best_thresholds(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(labels,) probabilities from which on each label is predicted, for the highest F1 of these images.

    A label with fewer than POSITIVES images has that of all labels together: its own would be chance.
    """
    together = _best(probabilities.ravel(), truth.ravel())
    enough = truth.sum(0) >= POSITIVES
    each = [_best(probabilities[:, k], truth[:, k]) if enough[k] else together for k in range(truth.shape[1])]
    return np.round(np.maximum(each, 1e-6), 6)  # as model.json has them


def _best(p: np.ndarray, y: np.ndarray) -> float:
    """The middle between the last probability that is taken and the first that is not."""
    if not y.any():
        return HALF
    order = np.argsort(-p, kind="stable")
    falling, hits = p[order].astype(float), np.cumsum(y[order])
    taken = np.arange(1, len(p) + 1)
    last = np.append(falling[1:] != falling[:-1], True)  # equal ones are taken together
    at = int(np.argmax(np.where(last, 2 * hits / (taken + y.sum()), -1.0)))
    return float((falling[at] + (falling[at + 1] if at + 1 < len(p) else 0.0)) / 2)


# ------------------------------------------------------------------ figures


def mean_average_precision(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """mAP: scikit-learn's average precision, the mean over the labels that occur."""
    from sklearn.metrics import average_precision_score

    present = truth.any(0)
    if not present.any():
        return float("nan")
    return float(average_precision_score(truth[:, present].astype(int), probabilities[:, present], average="macro"))


def figures(
    probabilities: np.ndarray,
    truth: np.ndarray,
    names: Sequence[str],
    thresholds: np.ndarray | None,
    temperature: float | None = None,
    codes: np.ndarray | None = None,
) -> dict[str, Any]:
    """All figures of a split, each with a 95 % interval and n; what is undefined is left out.

    mAP and macro figures: the mean over the labels that occur (of ROC AUC, that vary). Precision, recall, F1 at the
    thresholds; `_at_half` at 0.5. Intervals: Wilson's score of what is counted; normal for the logarithm of what is a
    mean over images; for the rest normal for the logit, its standard error by the bootstrap over images. codes (n,):
    the groups of the images, where there are any, over which all of them are.
    """
    from sklearn import metrics as sk

    truth, p = truth.astype(bool), probabilities
    n = len(truth)
    half = p >= HALF
    predicted = half if thresholds is None else p >= thresholds
    present = np.flatnonzero(truth.any(0))
    vary = np.flatnonzero(truth.any(0) & ~truth.all(0))
    y = truth.astype(int)
    draws = _bootstrap(p, truth, predicted, present, vary, codes)
    z = grouped.quantile(codes)

    def known(name: str, value: float, count: int = n) -> dict[str, Any]:
        return figure(float(value), *_interval(float(value), draws.get(name), z), count)

    def scores(average: Any, decided: np.ndarray = predicted, beta: float = 1) -> dict[str, Any]:
        labels = present if average == "macro" else None
        options = {"average": average, "labels": labels, "beta": beta, "zero_division": 0}
        found = sk.precision_recall_fscore_support(y, decided.astype(int), **options)
        return dict(zip(("precision", "recall", f"f{beta}"), found, strict=False))

    out: dict[str, Any] = {"n": n}
    precisions = {int(k): float(sk.average_precision_score(y[:, k], p[:, k])) for k in present}
    areas = {int(k): float(sk.roc_auc_score(y[:, k], p[:, k])) for k in vary}
    if precisions:
        out["mAP"] = known("mAP", float(np.mean(list(precisions.values()))))
    if areas:
        out["macro_roc_auc"] = known("macro_roc_auc", float(np.mean(list(areas.values()))))
    for average in ("macro", "micro", "samples"):
        for name, value in scores(average).items():
            out[f"{average}_{name}"] = known(f"{average}_{name}", value)
    out["samples_f2"] = known("samples_f2", scores("samples", beta=2)["f2"])
    for average in ("macro", "micro"):
        out[f"{average}_f1_at_half"] = known(f"{average}_f1_at_half", scores(average, half)["f1"])
    out["subset_accuracy"] = grouped.share((predicted == truth).all(1), codes)
    out["hamming_loss"] = grouped.mean((predicted != truth).mean(1), codes, 1.0)
    for name, values in ranking(p, truth).items():
        out[name] = grouped.mean(values, codes, np.inf if name == "coverage_error" else 1.0)
    out["loss"] = grouped.mean(entropies(p, truth), codes)
    out["brier"] = grouped.mean(np.square(p.astype(float) - truth).mean(1), codes, 1.0)
    out["ece"] = figure(calibration.calibration_error(p.ravel(), truth.ravel()), None, None, n)
    if temperature is not None:
        softened = MULTI.softened(p, temperature)
        out["loss_calibrated"] = grouped.mean(entropies(softened, truth), codes)
        out["brier_calibrated"] = grouped.mean(np.square(softened - truth).mean(1), codes, 1.0)
        out["ece_calibrated"] = figure(calibration.calibration_error(softened.ravel(), truth.ravel()), None, None, n)
    each = scores(None)
    for k in present.tolist():
        name, asked = names[k], {"precision": (predicted[:, k], truth), "recall": (truth[:, k], predicted)}
        for what, (rows, other) in asked.items():
            found = other[rows, k]
            low, high = grouped.proportion(found, grouped.within(codes, rows)) if len(found) else (None, None)
            out[f"{what}:{name}"] = figure(float(each[what][k]), low, high, len(found))
        out[f"f1:{name}"] = known(f"f1:{k}", each["f1"][k])
        out[f"average_precision:{name}"] = known(f"average_precision:{k}", precisions[k])
        if k in areas:
            out[f"roc_auc:{name}"] = known(f"roc_auc:{k}", areas[k])
        out[f"ece:{name}"] = figure(calibration.calibration_error(p[:, k], truth[:, k]), None, None, n)
    if codes is not None:
        grouped.say(out, codes)
    return out


def ranking(probabilities: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Of each image (n,), as scikit-learn defines them: lrap, coverage_error, ranking_loss; it gives means alone."""
    n, labels = truth.shape
    found = {name: np.zeros(n) for name in ("lrap", "coverage_error", "ranking_loss")}
    step = max(1, BLOCK // labels**2)
    for start in range(0, n, step):
        rows = slice(start, start + step)
        p, y = probabilities[rows], truth[rows].astype(bool)
        above = p[:, None, :] >= p[:, :, None]  # (image, label, other): the other is at least as likely
        rank, among, own = above.sum(2), (above & y[:, None, :]).sum(2), y.sum(1)
        share = np.where(y, among / rank, 0).sum(1)
        found["lrap"][rows] = np.where((own == 0) | (own == labels), 1, share / np.maximum(own, 1))
        found["coverage_error"][rows] = np.where(y, rank, 0).max(1)
        wrong = np.where(y, rank - among, 0).sum(1)
        found["ranking_loss"][rows] = wrong / np.maximum(own * (labels - own), 1)
    return found


def _interval(value: float, draws: np.ndarray | None, z: float) -> tuple[float | None, float | None]:
    """95 %, normal for the logit; none where nothing varies."""
    if draws is None or not 0 < value < 1:
        return None, None
    error = float(np.nanstd(draws, ddof=1)) if np.isfinite(draws).sum() > 1 else 0.0
    if error < 1e-12:
        return None, None
    return logit_interval(value, z * error)


def _bootstrap(
    p: np.ndarray,
    truth: np.ndarray,
    predicted: np.ndarray,
    present: np.ndarray,
    vary: np.ndarray,
    codes: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """Figures that are neither counts nor means, on images or groups drawn anew by Poisson weights, seeded."""
    n = len(truth)
    count = int(np.clip(NUMBERS // n, FEWEST_DRAWS, DRAWS))
    drawn = n if codes is None else int(codes.max()) + 1
    weights = np.random.default_rng(0).poisson(1.0, (count, drawn)).astype(np.float32)
    weights = weights if codes is None else weights[:, codes]
    half = p >= HALF
    hits, called, own = (weights @ flags.astype(np.float32) for flags in (truth & predicted, predicted, truth))
    at_half = [weights @ flags.astype(np.float32) for flags in (truth & half, half, truth)]
    found: dict[str, np.ndarray] = {}
    for name, (a, b, c) in {"": (hits, called, own), "_at_half": at_half}.items():
        scores = {"precision": (a, b), "recall": (a, c), "f1": (2 * a, b + c)}
        for kind, (above, below) in scores.items():
            each = _over(above, below)
            found[f"macro_{kind}{name}"] = each[:, present].mean(1) if len(present) else each.mean(1)
            found[f"micro_{kind}{name}"] = _over(above.sum(1), below.sum(1))
            if kind == "f1" and not name:
                found |= {f"f1:{k}": each[:, k] for k in present}
    right, said, real = (flags.sum(1).astype(float) for flags in (truth & predicted, predicted, truth))
    totals = weights.sum(1)
    images = {"precision": (right, said), "recall": (right, real), "f1": (2 * right, said + real)}
    images["f2"] = (5 * right, said + 4 * real)
    for kind, (above, below) in images.items():
        found[f"samples_{kind}"] = _over(weights @ _over(above, below).astype(np.float32), totals)
    areas, precisions = [], []
    for k in present:
        order = np.argsort(-p[:, k], kind="stable")
        w, y = weights[:, order], truth[order, k]
        positive = np.cumsum(w * y, 1)
        taken = np.cumsum(w, 1)
        all_of_it = positive[:, -1]
        precisions.append(_over((w * y * _over(positive, taken)).sum(1), all_of_it))
        found[f"average_precision:{k}"] = precisions[-1]
        if k in vary:
            negative = (taken - positive)[:, -1]
            above_it = (w * ~y * positive).sum(1)  # pairs that are in the right order
            areas.append(_over(above_it, all_of_it * negative))
            found[f"roc_auc:{k}"] = areas[-1]
    if precisions:
        found["mAP"] = np.mean(precisions, 0)
    if areas:
        found["macro_roc_auc"] = np.mean(areas, 0)
    return found


def _over(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, 0 where there is nothing to divide by."""
    return np.divide(above, below, out=np.zeros_like(above, dtype=float), where=below > 0)


# ------------------------------------------------------------------ mistakes


def instead(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """(labels, labels): images in which a label was missed and another was seen that is not there; diagonal: found."""
    t, d = truth.astype(bool), predicted.astype(bool)
    counts = (t & ~d).astype(int).T @ (d & ~t).astype(int)
    np.fill_diagonal(counts, (t & d).sum(0))
    return counts


def of_labels(figures: Mapping[str, Any], kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The figures of one kind, `f1` say, by label."""
    for name, value in figures.items():
        if name.startswith(f"{kind}:"):
            yield name.removeprefix(f"{kind}:"), value
