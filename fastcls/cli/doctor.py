"""fastcls doctor: whether the installation fits together and fastcls works in it, and how to fix what does not."""

from __future__ import annotations

import time
import traceback
from typing import TYPE_CHECKING

import typer

from fastcls.cli.app import JSON, app, verb
from fastcls.cli.completion import option
from fastcls.cli.output import document
from fastcls.errors import EnvironmentProblem
from fastcls.machine import extras

if TYPE_CHECKING:
    from fastcls.running.doctor import Findings


@app.command()
@verb
def doctor(
    quick: bool = option("--quick", "Only inspect; skip the training, export and prediction test."),
    as_json: bool = JSON,
) -> None:
    """Check that fastcls works here, and how to fix it if not.

    It checks packages, devices and folders, then trains and exports a small network and predicts with it. For a broken
    installation it prints the command that fixes it; a broken fastcls should be reported. Exit code 0 if fastcls
    works here, 5 if the installation has to be fixed, 1 if fastcls itself is broken.
    """
    from fastcls.running.doctor import examine

    found = examine()
    with document(as_json) as show:
        problems = [{"problem": problem.message, "fix": problem.hint} for problem in found.problems]
        show({"facts": dict(found.facts), "notes": found.notes, "problems": problems})
        _report(found, quick)


def _report(found: Findings, quick: bool) -> None:
    for name, value in found.facts:
        print(f"{name:24s}  {value}")
    for note in found.notes:
        print(f"\nnote: {note}")
    for problem in found.problems:
        print(f"\nproblem: {problem.message}\n{problem.hint}")
    if found.problems:
        print("\nThe installation is broken, not fastcls: fix the above, then run the command again.")
        raise typer.Exit(EnvironmentProblem.exit_code)
    print("\nThe installation is consistent.")
    if not quick and not extras.light():
        print("Training, exporting and predicting with a small network …", flush=True)
        _self_check()


def _self_check() -> None:
    from fastcls.running.loading import import_fastai

    began = time.perf_counter()
    try:
        import_fastai()
        from fastcls.running import doctor

        doctor.self_check()
    except EnvironmentProblem:
        raise
    except (MemoryError, OSError) as problem:
        raise EnvironmentProblem(
            f"The self-check could not run: {type(problem).__name__}: {problem}.",
            "Free some disk space and memory, then:  fastcls doctor",
        ) from problem
    except Exception:  # nothing of the installation is known to be wrong
        traceback.print_exc()
        print("\nThe installation is fine, but fastcls itself is broken: please report it with all of this output.")
        raise typer.Exit(1) from None
    print(f"A small network was trained, exported and used in {time.perf_counter() - began:.1f} s: fastcls works here.")
