"""fastcls predict RUN PATHS: labels for new images."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import typer

from fastcls.cli.app import app, verb
from fastcls.errors import OutputError, UsageError

UNREADABLE = 3  # the exit code when some image got no answer


@app.command()
@verb
def predict(
    run: str = typer.Argument(metavar="RUN", help="A run folder, a recipe's name (its newest run), or 'last'."),
    paths: list[str] = typer.Argument(metavar="PATHS…", help="Images, folders, or - for a list on standard input."),
    out: str = typer.Option("", "-o", "--out", metavar="FILE", help="CSV file  [default: standard output]"),
    probabilities: bool = typer.Option(False, "--probabilities", help="Add a column a class."),
    trust: bool = typer.Option(False, "--trust", help="Run the code of the run's recipe.py where there is no ONNX."),
) -> None:
    """Label images with a trained run. A row an image: path, prediction, confidence, error.

    An image that cannot be read becomes a row with an error, and the exit code is 3.
    """
    from fastcls import runs
    from fastcls.predict import Predictor, collect

    folder = runs.find(run)
    target = Path(out).expanduser() if out else None
    if target is not None and (target.is_dir() or not target.parent.is_dir()):
        raise OutputError(f"-o {out}: this file cannot be written there.", "Name a file in an existing folder.")
    images = collect(paths)
    first = next(images, None)
    if first is None:
        raise UsageError("There is nothing to predict: the list of images is empty.")
    if trust and not (folder / "model.onnx").is_file():
        from fastcls.loading import import_fastai

        import_fastai()
        from fastcls.replay import RecipePredictor

        predictor: Predictor | RecipePredictor = RecipePredictor(folder)
    else:
        predictor = Predictor(folder)
    names = predictor.classes
    header = ["path", "prediction", "confidence", "error"]
    if probabilities:
        header += [f"p:{name}" for name in names]
    total = failed = 0

    def rows() -> Iterator[list[str]]:
        nonlocal total, failed
        for answer in predictor.predict(chain([first], images)):
            total += 1
            if answer.probabilities is None:
                failed += 1
                yield [answer.path, "", "", answer.error] + [""] * (len(header) - 4)
                continue
            best = int(answer.probabilities.argmax())
            cells = [answer.path, names[best], f"{answer.probabilities[best]:.6g}", ""]
            yield cells + ([f"{p:.6g}" for p in answer.probabilities] if probabilities else [])

    if target is None:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows())
    else:
        runs.write_csv(target, header, rows())
        print(f"{total - failed:,} of {total:,} images labelled: {target}")
    if failed:
        print(f"error: {failed:,} of {total:,} images could not be read; their rows say why.", file=sys.stderr)
        raise typer.Exit(UNREADABLE)
