"""A search's figures: its history, what mattered, each knob on its own, all knobs at once, the learning curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fastcls.report.figures import Figure, Palette, frame, shorten
from fastcls.results.study import Results, Trial
from fastcls.settings.knobs import as_text
from fastcls.settings.space import Dimension

MOST = 8  # knobs that have a figure of their own, those that matter most first
LABEL = 18  # characters of a value or of a knob's name
REACH = 4.0  # how many times further from the best than the median a figure may lie before it is drawn at the edge


def short(value: Any) -> str:
    """A knob's value with four digits that count: enough to read, not to type."""
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.4g}"
    return as_text(value)


def charts(results: Results) -> list[Figure]:
    """The small figures: history, importances, a slice a knob."""
    if results.best is None:
        return []
    order = {name: place for place, name in enumerate(results.importances)}
    ranked = sorted(results.dimensions, key=lambda dim: order.get(dim.name, len(order)))
    found = [_history(results)]
    found += [_importances(results)] if results.importances else []
    return found + [_slice(results, dim) for dim in ranked[:MOST]]


def wide_figures(results: Results) -> list[Figure]:
    """The large ones: learning curves, and parallel coordinates of three knobs or more."""
    if results.best is None:
        return []
    curves = [_curves(results)] if any(len(trial.curve) > 1 for trial in results.trials) else []
    parallel = [_parallel(results)] if len(results.dimensions) > 2 and len(results.ranked) > 2 else []
    return [*curves, *parallel]


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


def _title(ax: Axes, palette: Palette, title: str) -> None:
    ax.set_title(title, loc="left", color=palette.ink, fontsize=11, parse_math=False, fontweight="bold")


def _name(results: Results) -> str:
    return {"accuracy": "Accuracy", "macro_f1": "Macro F1", "loss": "Loss"}[results.metric]


def _with_figure(trials: Sequence[Trial]) -> list[tuple[Trial, float]]:
    return [(trial, trial.value) for trial in trials if trial.value is not None]


def _history(results: Results) -> Figure:
    """A dot a finished trial, a ring a pruned one at its last figure, a line along the best so far."""
    done, pruned, failed = (_with_figure(results.of(state)) for state in ("done", "pruned", "failed"))
    title = f"{_name(results)} on valid, trial by trial"

    def draw(ax: Axes, palette: Palette) -> None:
        frame(ax, palette)
        scale = Scale(results, [value for _, value in [*done, *pruned]])
        ordered = sorted(done, key=lambda pair: pair[0].number)
        steps = [trial.number for trial, _ in ordered]
        so_far = list(accumulate((value for _, value in ordered), max if results.maximise else min))
        last = max(trial.number for trial in results.trials)
        ax.step([*steps, last], [*so_far, so_far[-1]], where="post", color=palette.ink, linewidth=1.2, zorder=2)
        numbers, values = [trial.number for trial, _ in done], [value for _, value in done]
        scale.points(ax, numbers, values, color=palette.valid, ms=5.5, label="done", zorder=4)
        if pruned:
            numbers, values = [trial.number for trial, _ in pruned], [value for _, value in pruned]
            style: dict[str, Any] = {"mfc": "none", "mec": palette.train, "mew": 1.2, "ms": 5.5, "zorder": 3}
            scale.points(ax, numbers, values, label="pruned", **style)
        lost = [trial.number for trial in results.of("failed")]
        if lost:
            style = {"color": palette.wrong, "ms": 5.5, "mew": 1.4, "zorder": 3}
            ax.plot(lost, [0.03] * len(lost), "x", transform=ax.get_xaxis_transform(), label="failed", **style)
        scale.apply(ax)
        ax.margins(x=0.04)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        ax.set_xlabel("trial", color=palette.muted)
        if pruned or failed or lost:
            place: dict[str, Any] = {
                "loc": "lower right",
                "bbox_to_anchor": (1.01, 1.0),
                "ncols": 3,
                "borderaxespad": 0.2,
            }
            ax.legend(frameon=False, labelcolor=palette.ink, fontsize=8.5, handletextpad=0.2, columnspacing=1, **place)
        _title(ax, palette, title if not (pruned or lost) else f"{_name(results)} on valid")

    alt = f"{title}: {len(done)} done, {len(pruned)} pruned; the line is the best so far"
    return Figure("history", title, alt, 5.4, 3.1, draw, {})


