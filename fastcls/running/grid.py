"""One recipe over many settings and seeds: the runs of a comparison, planned, then made; those done are kept.

Every run is an ordinary run folder, OUT/<what differs from the baseline>/seed-<n>/, so that a second call finds it.
With folds it holds fold-<k>/ each, and OUT/<what differs> is the run of every image's out-of-fold prediction.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastcls.comparison import comparison
from fastcls.comparison.comparison import HOME, Comparison, Entry, read
from fastcls.errors import DataError, UsageError
from fastcls.machine.screen import Screen, escape
from fastcls.machine.stop import listening
from fastcls.runfolder import runs
from fastcls.running import series
from fastcls.running.series import fixed, is_done, slug
from fastcls.settings import shell, varied
from fastcls.settings.knobs import as_text, knob_of, refuse_naming, value_of
from fastcls.settings.request import Request

PLAN = "compare.json"
MOST_RUNS = 1000  # folds, and seeds, of a setting
BASELINE = "baseline"  # the folder of the setting that changes nothing


@dataclass(frozen=True)
class Cell:
    """One run of a comparison: the value of everything varied as text, and what is run."""

    settings: dict[str, str]
    request: Request
    seed: int
    folder: Path
    fold: str = ""  # 'K/N'

    @property
    def name(self) -> str:
        """What is run, in words."""
        varied = [f"{name}={value}" for name, value in self.settings.items()]
        return ", ".join([*varied, f"seed {self.seed}", *([f"fold {self.fold}"] if self.fold else [])])

    def entry(self, failed: str = "") -> Entry:
        """The run once it was made; failed: why it has no figures."""
        if failed:
            return Entry(self.folder, self.settings, self.seed, failed=failed, fold=self.fold)
        return read(self.folder, self.settings, self.seed, self.fold)


@dataclass(frozen=True)
class Plan:
    """A recipe, what all its runs have in common, and the runs; the first is the baseline's."""

    request: Request
    out: Path
    cells: list[Cell]
    folds: int = 0

    @property
    def baseline(self) -> dict[str, str]:
        return self.cells[0].settings

    @property
    def alike(self) -> bool:
        """Whether the runs differ by seed and fold alone."""
        return all(cell.settings == self.baseline for cell in self.cells)

    @property
    def title(self) -> str:
        what = f"{self.folds} folds" if self.folds else "seeds"
        return f"{self.request.source.name}: {', '.join(self.baseline) or what}"


def plan(
    request: Request,
    vary: Mapping[str, Sequence[Any]],
    settings: Sequence[Mapping[str, Any]],
    seeds: int,
    one_at_a_time: bool,
    out: Path | None,
    folds: int | None = None,
    repeats: int = 1,
) -> Plan:
    """The runs of `vary` (name -> values) over its grid, or `one_at_a_time` from the request's settings.

    settings: further ones, each several knobs at once. The request's own settings are the baseline, and are among the
    runs; each setting has `seeds` seeds, or `repeats` with folds, so many runs each. Every wrong name or
    value is reported in a single KnobError.
    """
    if folds is not None and (not 2 <= folds <= MOST_RUNS or request.options.fold):
        raise UsageError(f"--folds {folds}: expected an integer from 2 to {MOST_RUNS:,}, and no --fold.")
    if folds and seeds != 1:
        raise UsageError(f"--seeds {seeds}: with --folds, every repeat has its own seed.", f"--repeats {seeds}")
    if not folds and repeats != 1:
        raise UsageError(
            f"--repeats {repeats}: it repeats folds, and there are none.", f"Add --folds 5, or use --seeds {repeats}."
        )
    seeds = repeats if folds else seeds
    if not 1 <= seeds <= MOST_RUNS:
        flag = "--repeats" if folds else "--seeds"
        raise UsageError(f"{flag} {seeds}: expected an integer from 1 to {MOST_RUNS:,}.")
    knobs = varied.settings(request)
    problems: list[str] = [f"--vary {name}: no value given" for name, several in vary.items() if not len(several)]

    def value(option: str, name: str, given: Any) -> Any:
        where = f"--{option} {name}={as_text(given)}"
        knob = knob_of(where, name, "=", knobs, problems)
        return None if knob is None else value_of(where, knob, given, problems)

    values = {name: list(dict.fromkeys(value("vary", name, one) for one in several)) for name, several in vary.items()}
    whole = [{name: value("setting", name, one) for name, one in setting.items()} for setting in settings]
    refuse_naming(problems, knobs.values())
    base = {name: knob.default for name, knob in knobs.items()}
    names = list(dict.fromkeys([*values, *itertools.chain.from_iterable(whole)]))
    changes: list[dict[str, Any]] = [{}]
    if one_at_a_time:
        changes += [{name: value} for name, several in values.items() for value in several]
    else:
        changes += [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]
    changes += whole
    if values and not one_at_a_time and not any(change.items() <= base.items() for change in changes[1:]):
        del changes[0]  # a grid that leaves the defaults out: its first point is what the others are compared with
    cells: dict[Path, Cell] = {}
    out = out or HOME / slug([request.source.name, *([f"folds={folds}"] if folds else []), *fixed(request)])
    parts = [f"{k}/{folds}" for k in range(1, (folds or 0) + 1)] or [request.options.fold]
    every = range(request.options.seed, request.options.seed + seeds)
    for seed, change, fold in itertools.product(every, changes, parts):
        differing = {name: value for name, value in change.items() if value != base[name]}
        folder = out / (slug([f"{k}={as_text(v)}" for k, v in differing.items()]) or BASELINE) / f"seed-{seed}"
        folder = folder / f"fold-{fold.partition('/')[0]}" if folds else folder
        shown = {name: as_text((base | change)[name]) for name in names}
        one = varied.applied(request, differing)
        one = replace(one, options=replace(one.options, seed=seed, fold=fold), out=folder)
        cells.setdefault(folder, Cell(shown, one, seed, folder, fold if folds else ""))
    return Plan(request, out, list(cells.values()), folds or 0)


