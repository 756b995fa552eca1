"""A comparison's files: results.csv, table.csv, table.md, two figures, compare.html with every run's report.

Its table and what there is to say about it are text, for the terminal, Markdown and the page alike.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fastcls.comparison.comparison import COSTS, FIGURES, MORE, Comparison, Row
from fastcls.comparison.differences import Difference, McNemar, images_interval, needed
from fastcls.datasets.walk import count
from fastcls.reports import shell
from fastcls.reports.figures import NARROW, Figure, Palette, frame, is_narrow, over_epochs, save
from fastcls.reports.wording import SPACE, duration, grouped, headline, markdown, moment
from fastcls.runfolder import register, runs
from fastcls.runfolder.target import MULTI, SINGLE, Target
from fastcls.runfolder.text import clean, shorten

PAGE = "compare.html"
MOST_ROWS = 40  # settings in a figure, the best first
LABEL = 46  # characters of a setting's name
# Okabe and Ito's colours that stand out on white and on black alike, each with a dash of its own
STROKES = (("#0b78c2", "-"), ("#d55e00", (0, (5, 1.5))), ("#009e73", (0, (2, 1))), ("#b8629b", (0, (6, 1.5, 1.5, 1.5))))

Cell = tuple[str, float | str]


def _millions(value: float) -> str:
    return f"{value / 1e6:.2f}{SPACE}M" if value >= 1e5 else grouped(value)


WORDED: dict[str, tuple[str, Callable[[float], str]]] = {  # heading of a cost -> its name and how it is written
    "training": ("train_seconds", duration),
    "img/s": ("images_per_second", grouped),
    "parameters": ("parameters", _millions),
    "trained": ("trained_parameters", _millions),
    "peak memory": ("peak_memory_bytes", lambda value: f"{value / 1e9:.2f}{SPACE}GB"),
}


CURVES = {"accuracy": "Accuracy", "mAP": "mAP", "valid_loss": "Loss"}


def make_folder(out: Path) -> None:
    """OutputError for a folder that holds something, unless it is a comparison's page, as it was written."""
    if out.is_dir() and any(out.iterdir()):
        if not (out / PAGE).is_file():
            runs.check_writable(out)
        register.refuse_others(out / PAGE, "--out")


def write(out: Path, comparison: Comparison) -> Path:
    """Write every file of a comparison into `out` and return the page's path."""
    heads, rows = table(comparison)
    warned, noted = cautions(comparison), notes(comparison)
    text = [markdown(heads, texts(rows)), *warned, *noted, f"`{comparison.command}`"]
    runs.atomic_write(out / "table.md", "\n\n".join(text).replace(SPACE, " ") + "\n")
    _write_csv(out, comparison)
    figures = figures_of(comparison)
    save(figures, out)
    html = shell.render(
        "comparison.html.j2",
        comparison=comparison,
        heads=heads,
        rows=list(zip(comparison.rows, rows, strict=True)),
        link=lambda folder: shell.link(folder, out),
        figures=figures,
        cautions=warned,
        notes=noted,
        devices=sorted({clean(entry.record.get("device", {}).get("name", "")) for entry in comparison.done}),
        ended=moment(max((str(entry.record.get("started", "")) for entry in comparison.done), default="")),
    )
    return register.wrote(runs.atomic_write(out / PAGE, html))


def _write_csv(out: Path, comparison: Comparison) -> None:
    """results.csv has a row a run, table.csv a row a setting; shares are fractions, empty cells unknown."""
    knobs, split = list(comparison.baseline), comparison.split
    measured = [*FIGURES, *(MORE if comparison.target.several else ())]
    figures = [*measured, *COSTS]
    each = [
        [
            *(entry.setting.get(knob, "") for knob in knobs),
            *(entry.seed, entry.fold, "failed" if entry.failed else "done", split),
            *(_known(entry.figure(figure, split)) for figure in measured),
            *(_known(entry.cost(cost)) for cost in COSTS),
            *(os.path.relpath(entry.folder, out), entry.failed),
        ]
        for entry in comparison.entries
    ]
    runs.write_csv(out / "results.csv", [*knobs, "seed", "fold", "status", "split", *figures, "folder", "reason"], each)
    rows = [
        [
            *(row.setting.get(knob, "") for knob in knobs),
            *(len(row.entries), row.failed, split, _known(row.deviation)),
            *_difference(row.difference),
            *(_known(row.means[figure]) for figure in figures),
        ]
        for row in comparison.rows
    ]
    measures = ["runs", "failed", "split", "accuracy_sd", "difference", "low", "high", "interval_over"]
    runs.write_csv(out / "table.csv", [*knobs, *measures, *figures], rows)


