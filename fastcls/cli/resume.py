"""fastcls resume RUN: continue a run that was interrupted."""

from __future__ import annotations

from fastcls import log
from fastcls.cli import completion
from fastcls.cli.app import app, verb
from fastcls.cli.completion import argument, option
from fastcls.cli.guard import chosen
from fastcls.cli.processes import GPUS, PROCESSES, count, start
from fastcls.errors import UsageError
from fastcls.machine import ranks
from fastcls.plugins import tracking
from fastcls.runfolder.text import visible
from fastcls.settings import shell


@app.command()
@verb
def resume(
    run: str = argument(
        "RUN", "A run folder, a recipe's name (its newest run), or 'last'.", "last", offers=completion.runs
    ),
    extend_epochs: int = option(
        "--extend-epochs N", "Train a finished run for N more epochs.", 0, min=0, show_default=False
    ),
    path: str = option("--path DIR", "New location of the images, if they were moved."),
    gpus: int | None = GPUS,
    processes: int | None = PROCESSES,
    trust: bool = option("--trust", "Run the recipe.py in the run folder, if it differs from the installed recipe."),
) -> None:
    """Resume an interrupted run, or train a finished one longer.

    \b
    fastcls resume                           the newest run, if it was interrupted
    fastcls resume last --extend-epochs 5    five more epochs

    It continues from the newest complete checkpoint and ends as it would have without the interruption, to the last
    bit on the same machine with the same number of threads: everything random depends only on the seed, the epoch and
    the step. --extend-epochs trains a finished run longer, with a cosine from a tenth of its last highest learning
    rate to zero.
    """
    go_on(run, extend_epochs, trust, gpus=gpus, processes=processes, path=path)


def go_on(
    run: str,
    extend: int = 0,
    trust: bool = False,
    recipe: str = "",
    gpus: int | None = None,
    processes: int | None = None,
    path: str = "",
    patience: float = 0,
) -> None:
    """Resume a run; `recipe`: the name that it must have. patience: seconds to wait for another process."""
    from fastcls.runfolder import recorded, runs

    asked = count(gpus, processes)
    if not ranks.first():
        from fastcls.running.assist import join_run

        join_run(None, trust)
        return
    folder = chosen(run, done=False).absolute()
    record = runs.read_json(folder / "run.json")
    recorded.recipe_file(folder, record)
    tracking.refuse_missing(tracking.names((record.get("options") or {}).get("track") or ""))
    name = str(record.get("recipe"))
    if recipe and recipe != name:
        raise UsageError(
            f"{folder} is a run of {name}, not of {recipe}.", shell.command("recipe", name, "--resume", folder)
        )
    kind = (record.get("device") or {}).get("type")
    if gpus and kind != "cuda":
        raise UsageError(f"{folder} was trained on {kind} and continues there.", f"Use --processes {gpus}.")
    start(asked, folder)
    log.status(f"{visible(name)}: loading torch and fastai …")
    from fastcls.machine.screen import Screen
    from fastcls.running import runner

    runner.resume(folder, Screen(), extend, trust, path=path, patience=patience)
    if log.quiet():
        print(visible(folder))
