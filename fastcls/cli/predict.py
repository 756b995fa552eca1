"""fastcls predict RUN PATHS: labels for new images, as a table or as a Kaggle submission."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from fastcls.cli import completion
from fastcls.cli.app import app, chosen, verb
from fastcls.cli.documents import JSON, document
from fastcls.errors import OutputError, UsageError
from fastcls.log import logger
from fastcls.runfolder import register
from fastcls.runfolder.text import visible
from fastcls.settings import shell

if TYPE_CHECKING:
    from fastcls.inference.answers import Table, Writer
    from fastcls.inference.deciding import Wanted
    from fastcls.inference.parts import Done, Job
    from fastcls.inference.predictor import Predictor
    from fastcls.running.replay import RecipePredictor

UNREADABLE = 3  # the exit code when some image got no answer


@app.command()
@verb
def predict(
    run: str = completion.RUN,
    paths: list[str] = typer.Argument(
        metavar="PATHS",
        help="Images, folders, patterns ('photos/**/*.jpg'), a CSV of paths, or - for a list on standard input.",
    ),
    out: str = typer.Option(
        "", "-o", "--out", metavar="FILE", help=".csv, .jsonl or .parquet  [default: CSV on standard output]"
    ),
    top_k: int = typer.Option(0, "--top-k", metavar="K", help="Add the K likeliest classes and their probabilities."),
    probabilities: bool = typer.Option(
        False, "--probabilities", help="Add a column for each class, with its probability."
    ),
    threshold: float = typer.Option(
        0.0,
        "--threshold",
        metavar="T",
        help="A prediction less likely than T is 'unsure'; of several labels: predict those from T on.",
    ),
    calibrated: bool = typer.Option(
        False, "--calibrated", help="Divide the logits by the temperature that was fitted on the validation split."
    ),
    tta: bool = typer.Option(
        False, "--tta", help="Mean of the probabilities of an image and of its mirror image (twice the time)."
    ),
    coverage: float | None = typer.Option(
        None, "--coverage", metavar="C", help="Add a set of classes that contains the right one with probability C."
    ),
    precision: list[str] = typer.Option(
        [], "--precision", metavar="[CLASS=]P", help="'unsure' where a prediction is not right with probability P."
    ),
    recall: list[str] = typer.Option(
        [], "--recall", metavar="[CLASS=]R", help="Call so much an image of CLASS that a share R of them is found."
    ),
    costs: str = typer.Option(
        "", "--costs", metavar="FILE", help="Decide for the least cost: a CSV, a row a true class, a column a decision."
    ),
    unknown: float | None = typer.Option(
        None, "--unknown", metavar="R", help="'unknown' for images unlike all classes, and for a share R of known ones."
    ),
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
        autocompletion=completion.among("stem", "name", "path"),
        help="Submission: an id is the file's name without its extension, with it, or the path under the folder "
        "[default: stem, or what the ids of the sample match]",
    ),
    label_value: str | None = typer.Option(
        None,
        "--label-value",
        metavar="name|index",
        autocompletion=completion.among("name", "index"),
        help="Submission: a label is the name of a class or its index in the network's order  [default: name]",
    ),
    sample: str | None = typer.Option(
        None, "--sample-submission", metavar="FILE", help="Submission: columns, rows and ids of this CSV file."
    ),
    probability_of: str | None = typer.Option(
        None, "--probability-of", metavar="CLASS", help="Submission: the answer is the probability of this class."
    ),
    fill: str | None = typer.Option(
        None, "--fill", metavar="LABEL", help="Submission: label of ids without an image and of unreadable images."
    ),
    parts: str = typer.Option(
        "",
        "--parts",
        metavar="csv|jsonl|parquet",
        autocompletion=completion.among("csv", "jsonl", "parquet"),
        help="-o is a folder of files of this format, which the same command completes.",
    ),
    processes: int = typer.Option(1, "--processes", metavar="N", min=1, help="With --parts, on this machine."),
    as_json: bool = JSON,
) -> None:
    """Label images with a trained run.

    \b
    fastcls predict last photos -o labels.csv
    fastcls predict pets-resnet50 'new/**/*.jpg' --top-k 3
    fastcls predict last test --sample-submission sample.csv -o submission.csv
    fastcls predict last s3://bucket/photos -o labels --parts parquet --processes 4

    Every image gets a row: path, prediction, confidence, error.

    A CSV of paths (.csv, .tsv) has a column 'path', 'file' or 'image'; its paths start here, or beside the table.

    Where images have several labels, the prediction is all whose probability reaches the label's own threshold,
    separated by '|', and the confidence that of the least sure of these decisions; in a submission they are separated
    by spaces.

    An image that cannot be read becomes a row with an error, and the exit code is 3.

    With any option marked Submission, -o is a file for Kaggle: an id and a label a row, with --probability-of an id and
    a probability, or with --probabilities an id and a column a class. It is written only if every row has an answer.
    """
    from fastcls.datasets.inputs import collect
    from fastcls.inference.answers import Table, writer_for
    from fastcls.inference.deciding import Wanted, decider, levels
    from fastcls.inference.layout import Images, lay_out
    from fastcls.inference.parts import Job
    from fastcls.inference.predictor import temperature_of
    from fastcls.inference.submission import Format

    wanted = Format(id_column, label_column, id_form, label_value, sample, fill, probabilities, probability_of)
    submits = wanted != Format(probabilities=probabilities)
    if submits and not out:
        raise UsageError("A Kaggle submission is a file.", "Name it:  -o submission.csv")
    decides = Wanted(coverage, levels(precision, "--precision"), levels(recall, "--recall"), costs, unknown)
    flag = "--top-k" if top_k else "--threshold" if threshold else decides.first
    if submits and flag:
        raise UsageError(
            f"{flag}: a Kaggle submission has an answer for every image, and one.",
            "Leave it out, or leave out the options marked Submission.",
        )
    if as_json and (out or submits):
        raise UsageError("--json goes to standard output.", "Omit -o, or give -o FILE.jsonl without --json.")
    folder = chosen(run)
    if parts or processes > 1:
        if submits or trust or not (parts and out):
            what = "the options marked Submission" if submits else "--trust" if trust else ""
            hint = f"Omit {what}." if what and parts and out else "Give both:  -o FOLDER --parts parquet"
            raise UsageError("--parts and --processes are for a folder of tables.", hint)
        temperature = temperature_of(folder) if calibrated else 1
        asked = (temperature, tta, top_k, probabilities, threshold)
        job = Job(folder, tuple(paths), shell.path(out), parts, decides, *asked)
        _write_parts(job, processes)
        return
    target = shell.path(out) if out else None
    if target is not None:
        check_target(target, folder, paths, sample)
    writer = writer_for(target) if target is not None and not submits else None
    if target is not None:
        register.refuse_others(target, "-o")
    images = collect(paths)
    first = next(images, None)
    if first is None:
        raise UsageError("There is nothing to predict: the list of images is empty.")
    images = chain([first], images)
    temperature = temperature_of(folder) if calibrated else 1
    decided = decider(folder, decides, temperature) if decides else None
    predictor = _predictor(folder, temperature, tta, trust, decides)
    if submits and target is not None:
        submission = lay_out(wanted, Images(images, paths), predictor.classes)
        notes = submission.write(target, predictor, label_value, fill)
        register.wrote(target)
        print(visible("\n".join(notes)))
    else:
        classes, rule = predictor.classes, (predictor.target, predictor.thresholds)
        table = Table(classes, top_k, probabilities, threshold, decided, *rule)
        for text in decided.notes if decided else ():
            logger.warning(f"note: {visible(text)}")
        with document(as_json) as show:
            if not as_json:
                _write(table, predictor, images, target, writer)
                return
            show(list(table.rows(predictor.predict(images))))
            _refuse_failed(table)


class Terminal:
    """Standard output where somebody reads it: a file's name may hold what a terminal would obey."""

    def write(self, text: str) -> None:
        print(visible(text), end="")


