"""What decisions by this network would be worth: sets of classes, thresholds, a cost table, odd pictures, shortcuts.

Tuned on the validation split and judged on the test split; without one, on two halves of the validation images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from fastcls.audit.check_record import Found
from fastcls.audit.shortcuts import FEW
from fastcls.datasets.walk import count, some
from fastcls.errors import DataError, OutputError
from fastcls.evaluation import decisions
from fastcls.evaluation.calibration import fewest
from fastcls.evaluation.grouped import area, codes_of, half_width, proportion, within
from fastcls.reports.scores import Score
from fastcls.reports.wording import grouped, percent
from fastcls.runfolder.predictions import HeldOut, Probabilities
from fastcls.settings import shell

T = TypeVar("T", bound=Sized)
COVERAGES = (0.8, 0.9, 0.95, 0.99)
GOAL = 0.95  # precision or recall of a class
RATES = (0.01, 0.05, 0.1)
CLASSES = 100  # rows of the table of thresholds
EXPLAINED = 0.5  # of what a network predicts beyond chance, by measurements of the files


@dataclass(frozen=True)
class Decisions:
    """Tables of text, a row a list of cells; `of`: what they were tuned and judged on."""

    of: str
    whole: bool
    sets: list[list[str]]
    thresholds: list[list[str]]
    left_off: int
    without: str
    costs: list[list[str]]
    costs_sentence: str
    odd: list[list[str]]
    odd_sentence: str


def decided(
    run: Path,
    splits: Mapping[str, HeldOut],
    names: Sequence[str],
    temperature: float | None,
    costs: str = "",
    odd: str = "",
) -> Decisions | None:
    """Of a run's held-out images; None where it has none. costs: a cost table. odd: pictures that show no class."""
    table = decisions.read_costs(shell.path(costs), names) if costs else None
    strange = _odd(run, odd) if odd else ([], "")
    if not splits:
        if costs or odd:
            raise OutputError(
                f"{run} has no predictions on held-out images to evaluate decisions on.", "Train the recipe again."
            )
        return None
    tuned, judged, of = tuned_and_judged(splits, lambda held: codes_of(held.groups), _part)
    if not len(judged):  # all are of one group
        if costs or odd:
            raise OutputError(f"The held-out images of {run} are too few to tune and to judge decisions.")
        return None
    if table and not judged.entries.whole:
        raise OutputError(
            f"--costs: {run} has recorded only the five most likely classes of each image; costs need all.",
            "Omit --costs.",
        )
    thresholds, unit = _thresholds(tuned, judged, names), _unit(codes_of(tuned.groups))
    return Decisions(
        of, judged.entries.whole, [_set(tuned, judged, coverage) for coverage in COVERAGES],
        thresholds[:CLASSES], max(0, len(thresholds) - CLASSES), _none_for(len(names) - len(thresholds), unit),
        *(_costs(table, judged, temperature or 1.0) if table else ([], "")), *strange,
    )  # fmt: skip


def tuned_and_judged(
    splits: Mapping[str, T], codes_in: Callable[[T], np.ndarray | None], part: Callable[[T, np.ndarray], T]
) -> tuple[T, T, str]:
    """The images to tune on and those to judge on: valid and test, or halves of the one split; and that in words."""

    def images(held: T, split: str = "") -> str:
        codes = codes_in(held)
        groups = "" if codes is None else f" in {count(len(np.unique(codes)), 'group')}"
        return f"{grouped(len(held))}{split and f' {split} images'}{groups}"

    if {"valid", "test"} <= splits.keys():
        tuned, judged = splits["valid"], splits["test"]
        return tuned, judged, f"Tuned on {images(tuned, 'valid')}, evaluated on {images(judged, 'test')}."
    split, only = next(iter(splits.items()))
    codes = codes_in(only)
    of = np.arange(len(only)) if codes is None else codes
    first = (np.random.default_rng(0).permutation(int(of.max()) + 1) % 2 == 0)[of]  # half of the groups
    tuned, judged = part(only, first), part(only, ~first)
    return tuned, judged, f"Tuned on {images(tuned, split)}, evaluated on the other {images(judged)}."


