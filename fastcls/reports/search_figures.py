"""A search's figures: its history, what mattered, each knob on its own, all at once, and the learning curves.

Optuna draws all but the last, which it does not mark the pruned trials in; here they get the page's colours and names.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as Canvas
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullFormatter, PercentFormatter, StrMethodFormatter

from fastcls.comparison.study import Results
from fastcls.reports.figures import Figure, Palette, frame, over_epochs
from fastcls.runfolder.text import shorten
from fastcls.settings.knobs import as_text
from fastcls.settings.space import Dimension

MOST = 8  # knobs that have a figure of their own, those that matter most first
LABEL = 18  # characters of a value or of a knob's name
REACH = 4.0  # how many times further from the best than the median trial a point may lie before it is not drawn
NAMES = {"accuracy": "Accuracy", "macro_f1": "Macro F1", "loss": "Loss", "mAP": "mAP"}
GRADED = LinearSegmentedColormap.from_list("graded", ["#b4bbc1", "#0b78c2"])  # stands out on white and on black


@dataclass(frozen=True)
class Drawn(Figure):
    """A figure that Optuna plots, on a canvas of its own; `draw` gives it the page's looks.

    plot: the name of Optuna's function; arguments: what it is given.
    """

    plot: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def paint(self, palette: Palette) -> Canvas:
        from matplotlib import pyplot
        from optuna.visualization import matplotlib as plots

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna calls its plots experimental, matplotlib an axis of one value odd
            ax = getattr(plots, self.plot)(**self.arguments)
        canvas = ax.figure
        pyplot.close(canvas)
        canvas.set_size_inches(self.width, self.height)
        for text in canvas.findobj(Text):
            text.set_color(palette.ink)
        for each in canvas.axes:
            each.set_title("")
            each.set_ylabel(each.get_ylabel(), fontsize=9)
            each.tick_params(which="both", length=0, colors=palette.muted, labelsize=9)
            each.spines[:].set_color(palette.line)
            if legend := each.get_legend():
                legend.remove()
            for axis in (each.xaxis, each.yaxis):
                if axis.get_scale() == "log":
                    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
                    axis.set_major_locator(LogLocator(subs=(1, 3)))
                    axis.set_minor_formatter(NullFormatter())  # else formulas
        self.draw(ax, palette)
        return canvas


def _drawn(
    plot: str, name: str, title: str, alt: str, draw: Callable[[Axes, Palette], None], **arguments: Any
) -> Drawn:
    wide = plot == "plot_parallel_coordinate"
    size = (7.2, 3.6) if wide else (5.4, 3.1)
    return Drawn(name, title, alt, *size, draw, tight=True, scrolls=wide, plot=plot, arguments=arguments)


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


def _history(results: Results) -> Figure:
    title = f"{NAMES[results.metric]} on valid by trial"

    def draw(ax: Axes, palette: Palette) -> None:
        frame(ax, palette, title, "trial")
        ax.collections[0].set_color(palette.valid)
        ax.lines[0].set(color=palette.ink, alpha=1, linewidth=1.2, drawstyle="steps-post")
        ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        _scale(ax, results)

    alt = f"{title}: {len(results.ranked)} done; the line is the best so far"
    return _drawn("plot_optimization_history", "history", title, alt, draw, study=results.study, target_name="")


def _importances(results: Results) -> Figure:
    title = "Importance: share of the variance"

    def draw(ax: Axes, palette: Palette) -> None:
        frame(ax, palette, title)
        ax.grid(visible=False)
        ax.set_ylabel("")
        for bar, share in zip(ax.patches, ax.texts, strict=True):
            bar.set_color(palette.valid)
            share.set_text(f" {share.get_text()}")
        ax.set_yticks(ax.get_yticks(), [shorten(label.get_text(), LABEL) for label in ax.get_yticklabels()])

    shares = "; ".join(f"{name} {share * 100:.0f} %" for name, share in results.importances.items())
    given = {"study": results.study, "evaluator": results.evaluator}
    return _drawn("plot_param_importances", "importances", title, f"Importance of each knob: {shares}", draw, **given)


def _slice(results: Results, dim: Dimension) -> Figure:
    def draw(ax: Axes, palette: Palette) -> None:
        frame(ax, palette, shorten(dim.name, 40))
        for points in ax.collections:
            points.set(cmap=GRADED, edgecolor=palette.muted)
        if dim.choices:
            there = [choice for choice in dim.choices if any(t.values[dim.name] == choice for t in results.ranked)]
            labels = [shorten(short(choice), LABEL) for choice in there]
            ax.set_xticks(range(len(there)), labels, rotation=18 if sum(map(len, labels)) > 48 else 0)
            ax.set_xlim(-0.5, len(there) - 0.5)
        _scale(ax, results)

    alt = f"{NAMES[results.metric]} on valid over {dim.name}"
    given = {"study": results.study, "params": [dim.name], "target_name": ""}
    return _drawn("plot_slice", f"slice-{dim.name}", dim.name, alt, draw, **given)


def _parallel(results: Results) -> Figure:
    title = "All knobs at once"

    def draw(ax: Axes, palette: Palette) -> None:
        ax.set_title(title, loc="left", color=palette.ink, fontsize=11, fontweight="bold")
        ax.collections[0].set_cmap(GRADED if results.maximise else GRADED.reversed())
        for axis in [ax.xaxis, *(each.yaxis for each in ax.figure.axes[1:])]:
            if isinstance(axis.get_major_locator(), FixedLocator):
                axis.set_ticks(axis.get_ticklocs(), [shorten(x.get_text(), LABEL) for x in axis.get_ticklabels()])
            for label in axis.get_ticklabels():  # the lines run through them
                label.set_bbox({"facecolor": palette.surface, "edgecolor": "none", "pad": 1, "alpha": 0.8})

    alt = "Every finished trial as a line through its settings, the darker the better"
    given = {"study": results.study, "target_name": NAMES[results.metric]}
    return _drawn("plot_parallel_coordinate", "parallel", title, alt, draw, **given)


def _curves(results: Results) -> Figure:
    """The metric of every trial over its epochs; pruned ones end in a cross, the best one stands out."""
    title = f"{NAMES[results.metric]} on valid during training"

    def draw(ax: Axes, palette: Palette) -> None:
        over_epochs(ax, palette, title, share=results.metric != "loss")
        best = results.ranked[0]
        for trial in results.trials:
            style: dict[str, Any] = {"color": palette.train, "linestyle": (0, (3, 1.5)), "marker": "x"}
            if trial.state == "done":
                style = {"color": palette.muted, "alpha": 0.55, "marker": "."}
            if trial is best:
                style = {"color": palette.valid, "linewidth": 2.2, "zorder": 4, "marker": "."}
            values = list(trial.curve.values())
            ax.plot(list(trial.curve), values, **{"linewidth": 1, "markevery": [-1], **style})

    alt = f"{title}: every trial, pruned ones marked, trial {results.ranked[0].number} the best"
    return Figure("learning-curves", title, alt, 7.2, 3.6, draw, {}, tight=True)


def _scale(ax: Axes, results: Results) -> None:
    """The axis of the metric reaches from the best as far as most trials do; what is further would squash them."""
    values = [trial.value or 0.0 for trial in results.ranked]
    reach = REACH * median(abs(value - values[0]) for value in values)
    inside = [value for value in values if not reach or abs(value - values[0]) <= reach]
    room = 0.08 * (max(inside) - min(inside) or abs(values[0]) or 1)
    ax.set_ylim(min(inside) - room, max(inside) + room)
    if results.metric != "loss":
        ax.yaxis.set_major_formatter(PercentFormatter(1))
