"""fastcls compare: a recipe over settings and seeds, or runs that exist, side by side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fastcls import log
from fastcls.cli import completion
from fastcls.cli.app import JSON, app, verb
from fastcls.cli.completion import argument, option
from fastcls.cli.output import document
from fastcls.cli.settings import TAKES_KNOBS, Settings, build, command_line, takes_settings
from fastcls.errors import UsageError
from fastcls.runfolder.text import visible
from fastcls.settings import shell

if TYPE_CHECKING:
    from fastcls.comparison.comparison import Comparison
    from fastcls.running.grid import Plan

Show = Callable[[Any], None]
FAILED = 6  # the exit code when some run broke down


@app.command(context_settings=TAKES_KNOBS, cls=completion.TakesKnobs)
@verb
@takes_settings(without=["sync_norm", "checkpoints"])
def compare(
    ctx: typer.Context,
    targets: list[str] = argument(
        "RECIPE|RUN", "A recipe to run, or runs that exist.", offers=completion.recipes_or_runs
    ),
    vary: list[str] = option("--vary KNOB=A,B", "Values of a knob; of a list: 6,16/32,64. May be repeated.", []),
    setting: list[str] = option("--setting 'KNOB=A KNOB=B'", "One more setting of several knobs. May be repeated.", []),
    one_at_a_time: bool = option(
        "--one-at-a-time", "Change one knob at a time (an ablation) instead of running the whole grid."
    ),
    seeds: int = option("--seeds N", "Runs per setting, with the seeds --seed, --seed + 1, …", 1),
    folds: int | None = option("--folds N", "Cross-validation: N runs per setting, each image held out once.", None),
    repeats: int = option("--repeats N", "Repeat the folds N times, with the seeds --seed, --seed + 1, …", 1),
    out: str = option("-o --out DIR", "Folder  [default: comparisons/RECIPE,KNOB=VALUE…]"),
    dry_run: bool = option("--dry-run", "List the runs without training."),
    as_json: bool = JSON,
    *,
    settings: Settings,
) -> None:
    """Compare settings of a recipe over seeds, or runs that exist.

    \b
    fastcls compare digits-cnn --vary filters=16,32/32,64 --seeds 3
    fastcls compare cifar10-cnn --vary norm=none,batch --vary act=relu,mish --one-at-a-time
    fastcls compare folder --path photos --folds 5 --repeats 3
    fastcls compare runs/digits-cnn/*

    It writes a table, figures, and a page that links to every run. Any knob of the recipe can be set for all runs.
    Options that change what is learned, or how fast, can be varied like knobs: --vary accumulate=1,4,
    precision=fp32,bf16, epochs=10,auto, time=5m,20m. Finished runs are kept: run the command again to continue it, or
    to add values or seeds. With --folds each setting's folder is itself a run with a report, in which every image is
    predicted by the network that was not trained on it; `predict` uses the mean of the networks. Exit code 6 if a run
    failed; the others are compared.
    """
    knobs_from = next((i for i, word in enumerate(targets) if word.startswith("-")), len(targets))
    names, words = targets[:knobs_from], [*targets[knobs_from:], *ctx.args]
    if not names:
        raise UsageError("No recipe and no runs given.", "fastcls compare digits-cnn --vary epochs=5,10")
    with document(as_json) as show:
        if len(names) == 1 and not (Path(names[0]) / "compare.json").is_file():
            _grid(ctx, names[0], words, settings, show)
            return
        if words or vary or setting or folds:
            first = words[0] if words else "--folds" if folds else "--vary"
            raise UsageError(f"{first} is for a recipe, but {len(names)} runs were given.")
        from fastcls.running import grid

        _show(*grid.existing(names, command_line("compare"), shell.path(out) if out else None), show)


def _grid(ctx: typer.Context, name: str, words: list[str], settings: Settings, show: Show) -> None:
    from fastcls.datasets.walk import count
    from fastcls.running import grid
    from fastcls.settings import sources, varied
    from fastcls.settings.knobs import refuse_naming

    given = ctx.params
    source = sources.find(name)
    request = build(ctx, source, words, settings.options(), settings.extra)
    folder = shell.path(given["out"]) if given["out"] else None
    knobs, problems = varied.settings(request), list[str]()
    vary = varied.values(given["vary"], knobs, problems)
    whole = [varied.setting(text, knobs, problems) for text in given["setting"]]
    refuse_naming(problems, knobs.values())
    many = given["folds"], given["repeats"]
    plan = grid.plan(request, vary, whole, given["seeds"], given["one_at_a_time"], folder, *many)
    done = sum(grid.is_done(cell.folder) for cell in plan.cells)
    print(f"{source.name}: {count(len(plan.cells), 'run')}, {done} done, in {plan.out}")
    if given["dry_run"]:
        for cell in plan.cells:
            print(f"  {'done' if grid.is_done(cell.folder) else 'to do'}  {cell.folder.relative_to(plan.out)}")
        return
    _make(plan, show)


def _make(plan: Plan, show: Show) -> None:
    from fastcls.machine.screen import Screen
    from fastcls.machine.stop import Stopped
    from fastcls.running import grid

    if not all(grid.is_done(cell.folder) for cell in plan.cells):
        log.status("loading torch and fastai …")
    try:
        comparison, page, whole = grid.make(plan, command_line("compare"), Screen())
    except (KeyboardInterrupt, Stopped):
        print(f"Stopped; the same command continues. Results so far: {plan.out}")
        raise
    _show(comparison, page, show)
    for folder, report in whole.items():
        print(f"folds    {folder}   report: {report}")
    figures = {entry.folder: entry.figure("accuracy", comparison.split) for entry in comparison.done}
    if best := list(whole) or sorted((folder for folder in figures if figures[folder] >= 0), key=figures.__getitem__):
        print(f"next     {shell.command('predict', best[-1], 'PHOTOS', '-o', 'predictions.csv')}")
    for entry in comparison.failed:
        print(visible(f"failed   {entry.folder.relative_to(plan.out)}: {entry.failed}"))
    if comparison.failed:
        print("The same command runs the failed ones again and keeps the others.")
        raise typer.Exit(FAILED)


def _show(comparison: Comparison, page: Path, show: Show) -> None:
    from fastcls.cli.output import table
    from fastcls.reports import comparison as words

    if comparison.done:
        header, rows = words.table(comparison)
        print("\n" + table(header, words.texts(rows)))
        print(visible("\n" + "\n".join(words.sentences(comparison))))
    print(f"page     {page}")
    records = [
        {
            "setting": row.setting,
            "baseline": row.baseline,
            "runs": [entry.folder for entry in row.entries],
            "failed": row.failed,
            **row.means,
            "accuracy_sd": row.deviation,
            "difference": vars(row.difference) if row.difference else None,
        }
        for row in comparison.rows
    ]
    notes = words.sentences(comparison) if comparison.done else []
    show({"title": comparison.title, "split": comparison.split, "rows": records, "page": page, "notes": notes})