def _part(held: HeldOut, kept: np.ndarray) -> HeldOut:
    entries, place = held.entries, np.cumsum(kept) - 1
    mine = kept[entries.rows]
    part = Probabilities(place[entries.rows[mine]], entries.classes[mine], entries.values[mine], entries.whole)
    arrays = {name: getattr(held, name)[kept] for name in ("paths", "labels", "own", "predicted")}
    groups = None if held.groups is None else [name for name, own in zip(held.groups, kept, strict=True) if own]
    return replace(held, entries=part, groups=groups, **arrays)


def _set(tuned: HeldOut, judged: HeldOut, coverage: float) -> list[str]:
    least, codes = decisions.needed(coverage), codes_of(tuned.groups)
    if decisions.units(np.ones(len(tuned), bool), codes) < least:
        return [percent(coverage, 0), f"needs {grouped(least)} {_unit(codes)}", "", "", ""]
    thresholds, apart = decisions.set_thresholds(tuned.own, tuned.labels, tuned.classes, coverage, codes)
    entries, n = judged.entries, len(judged.labels)
    inside = entries.values >= thresholds[entries.classes]
    inside |= entries.classes == judged.predicted[entries.rows]
    sizes = np.bincount(entries.rows[inside], minlength=n)
    hits = (judged.own >= thresholds[judged.labels]) | (judged.predicted == judged.labels)
    by = (
        "each class"
        if apart == tuned.classes
        else "all together"
        if not apart
        else f"{grouped(apart)} classes separately"
    )
    return [
        percent(coverage, 0),
        _share(hits, codes_of(judged.groups)),
        f"{sizes.mean():.2f}",
        percent(float((sizes == 1).mean())),
        by,
    ]


def _unit(codes: np.ndarray | None) -> str:
    return "images" if codes is None else "groups"


def _share(hits: np.ndarray, codes: np.ndarray | None = None) -> str:
    """The share of (n,) that is true with its 95 % interval, over groups where there are any."""
    if not len(hits):
        return "–"
    low, high = proportion(hits, codes)
    return f"{percent(float(hits.mean()))} ({percent(low, unit=False)} to {percent(high)})"


def _thresholds(tuned: HeldOut, judged: HeldOut, names: Sequence[str]) -> list[list[str]]:
    """A row a class: from which probability its precision, and its recall, is GOAL, and what they are then.

    Classes of which neither can be promised are left out.
    """
    confidence, codes = (_confidence(tuned), _confidence(judged)), (codes_of(tuned.groups), codes_of(judged.groups))
    entries, rows = judged.entries, []

    for k in np.unique(judged.labels):
        mine, theirs = tuned.predicted == k, judged.predicted == k
        found = decisions.promised(GOAL, confidence[0][mine], tuned.labels[mine] == k, within(codes[0], mine))
        cells = ["no guarantee possible", "", ""]
        if found:
            kept = theirs & (confidence[1] >= found[0])
            share = kept.sum() / max(1, theirs.sum())
            cells = [f"{found[0]:.3f}", percent(share, 0), _share(judged.labels[kept] == k, within(codes[1], kept))]
        least = -decisions.bound(-tuned.own[tuned.labels == k], GOAL, within(codes[0], tuned.labels == k))
        if math.isfinite(least):
            called = entries.rows[(entries.classes == k) & (entries.values >= least)]
            own = judged.labels == k
            hits = np.isin(np.flatnonzero(own), called)
            cells += [f"{least:.3g}", _share(hits, within(codes[1], own)), percent(hits.sum() / max(1, len(called)))]
        else:
            cells += [f"needs {decisions.needed(GOAL)} {_unit(codes[0])}", "", ""]
        if found or math.isfinite(least):
            rows.append([names[k], *cells])
    return rows


def _none_for(classes: int, unit: str) -> str:
    """Why so many classes have no threshold; empty of none."""
    if not classes:
        return ""
    recall, precision = decisions.needed(GOAL), fewest(GOAL, decisions.RISK)
    return (
        f"{count(classes, 'class')} without one: a recall needs {recall} {unit} of the class, a precision {precision} "
        "predictions of the class, all of them right (more if there are mistakes)."
    )


def _confidence(held: HeldOut) -> np.ndarray:
    most = np.zeros(len(held.labels))
    np.maximum.at(most, held.entries.rows, held.entries.values)
    return most


