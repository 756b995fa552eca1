"""A search's files: search.csv, search.md, search.json, figures, and search.html with every trial's report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fastcls.comparison.study import Results, Trial
from fastcls.reports import shell
from fastcls.reports.figures import save
from fastcls.reports.search_figures import charts, short, wide_figures
from fastcls.reports.wording import SPACE, duration, markdown, moment
from fastcls.runfolder import runs
from fastcls.runfolder.text import clean
from fastcls.settings.space import Dimension

PAGE, PLAN = "search.html", "search.json"
NAMES = {"accuracy": "accuracy", "macro_f1": "macro F1", "loss": "loss", "mAP": "mAP"}
FEW = 10  # finished trials on which importances rest too lightly
EDGE = 0.05  # of a range: as near to its end as this, the best may lie beyond


@dataclass(frozen=True)
class Page:
    """What a search's files say.

    out: where they go, beside trial-0000 and so on. own: the recipe's own settings, as knobs.
    """

    out: Path
    title: str
    command: str
    best_command: str
    own: Mapping[str, Any]
    results: Results

    @property
    def metric(self) -> str:
        return NAMES[self.results.metric]

    @property
    def counts(self) -> str:
        """'24 trials: 15 done, 8 pruned, 1 failed'."""
        states = ("done", "pruned", "failed", "running")
        parts = [f"{len(of)} {state}" for state in states if (of := self.results.of(state))]
        return f"{len(self.results.trials)} trials: {', '.join(parts)}"

    def figure(self, value: float | None) -> str:
        """The metric's value in words."""
        if value is None:
            return "–"
        return f"{value:.4f}" if self.results.metric == "loss" else f"{value * 100:.2f}{SPACE}%"

    @property
    def interval(self) -> tuple[float, float] | None:
        """The best trial's, of 95 %."""
        run = self.results.best.run if self.results.best else {}
        low, high = run.get("low"), run.get("high")
        return None if low is None or high is None else (low, high)

    def cells(self, trial: Trial) -> list[str]:
        """A row of the table: number, figure, the searched knobs, the best epoch, seconds."""
        knobs = [short(trial.values.get(dim.name)) for dim in self.results.dimensions]
        seconds = trial.run.get("wall_seconds")
        time = "–" if seconds is None else duration(seconds)
        return [str(trial.number), self.figure(trial.value), *knobs, str(trial.run.get("best_epoch") or "–"), time]

    @cached_property
    def sentences(self) -> list[str]:
        """What to know before believing the best figure."""
        best, results = self.results.best, self.results
        if best is None:
            return ["No trial has finished yet." if results.of("running") else "No trial finished."]
        found = [self._optimism(best), self._unread(best)]
        found += [self._own(trial) for trial in results.ranked if trial.values.items() <= self.own.items()]
        found += [text for dim in results.dimensions if (text := _edge(dim, best.values[dim.name]))]
        done = results.of("done")
        if results.importances and len(done) < FEW:
            found.append(f"The importances are based on only {len(done)} finished trials: treat them as a hint.")
        if len({trial.run.get("images") for trial in done}) > 1:
            found.append("The trials used different images: part of a difference may come from the data.")
        if len({trial.run.get("device") for trial in done}) > 1:
            found.append("The trials used different devices: their times are not comparable.")
        return found

    def _optimism(self, best: Trial) -> str:
        n, others = best.run.get("n"), len(self.results.ranked) - 1
        text = f"The best of {others + 1} on the same {n:,} validation images" if n else f"The best of {others + 1}"
        text += ": it was chosen by this metric, so its value is optimistic."
        if self.interval and others:
            low, high = self.interval
            within = sum(low <= (trial.value or 0) <= high for trial in self.results.ranked[1:])
            lie = "lies" if within < 2 else "lie"
            text += f" {within or 'None'} of the {others} others {lie} within its 95 % interval"
            text += ": with this many images they are hardly distinguishable from it." if within else "."
        return text

    def _unread(self, best: Trial) -> str:
        if (best.run.get("splits") or {}).get("test"):
            return "No trial used the test split; the best trial's command uses it once."
        return "There is no test split: only images that no trial has seen can show how good the best trial is."

    def _own(self, trial: Trial) -> str:
        if trial is self.results.best:
            return f"No trial beats the recipe's own settings, trial {trial.number}."
        return f"The recipe's own settings, trial {trial.number}: {self.metric} {self.figure(trial.value)}."


