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
        help="The images to report on; by default the test split, where it was evaluated.",
        show_default=False,
        autocompletion=completion.among("valid", "test"),
    ),
    pictures: str = typer.Option(
        "0",
        "--pictures",
        metavar="N|all",
        help="Pictures of each cell of the confusion matrix, at least: the page grows by some 10 kB each.",
        show_default=False,
    ),
    costs: str = typer.Option(
        "", "--costs", metavar="FILE", help="What decisions cost: a CSV, a row a true class, a column a decision."
    ),
    odd: str = typer.Option("", "--odd", metavar="FOLDER", help="Pictures of no class: how many are found unknown."),
    open_: bool = typer.Option(False, "--open", help="Open it in the browser."),
) -> None:
    """Make report.html and figures/ again from the files of a run.

    \b
    fastcls report last --open               the newest run's page, in the browser
    fastcls report last --split valid        of the validation images
    fastcls report last --pictures all       every image behind every cell of the confusion matrix
    fastcls report last --costs costs.csv --odd street     decisions by their costs; pictures of no class
    """
    from fastcls import api

    page = api.report(chosen(run), split or None, pictures, costs, odd)  # type: ignore[arg-type]
    print(page)
    if open_:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())
