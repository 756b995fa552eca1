"""fastcls report RUN: make a run's report again."""

from __future__ import annotations

from fastcls.cli import completion
from fastcls.cli.app import app, verb
from fastcls.cli.completion import option
from fastcls.cli.guard import chosen


@app.command()
@verb
def report(
    run: str = completion.RUN,
    split: str = option(
        "--split valid|test", "Split to report on  [default: test if it was evaluated, else valid]", show_default=False
    ),
    pictures: str = option(
        "--pictures N|all",
        "Images per cell of the confusion matrix, at least; each adds about 10 kB to the page.",
        "0",
        show_default=False,
    ),
    costs: str = option(
        "--costs FILE", "Costs of decisions: a CSV with a row per true class and a column per decision."
    ),
    odd: str = option("--odd FOLDER", "Images of no known class, to measure how many are detected as unknown."),
    open_: bool = option("--open", "Open it in the browser."),
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