def _importances(results: Results) -> Figure:
    """A bar a knob: its share in the variance of the figure over the space."""
    shares = dict(list(results.importances.items())[:12])
    title = "What mattered: share of the variance"

    def draw(ax: Axes, palette: Palette) -> None:
        frame(ax, palette)
        ax.grid(visible=False)
        places = range(len(shares))
        ax.barh(places, list(shares.values()), color=palette.valid, height=0.62)
        for place, share in zip(places, shares.values(), strict=True):
            ax.text(
                share + max(shares.values()) * 0.02,
                place,
                f"{share * 100:.0f} %",
                va="center",
                color=palette.ink,
                fontsize=9,
            )
        labels = [shorten(name, LABEL) for name in shares]
        ax.set_yticks(places, labels, parse_math=False, color=palette.ink, fontsize=9.5)
        ax.set_ylim(len(shares) - 0.4, -0.6)
        ax.set_xlim(0, max(shares.values()) * 1.15 + 0.02)
        ax.set_xticks([])
        ax.spines["bottom"].set_visible(False)
        _title(ax, palette, title)

    alt = "; ".join(f"{name} {share * 100:.0f} %" for name, share in shares.items())
    return Figure("importances", title, f"Importance of each knob: {alt}", 5.4, 3.1, draw, {}, tight=True)


def _slice(results: Results, dim: Dimension) -> Figure:
    """The figure over one knob: a dot a finished trial, a ring a pruned one, the best one ringed."""
    title = dim.name
    done = [(trial, value) for trial, value in _with_figure(results.of("done")) if dim.name in trial.values]
    pruned = [(trial, value) for trial, value in _with_figure(results.of("pruned")) if dim.name in trial.values]

    def draw(ax: Axes, palette: Palette) -> None:
        frame(ax, palette)
        scale = Scale(results, [value for _, value in [*done, *pruned]])
        kinds: list[tuple[list[tuple[Trial, float]], dict[str, Any]]] = [
            (pruned, {"mfc": "none", "mec": palette.train, "mew": 1.1, "ms": 5, "zorder": 2}),
            (done, {"color": palette.valid, "alpha": 0.85, "ms": 5.5, "zorder": 3}),
        ]
        for pairs, style in kinds:
            places = [_place(dim, trial.values[dim.name], trial.number) for trial, _ in pairs]
            scale.points(ax, places, [value for _, value in pairs], **style)
        best = results.ranked[0]
        at = _place(dim, best.values[dim.name], best.number)
        ax.plot([at], [best.value or 0.0], "o", ms=10, mfc="none", mec=palette.ink, mew=1.3, zorder=5)
        scale.apply(ax)
        _axis(ax, dim, palette)
        _title(ax, palette, shorten(title, 40))

    return Figure(f"slice-{dim.name}", title, f"{_name(results)} on valid over {title}", 5.4, 3.1, draw, {})


def _place(dim: Dimension, value: Any, number: int = 0) -> float:
    """Where a value lies along its axis; values of a list beside each other, spread a little so that points part."""
    if dim.choices:
        return dim.choices.index(value) + ((number * 0.618) % 1 - 0.5) * 0.36
    return float(value)


def _axis(ax: Axes, dim: Dimension, palette: Palette) -> None:
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


