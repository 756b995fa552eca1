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
    features: bool = typer.Option(
        False, "--features", help="Add the network's features (embeddings): a column each in a CSV, elsewhere a list."
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
    processes: int = typer.Option(1, "--processes", metavar="N", help="With --parts, on this machine."),
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

    Of several pages or frames in one file (TIFF, GIF, WebP) the first is labelled; a video is refused, with the
    command that saves its pictures.

    An image that cannot be read becomes a row with an error, and the exit code is 3.

    With any option marked Submission, -o is a file for Kaggle: an id and a label a row, with --probability-of an id and
    a probability, or with --probabilities an id and a column a class. It is written only if every row has an answer.
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
