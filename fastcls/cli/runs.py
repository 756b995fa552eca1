"""fastcls runs: which runs there are and how they compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from fastcls.cli import completion
from fastcls.cli.app import app, verb
from fastcls.cli.tables import table
from fastcls.errors import OutputError

ORDERS = ("time", "accuracy", "loss")


@app.command()
@verb
def runs(
    recipe: str = typer.Argument(
        "", metavar="RECIPE", help="Only this recipe's runs.", show_default=False, autocompletion=completion.recipes
    ),
    folder: str = typer.Option(
        "", "--folder", metavar="DIR", help="Only the runs below this folder; by default all that there are."
    ),
    sort: str = typer.Option(
        "time", "--sort", metavar="|".join(ORDERS), help="Order of the rows.", autocompletion=completion.among(*ORDERS)
    ),
) -> None:
    """List the runs: status, figures, and the settings that were given.

    \b
    fastcls runs                             all, oldest first
    fastcls runs pets-resnet50 --sort accuracy
    """
    from fastcls.errors import UsageError
    from fastcls.runfolder import runs as folders

    if sort not in ORDERS:
        raise UsageError(f"--sort {sort}: takes time, accuracy or loss.")
    found = folders.listing(Path(folder)) if folder else folders.everywhere()
    if recipe:
        found = [run for run in found if recipe in (run.parent.name, folders.recipe_of(run))]
    if not found:
        where = f" in {folder}" if folder else ""
        print(f"No runs{f' of {recipe}' if recipe else ''}{where}. Start one:  fastcls recipe digits-cnn")
        return
    rows = []
    for run in found:
        try:
            rows.append(_row(run))
        except OutputError as problem:
            rows.append((0.0, 0.0, [_name(run), problem.message, *[""] * 5]))
    if sort != "time":
        rows.sort(key=lambda row: -row[0] if sort == "accuracy" else row[1])
    header = ["run", "status", "accuracy (95 %)", "loss", "images", "time", "settings"]
    print(table(header, [cells for _, _, cells in rows]))


def _name(run: Path) -> str:
    """As other verbs take it: recipe/folder of those under runs/, the path of others."""
    return str(run) if run.is_absolute() else f"{run.parent.name}/{run.name}"


def _row(run: Path) -> tuple[float, float, list[str]]:
    from fastcls.runfolder import recorded
    from fastcls.runfolder import runs as folders

    record: dict[str, Any] = folders.read_json(run / "run.json")
    try:
        figures = folders.read_json(run / "metrics.json")
        split = "test" if "test" in figures else "valid"
        accuracy, loss = figures[split]["accuracy"], float(figures[split]["loss"]["value"])
        shown = f"{accuracy['value']:.4f} ({accuracy['low']:.3f}–{accuracy['high']:.3f}) {split}"
        value = accuracy["value"]
    except (OutputError, KeyError, TypeError, ValueError):  # a run that did not end, a file that was damaged
        value, loss, shown = 0.0, float("inf"), str(record.get("reason") or "–").splitlines()[0]
    cells = [
        _name(run),
        record.get("status", "?"),
        shown,
        "–" if loss == float("inf") else f"{loss:.4f}",
        f"{sum(record.get('data', {}).get('images', {}).values()):,}",
        f"{record['wall_seconds']:.0f} s" if "wall_seconds" in record else "–",
        " ".join(recorded.given(run, record)) or "defaults",
    ]
    return value, loss, cells
