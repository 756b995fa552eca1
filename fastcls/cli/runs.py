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
    folder: str = typer.Option("runs", "--folder", metavar="DIR", help="Where the runs lie."),
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
    found = [run for run in folders.listing(Path(folder)) if recipe in ("", run.parent.name)]
    if not found:
        print(f"No runs in {folder}/{recipe}. Start one:  fastcls recipe digits-cnn")
        return
    rows = []
    for run in found:
        try:
            rows.append(_row(run))
        except OutputError as problem:
            rows.append((0.0, 0.0, [f"{run.parent.name}/{run.name}", problem.message, *[""] * 5]))
    if sort != "time":
        rows.sort(key=lambda row: -row[0] if sort == "accuracy" else row[1])
    header = ["run", "status", "accuracy (95 %)", "loss", "images", "time", "settings"]
    print(table(header, [cells for _, _, cells in rows]))


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
        value, loss, shown = 0.0, float("inf"), "–"
    cells = [
        f"{run.parent.name}/{run.name}",
        record.get("status", "?"),
        shown,
        "–" if loss == float("inf") else f"{loss:.4f}",
        f"{sum(record.get('data', {}).get('images', {}).values()):,}",
        f"{record['wall_seconds']:.0f} s" if "wall_seconds" in record else "–",
        " ".join(recorded.given(run, record)) or "defaults",
    ]
    return value, loss, cells
