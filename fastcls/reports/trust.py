"""Whether this network's confidence can be believed: reliability, temperature, coverage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from fastcls.evaluation import calibration, plots
from fastcls.evaluation.grouped import codes_in
from fastcls.evaluation.grouped import effect as effect_of
from fastcls.evaluation.metrics import Z
from fastcls.reports.figures import Figure, Palette, frame
from fastcls.reports.wording import grouped, percent, points
from fastcls.runfolder.text import number

GOALS = (0.9, 0.95, 0.99, 0.999)
EFFECTS = {"ece": "Calibration error", "brier": "Brier score", "loss": "Loss"}
NEAR = 0.05  # a temperature within this of 1 changes nothing that matters


@dataclass(frozen=True)
class Goal:
    """The confidence from which new answers have an accuracy, and the share of images that reach it, or None."""

    accuracy: float
    threshold: float | None
    answered: float | None


@dataclass(frozen=True)
class Effect:
    """What temperature scaling does to a split's EFFECTS: (as trained, scaled, whether that is less) of each."""

    split: str
    pairs: list[tuple[str, str, bool]]
    names: tuple[str, ...] = tuple(EFFECTS.values())


@dataclass(frozen=True)
class Trust:
    """What there is to say of a split's confidence, before and after temperature scaling."""

    n: int
    temperature: float | None
    confidence: float  # mean
    accuracy: float
    before: float  # expected calibration error
    honest: tuple[float, float]  # that of a network whose confidence is its accuracy: mean, 95 % quantile
    after: float | None
    goals: list[Goal]
    figures: list[Figure]
    calibrated: bool  # whether the goals hold for the scaled confidence
    effect: float = 1.0  # images that one by itself is worth, where they come in groups

    @property
    def sentences(self) -> list[str]:
        over = self.confidence - self.accuracy
        noise = Z * (self.effect * self.accuracy * (1 - self.accuracy) / self.n) ** 0.5
        way = "more sure than right" if over > 0 else "more often right than sure"
        verdict = "no difference that so many images show" if abs(over) <= noise else f"it is {way}"
        first = (
            f"On these {grouped(self.n)} images its mean confidence is {percent(self.confidence)} and its accuracy "
            f"{percent(self.accuracy)}: {verdict}."
        )
        usual, most = self.honest
        beside = "no more than chance explains" if self.before <= most else "more than chance explains"
        second = (
            f"The calibration error, the distance of the two in ranges of confidence, is {points(self.before)}; a "
            f"network that is as often right as it is sure shows about {points(usual)} on as many images, so this is "
            f"{beside}."
        )
        if self.temperature is None or self.after is None:
            return [first, second]
        third = f"The temperature that fits the validation split best is T = {self.temperature:.2f}"
        if abs(self.temperature - 1) < NEAR:
            return [first, second, f"{third}: scaling finds nothing to fix."]
        return [first, second, f"{third}; with the logits divided by it the calibration error is {points(self.after)}."]


def trust(table: pd.DataFrame, temperature: float | None, split: str) -> Trust | None:
    """table: label, prediction, confidence, calibrated of one split's labelled images."""
    known = table[table["confidence"].notna()]
    if known.empty:
        return None
    right = (known["label"] == known["prediction"]).to_numpy()
    before = known["confidence"].to_numpy()
    after = known["calibrated"].to_numpy()
    scaled = temperature is not None and bool(np.isfinite(after).all())
    used = after if scaled else before
    codes = codes_in(known)
    effect, of_right, goals = effect_of(right - before, codes), effect_of(right.astype(float), codes), []
    for accuracy in GOALS:
        found = calibration.threshold_for(accuracy, used, right, effect=of_right)
        goals.append(Goal(accuracy, *(found or (None, None))))
    lines = {"as trained": before, **({"after scaling": after} if scaled else {})}
    diagonal = f"Accuracy over confidence on the {split} split, against the diagonal of an honest network"
    share = "Accuracy of the most confident predictions over how many of them are given"
    figures = [
        Figure("reliability", "Reliability", diagonal, 5.4, 3.9, reliability(lines, right)),
        Figure("coverage", "Accuracy over coverage", share, 5.4, 3.9, _coverage(used, right)),
    ]
    error = calibration.calibration_error
    return Trust(
        len(known),
        temperature if scaled else None,
        float(before.mean()),
        float(right.mean()),
        error(before, right),
        calibration.honest_errors(before, effect),
        error(after, right) if scaled else None,
        goals,
        figures,
        scaled,
        effect,
    )


def effects(metrics: Mapping[str, Mapping[str, Any]], splits: Sequence[str]) -> list[Effect]:
    """A row a split that was evaluated with a temperature."""
    rows = []
    for split in splits:
        held = metrics.get(split, {})
        pairs = [(_value(held, key), _value(held, f"{key}_calibrated")) for key in EFFECTS]
        if all(before is not None and after is not None for before, after in pairs):
            texts = [(f"{before:.4f}", f"{after:.4f}") for before, after in pairs]
            rows.append(Effect(split, [(*pair, float(pair[1]) < float(pair[0])) for pair in texts]))
    return rows


def _value(held: Mapping[str, Any], key: str) -> float | None:
    entry = held.get(key)
    return number(entry.get("value") if isinstance(entry, dict) else entry)


def reliability(
    lines: Mapping[str, np.ndarray],
    right: np.ndarray,
    xlabel: str = "confidence",
    title: str = "Accuracy over confidence",
) -> Callable[[Axes, Palette], None]:
    """What draws the share that is right over each of the named confidences (n,)."""

    def draw(ax: Axes, palette: Palette) -> None:
        frame(ax, palette, title, xlabel)
        plots.reliability(ax, lines, right, (palette.train, palette.valid), palette.muted)
        ax.legend(loc="upper left", frameon=False, labelcolor=palette.ink, fontsize=9)

    return draw


def _coverage(confidence: np.ndarray, right: np.ndarray) -> Callable[[Axes, Palette], None]:
    def draw(ax: Axes, palette: Palette) -> None:
        frame(ax, palette, "Accuracy over coverage", "share of images answered, the most confident first")
        _, answered, rightly = calibration.coverage(confidence, right)
        step = max(1, len(answered) // 1000)
        ax.plot(answered[::-step][::-1], rightly[::-step][::-1], color=palette.valid, linewidth=1.9, zorder=3)
        low = float(rightly[answered >= min(0.02, answered[-1])].min())
        ax.set_ylim(max(0.0, low - 0.1 * (1 - low) - 0.005), 1.005)
        ax.set_xlim(0, 1)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(PercentFormatter(1))

    return draw