def run_all(
    plan: Plan, screen: Screen, after_each: Callable[[list[Entry]], object], quiet: bool = False
) -> list[Entry]:
    """Make the runs that are not done; gives every run, those that failed with the reason.

    One that fails does not stop the others. `after_each` new one it receives all that there are, so that tables can
    be kept up to date. A number format of 'auto' is decided by the first run for all: a comparison in two formats
    would be none. quiet: the runs themselves say nothing.
    """
    contents = {"format": runs.FORMAT, **series.common(plan.request), "folds": plan.folds or None}
    series.refuse_others(
        plan.out, PLAN, contents, "comparison", {**series.COMMON, "folds": "a different number of folds"}
    )
    with listening(), runs.locked(plan.out):
        runs.write_json(plan.out / PLAN, {**contents, "varied": list(plan.baseline), "baseline": plan.baseline})
        kept: dict[str, Any] = {}
        series_of = None
        entries = [cell.entry() for cell in plan.cells if is_done(cell.folder)]
        for number, cell in enumerate(plan.cells, 1):
            screen.print(f"\n[b]run {number} of {len(plan.cells)}[/b]  {escape(cell.name)}", soft_wrap=True)
            if is_done(cell.folder):
                screen.print(f"done     {escape(cell.folder)}", soft_wrap=True)
                continue
            request = cell.request
            if request.options.precision == "auto" and "precision" not in plan.baseline:
                decided: Any = next(
                    (series.precision(cell.folder) for cell in plan.cells if is_done(cell.folder)), "auto"
                )
                request = replace(request, options=replace(request.options, precision=decided))
            if plan.folds and series_of != cell.folder.parent:
                series_of, kept = cell.folder.parent, {}  # other images, networks or sizes have other features
            with _sharing(kept) if plan.folds else contextlib.nullcontext():
                problem = series.make(request, quiet=quiet, said=screen.said)
            if isinstance(problem, DataError | UsageError) and plan.alike and not entries:
                _withdraw(plan)
                raise problem  # which every run would end with
            if problem:
                series.show_failure(problem, screen)
                entries.append(cell.entry(failed=series.reason(problem)))
            else:
                entries.append(cell.entry())
            after_each(entries)
    return entries


def make(plan: Plan, command: str, screen: Screen, quiet: bool = False) -> tuple[Comparison, Path, dict[Path, Path]]:
    """Make the runs that are not done, with tables and a page after each of them.

    Gives the comparison that `command` made, its page, and of folds the runs of them all with their reports.
    """
    from fastcls.reports.comparison import write
    from fastcls.running import out_of_fold

    def written(entries: list[Entry]) -> tuple[Comparison, Path]:
        found = Comparison(plan.title, command, entries, plan.baseline)
        return found, write(plan.out, found)

    entries = run_all(plan, screen, written, quiet)
    whole = out_of_fold.gather(entries, plan.folds, command) if plan.folds else {}
    return (*written(entries), whole)


def _withdraw(plan: Plan) -> None:
    """Leave nothing of a comparison without a run: the corrected command finds its folder free."""
    for folder in sorted((path for path in plan.out.rglob("*") if path.is_dir()), reverse=True):
        with contextlib.suppress(OSError):  # it holds something
            folder.rmdir()
    if [path.name for path in plan.out.iterdir()] == [PLAN]:
        (plan.out / PLAN).unlink()


def _sharing(kept: dict[str, Any]) -> contextlib.AbstractContextManager[None]:
    from fastcls.running.loading import import_fastai

    import_fastai()
    from fastcls.training.probe import sharing

    return sharing(kept)


def existing(names: Sequence[str], command: str, out: Path | None) -> tuple[Comparison, Path]:
    """Runs that are there, by name, or those of a comparison's folder, as `command` compares them; and their page.

    The first is the baseline; two are tested against each other. UsageError for fewer.
    """
    from fastcls.reports.comparison import make_folder, write

    if out is not None:
        make_folder(out)
    folders = [folder for name in names for folder in _runs_of(shell.path(name)) or [runs.find(name)]]
    entries = comparison.existing(folders)
    if len(entries) < 2:
        raise UsageError("A comparison needs at least two runs.", "List the runs:  fastcls runs")
    split = comparison.split_of(entries)
    test = comparison.mcnemar(entries[0], entries[1], split) if len(entries) == 2 else None
    title = f"{entries[0].record.get('recipe')}: {len(entries)} runs"
    found = Comparison(title, command, entries, entries[0].setting, test)
    return found, write(out or comparison.folder_of(entries), found)


def _runs_of(folder: Path) -> list[Path]:
    """The finished runs of a comparison's folder, the baseline's first; none for any other folder."""
    if not (folder / PLAN).is_file():
        return []
    files = itertools.chain.from_iterable(folder.glob(f"*/seed-*/{fold}run.json") for fold in ("", "fold-*/"))
    found = [file.parent for file in files if is_done(file.parent)]
    return sorted(found, key=lambda run: (BASELINE not in run.relative_to(folder).parts, str(run)))