def check_target(target: Path, run: Path, inputs: list[str], sample: str | None = None) -> None:
    """Refuse an output file that cannot be written, or that would take the place of what is read."""
    if not os.access(target.parent, os.W_OK | os.X_OK) or (os.path.lexists(target) and not target.is_file()):
        raise OutputError(f"-o {target}: this file cannot be written there.", "Name a file in an existing folder.")
    place = _real(target)
    if sample is not None and place == _real(Path(sample)):
        raise UsageError(f"-o {target} is the sample submission itself.", "Name another file:  -o submission.csv")
    if any(place == _real(Path(name)) for name in inputs if name != "-"):
        raise UsageError(f"-o {target} is read as well: it is among the PATHS.", "Name another file.")
    if target.exists() and place.is_relative_to(_real(run)):
        raise UsageError(f"-o {target} is a file of the run.", "Name another file, outside of the run folder.")


def _real(path: Path) -> Path:
    """Where a path leads; unlike Path.resolve it also takes a link that goes round in a circle."""
    return Path(os.path.realpath(shell.path(path)))


def _predictor(folder: Path, temperature: float, tta: bool, trust: bool, wanted: Wanted) -> Predictor | RecipePredictor:
    from fastcls.inference.deciding import predictor

    if trust and not (folder / "model.onnx").is_file():
        if tta or wanted.unknown is not None:
            flag = "--tta" if tta else "--unknown"
            raise UsageError(f"{flag} needs a model.onnx, which {folder} has not.", f"Omit {flag}.")
        from fastcls.running.loading import import_fastai

        import_fastai()
        from fastcls.running.replay import RecipePredictor

        return RecipePredictor(folder, temperature)
    return predictor(folder, temperature, tta, wanted)


def _write(
    table: Table,
    predictor: Predictor | RecipePredictor,
    images: Iterator[str],
    target: Path | None,
    writer: Writer | None,
) -> None:
    """A row an image, to the file or to standard output."""
    from fastcls.inference.answers import write_csv

    rows = table.rows(predictor.predict(images))
    if target is None or writer is None:
        write_csv(Terminal() if sys.stdout.isatty() else sys.stdout, table, rows)
    else:
        writer(target, table, rows)
        register.wrote(target)
        unsure = f", {table.unsure:,} of them unsure" if table.unsure else ""
        print(f"{table.total - table.failed:,} of {table.total:,} images labelled{unsure}: {target}")
    _refuse_failed(table)


def _write_parts(job: Job, processes: int) -> None:
    """A folder of parts, begun or completed."""
    from fastcls.inference import parts

    if job.kind not in parts.FORMATS:
        raise UsageError(f"--parts {job.kind}: takes {', '.join(parts.FORMATS)}.")
    done = parts.complete(job, processes)
    there = f" ({done.before:,} were there)" if done.before else ""
    print(f"{done.total - done.failed:,} of {done.total:,} images labelled: {job.out}, {done.parts:,} parts{there}")
    _refuse_failed(done)


def _refuse_failed(table: Table | Done) -> None:
    """Exit code 3 where images could not be read."""
    if table.failed:
        print(
            f"error: {table.failed:,} of {table.total:,} images could not be read; their rows say why.",
            file=sys.stderr,
        )
        raise typer.Exit(UNREADABLE)
