"""fastcls search: the best settings of a recipe, found by Optuna."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from fastcls.cli import completion
from fastcls.cli.app import app, verb
from fastcls.cli.completion import option
from fastcls.cli.settings import TAKES_KNOBS, Settings, build, command_line, takes_settings
from fastcls.runfolder.text import visible
from fastcls.settings import shell

if TYPE_CHECKING:
    from fastcls.comparison.study import Results
    from fastcls.running.search import Search

SHOWN = 10  # trials in the terminal's table
PLANNED = ("trials", "time", "metric", "pruner", "prune_after_trials", "prune_after_epochs", "storage", "study")
NOTHING = 6  # the exit code when no trial came to its end
TRIALS, METRICS, PRUNERS = (
    20,
    ("accuracy", "macro_f1", "loss", "mAP"),
    ("median", "none"),
)  # running.search's, which is heavy


@app.command(context_settings=TAKES_KNOBS, cls=completion.TakesKnobs)
@verb
@takes_settings(without=["sync_norm", "test", "checkpoints"])
def search(
    ctx: typer.Context,
    name: str = completion.RECIPE,
    space: list[str] = option(
        "--space KNOB=LOW..HIGH[:log|:int|:step=N] | KNOB=A,B,C", "Search space of a knob. May be repeated.", []
    ),
    trials: int | None = option(
        "--trials N", f"Number of trials in the whole study  [default: {TRIALS}, without --time]", None
    ),
    time: str = option("--time 2h", "Start no new trial after this time: 90s, 30m, 1h30m."),
    metric: str = option(f"--metric {'|'.join(METRICS)}", "Metric to optimise, on the validation split.", METRICS[0]),
    pruner: str = option(
        f"--pruner {'|'.join(PRUNERS)}",
        "Stop trials that are worse than the median at the same epoch  [default: median; none if epochs are searched]",
    ),
    prune_after_trials: int = option("--prune-after-trials N", "Prune no trial before N are finished.", 5),
    prune_after_epochs: int = option("--prune-after-epochs N", "Prune no trial in its first N epochs.", 1),
    storage: str = option("--storage URL", "Optuna storage, which machines can share  [default: OUT/study.db]"),
    study: str = option("--name NAME", "Name of the study  [default: RECIPE,KNOB=VALUE…]"),
    out: str = option("-o --out DIR", "Folder  [default: searches/NAME]"),
    dry_run: bool = option("--dry-run", "Show what would be searched, without training."),
    *,
    settings: Settings,
) -> None:
    """Search for the best settings of a recipe, with Optuna.

    \b
    fastcls search digits-cnn --space lr=1e-3..1e-1:log --trials 10
    fastcls search pets-resnet50 --space lr=1e-4..1e-2:log --space arch=resnet34,resnet50

    Bad trials are pruned. A table and a page show which knobs matter, and the best trial is printed as a command.
    Numbers have ranges (:log for learning rates, :step=8 for widths), everything else has values; of lists:
    filters=6,16/32,64. Any other knob of the recipe can be set for all trials: --epochs 5. The recipe's own settings
    are tried first if they are in the space. Trials never use the test split; the best trial's command does. Run the
    command again to continue: finished trials count, an interrupted one is resumed. Machines with the same --storage
    and --name share the trials; on one machine, give each its own --out. Needs Optuna (else exit code 5). Exit code 6
    if no trial finished.
    """
    plan = _plan(ctx, settings)
    print("\n".join(_opening(plan)))
    if not dry_run:
        _make(plan)


def _plan(ctx: typer.Context, settings: Settings) -> Search:
    from fastcls.running import search as searching
    from fastcls.settings import sources
    from fastcls.settings import space as spaces

    given = ctx.params
    source = sources.find(given["name"])
    request = build(ctx, source, ctx.args, settings.options(), settings.extra)
    return searching.plan(
        request,
        spaces.parse(given["space"], source.knobs, request.knobs),
        out=shell.path(given["out"]) if given["out"] else None,
        **{name: given[name] for name in PLANNED},
    )


def _opening(plan: Search) -> list[str]:
    from fastcls.comparison.study import shown

    budget = [f"{plan.trials} trials"] if plan.trials else []
    budget += [f"{plan.seconds:,.0f} s"] if plan.seconds else []
    when = f", after {plan.prune_after_trials} trials and {plan.prune_after_epochs} epochs"
    return [
        f"{plan.request.source.name}: {' and '.join(budget)}, in {plan.out}",
        *(f"space    {dim}" for dim in plan.dimensions),
        f"pruner   {plan.pruner}{when if plan.pruner == 'median' else ''}",
        f"study    {plan.study}, in {shown(plan.storage) or plan.out / 'study.db'}",
    ]


def _make(plan: Search) -> None:
    from fastcls.comparison import study

    study.require()
    from fastcls.machine.screen import Screen
    from fastcls.machine.stop import Stopped
    from fastcls.reports.search import Page, write
    from fastcls.running import search as searching

    command = command_line("search")

    def page(results: Results) -> Page:
        return searching.page(plan, results, command)

    try:
        results = searching.run_all(plan, Screen(), lambda so_far: write(page(so_far)))
    except (KeyboardInterrupt, Stopped):
        print(f"Stopped; the same command continues. Results so far: {plan.out}")
        raise
    path = write(page(results))
    _show(page(results))
    print(f"page     {path}", flush=True)
    if results.best is None:
        raise typer.Exit(NOTHING)


def _show(page: Any) -> None:
    from fastcls.cli.output import table

    results = page.results
    if results.best is not None:
        heads = ["trial", f"{page.metric} on valid", *(dim.name for dim in results.dimensions), "best epoch", "time"]
        print(f"\nThe best {min(SHOWN, len(results.ranked))} of {page.counts}:\n")
        print(table(heads, [page.cells(trial) for trial in results.ranked[:SHOWN]]))
    print()
    for line in page.sentences:
        print(visible(line))
    for trial in results.of("failed"):
        print(visible(f"failed   trial {trial.number}: {trial.reason}"))
    if results.best is not None:
        print(visible(f"best     {page.best_command}"))
