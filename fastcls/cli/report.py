"""fastcls report RUN: make a run's report again."""

from __future__ import annotations

import typer

from fastcls.cli import completion
from fastcls.cli.app import app, verb
from fastcls.cli.guard import chosen


@app.command()
@verb
def report(
    run: str = completion.RUN,
    split: str = typer.Option(
        "",
        "--split",
        metavar="valid|test",
        help="Split to report on  [default: test if it was evaluated, else valid]",
        show_default=False,
        autocompletion=completion.among("valid", "test"),
    ),
    pictures: str = typer.Option(
        "0",
        "--pictures",
        metavar="N|all",
        help="Images per cell of the confusion matrix, at least; each adds about 10 kB to the page.",
        show_default=False,
    ),
    costs: str = typer.Option(
        "",
        "--costs",
        metavar="FILE",
        help="Costs of decisions: a CSV with a row per true class and a column per decision.",
    ),
    odd: str = typer.Option(
        "", "--odd", metavar="FOLDER", help="Images of no known class, to measure how many are detected as unknown."
    ),
    open_: bool = typer.Option(False, "--open", help="Open it in the browser."),
) -> None:
    """Rebuild report.html and figures/ from the files of a run.

    \b
    fastcls report last --open               open the newest run's page in the browser
    fastcls report last --split valid        report on the validation images
    fastcls report last --pictures all       include every image of every cell of the confusion matrix
    fastcls report last --costs costs.csv --odd street     include decision costs and images of no known class
    """
    from fastcls import api

    page = api.report(chosen(run), split or None, pictures, costs, odd)  # type: ignore[arg-type]
    print(page)
    if open_:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())
