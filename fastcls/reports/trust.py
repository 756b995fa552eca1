"""Whether this network's confidence can be believed: reliability, temperature, coverage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from fastcls.evaluation import calibration, plots
from fastcls.evaluation.grouped import codes_in, effect
from fastcls.evaluation.metrics import Z
from fastcls.reports.figures import Figure, Palette, frame
from fastcls.reports.wording import grouped, percent, points
from fastcls.runfolder.run import figure_of

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
class Trust:
    """What there is to say of the confidence on n images, before and after temperature scaling."""

    n: int
    sentences: list[str]
    figures: list[Figure]
    calibrated: bool  # whether it is scaled; the goals hold for the scaled confidence then
    goals: list[Goal] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)  # a label: images, mean probability, share with it, errors


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
    of_right = effect(right.astype(float), codes)
    goals = [
        Goal(goal, *(calibration.threshold_for(goal, used, right, effect=of_right) or (None, None))) for goal in GOALS
    ]
    lines = {"as trained": before, **({"after scaling": after} if scaled else {})}
    diagonal = f"Accuracy over confidence on the {split} split; the diagonal is perfect calibration"
    share = "Accuracy of the most confident predictions over their share of the images"
    figures = [
        Figure("reliability", "Reliability", diagonal, 5.4, 3.9, reliability(lines, right)),
        Figure("coverage", "Accuracy over coverage", share, 5.4, 3.9, _coverage(used, right)),
    ]
    n, confidence, accuracy, worth = (
        len(known),
        float(before.mean()),
        float(right.mean()),
        effect(right - before, codes),
    )
    noise = Z * (worth * accuracy * (1 - accuracy) / n) ** 0.5
    way = "it is overconfident" if confidence > accuracy else "it is underconfident"
    verdict = "no significant difference" if abs(confidence - accuracy) <= noise else way
    first = f"On these {grouped(n)} images its mean confidence is {percent(confidence)} and its accuracy "
    errors = error_sentences(before, right, worth, after if scaled else None, temperature)
    return Trust(n, [f"{first}{percent(accuracy)}: {verdict}.", *errors], figures, scaled, goals)


def error_sentences(
    confidence: np.ndarray, right: np.ndarray, effect: float, scaled: np.ndarray | None, temperature: float | None
) -> list[str]:
    """What the calibration error of (n,) probabilities says, and that of the scaled ones, where there are any.

    effect: decisions that one by itself is worth, where they come in groups.
    """
    before = calibration.calibration_error(confidence, right)
    usual, most = calibration.honest_errors(confidence, effect)
    chance = "within chance" if before <= most else "more than chance explains"
    found = [
        f"The calibration error, the distance between the two over ranges of confidence, is {points(before)}; a "
        f"perfectly calibrated network shows about {points(usual)} on as many images, so this is {chance}."
    ]
    if scaled is not None and temperature is not None:
        after = f"with the logits divided by T the error is {points(calibration.calibration_error(scaled, right))}"
        nothing = abs(temperature - 1) < NEAR
        found.append(
            f"The temperature that fits the validation split best is T = {temperature:.2f}"
            f"{': scaling finds nothing to fix' if nothing else f'; {after}'}."
        )
    return found


def effects(metrics: Mapping[str, Mapping[str, Any]], splits: Sequence[str]) -> dict[str, list[tuple[str, str, bool]]]:
    """What temperature scaling does to EFFECTS: (as trained, scaled, whether that is less) of each, by split."""
    rows = {}
    for split in splits:
        pairs = [tuple(figure_of(metrics, split, f"{key}{end}") for end in ("", "_calibrated")) for key in EFFECTS]
        if all(before is not None and after is not None for before, after in pairs):
            texts = [(f"{before:.4f}", f"{after:.4f}") for before, after in pairs]
            rows[split] = [(*pair, float(pair[1]) < float(pair[0])) for pair in texts]
    return rows


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
        frame(ax, palette, "Accuracy over coverage", "share of images predicted, the most confident first")
        _, answered, rightly = calibration.coverage(confidence, right)
        step = max(1, len(answered) // 1000)
        ax.plot(answered[::-step][::-1], rightly[::-step][::-1], color=palette.valid, linewidth=1.9, zorder=3)
        low = float(rightly[answered >= min(0.02, answered[-1])].min())
        ax.set_ylim(max(0.0, low - 0.1 * (1 - low) - 0.005), 1.005)
        ax.set_xlim(0, 1)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(PercentFormatter(1))

    return draw
