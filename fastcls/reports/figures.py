"""The report's figures, drawn on given Axes in the colours of a given palette."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

from fastcls.reports.classes import Matrix
from fastcls.reports.learning import Phase
from fastcls.runfolder import runs

LABEL = 22  # characters of a class name in a figure


@dataclass(frozen=True)
class Palette:
    """Colours by their role; blue and vermillion stay apart for every kind of colour vision."""

    ink: str
    muted: str
    line: str
    surface: str
    train: str
    valid: str
    right: str
    wrong: str
    on_cell: str


PRINT = Palette("#1c2126", "#5d666f", "#d5d9dd", "#ffffff", "#c2570c", "#0b65a8", "#1f6fb2", "#c2570c", "#ffffff")


@dataclass(frozen=True)
class Figure:
    """A figure to be drawn: its file name, its words, its size in inches and the function that draws it."""

    name: str
    title: str
    alt: str
    width: float
    height: float
    draw: Callable[[Axes, Palette], None]
    tips: dict[str, str] = field(default_factory=dict)  # id of a drawn shape -> what hovering over it says
    tight: bool = False  # cut to what was drawn, where the labels' lengths decide the size
    cells: dict[str, tuple[str, str]] = field(default_factory=dict)  # id of a drawn shape -> label and prediction

    def paint(self, palette: Palette) -> Canvas:
        """The figure in these colours."""
        canvas = Canvas(figsize=(self.width, self.height))
        self.draw(canvas.add_axes((0.115, 0.15, 0.87, 0.755)), palette)
        return canvas


def shorten(text: str, length: int = LABEL) -> str:
    """`text` with its middle left out where it is long: beginnings and ends tell names apart."""
    if len(text) <= length:
        return text
    tail = (length - 1) // 3
    return f"{text[: length - 1 - tail].rstrip()}…{text[-tail:].lstrip()}"


def learning_figures(history: pd.DataFrame, metrics: list[str], phases: list[Phase], kept: int | None) -> list[Figure]:
    """The losses, each metric that says something of its own, and the learning rate, over the epochs."""
    if history.empty:
        return []
    plans: list[tuple[str, str, list[tuple[str, str]]]] = []
    losses = [(name, column) for name, column in (("training", "train_loss"), ("validation", "valid_loss"))]
    plans.append(("loss", "Loss", losses))
    plans += [(f"metric-{_slug(name)}", name.replace("_", " ").capitalize(), [("", name)]) for name in metrics]
    plans.append(("learning-rate", "Learning rate at the end of an epoch", [("", "lr")]))
    found = []
    for name, title, series in plans:
        series = [(label, column) for label, column in series if np.isfinite(history[column]).any()]
        if series:
            draw = _curves(history, title, series, phases, kept)
            alt = f"{title} over {len(history)} epochs"
            found.append(Figure(name, title, alt, 5.4, 3.1, draw, {}))
    return found


def own_metrics(names: list[str], most: int = 4) -> list[str]:
    """The metrics worth a figure: not the error rate where the accuracy, its complement, is there."""
    return [name for name in names if not (name == "error_rate" and "accuracy" in names)][:most]


def _slug(name: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in name).strip("-")[:40] or "unnamed"


def _curves(
    history: pd.DataFrame,
    title: str,
    series: Sequence[tuple[str, str]],
    phases: list[Phase],
    kept: int | None,
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


def frame(ax: Axes, palette: Palette, title: str = "", xlabel: str = "") -> None:
    """Light horizontal lines, no box, the title to the left."""
    ax.set_title(title, loc="left", color=palette.ink, fontsize=11, fontweight="bold")
    ax.set_xlabel(xlabel, color=palette.muted)
    ax.set_facecolor("none")
    ax.grid(axis="y", color=palette.line, linewidth=0.7)
    ax.set_axisbelow(True)
    ax.tick_params(colors=palette.muted, length=0, labelsize=9, pad=5)
    for side, spine in ax.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(palette.line)


def over_epochs(ax: Axes, palette: Palette, title: str, share: bool) -> None:
    """The axes of learning curves of many runs; share: whether the metric is one, to be shown in percent."""
    frame(ax, palette, title, "epoch")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
    if share:
        ax.yaxis.set_major_formatter(PercentFormatter(1))


def _phase_name(name: str, room: int) -> str:
    """A phase's name in so many characters: 'probe' says what a cut 'linear probe' does not."""
    return "probe" if name == runs.PROBE and room < len(name) else shorten(name, room)


