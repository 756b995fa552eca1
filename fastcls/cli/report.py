"""fastcls report RUN: make a run's report again."""

from __future__ import annotations

import typer

from fastcls.cli import completion
from fastcls.cli.app import app, chosen, verb


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
    open_: bool = typer.Option(False, "--open", help="Open it in the browser."),
) -> None:
    """Make report.html and figures/ again from the files of a run.

    \b
    fastcls report last --open               the newest run's page, in the browser
    fastcls report last --split test         of the test images
    """
    from fastcls import api

    page = api.report(chosen(run), split or None)
    print(page)
    if open_:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())