def _difference(found: Difference | None) -> list[float | str]:
    return ["", "", "", ""] if found is None else [*map(_known, (found.value, found.low, found.high)), found.over]


def _known(value: float | None) -> float | str:
    """What a cell holds; parameters and bytes as integers."""
    if value is None or math.isnan(value):
        return ""
    return int(value) if value > 1 and value.is_integer() else value


def table(comparison: Comparison) -> tuple[list[str], list[list[Cell]]]:
    """The headings and a row a setting: the text of each cell, and what a page sorts it by."""
    costs = dict(WORDED)
    if all(row.means["trained_parameters"] == row.means["parameters"] for row in comparison.rows if row.entries):
        del costs["trained"]
    rows = []
    for row in comparison.rows:
        runs_of = str(len(row.entries)) + (f" ({row.failed} failed)" if row.failed else "")
        gap = row.difference.value if row.difference else None
        cells: list[Cell] = [
            (name(row), name(row)),
            (spread(row.means["accuracy"], row.deviation), _known(row.means["accuracy"])),
            (runs_of, len(row.entries)),
            ("" if row.baseline else row.difference.text() if row.difference else "–", _known(gap)),
        ]
        if comparison.target.several:
            cells.insert(1, (spread(row.means["mAP"], math.nan), _known(row.means["mAP"])))
        for cost, word in costs.values():
            value = row.means[cost]
            cells.append(("–" if math.isnan(value) else word(value), _known(value)))
        rows.append(cells)
    first, several = comparison.target.right, comparison.target.several
    ranked = [f"mAP on {comparison.split}, %"] if several else []
    return ["setting", *ranked, f"{first} on {comparison.split}, %", "runs", "difference", *costs], rows


def texts(rows: Sequence[Sequence[Cell]]) -> list[list[str]]:
    """The cells of a table as text alone."""
    return [[text for text, _ in row] for row in rows]


def sentences(comparison: Comparison) -> list[str]:
    """What to know before believing the table, and how to read it."""
    return [*cautions(comparison), *notes(comparison)]


def name(row: Row) -> str:
    """A setting in words: the baseline's knobs, or those that differ from them."""
    words = " ".join(f"{key}={value}" for key, value in (row.setting if row.baseline else row.changed).items())
    return f"{words} (baseline)".strip() if row.baseline else words


def spread(value: float, deviation: float) -> str:
    """'87.21 ± 0.31', in percent; without a deviation where there is a single run."""
    if math.isnan(value):
        return "–"
    return f"{value * 100:.2f}" + ("" if math.isnan(deviation) else f" ± {deviation * 100:.2f}")


def notes(comparison: Comparison) -> list[str]:
    """How to read the table, a sentence each."""
    rows, test, found = comparison.rows, comparison.test, []
    if comparison.target.several:
        found.append("Differences and tests are on the share of images with all labels right.")
    held = [row for row in rows if row.difference is not None]
    over = {row.difference.over for row in held if row.difference}
    found += conclusions(held)
    folds = any(row.interval for row in rows)
    if any(len(row.entries) > 1 for row in rows):
        seeds = any(len({entry.seed for entry in row.entries}) > 1 for row in rows)
        found.append(f"± is the standard deviation over the {'folds' if folds else 'seeds' if seeds else 'runs'}.")
    if folds:
        found += [over_folds(row, comparison.target) for row in rows if row.interval]
    if "folds" in over:
        found.append(
            "Differences are to the baseline, in percentage points, with a 95 % interval over the folds. It is "
            "corrected for the training images that the folds share (Nadeau and Bengio 2003) and errs on the wide side."
        )
    for what in ("seeds and images", "seeds"):
        if what in over:
            found.append(
                f"Differences are to the baseline, in percentage points, with a 95 % interval over the {what}."
            )
    for what, units in (("images", "images"), ("groups", "groups of images")):
        if what in over:
            found.append(
                "Where a setting has a single run, the 95 % interval of its difference, in percentage points, is over "
                f"the {units} alone: it compares these two networks and says nothing about other seeds."
            )
    if test:
        found.append(verdict(test))
    if len(held) > 4:
        found.append(
            f"If none of the {len(held)} settings had any effect, one interval in twenty would still exclude zero."
        )
    return found


