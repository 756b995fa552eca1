"""fastcls doctor: what is installed, whether it fits together, where things are kept."""

from __future__ import annotations

import typer

from fastcls.cli.app import app, verb


@app.command()
@verb
def doctor() -> None:
    """Print versions, devices and folders, and say how to mend what does not fit. Exit code 5 if something doesn't."""
    from fastcls.doctor import examine

    findings, problems = examine()
    for name, value in findings:
        print(f"{name:14s}{value}")
    for problem in problems:
        print(f"\nproblem: {problem.message}\n{problem.hint}")
    if problems:
        raise typer.Exit(problems[0].exit_code)
    print("\nEverything fits together.")
