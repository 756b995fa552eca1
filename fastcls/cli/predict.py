"""fastcls predict RUN PATHS: labels for new images, as a table or as a Kaggle submission."""

from __future__ import annotations

from fastcls.cli import completion, labels
from fastcls.cli.app import JSON, app, verb
from fastcls.cli.completion import argument, option


@app.command()
@verb
def predict(
    run: str = completion.RUN,
    paths: list[str] = argument(
        "PATHS", "Images, folders, patterns ('photos/**/*.jpg'), a CSV of paths, or - for a list on standard input."
    ),
    out: str = option("-o --out FILE", ".csv, .jsonl or .parquet  [default: CSV on standard output]"),
    top_k: int = option("--top-k K", "Add the K most likely classes and their probabilities.", 0),
    probabilities: bool = option("--probabilities", "Add a column for each class, with its probability."),
    threshold: float = option(
        "--threshold T",
        "A prediction with a probability below T is 'unsure'; with several labels: predict those from T on.",
        0.0,
    ),
    calibrated: bool = option(
        "--calibrated", "Divide the logits by the temperature that was fitted on the validation split."
    ),
    tta: bool = option("--tta", "Average the probabilities of each image and its mirror image (twice the time)."),
    coverage: float | None = option(
        "--coverage C", "Add a prediction set: classes that contain the right one with probability C.", None
    ),
    precision: list[str] = option(
        "--precision [CLASS=]P", "'unsure' unless the prediction is right with probability P.", []
    ),
    recall: list[str] = option("--recall [CLASS=]R", "Predict CLASS often enough to find a share R of its images.", []),
    costs: str = option(
        "--costs FILE", "Decide by least expected cost: a CSV with a row per true class and a column per decision."
    ),
    unknown: float | None = option(
        "--unknown R", "'unknown' for images unlike all classes; this includes a share R of known ones.", None
    ),
    features: bool = option(
        "--features", "Add the network's features (embeddings): one column each in a CSV, otherwise a list."
    ),
    trust: bool = option("--trust", "Run the code in the run's recipe.py if there is no ONNX file."),
    id_column: str | None = option("--id-column NAME", "Submission: name of the id column  [default: id]", None),
    label_column: str | None = option(
        "--label-column NAME", "Submission: name of the label column  [default: label]", None
    ),
    id_form: str | None = option(
        "--id stem|name|path",
        "Submission: the id is the file name without its extension, with it, or the path below the folder "
        "[default: stem, or whatever matches the ids of the sample]",
        None,
    ),
    label_value: str | None = option(
        "--label-value name|index",
        "Submission: the label is the class name or its index in the network's order  [default: name]",
        None,
    ),
    sample: str | None = option(
        "--sample-submission FILE", "Submission: use the columns, rows and ids of this CSV file.", None
    ),
    probability_of: str | None = option(
        "--probability-of CLASS", "Submission: answer with the probability of this class.", None
    ),
    fill: str | None = option(
        "--fill LABEL", "Submission: label for ids without an image and for images that cannot be read.", None
    ),
    parts: str = option(
        "--parts csv|jsonl|parquet", "Write a folder (-o) of files in this format; the same command continues it."
    ),
    processes: int = option("--processes N", "Number of processes on this machine, with --parts.", 1),
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
