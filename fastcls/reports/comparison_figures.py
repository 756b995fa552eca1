"""A comparison's figures: every seed's accuracy about its setting's mean, and the learning curves overlaid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fastcls.comparison.comparison import Row
from fastcls.reports.comparison_table import name
from fastcls.reports.figures import Figure, Palette, frame, shorten

MOST_ROWS = 40  # settings in a figure, the best first
LABEL = 46  # characters of a setting's name
# Okabe and Ito's colours that stand out on white and on black alike, each with a dash of its own
STROKES = (("#0b78c2", "-"), ("#d55e00", (0, (5, 1.5))), ("#009e73", (0, (2, 1))), ("#b8629b", (0, (6, 1.5, 1.5, 1.5))))


def accuracy_figure(rows: Sequence[Row], split: str) -> Figure | None:
    """A line a setting: a ring a seed, a bar at their mean, a dotted line at the baseline's mean."""
    shown = [row for row in rows if not math.isnan(row.means["accuracy"])][:MOST_ROWS]
    if not shown:
        return None
    title = f"Accuracy on {split}: a ring a seed, a bar at the mean"
    base = next((row.means["accuracy"] for row in rows if row.baseline), math.nan)

    def draw(ax: Axes, palette: Palette) -> None:
        frame(ax, palette, title)
        ax.grid(visible=False, axis="y")
        ax.grid(axis="x", color=palette.line, linewidth=0.7)
        if not math.isnan(base):
            ax.axvline(base * 100, color=palette.muted, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
        for place, row in enumerate(shown):
            colour = palette.ink if row.baseline else palette.valid
            seeds = [entry.figure("accuracy", split) * 100 for entry in row.entries]
            ax.plot(seeds, [place] * len(seeds), "o", ms=6, mfc="none", mec=colour, mew=1.2, zorder=3)
            ax.plot([row.means["accuracy"] * 100] * 2, [place - 0.3, place + 0.3], color=colour, linewidth=3, zorder=2)
        labels = ["baseline" if row.baseline and row.changed == {} else shorten(name(row), LABEL) for row in shown]
        ax.set_yticks(range(len(shown)), labels, fontsize=9.5, color=palette.ink)
        ax.set_ylim(len(shown) - 0.4, -0.6)
        ax.margins(x=0.06)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=7))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g} %"))

    return Figure("accuracy", title, title, 7.2, 1.1 + 0.32 * len(shown), draw, {}, tight=True)


def curves_figure(rows: Sequence[Row]) -> Figure | None:
    """The validation metric over the epochs, a line a setting (its seeds' mean); most of many are gray."""
    done = [row for row in rows if row.entries]
    column = "accuracy" if all("accuracy" in e.history for row in done for e in row.entries) else "valid_loss"
    curves = {id(row): _curve(row, column) for row in done}
    done = [row for row in done if len(curves[id(row)]) > 1]
    if not done:
        return None
    coloured = [row for row in done if not row.baseline][: len(STROKES)]
    scale = 100 if column == "accuracy" else 1
    title = "Accuracy on valid while learning" if column == "accuracy" else "Loss on valid while learning"

    def draw(ax: Axes, palette: Palette) -> None:
        frame(ax, palette, title, "epoch")
        for row in done:
            if row not in coloured and not row.baseline:
                curve = curves[id(row)]
                ax.plot(curve.index, curve * scale, color=palette.muted, alpha=0.45, linewidth=0.9, zorder=2)
        strokes = dict(zip(map(id, coloured), STROKES, strict=False))
        for row in done:
            if row in coloured or row.baseline:
                curve = curves[id(row)]
                colour, dash = strokes.get(id(row), (palette.ink, "-"))
                label = "baseline" if row.baseline else shorten(name(row), LABEL)
                ax.plot(curve.index, curve * scale, color=colour, linestyle=dash, linewidth=1.9, label=label, zorder=3)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g} %" if scale == 100 else f"{v:g}"))
        rest = f"{len(done) - len(coloured) - any(r.baseline for r in done)} more in gray"
        legend = ax.legend(
            loc="upper left",
            bbox_to_anchor=(1.01, 1),
            frameon=False,
            labelcolor=palette.ink,
            fontsize=9,
            title=None if rest.startswith("0") else rest,
            title_fontproperties={"size": 9},
            alignment="left",
        )
        legend.get_title().set_color(palette.muted)

    return Figure("learning-curves", title, f"{title}: the best settings and the baseline", 7.2, 3.6, draw, {}, True)


def _curve(row: Row, column: str) -> pd.Series:
    """The mean over the seeds, epoch by epoch."""
    histories = [e.history for e in row.entries if column in e.history and len(e.history)]
    if not histories:
        return pd.Series(dtype=float)
    return pd.concat(histories).groupby("epoch")[column].mean()