def _curves(results: Results) -> Figure:
    """The figure of every trial over its epochs; pruned ones end in a cross, the best one stands out."""
    what = _name(results)
    title = f"{what} on valid while learning"

    def draw(ax: Axes, palette: Palette) -> None:
        frame(ax, palette)
        best, named = results.ranked[0], set()
        style: dict[str, Any]
        for trial in results.trials:
            if not trial.curve:
                continue
            epochs, values = list(trial.curve), list(trial.curve.values())
            if trial is best:
                style = {"color": palette.valid, "linewidth": 2.2, "zorder": 4, "label": f"best, trial {trial.number}"}
            elif trial.state == "done":
                style = {"color": palette.muted, "alpha": 0.55, "linewidth": 1, "zorder": 2, "label": "done"}
            else:
                dashes = (0, (3, 1.5))
                style = {"color": palette.train, "linewidth": 1, "linestyle": dashes, "alpha": 0.85, "zorder": 3}
                style["label"] = trial.state
                ax.plot(epochs[-1:], values[-1:], "x", color=palette.train, ms=5, mew=1.3, zorder=3)
            style["label"] = "" if style["label"] in named else style["label"]
            named.add(style["label"])
            ax.plot(epochs, values, marker="o" if len(epochs) == 1 and trial.state == "done" else "", **style)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}" if what == "Loss" else f"{v * 100:g} %"))
        ax.set_xlabel("epoch", color=palette.muted)
        _title(ax, palette, title)
        place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.01, 1)}
        ax.legend(frameon=False, labelcolor=palette.ink, fontsize=9, **place)

    return Figure("learning-curves", title, f"{title}: every trial, pruned ones marked", 7.2, 3.6, draw, {}, tight=True)


def _parallel(results: Results) -> Figure:
    """A line a trial through its knobs' values and its figure: the best tenth stands out."""
    title = "All knobs at once"
    best = results.ranked[: max(1, len(results.ranked) // 10)]

    def draw(ax: Axes, palette: Palette) -> None:
        frame(ax, palette)
        ax.grid(visible=False)
        values = [trial.value or 0.0 for trial in results.ranked]
        low, high = min(values), max(values)
        for trial in reversed(results.ranked):
            heights = [_height(dim, trial.values[dim.name]) for dim in results.dimensions]
            heights.append(((trial.value or 0.0) - low) / (high - low or 1))
            plain: dict[str, Any] = {"color": palette.muted, "alpha": 0.4, "linewidth": 0.9, "zorder": 2}
            ax.plot(heights, **({"color": palette.valid, "linewidth": 2, "zorder": 3} if trial in best else plain))
        for place, dim in enumerate(results.dimensions):
            ax.axvline(place, color=palette.line, linewidth=1, zorder=1)
            marks = [(_height(dim, v), shorten(short(v), 12)) for v in dim.choices or (dim.low, dim.high)]
            for height, text in marks:
                _mark(ax, palette, place, height, text)
        place = len(results.dimensions)
        ax.axvline(place, color=palette.line, linewidth=1, zorder=1)
        for height, value in ((0, low), (1, high)):
            _mark(ax, palette, place, height, f"{value:.3g}" if results.metric == "loss" else f"{value * 100:.1f} %")
        names = [shorten(dim.name, LABEL) for dim in results.dimensions]
        labels = [*names, _name(results).lower()]
        ax.set_xticks(range(len(labels)), labels, parse_math=False, color=palette.ink, fontsize=9.5)
        ax.set_yticks([])
        ax.set_ylim(-0.06, 1.06)
        ax.set_xlim(-0.1, place + 0.35)
        ax.spines["bottom"].set_visible(False)
        _title(ax, palette, title)

    count = f"the best {len(best)}" if len(best) > 1 else "the best one"
    alt = f"Every finished trial as a line through its settings; {count} in colour"
    return Figure("parallel", title, alt, 7.2, 3.6, draw, {}, tight=True)


def _height(dim: Dimension, value: Any) -> float:
    """A value's place on its axis, from 0 to 1."""
    if dim.choices:
        return dim.choices.index(value) / max(1, len(dim.choices) - 1)
    low, high, at = (math.log(x) if dim.log else x for x in (dim.low, dim.high, value))
    return (at - low) / (high - low)


def _mark(ax: Axes, palette: Palette, place: float, height: float, text: str) -> None:
    ground = {"facecolor": palette.surface, "edgecolor": "none", "pad": 1, "alpha": 0.8}
    style: dict[str, Any] = {"va": "center", "color": palette.muted, "fontsize": 8, "bbox": ground, "zorder": 5}
    ax.text(place + 0.04, height, text, parse_math=False, **style)
