"""The course of training: its phases, the epoch that was kept, a careful verdict, and the curves."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

from fastcls.reports.figures import Figure, Palette, frame
from fastcls.reports.wording import headline
from fastcls.runfolder import runs
from fastcls.runfolder.text import shorten

METRICS = 4  # that have a figure of their own
FEWEST = 3  # epochs below which the curves say nothing about fit
RISE = 0.05  # a validation loss this far above its lowest counts as risen
FEW_STEPS = 300  # optimiser steps; below, "no over-fitting" may only mean that hardly anything was learned
LEARNED = 0.25  # of the way from the least loss to that of chance: losses above are far from learned
NEAR = 0.05  # … and this near the least is learned, though it falls on
FALL = 0.02  # … and this far below the epoch before as still falling


@dataclass(frozen=True)
class Phase:
    name: str
    first: int
    last: int


@dataclass(frozen=True)
class Verdict:
    """A short answer, its reason, and how good the news is ('good', 'warn' or 'open')."""

    answer: str
    reason: str
    mood: str


def phases(history: pd.DataFrame) -> list[Phase]:
    """Runs of epochs under one name, in order."""
    found: list[Phase] = []
    for epoch, name in zip(history["epoch"].astype(int), history["phase"].astype(str), strict=True):
        if found and found[-1].name == name and epoch > found[-1].last:
            found[-1] = Phase(name, found[-1].first, epoch)
        else:
            found.append(Phase(name, epoch, epoch))
    return found


def verdict(history: pd.DataFrame, bounds: tuple[float, float]) -> Verdict:
    """Over-fitting, under-fitting or neither, as far as the two losses can tell.

    bounds: the least that the loss can be, and its value for the best answer without a look at the image.
    """
    if history.empty:
        return Verdict("No verdict", "no epoch is recorded.", "open")
    valid_all = history["valid_loss"]
    blown = history[(history["train_loss"].map(math.isinf)) | valid_all.map(math.isinf)]
    if not blown.empty:
        return Verdict("Diverged", f"a loss became infinite in epoch {int(blown['epoch'].iloc[0])}.", "warn")
    probed = history["phase"] == runs.PROBE
    if probed.all():
        return Verdict("Linear probe", "only the head was fitted; the body was not trained.", "good")
    history = history[~probed]
    rows = history[history["train_loss"].notna() & history["valid_loss"].notna()]
    lost = len(history) - len(rows)
    if len(rows) < FEWEST:
        had = "epoch has" if len(rows) == 1 else "epochs have"
        reason = f"{len(rows)} {had} both losses; a trend needs at least {FEWEST}."
        return Verdict("Too few epochs to tell", reason, "open")
    epochs = rows["epoch"].astype(int).tolist()
    train, valid = rows["train_loss"].tolist(), rows["valid_loss"].tolist()
    low = min(range(len(valid)), key=valid.__getitem__)
    result = _judge(epochs, train, valid, low, bounds, _still_right(rows))
    steps = rows["step"].max()
    if result.mood == "good" and _hardly_trained(steps, train, valid, bounds):
        reason = (
            f"there were only {steps:.0f} steps, and the training loss was still {train[-1]:.3f} after the last epoch, "
            f"after {train[-2]:.3f} in the one before. Train for more epochs, or with smaller batches."
        )
        return Verdict("Hardly trained", reason, "warn")
    if lost:
        aside = f" ({lost} of {len(history)} epochs have no loss and were left out.)"
        return Verdict(result.answer, result.reason + aside, result.mood)
    return result


def _hardly_trained(steps: float, train: list[float], valid: list[float], bounds: tuple[float, float]) -> bool:
    """Few steps, after which the images are not learned yet or the loss is still falling.

    Mixed training images are never learned: the lower loss counts.
    """
    least, chance = bounds
    last, before = (min(train[at], valid[at]) - least for at in (-1, -2))
    far, near = LEARNED * (chance - least), NEAR * (chance - least)
    return steps < FEW_STEPS and (last > far or near < last < 0.9 * before)


def _judge(
    epochs: list[int], train: list[float], valid: list[float], low: int, bounds: tuple[float, float], still_right: bool
) -> Verdict:
    last = len(valid) - 1
    at, end = f"{valid[low]:.3f}", f"{valid[last]:.3f}"
    least, chance = bounds
    close = least + 0.7 * (chance - least)
    if valid[last] > valid[low] * (1 + RISE) and last > low:
        if train[last] < train[low]:
            reason = (
                f"the validation loss was lowest in epoch {epochs[low]} ({at}) and rose to {end} while the "
                f"training loss went on falling, from {train[low]:.3f} to {train[last]:.3f}."
            )
            if still_right:
                reason += (
                    " The accuracy did not fall: the network made no more mistakes, but was more confident in them."
                )
            return Verdict(f"Over-fitting after epoch {epochs[low]}", reason, "warn")
        reason = (
            f"the validation loss rose from {at} in epoch {epochs[low]} to {end}, but the training loss rose "
            "too, which suggests the learning rate rather than over-fitting."
        )
        return Verdict("Unsteady", reason, "warn")
    if chance and train[last] > close and valid[last] > close:
        reason = (
            f"both losses ({train[last]:.3f} in training, {end} in validation) ended close to {chance:.3f}, "
            "the lowest loss possible without looking at the image."
        )
        return Verdict("Under-fitting", reason, "warn")
    if low == last and valid[last] < valid[last - 1] * (1 - FALL):
        reason = (
            f"the validation loss was still falling in the last epoch, from {valid[last - 1]:.3f} to {end}. "
            "More epochs may help, although a schedule that ends at a low learning rate always looks like this."
        )
        return Verdict("No over-fitting seen", reason, "good")
    gap = (valid[last] - least) / (train[last] - least) if train[last] > least else math.inf
    near = f"within {RISE * 100:.0f}\u202f% of its lowest ({at}, epoch {epochs[low]})"
    reason = f"the validation loss ended at {end}, {near}"
    if gap > 1.5:
        reason += f". It is well above the training loss ({train[last]:.3f}), a gap that has done no harm so far."
        return Verdict("No harmful over-fitting seen", reason, "good")
    return Verdict("No over-fitting seen", f"{reason}, and the training loss at {train[last]:.3f}.", "good")


def _still_right(rows: pd.DataFrame) -> bool:
    """Whether the accuracy of the last epoch is about the best there was."""
    if "accuracy" in rows:
        right = rows["accuracy"]
    elif "error_rate" in rows:
        right = 1 - rows["error_rate"]
    else:
        return False
    return bool(right.notna().all() and right.iloc[-1] >= right.max() - 0.005)


def learning_figures(history: pd.DataFrame, metrics: list[str], phases: list[Phase], kept: int | None) -> list[Figure]:
    """The losses, the first metrics, and the learning rate, over the epochs; no error rate beside the accuracy."""
    if history.empty or (history["phase"] == runs.PROBE).all():  # a point is no curve
        return []
    shown = [name for name in metrics if name != "error_rate" or "accuracy" not in metrics][:METRICS]
    plans = [("loss", "Loss", [("training", "train_loss"), ("validation", "valid_loss")])]
    slugs = {name: re.sub("[^A-Za-z0-9]", "-", name).strip("-")[:40] or "unnamed" for name in shown}
    plans += [(f"metric-{slugs[name]}", headline(name), [("", name)]) for name in shown]
    plans.append(("learning-rate", "Learning rate at the end of an epoch", [("", "lr")]))
    found = []
    for name, title, series in plans:
        series = [(label, column) for label, column in series if np.isfinite(history[column]).any()]
        if series:
            draw = _curves(history, title, series, phases, kept)
            found.append(Figure(name, title, f"{title} over {len(history)} epochs", 5.4, 3.1, draw))
    return found


def _curves(
    history: pd.DataFrame, title: str, series: Sequence[tuple[str, str]], phases: list[Phase], kept: int | None
) -> Callable[[Axes, Palette], None]:
    def draw(ax: Axes, palette: Palette) -> None:
        frame(ax, palette, title, "epoch")
        epochs = history["epoch"].to_numpy(float)
        probed = (history["phase"] == runs.PROBE).to_numpy(bool)
        first, last = epochs.min(), epochs.max()
        _shade(ax, palette, phases, last - first + 1)
        lows, highs = [], []
        for label, column in series:
            values = history[column].to_numpy(float)
            fine = np.isfinite(values)
            solved = fine & probed
            training = column == "train_loss"
            ax.plot(
                epochs[fine & ~probed],
                values[fine & ~probed],
                color=palette.train if training else palette.valid,
                linestyle=(0, (4, 2)) if training else "-",
                linewidth=1.8,
                marker="o" if len(epochs) <= 15 else "",
                markersize=3.5,
                label=label or title,
                zorder=3,
            )
            if solved.any():
                colour = palette.train if training else palette.valid
                ax.plot(epochs[solved], values[solved], "D", ms=5.5, color=colour, zorder=4)
            lows.append(values[fine].min())
            highs.append(values[fine].max())
            if kept is not None and not training and column != "lr" and (fine & (epochs == kept)).any():
                at = float(values[fine & (epochs == kept)][0])
                ax.plot([kept], [at], "o", ms=9, mfc="none", mec=palette.ink, mew=1.3, zorder=4)
        _scale(ax, min(lows), max(highs), first, last, percent=series[0][0] == "" and series[0][1] != "lr")
        if kept is not None and first <= kept <= last:
            ax.axvline(kept, 0, 0.9, color=palette.muted, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
            left = kept > (first + last) / 2
            note = f"kept: epoch {kept}  " if left else f"  kept: epoch {kept}"
            ax.text(
                *(kept, 0.03, note),
                transform=ax.get_xaxis_transform(),
                color=palette.muted,
                fontsize=8,
                ha="right" if left else "left",
            )
        if len(series) > 1:
            style: dict[str, Any] = {"frameon": False, "labelcolor": palette.ink, "fontsize": 9, "ncols": 2}
            place = (1.01, 0.985)
            ax.legend(loc="lower right", bbox_to_anchor=place, borderaxespad=0.3, handlelength=2.4, **style)

    return draw


def _shade(ax: Axes, palette: Palette, phases: list[Phase], span: float) -> None:
    """Every other phase on a tint, its name at the top where it fits."""
    for i, phase in enumerate(phases):
        if i % 2 == 0 and len(phases) > 1:
            ax.axvspan(phase.first - 0.5, phase.last + 0.5, color=palette.muted, alpha=0.09, linewidth=0, zorder=0)
        if i:
            ax.axvline(phase.first - 0.5, color=palette.muted, linewidth=0.8, zorder=1)
        room = int((phase.last - phase.first + 1) / span * 66)  # characters across the whole figure
        # 'probe' says what a cut 'linear probe' does not
        name = "probe" if phase.name == runs.PROBE and room < len(phase.name) else shorten(phase.name, min(room, 30))
        if room >= 5:
            ax.text(
                *((phase.first + phase.last) / 2, 0.975, name),
                transform=ax.get_xaxis_transform(),
                color=palette.muted,
                fontsize=8.5,
                ha="center",
                va="top",
            )


def _scale(ax: Axes, low: float, high: float, first: float, last: float, percent: bool) -> None:
    """Limits with room for the phase names, plain numbers, whole epochs."""
    ax.set_xlim(first - 0.5, last + 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
    if low > 0 and high / low > 40 and not percent and high > 0.5:
        ax.set_yscale("log")
        ax.set_ylim(low / 1.3, high * 1.9)
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        return
    room = (high - low) or abs(high) * 0.1 or 0.1
    bottom = low - 0.12 * room
    ax.set_ylim(max(0.0, bottom) if low >= 0 else bottom, high + 0.22 * room)
    fraction = percent and low >= 0 and high <= 1
    ax.yaxis.set_major_locator(MaxNLocator(nbins=6))
    shares = PercentFormatter(1, symbol=" %")  # as many digits as the ticks need
    shares.set_axis(ax.yaxis)
    ax.yaxis.set_major_formatter(
        FuncFormatter(lambda v, i: f"{v:g}" if not fraction else shares(v, i) if v <= 1 else "")
    )