def _costs(costs: decisions.Costs, held: HeldOut, temperature: float) -> tuple[list[list[str]], str]:
    """Deciding for the least expected cost, beside always taking the likeliest class."""
    cheap = costs.decide(held.dense, temperature)
    likely = [costs.decisions.index(name) for name in costs.names] if set(costs.names) <= set(costs.decisions) else None
    rules = {"least expected cost": cheap}
    if likely is not None:
        rules["most likely class"] = np.array(likely)[held.predicted]
    best = int(costs.table[held.labels].mean(0).argmin())
    rules[f"always “{costs.decisions[best]}”"] = np.full(len(cheap), best)
    rows, paid = [], {name: costs.table[held.labels, decided] for name, decided in rules.items()}
    codes = codes_of(held.groups)
    for name, cost in paid.items():
        most = np.bincount(rules[name], minlength=len(costs.decisions))
        half = half_width(cost, codes)
        shown = ", ".join(
            f"{costs.decisions[i]} {percent(most[i] / len(cost), 0)}" for i in np.argsort(-most)[:3] if most[i]
        )
        rows.append([name, f"{cost.mean():.4g} ± {half:.2g}", shown])
    other = list(paid)[1]
    saved = paid[other] - paid["least expected cost"]
    half = half_width(saved, codes)
    shown = f"{saved.mean():.3g} less per image than {other} (95 % interval {saved.mean() - half:.2g} to "
    verdict = "worth using" if saved.mean() > half else "which chance may explain"
    return rows, f"Deciding by least expected cost costs {shown}{saved.mean() + half:.2g}): {verdict}."


def _odd(run: Path, odd: str) -> tuple[list[list[str]], str]:
    """How well pictures of no class are found: AUROC, and the share flagged at some rates of false alarms."""
    from fastcls.datasets.inputs import collect
    from fastcls.inference.unknown import Knower

    paths = list(collect([odd]))
    knower = Knower(run)
    *seen, lost = knower.look(paths)
    if lost:
        raise DataError(
            f"--odd {odd}: {count(len(lost), 'image')} of {len(paths):,} cannot be read: {some(lost)}.",
            "Remove or replace them.",
        )
    scores, known = knower.known.score(*seen), knower.known.scores
    codes = knower.known.groups if len(knower.known.groups) else None
    value, low, high = area(known, scores, codes)
    p = knower.known.p_known(*seen)
    rows = []
    for rate in RATES:
        least = decisions.needed(1 - rate)
        found = _share(p <= rate) if len(known) >= least else f"needs {grouped(least)} held-out images"
        rows.append([percent(rate, 0), found])
    return rows, (
        f"{grouped(len(paths))} images of “{odd}” were compared with {grouped(len(known))} held-out images: the odd "
        f"image is farther from what the network knows in {percent(value)} of pairs (AUROC {value:.3f}, 95 % interval "
        f"{'' if codes is None else 'over groups of the held-out images '}{low:.3f} to {high:.3f})."
    )


def shortcuts(found: Found | None, accuracy: Score | None) -> tuple[str, list[str]]:
    """What the files' measurements predict, in a sentence for the data, and warnings for the top of the page."""
    short = found.shortcuts if found else None
    if short is None:
        return "", []
    words = {"files": "size, bytes, format and folder of the files", "look": "light, colour and sharpness"}
    parts = [f"{words[name]} alone predict {percent(value, 0)}" for name, value in short.accuracy.items()]
    quiet = (
        f"Of {grouped(short.n)} images {', '.join(parts)}, where the most common class has {percent(short.majority, 0)}"
    )
    warnings = []
    for name, value in short.accuracy.items():
        beyond = accuracy.value - short.majority if accuracy else 0.0
        explained = (short.interval(value)[0] - short.majority) / beyond if beyond > 0 else 0.0
        if name in short.strong or (explained >= EXPLAINED and short.n >= FEW):
            share = (
                f", {percent(min(1.0, explained), 0)} of what this network knows beyond chance" if beyond > 0 else ""
            )
            warnings.append(
                f"A shortcut: {words[name]} alone predict the class of {percent(value, 0)} of the images, where the "
                f"most common class has {percent(short.majority, 0)}{share}. The network may rely on it: see Data."
            )
    each = f" Each alone: {', '.join(f'{k} {percent(v, 0)}' for k, v in short.alone.items())}." if short.alone else ""
    return f"{quiet}: {'a shortcut' if warnings else 'no shortcut'}.{each}", warnings