def _shade(ax: Axes, palette: Palette, phases: list[Phase], span: float) -> None:
    """Every other phase on a tint, its name at the top where it fits."""
    for i, phase in enumerate(phases):
        if i % 2 == 0 and len(phases) > 1:
            ax.axvspan(phase.first - 0.5, phase.last + 0.5, color=palette.muted, alpha=0.09, linewidth=0, zorder=0)
        if i:
            ax.axvline(phase.first - 0.5, color=palette.muted, linewidth=0.8, zorder=1)
        room = int((phase.last - phase.first + 1) / span * 66)  # characters across the whole figure
        if room >= 5:
            ax.text(
                *((phase.first + phase.last) / 2, 0.975, _phase_name(phase.name, min(room, 30))),
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
    digits = 0 if room > 0.04 else 1 if room > 0.004 else 2
    ax.yaxis.set_major_locator(MaxNLocator(nbins=6))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v * 100:.{digits}f} %" if fraction else f"{v:g}"))


def matrix_figure(matrix: Matrix, split: str) -> Figure:
    """The confusion matrix: right answers in blue, mistakes in vermillion, each row a whole."""
    count = len(matrix.names)
    cell = 0.5 if count <= 6 else 0.4 if count <= 12 else 0.25
    longest = min(LABEL, max(len(name) for name in matrix.names))
    margin = 0.75 + 0.085 * longest
    tips, cells = {}, {}
    for i, j in np.argwhere(matrix.counts):
        name, other = matrix.names[i], matrix.names[j]
        end = "recognised" if i == j else f"misclassified as {other}"
        tips[f"cell-{i}-{j}"] = f"{name}: {matrix.counts[i, j]} of {matrix.support[i]} {end}"
        cells[f"cell-{i}-{j}"] = (name, other)
    if matrix.whole:
        title = f"Confusion matrix, {split} split, {count} classes"
    else:
        title = f"The {count} classes confused most, {split} split"
    side = cell * count + margin
    draw = _matrix(matrix, title, cell * 72)
    return Figure(
        "confusion-matrix",
        title,
        f"{title}: labels down, predictions across",
        side,
        side,
        draw,
        tips,
        tight=True,
        cells=cells,
    )


def _matrix(matrix: Matrix, title: str, cell: float) -> Callable[[Axes, Palette], None]:
    def draw(ax: Axes, palette: Palette) -> None:
        count = len(matrix.names)
        ax.set_facecolor("none")
        size = min(10.0, cell * 0.5)
        for i, j in np.argwhere(matrix.counts):
            times, of = int(matrix.counts[i, j]), max(1, int(matrix.support[i]))
            depth = 0.12 + 0.88 * math.sqrt(min(1.0, times / of))
            colour = palette.right if i == j else palette.wrong
            square = Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=colour, alpha=depth, linewidth=0)
            square.set_gid(f"cell-{i}-{j}")
            ax.add_patch(square)
            if len(str(times)) * 0.6 * size <= cell * 0.95:
                ink = palette.on_cell if depth > 0.78 else palette.ink
                ax.text(j, i, str(times), ha="center", va="center_baseline", fontsize=size, color=ink)
        names = [shorten(name) for name in matrix.names]
        label = 9.5 if count <= 12 else 8.5
        slant = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if count <= 12 else {"rotation": 90}
        ax.set_xticks(range(count), names, fontsize=label, color=palette.ink, **slant)
        ax.set_yticks(range(count), names, fontsize=label, color=palette.ink)
        ax.set_xticks(np.arange(count + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(count + 1) - 0.5, minor=True)
        ax.grid(which="minor", color=palette.line, linewidth=0.6)
        ax.tick_params(which="both", length=0)
        ax.set_xlim(-0.5, count - 0.5)
        ax.set_ylim(count - 0.5, -0.5)
        ax.set_aspect("equal")
        for spine in ax.spines.values():
            spine.set_color(palette.line)
        ax.set_xlabel("predicted", color=palette.muted)
        ax.set_ylabel("label", color=palette.muted)
        if count > 4:
            ax.set_title(title, loc="left", color=palette.ink, fontsize=11, fontweight="bold")

    return draw
