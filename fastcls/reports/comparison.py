"""A comparison's files: results.csv, table.csv, table.md, two figures, compare.html with every run's report."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from fastcls.comparison.comparison import COSTS, FIGURES, Entry, Row, split_of, tabulate
from fastcls.comparison.differences import Difference, McNemar
from fastcls.reports import comparison_table as table
from fastcls.reports import shell
from fastcls.reports.comparison_figures import accuracy_figure, curves_figure
from fastcls.reports.drawing import png, svg
from fastcls.reports.figures import Figure
from fastcls.reports.wording import moment
from fastcls.runfolder import runs
from fastcls.runfolder.text import clean

PAGE = "compare.html"


@dataclass(frozen=True)
class Comparison:
    """Runs, the setting that the others are compared with, and the test of two: what a comparison's files say."""

    title: str
    command: str
    entries: Sequence[Entry]
    baseline: Mapping[str, str]
    test: McNemar | None = None

    @cached_property
    def split(self) -> str:
        return split_of(self.entries)

    @cached_property
    def rows(self) -> list[Row]:
        return tabulate(self.entries, self.baseline)

    @property
    def done(self) -> list[Entry]:
        return [entry for entry in self.entries if not entry.failed]

    @property
    def failed(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.failed]


def write(out: Path, comparison: Comparison) -> Path:
    """Write every file of a comparison into `out` and return the page's path."""
    rows, columns = comparison.rows, table.columns(comparison.rows, comparison.split)
    notes = [*table.cautions(comparison.entries, comparison.split), *table.notes(rows, comparison.test)]
    text = [table.markdown(rows, columns), *notes, f"`{comparison.command}`"]
    runs.atomic_write(out / "table.md", "\n\n".join(text).replace("\u202f", " ") + "\n")
    _write_csv(out, comparison)
    figures = figures_of(comparison)
    for figure in figures:
        runs.atomic_write(out / "figures" / f"{figure.name}.png", png(figure))
    html = shell.render(
        "comparison.html.j2",
        comparison=comparison,
        rows=rows,
        columns=columns,
        name=table.name,
        link=lambda entry: _link(out, entry),
        figures=[(figure, svg(figure)) for figure in figures],
        cautions=table.cautions(comparison.entries, comparison.split),
        notes=table.notes(rows, comparison.test),
        devices=sorted({clean(entry.record.get("device", {}).get("name", "")) for entry in comparison.done}),
        ended=moment(max((str(entry.record.get("started", "")) for entry in comparison.done), default="")),
        clean=clean,
    )
    return runs.atomic_write(out / PAGE, html)


def figures_of(comparison: Comparison) -> list[Figure]:
    """The accuracy of every seed, and the learning curves; without those that there is nothing to draw of."""
    rows = comparison.rows
    return [figure for figure in (accuracy_figure(rows, comparison.split), curves_figure(rows)) if figure]


def _write_csv(out: Path, comparison: Comparison) -> None:
    """results.csv has a row a run, table.csv a row a setting; shares are fractions, empty cells unknown."""
    knobs, split, figures = list(comparison.baseline), comparison.split, [*FIGURES, *COSTS]
    each = [
        [
            *(entry.setting.get(knob, "") for knob in knobs),
            *(entry.seed, "failed" if entry.failed else "done", split),
            *(_known(entry.figure(figure, split)) for figure in FIGURES),
            *(_known(entry.cost(cost)) for cost in COSTS),
            *(os.path.relpath(entry.folder, out), entry.failed),
        ]
        for entry in comparison.entries
    ]
    runs.write_csv(out / "results.csv", [*knobs, "seed", "status", "split", *figures, "folder", "reason"], each)
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


def _link(out: Path, entry: Entry) -> str:
    """The way from the page to a run's report, as a relative address; empty where there is no report."""
    report = entry.folder / "report.html"
    return quote(os.path.relpath(report, out).replace(os.sep, "/")) if report.is_file() else ""


def _known(value: float | None) -> float | str:
    """What a cell holds; parameters and bytes as integers."""
    if value is None or math.isnan(value):
        return ""
    return int(value) if value > 1 and value.is_integer() else value
