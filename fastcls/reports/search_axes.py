"""Axes of a search's figures: a knob's values along one, the figure that is searched for along the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fastcls.comparison.study import Results
from fastcls.reports.figures import Palette, shorten
from fastcls.settings.knobs import as_text
from fastcls.settings.space import Dimension

LABEL = 18  # characters of a value or of a knob's name
REACH = 4.0  # how many times further from the best than the median a figure may lie before it is drawn at the edge


def short(value: Any) -> str:
    """A knob's value with four digits that count: enough to read, not to type."""
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.4g}"
    return as_text(value)


class Scale:
    """The axis of the figure: of all that lies near the best; what lies further is drawn at its edge."""

    def __init__(self, results: Results, values: Sequence[float]) -> None:
        self.percent = results.metric != "loss"
        best = results.ranked[0].value or 0.0
        near = median([abs(best - (trial.value or 0.0)) for trial in results.ranked]) * REACH
        sign = 1 if results.maximise else -1
        inside = [value for value in values if near == 0 or sign * (best - value) <= near]
        low, high = min(inside, default=best), max(inside, default=best)
        room = (high - low or abs(best) * 0.05 or 1.0) * 0.08
        self.low, self.high = low - room, high + room
        self.edge = self.low if results.maximise else self.high
        self.beyond = "v" if results.maximise else "^"

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high

    def apply(self, ax: Axes) -> None:
        ax.set_ylim(self.low, self.high)
        ax.yaxis.set_major_locator(MaxNLocator(nbins=6))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v * 100:g} %" if self.percent else f"{v:g}"))

    def points(self, ax: Axes, places: Sequence[float], values: Sequence[float], **style: Any) -> None:
        """Points, those beyond the axis as triangles at its edge."""
        inside = [(x, y) for x, y in zip(places, values, strict=True) if self.holds(y)]
        outside = [x for x, y in zip(places, values, strict=True) if not self.holds(y)]
        label = style.pop("label", None)
        if inside or label:
            ax.plot([x for x, _ in inside], [y for _, y in inside], "o", label=label, **style)
        if outside:
            ax.plot(outside, [self.edge] * len(outside), self.beyond, clip_on=False, **style)


def title_of(ax: Axes, palette: Palette, title: str) -> None:
    ax.set_title(title, loc="left", color=palette.ink, fontsize=11, parse_math=False, fontweight="bold")


def name_of(results: Results) -> str:
    return {"accuracy": "Accuracy", "macro_f1": "Macro F1", "loss": "Loss"}[results.metric]


def place_of(dim: Dimension, value: Any, number: int = 0) -> float:
    """Where a value lies along its axis; values of a list beside each other, spread a little so that points part."""
    if dim.choices:
        return dim.choices.index(value) + ((number * 0.618) % 1 - 0.5) * 0.36
    return float(value)


def axis_of(ax: Axes, dim: Dimension, palette: Palette) -> None:
    if dim.choices:
        labels = [shorten(short(value), LABEL) for value in dim.choices]
        many = sum(map(len, labels)) > 48
        ax.set_xticks(range(len(labels)), labels, parse_math=False, color=palette.ink, fontsize=8 if many else 9)
        if many:
            ax.tick_params(axis="x", rotation=18)
        ax.set_xlim(-0.5, len(labels) - 0.5)
        return
    if dim.log:
        ax.set_xscale("log")
        ax.tick_params(axis="x", which="both", length=0, colors=palette.muted)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.xaxis.set_minor_formatter(FuncFormatter(lambda v, _: ""))
        ratio = (dim.high / dim.low) ** 0.04
        ax.set_xlim(dim.low / ratio, dim.high * ratio)
    else:
        room = (dim.high - dim.low) * 0.04
        ax.set_xlim(dim.low - room, dim.high + room)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=dim.whole, steps=[1, 2, 5, 10]))


def height_of(dim: Dimension, value: Any) -> float:
    """A value's place on its axis, from 0 to 1."""
    if dim.choices:
        return dim.choices.index(value) / max(1, len(dim.choices) - 1)
    low, high, at = (math.log(x) if dim.log else x for x in (dim.low, dim.high, value))
    return (at - low) / (high - low)


def mark(ax: Axes, palette: Palette, place: float, height: float, text: str) -> None:
    ground = {"facecolor": palette.surface, "edgecolor": "none", "pad": 1, "alpha": 0.8}
    style: dict[str, Any] = {"va": "center", "color": palette.muted, "fontsize": 8, "bbox": ground, "zorder": 5}
    ax.text(place + 0.04, height, text, parse_math=False, **style)