def over_folds(row: Row, target: Target) -> str:
    """The mean accuracy of a setting over its folds, with its interval."""
    assert row.interval
    low, high = row.interval
    folds, repeats = (len({getattr(entry, what) for entry in row.entries}) for what in ("fold", "seed"))
    over = f"{folds} folds" + (f", drawn {repeats} times" if repeats > 1 else "")
    return (
        f"{name(row) if row.setting else headline(target.mean)}: {row.means['accuracy'] * 100:.2f} % over {over} "
        f"(95 %: {low * 100:.2f} to {high * 100:.2f})."
    )


def conclusions(rows: Sequence[Row]) -> list[str]:
    """Which settings were shown to differ from the baseline, and which were not."""
    parts: dict[str, list[str]] = {"Better than": [], "Worse than": [], "Not shown to differ from": []}
    for row in rows:
        if row.difference and row.difference.low is not None:
            shown = "Better than" if row.difference.value > 0 else "Worse than"
            parts[shown if row.difference.shown else "Not shown to differ from"].append(name(row))
    return [f"{what} the baseline: {'; '.join(names)}." for what, names in parts.items() if names]


def verdict(test: McNemar) -> str:
    """Whether the second of two runs is better, by how much, and how many more images would settle it."""
    chance = "p < 0.0001" if test.p < 1e-4 else f"p = {test.p:.4f}" if test.p < 0.1 else f"p = {test.p:.2f}"
    value, low, high = images_interval(test)
    size = f"{abs(value) * 100:.2f} points {'more' if value >= 0 else 'less'} accuracy"
    over = f" over {test.groups:,} groups" if test.groups else ""
    size += f" (95 % interval{over} {low * 100:+.2f} to {high * 100:+.2f})"
    kind = f"McNemar's test, over {test.groups:,} groups" if test.groups else "exact McNemar test"
    counts = (
        f"On the same {test.images:,} images the first run alone is right on {test.only_first:,}, the second alone on "
        f"{test.only_second:,} ({kind}, {chance})."
    )
    if test.p < 0.05:
        return f"The second run is {'better' if value > 0 else 'worse'} than the first: {size}. {counts}"
    images = needed(test)
    if images is None:
        more = "with these results, more images would not settle it"
    else:
        extra = max(1, images - test.images)
        more = f"if the difference persists, about {extra:,} more images would settle it (with 80 % power)"
    return f"The second run is not shown to be better or worse than the first: {size}; {more}. {counts}"


def cautions(comparison: Comparison) -> list[str]:
    """What makes these runs less comparable than their table looks."""
    records = [entry.record for entry in comparison.done]
    found = []
    drawn = [(record.get("seed"), (record.get("options") or {}).get("fold")) for record in records]
    seen = {(*which, record.get("data", {}).get("fingerprint")) for which, record in zip(drawn, records, strict=True)}
    if len(seen) > len(set(drawn)):  # another seed may draw another split
        found.append("The runs used different images: part of a difference may come from the data.")
    if len({str(sorted(record.get("device", {}).items())) for record in records}) > 1:
        found.append("The runs used different devices or thread counts: their times are not comparable.")
    without = {SINGLE.without, MULTI.without}
    leaking = sum(not without.isdisjoint(entry.metrics.get(comparison.split, {})) for entry in comparison.done)
    if leaking:
        which = f"{leaking} of {count(len(records), 'run')} {'was' if leaking == 1 else 'were'}"
        found.append(
            f"{which} evaluated on images with copies, or others of their group, in train, so the accuracy is too "
            "high. The reports have the accuracy without these images."
        )
    chose = any(record.get("options", {}).get("keep") != "last" and record.get("best_epoch") for record in records)
    if any(entry.fold for entry in comparison.entries):
        if chose:
            found.append(
                "Each run's best epoch was chosen on the fold that it is evaluated on, which makes the figures "
                "slightly optimistic (--keep last avoids this)."
            )
    elif records and comparison.split == "valid":
        text = "There is no test split: these figures are from the validation split"
        if chose:
            text += ", on which each run's best epoch was also chosen (--keep last avoids this)"
        found.append(f"{text}.")
    return found


def figures_of(comparison: Comparison) -> list[Figure]:
    """The accuracy of every seed, and the learning curves; without those that there is nothing to draw of."""
    rows = comparison.rows
    return [figure for figure in (_accuracy(rows, comparison.split), _curves(rows)) if figure]


