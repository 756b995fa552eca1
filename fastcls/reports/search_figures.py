"""A search's figures: its history, what mattered, each knob on its own, all knobs at once, the learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fastcls.comparison.study import Results, Trial
from fastcls.reports.figures import Figure, Palette, frame, shorten
from fastcls.reports.search_axes import LABEL, Scale, axis_of, height_of, mark, name_of, place_of, short, title_of
from fastcls.settings.space import Dimension

MOST = 8  # knobs that have a figure of their own, those that matter most first


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


def _with_figure(trials: Sequence[Trial]) -> list[tuple[Trial, float]]:
    return [(trial, trial.value) for trial in trials if trial.value is not None]


def _history(results: Results) -> Figure:
    """A dot a finished trial, a ring a pruned one at its last figure, a line along the best so far."""
    done, pruned, failed = (_with_figure(results.of(state)) for state in ("done", "pruned", "failed"))
    title = f"{name_of(results)} on valid, trial by trial"

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
        title_of(ax, palette, title if not (pruned or lost) else f"{name_of(results)} on valid")

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
        title_of(ax, palette, title)

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
            places = [place_of(dim, trial.values[dim.name], trial.number) for trial, _ in pairs]
            scale.points(ax, places, [value for _, value in pairs], **style)
        best = results.ranked[0]
        at = place_of(dim, best.values[dim.name], best.number)
        ax.plot([at], [best.value or 0.0], "o", ms=10, mfc="none", mec=palette.ink, mew=1.3, zorder=5)
        scale.apply(ax)
        axis_of(ax, dim, palette)
        title_of(ax, palette, shorten(title, 40))

    return Figure(f"slice-{dim.name}", title, f"{name_of(results)} on valid over {title}", 5.4, 3.1, draw, {})


def _curves(results: Results) -> Figure:
    """The figure of every trial over its epochs; pruned ones end in a cross, the best one stands out."""
    what = name_of(results)
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
        title_of(ax, palette, title)
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
            heights = [height_of(dim, trial.values[dim.name]) for dim in results.dimensions]
            heights.append(((trial.value or 0.0) - low) / (high - low or 1))
            plain: dict[str, Any] = {"color": palette.muted, "alpha": 0.4, "linewidth": 0.9, "zorder": 2}
            ax.plot(heights, **({"color": palette.valid, "linewidth": 2, "zorder": 3} if trial in best else plain))
        for place, dim in enumerate(results.dimensions):
            ax.axvline(place, color=palette.line, linewidth=1, zorder=1)
            marks = [(height_of(dim, v), shorten(short(v), 12)) for v in dim.choices or (dim.low, dim.high)]
            for height, text in marks:
                mark(ax, palette, place, height, text)
        place = len(results.dimensions)
        ax.axvline(place, color=palette.line, linewidth=1, zorder=1)
        for height, value in ((0, low), (1, high)):
            mark(ax, palette, place, height, f"{value:.3g}" if results.metric == "loss" else f"{value * 100:.1f} %")
        names = [shorten(dim.name, LABEL) for dim in results.dimensions]
        labels = [*names, name_of(results).lower()]
        ax.set_xticks(range(len(labels)), labels, parse_math=False, color=palette.ink, fontsize=9.5)
        ax.set_yticks([])
        ax.set_ylim(-0.06, 1.06)
        ax.set_xlim(-0.1, place + 0.35)
        ax.spines["bottom"].set_visible(False)
        title_of(ax, palette, title)

    count = f"the best {len(best)}" if len(best) > 1 else "the best one"
    alt = f"Every finished trial as a line through its settings; {count} in colour"
    return Figure("parallel", title, alt, 7.2, 3.6, draw, {}, tight=True)
