"""fastcls predict RUN PATHS: labels for new images, as a table or as a Kaggle submission."""

from __future__ import annotations

import typer

from fastcls.cli import completion, labels
from fastcls.cli.app import JSON, app, verb


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
    top_k: int = typer.Option(0, "--top-k", metavar="K", help="Add the K most likely classes and their probabilities."),
    probabilities: bool = typer.Option(
        False, "--probabilities", help="Add a column for each class, with its probability."
    ),
    threshold: float = typer.Option(
        0.0,
        "--threshold",
        metavar="T",
        help="A prediction with a probability below T is 'unsure'; with several labels: predict those from T on.",
    ),
    calibrated: bool = typer.Option(
        False, "--calibrated", help="Divide the logits by the temperature that was fitted on the validation split."
    ),
    tta: bool = typer.Option(
        False, "--tta", help="Average the probabilities of each image and its mirror image (twice the time)."
    ),
    coverage: float | None = typer.Option(
        None,
        "--coverage",
        metavar="C",
        help="Add a prediction set: classes that contain the right one with probability C.",
    ),
    precision: list[str] = typer.Option(
        [], "--precision", metavar="[CLASS=]P", help="'unsure' unless the prediction is right with probability P."
    ),
    recall: list[str] = typer.Option(
        [], "--recall", metavar="[CLASS=]R", help="Predict CLASS often enough to find a share R of its images."
    ),
    costs: str = typer.Option(
        "",
        "--costs",
        metavar="FILE",
        help="Decide by least expected cost: a CSV with a row per true class and a column per decision.",
    ),
    unknown: float | None = typer.Option(
        None,
        "--unknown",
        metavar="R",
        help="'unknown' for images unlike all classes; this includes a share R of known ones.",
    ),
    features: bool = typer.Option(
        False, "--features", help="Add the network's features (embeddings): one column each in a CSV, otherwise a list."
    ),
    trust: bool = typer.Option(False, "--trust", help="Run the code in the run's recipe.py if there is no ONNX file."),
    id_column: str | None = typer.Option(
        None, "--id-column", metavar="NAME", help="Submission: name of the id column  [default: id]"
    ),
    label_column: str | None = typer.Option(
        None, "--label-column", metavar="NAME", help="Submission: name of the label column  [default: label]"
    ),
    id_form: str | None = typer.Option(
        None,
        "--id",
        metavar="stem|name|path",
        autocompletion=completion.among("stem", "name", "path"),
        help="Submission: the id is the file name without its extension, with it, or the path below the folder "
        "[default: stem, or whatever matches the ids of the sample]",
    ),
    label_value: str | None = typer.Option(
        None,
        "--label-value",
        metavar="name|index",
        autocompletion=completion.among("name", "index"),
        help="Submission: the label is the class name or its index in the network's order  [default: name]",
    ),
    sample: str | None = typer.Option(
        None, "--sample-submission", metavar="FILE", help="Submission: use the columns, rows and ids of this CSV file."
    ),
    probability_of: str | None = typer.Option(
        None, "--probability-of", metavar="CLASS", help="Submission: answer with the probability of this class."
    ),
    fill: str | None = typer.Option(
        None,
        "--fill",
        metavar="LABEL",
        help="Submission: label for ids without an image and for images that cannot be read.",
    ),
    parts: str = typer.Option(
        "",
        "--parts",
        metavar="csv|jsonl|parquet",
        autocompletion=completion.among("csv", "jsonl", "parquet"),
        help="Write a folder (-o) of files in this format; the same command continues it.",
    ),
    processes: int = typer.Option(
        1, "--processes", metavar="N", help="Number of processes on this machine, with --parts."
    ),
    as_json: bool = JSON,
) -> None:
    """Label images with a trained run.

    \b
    fastcls predict last photos -o labels.csv
    fastcls predict pets-resnet50 'new/**/*.jpg' --top-k 3
    fastcls predict last test --sample-submission sample.csv -o submission.csv
    fastcls predict last s3://bucket/photos -o labels --parts parquet --processes 4

    Every image gets one row: path, prediction, confidence, error.

    A CSV of paths (.csv, .tsv) has a column 'path', 'file' or 'image'; its paths are relative to the working directory
    or to the table.

    If images have several labels, the prediction lists all labels whose probability reaches their own threshold,
    separated by '|' (in a submission by spaces); the confidence is that of the least confident of these decisions.

    If a file has several pages or frames (TIFF, GIF, WebP), the first is labelled; a video is refused, with the
    command that extracts its frames.

    An image that cannot be read gets a row with an error, and the exit code is 3.

    With any option marked Submission, -o is a file for Kaggle. Each row has an id and a label; with --probability-of an
    id and a probability; with --probabilities an id and a column per class. It is written only if every row has an
    answer.
    """
    from fastcls.inference.requirements import Wanted, levels
    from fastcls.inference.submission import Format

    wanted = Format(id_column, label_column, id_form, label_value, sample, fill, probabilities, probability_of)
    decides = Wanted(coverage, levels(precision, "--precision"), levels(recall, "--recall"), costs, unknown)
    labels.write(
        run,
        paths,
        out,
        as_json,
        parts=parts,
        processes=processes,
        submission=None if wanted == Format(probabilities=probabilities) else wanted,
        decides=decides,
        top_k=top_k,
        probabilities=probabilities,
        threshold=threshold,
        calibrated=calibrated,
        tta=tta,
        features=features,
        trust=trust,
    )