def _accuracy(rows: Sequence[Row], split: str) -> Figure | None:
    """A line a setting: a ring a seed, a bar at their mean, a dotted line at the baseline's mean."""
    shown = [row for row in rows if not math.isnan(row.means["accuracy"])][:MOST_ROWS]
    if not shown:
        return None
    ring = "fold" if any(row.interval for row in rows) else "seed"
    title = f"Accuracy on {split}: one ring per {ring}, a bar at the mean"
    base = next((row.means["accuracy"] for row in rows if row.baseline), math.nan)

    def draw(ax: Axes, palette: Palette) -> None:
        frame(ax, palette, title)
        ax.grid(visible=False, axis="y")
        ax.grid(axis="x", color=palette.line, linewidth=0.7)
        ax.axvline(base, color=palette.muted, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
        for place, row in enumerate(shown):
            colour = palette.ink if row.baseline else palette.valid
            seeds = [entry.figure("accuracy", split) for entry in row.entries]
            ax.plot(seeds, [place] * len(seeds), "o", ms=6, mfc="none", mec=colour, mew=1.2, zorder=3)
            ax.plot([row.means["accuracy"]] * 2, [place - 0.3, place + 0.3], color=colour, linewidth=3, zorder=2)
        labels = ["baseline" if row.baseline and row.changed == {} else shorten(name(row), LABEL) for row in shown]
        ax.set_yticks(range(len(shown)), labels, fontsize=9.5, color=palette.ink)
        ax.set_ylim(len(shown) - 0.4, -0.6)
        ax.margins(x=0.06)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=3 if is_narrow(ax) else 7))
        if is_narrow(ax):  # the names take their share of the width
            left = 0.09 * max(map(len, labels)) / NARROW
            ax.set_position((left, ax.get_position().y0, 0.97 - left, ax.get_position().height))
            ax.set_title(ax.get_title(loc="left"), loc="left", x=-left / (0.97 - left), fontsize=11, fontweight="bold")
        ax.xaxis.set_major_formatter(PercentFormatter(1))

    return Figure("accuracy", title, title, 7.2, 1.1 + 0.32 * len(shown), draw, tight=True)


def _curves(rows: Sequence[Row]) -> Figure | None:
    """The validation metric over the epochs, a line a setting (its seeds' mean); most of many are gray."""
    done = [row for row in rows if row.entries]
    known = [name for name in ("accuracy", "mAP") if all(name in e.history for row in done for e in row.entries)]
    column = known[0] if done and known else "valid_loss"
    curves = [(row, _curve(row, column)) for row in done]
    curves = [(row, curve) for row, curve in curves if len(curve) > 1]
    if not curves:
        return None
    strokes = dict(zip([id(row) for row, _ in curves if not row.baseline], STROKES, strict=False))
    rest = sum(not row.baseline for row, _ in curves) - len(strokes)
    title = f"{CURVES[column]} on valid during training"

    def draw(ax: Axes, palette: Palette) -> None:
        over_epochs(ax, palette, title, share=column != "valid_loss")
        for row, curve in curves:
            style: dict[str, Any] = {"color": palette.muted, "alpha": 0.45, "linewidth": 0.9, "zorder": 2}
            if row.baseline or id(row) in strokes:
                colour, dash = strokes.get(id(row), (palette.ink, "-"))
                style = {"color": colour, "linestyle": dash, "linewidth": 1.9, "zorder": 3}
                style["label"] = "baseline" if row.baseline else shorten(name(row), LABEL)
            ax.plot(curve.index, curve, **style)
        style = {"frameon": False, "labelcolor": palette.ink, "fontsize": 9, "alignment": "left"}
        place = (0, -0.18) if is_narrow(ax) else (1.01, 1)
        legend = ax.legend(loc="upper left", bbox_to_anchor=place, **style)
        if rest:
            legend.set_title(f"{rest} more in grey")
            legend.get_title().set(color=palette.muted, fontsize=9)

    alt = f"{title}: the best settings and the baseline"
    return Figure("learning-curves", title, alt, 7.2, 3.6, draw, tight=True)


def _curve(row: Row, column: str) -> pd.Series:
    """The mean over the seeds, epoch by epoch."""
    histories = [e.history for e in row.entries if column in e.history and len(e.history)]
    if not histories:
        return pd.Series(dtype=float)
    return pd.concat(histories).groupby("epoch")[column].mean()