def _edge(dim: Dimension, value: Any) -> str:
    """A sentence where the best value is at the end of its range."""
    if dim.choices or (dim.whole and dim.high - dim.low < 1 / EDGE):
        return ""
    low, high, at = (math.log(x) if dim.log else x for x in (dim.low, dim.high, value))
    place = (at - low) / (high - low)
    if EDGE < place < 1 - EDGE:
        return ""
    end = "lower" if place <= EDGE else "upper"
    return f"{dim.name} = {short(value)} is at the {end} end of its range: better values may be beyond it."


def write(page: Page) -> Path:
    """Write every file of a search and return the page's path."""
    out, results = page.out, page.results
    heads = ["trial", f"{page.metric} on valid", *(dim.name for dim in results.dimensions), "best epoch", "time"]
    table = markdown(heads, map(page.cells, results.ranked))
    text = [f"# {clean(page.title)}", page.counts, table, *page.sentences]
    text += [f"`{command}`" for command in (page.best_command, page.command) if command]
    runs.atomic_write(out / "search.md", "\n\n".join(text).replace(SPACE, " ") + "\n")
    _write_csv(page)
    _write_json(page)
    small, wide = charts(results), wide_figures(results)
    save([*small, *wide], out)
    html = shell.render(
        "search.html.j2",
        page=page,
        results=results,
        best=results.best,
        rows=[*results.ranked, *results.of("pruned"), *results.of("running"), *results.of("failed")],
        link=lambda trial: shell.link(out / f"trial-{trial.number:04d}", out),
        small=small,
        wide=wide,
        devices=sorted({clean(trial.run["device"]) for trial in results.trials if trial.run.get("device")}),
        ended=moment(max((str(trial.run.get("started") or "") for trial in results.trials), default="")),
        spent=duration(sum(trial.run.get("wall_seconds") or 0 for trial in results.trials)),
        sort_key=_sort_key,
        short=short,
        spaces={dim.name: str(dim).partition("=")[2] for dim in results.dimensions},
        common=[clean(text) for text in _plan(page).get("common", [])],
    )
    return runs.atomic_write(out / PAGE, html)


def _write_csv(page: Page) -> None:
    """search.csv has a row a trial, in their order; figures in full, empty cells unknown."""
    names = [dim.name for dim in page.results.dimensions]
    kept = ("low", "high", "n", "best_epoch", "train_seconds", "wall_seconds", "parameters")
    rows = [
        [
            *(trial.number, trial.state, "" if trial.value is None else trial.value),
            *(trial.settings.get(name, "") for name in names),
            *(trial.run.get(name, "") for name in kept),
            *(len(trial.curve), _folder(page, trial), trial.reason),
        ]
        for trial in page.results.trials
    ]
    header = ["trial", "state", page.results.metric, *names, *kept, "epochs_judged", "folder", "reason"]
    runs.write_csv(page.out / "search.csv", header, rows)


def _write_json(page: Page) -> None:
    """search.json: what the search is, as it was begun, and what it has found."""
    trials = [
        {
            **{"trial": trial.number, "state": trial.state, "value": trial.value, "values": trial.values},
            **{"curve": trial.curve, "reason": trial.reason, "run": trial.run},
        }
        for trial in page.results.trials
    ]
    best = page.results.best
    found = {
        "best": None if best is None else {"trial": best.number, "value": best.value, "command": page.best_command},
        "importances": dict(page.results.importances),
        "trials": trials,
    }
    runs.write_json(page.out / PLAN, {**_plan(page), **found})


def _plan(page: Page) -> dict[str, Any]:
    """What search.json says since the search began."""
    file = page.out / PLAN
    return runs.read_json(file) if file.is_file() else {"format": runs.FORMAT}


def _folder(page: Page, trial: Trial) -> str:
    """The name of a trial's run folder; empty where another machine has it."""
    name = f"trial-{trial.number:04d}"
    return name if (page.out / name / "run.json").is_file() else ""


def _sort_key(value: Any) -> Any:
    """What a column of the page is sorted by."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else short(value)
