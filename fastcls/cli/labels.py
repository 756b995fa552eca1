"""Labels for new images, from the words of `fastcls predict`: read, checked, answered, written.

Typer's parser takes as long to import as onnxruntime. What has no options but -o and --json is done without it.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from fastcls.cli.guard import chosen
from fastcls.cli.output import document
from fastcls.cli.streams import ended
from fastcls.errors import OutputError, UsageError
from fastcls.log import logger
from fastcls.runfolder import register
from fastcls.runfolder.text import visible
from fastcls.settings import shell

if TYPE_CHECKING:
    from fastcls.inference.answers import Table, Writer
    from fastcls.inference.parts import Done, Job
    from fastcls.inference.predictor import Predictor
    from fastcls.inference.requirements import Wanted
    from fastcls.inference.submission import Format
    from fastcls.running.replay import RecipePredictor

UNREADABLE = 3  # the exit code when some image got no answer


def plain(words: Sequence[str]) -> tuple[str, list[str], str, bool] | None:
    """Run, images, file and whether JSON of `predict RUN IMAGES [-o FILE] [--json]`; None for all other words."""
    places: list[str] = []
    out, as_json = "", False
    rest = list(words[1:])
    while rest:
        word = rest.pop(0)
        if word == "--json" and not as_json:
            as_json = True
        elif word in ("-o", "--out") and rest and not out:
            out = rest.pop(0)
            if not out:
                return None
        elif (word.startswith("-") and word != "-") or ("=" in word and not os.path.lexists(word)):
            return None
        else:
            places.append(word)
    return (places[0], places[1:], out, as_json) if words[:1] == ["predict"] and len(places) > 1 else None


def write(
    run: str,
    paths: list[str],
    out: str = "",
    as_json: bool = False,
    *,
    parts: str = "",
    processes: int = 1,
    submission: Format | None = None,
    decides: Wanted | None = None,
    top_k: int = 0,
    probabilities: bool = False,
    threshold: float = 0.0,
    calibrated: bool = False,
    tta: bool = False,
    features: bool = False,
    trust: bool = False,
) -> None:
    """Label images with a run, into a file or on standard output; `fastcls predict --help` says what each means."""
    from fastcls.datasets.inputs import collect
    from fastcls.inference.answers import Table, writer_for
    from fastcls.inference.predictor import temperature_of
    from fastcls.inference.requirements import Wanted

    decides = decides or Wanted()
    if submission and not out:
        raise UsageError("A Kaggle submission needs an output file.", "Add  -o submission.csv")
    flags = {"--top-k": top_k, "--threshold": threshold, "--features": features}
    flag = next((name for name, value in flags.items() if value), decides.first)
    if submission and flag:
        raise UsageError(
            f"{flag}: a Kaggle submission has exactly one answer per image.",
            "Omit it, or the options marked Submission.",
        )
    if as_json and out:
        raise UsageError(
            "--json and -o exclude each other: --json writes to standard output.",
            "Omit -o, or use -o FILE.jsonl without --json.",
        )
    folder = chosen(run)
    if parts or processes != 1:
        if submission or trust or not parts or out in ("", "-"):
            what = "the options marked Submission" if submission else "--trust" if trust else ""
            hint = f"Omit {what}." if what and parts and out else "Use both:  -o FOLDER --parts parquet"
            raise UsageError("--parts and --processes need an output folder.", hint)
        from fastcls.cli.processes import refuse_too_many
        from fastcls.inference.parts import Job

        refuse_too_many("--processes", processes)

        gc.enable()
        asked = (temperature_of(folder) if calibrated else 1, tta, top_k, probabilities, threshold, features)
        _write_parts(Job(folder, tuple(paths), shell.path(out), parts, decides, *asked), processes)
        return
    target = shell.path(out) if out else None
    if target is not None:
        check_target(target, folder, paths, submission.sample if submission else None)
    writer = writer_for(target) if target is not None and not submission else None
    if target is not None:
        register.refuse_others(target, "-o")
    images = collect(paths)
    first = next(images, None)
    if first is None:
        raise UsageError("Nothing to predict: the list of images is empty.")
    images = chain([first], images)
    temperature = temperature_of(folder) if calibrated else 1
    decided = None
    if decides:
        from fastcls.inference.deciding import decider

        decided = decider(folder, decides, temperature)
    predictor = _predictor(folder, temperature, tta, trust, decides, features)
    gc.enable()
    if submission and target is not None:
        from fastcls.inference.submission import Images, lay_out

        laid_out = lay_out(submission, Images(images, paths), predictor.classes)
        notes = laid_out.write(target, predictor, submission.label_value, submission.fill)
        register.wrote(target)
        print(visible("\n".join(notes)))
        return
    classes, rule = predictor.classes, (predictor.target, predictor.thresholds, predictor.width if features else 0)
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
        what = "is a folder, not a file" if target.is_dir() else "this file cannot be written"
        raise OutputError(f"-o {target}: {what}.", "Choose a file in an existing folder.")
    place = _real(target)
    if sample is not None and place == _real(Path(sample)):
        raise UsageError(f"-o {target} is the sample submission itself.", "Choose another file:  -o submission.csv")
    if any(place == _real(Path(name)) for name in inputs if name != "-"):
        raise UsageError(f"-o {target} is also an input: it is among the PATHS.", "Choose another file.")
    if target.exists() and place.is_relative_to(_real(run)):
        raise UsageError(f"-o {target} is a file of the run.", "Choose a file outside the run folder.")


def _real(path: Path) -> Path:
    """Where a path leads; unlike Path.resolve it also takes a link that goes round in a circle."""
    return Path(os.path.realpath(shell.path(path)))


def _predictor(
    folder: Path, temperature: float, tta: bool, trust: bool, wanted: Wanted, features: bool
) -> Predictor | RecipePredictor:
    from fastcls.inference.requirements import predictor

    if trust and not (folder / "model.onnx").is_file():
        if tta or features or wanted.unknown is not None:
            flag = "--tta" if tta else "--features" if features else "--unknown"
            raise UsageError(f"{flag} needs a model.onnx, and {folder} has none.", f"Omit {flag}.")
        from fastcls.running.loading import import_fastai

        import_fastai()
        from fastcls.running.replay import RecipePredictor

        return RecipePredictor(folder, temperature)
    return predictor(folder, temperature, tta, wanted, features)


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
    from fastcls.datasets.walk import count
    from fastcls.inference import parts

    if job.kind not in parts.FORMATS:
        raise UsageError(f"--parts {job.kind}: expected {', '.join(parts.FORMATS)}.")
    done = parts.complete(job, processes)
    there = f" ({done.before:,} of them before)" if done.before else ""
    labelled = f"{done.total - done.failed:,} of {done.total:,} images labelled"
    print(f"{labelled}: {job.out}, {count(done.parts, 'part')}{there}")
    _refuse_failed(done)


def _refuse_failed(table: Table | Done) -> None:
    """Exit code 3 where images could not be read."""
    if table.failed:
        print(
            f"error: {table.failed:,} of {table.total:,} images could not be read; their rows say why.",
            file=sys.stderr,
        )
        raise ended(UNREADABLE)
