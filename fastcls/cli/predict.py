"""fastcls predict RUN PATHS: labels for new images, as a table or as a Kaggle submission."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from fastcls.cli.app import app, verb
from fastcls.errors import OutputError, UsageError

if TYPE_CHECKING:
    from fastcls.predict import Predictor
    from fastcls.replay import RecipePredictor

UNREADABLE = 3  # the exit code when some image got no answer


@app.command()
@verb
def predict(
    run: str = typer.Argument(metavar="RUN", help="A run folder, a recipe's name (its newest run), or 'last'."),
    paths: list[str] = typer.Argument(metavar="PATHS…", help="Images, folders, or - for a list on standard input."),
    out: str = typer.Option("", "-o", "--out", metavar="FILE", help="CSV file  [default: standard output]"),
    probabilities: bool = typer.Option(False, "--probabilities", help="Add a column a class."),
    trust: bool = typer.Option(False, "--trust", help="Run the code of the run's recipe.py where there is no ONNX."),
    id_column: str | None = typer.Option(
        None, "--id-column", metavar="NAME", help="Submission: title of the column of ids  [default: id]"
    ),
    label_column: str | None = typer.Option(
        None, "--label-column", metavar="NAME", help="Submission: title of the column of labels  [default: label]"
    ),
    id_form: str | None = typer.Option(
        None,
        "--id",
        metavar="stem|name|path",
        help="Submission: an id is the file's name without its extension, with it, or the path under the folder "
        "[default: stem, or what the ids of the sample match]",
    ),
    label_value: str | None = typer.Option(
        None,
        "--label-value",
        metavar="name|index",
        help="Submission: a label is the name of a class or its index in the network's order  [default: name]",
    ),
    sample: str | None = typer.Option(
        None, "--sample-submission", metavar="FILE", help="Submission: columns, rows and ids of this CSV file."
    ),
    fill: str | None = typer.Option(
        None, "--fill", metavar="LABEL", help="Submission: label of ids without an image and of unreadable images."
    ),
) -> None:
    """Label images with a trained run. A row an image: path, prediction, confidence, error.

    An image that cannot be read becomes a row with an error, and the exit code is 3.

    With any option marked Submission, -o is a file for Kaggle: an id and a label a row, or with --probabilities
    an id and a column a class. It is written only if every row has an answer.
    """
    from fastcls import runs
    from fastcls.predict import collect
    from fastcls.submission import Format, Images, lay_out

    wanted = Format(id_column, label_column, id_form, label_value, sample, fill, probabilities)
    submits = wanted != Format(probabilities=probabilities)
    if submits and not out:
        raise UsageError("A Kaggle submission is a file.", "Name it:  -o submission.csv")
    folder = runs.find(run)
    target = Path(out).expanduser() if out else None
    if target is not None and (target.is_dir() or not os.access(target.parent, os.W_OK | os.X_OK)):
        raise OutputError(f"-o {out}: this file cannot be written there.", "Name a file in an existing folder.")
    images = collect(paths)
    first = next(images, None)
    if first is None:
        raise UsageError("There is nothing to predict: the list of images is empty.")
    images = chain([first], images)
    predictor = _predictor(folder, trust)
    if submits and target is not None:
        if sample is not None and target.resolve() == Path(sample).expanduser().resolve():
            raise UsageError(f"-o {out} is the sample submission itself.", "Name another file:  -o submission.csv")
        submission = lay_out(wanted, Images(images, paths), predictor.classes)
        print("\n".join(submission.write(target, predictor.predict, predictor.classes, label_value, fill)))
    else:
        _table(predictor, images, probabilities, target)


def _predictor(folder: Path, trust: bool) -> Predictor | RecipePredictor:
    from fastcls.predict import Predictor

    if trust and not (folder / "model.onnx").is_file():
        from fastcls.loading import import_fastai

        import_fastai()
        from fastcls.replay import RecipePredictor

        return RecipePredictor(folder)
    return Predictor(folder)


def _table(
    predictor: Predictor | RecipePredictor, images: Iterator[str], probabilities: bool, target: Path | None
) -> None:
    """A row an image, to the file or to standard output."""
    from fastcls import runs

    names = predictor.classes
    header = ["path", "prediction", "confidence", "error"]
    if probabilities:
        header += [f"p:{name}" for name in names]
    total = failed = 0

    def rows() -> Iterator[list[str]]:
        nonlocal total, failed
        for answer in predictor.predict(images):
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
