"""Kaggle submissions: what the command line asks of one, its rows and columns, and the file that is written.

Rows and columns are as the flags say, or as in the competition's own sample.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol

from fastcls.datasets.walk import count, some
from fastcls.errors import DataError, UsageError, did_you_mean
from fastcls.images.decode import opened
from fastcls.inference.predictor import Prediction
from fastcls.runfolder import runs
from fastcls.runfolder.target import Target
from fastcls.settings import shell

ID_FORMS = ("stem", "name", "path")
UNIFORM = "uniform"  # for --fill: log loss punishes a wrong certainty without bound, equal shares never
WIDTH = 110  # characters of a line that is shown as an example


@dataclass(frozen=True)
class Format:
    """What the command line asks of a submission; None where it says nothing."""

    id_column: str | None = None
    label_column: str | None = None
    id_form: str | None = None
    label_value: str | None = None
    sample: str | None = None
    fill: str | None = None
    probabilities: bool = False
    probability_of: str | None = None

    def __post_init__(self) -> None:
        if self.id_form not in (None, *ID_FORMS):
            raise UsageError(f"--id {self.id_form}: expected stem, name or path.")
        if self.label_value not in (None, "name", "index"):
            raise UsageError(f"--label-value {self.label_value}: expected name or index.")
        if self.id_column is not None and self.id_column == self.label_column:
            raise UsageError(
                f"--id-column and --label-column are both {self.id_column!r}.", "Give the two columns different names."
            )
        if self.probability_of is not None and (self.probabilities or self.label_value):
            raise UsageError(
                f"--probability-of {self.probability_of}: it writes one probability, so it excludes "
                f"{'--probabilities' if self.probabilities else '--label-value'}.",
                "Omit one of them.",
            )
        label = "--label-column" if self.label_column is not None else "--label-value" if self.label_value else ""
        if self.probabilities and label:
            raise UsageError(
                f"{label} writes one column of labels, --probabilities one column per class.", "Omit one of them."
            )


class Predicts(Protocol):
    """What a `Predictor` has of use here."""

    classes: list[str]
    target: Target
    thresholds: list[float] | None

    def predict(self, paths: Iterable[str]) -> Iterator[Prediction]: ...


@dataclass
class Submission:
    """A table that lacks nothing but its answers."""

    header: list[str]
    rows: list[list[str]]
    images: list[str]  # the image that answers each row; "" where there is none
    columns: list[int]  # where the answers go
    classes: list[str] = field(default_factory=list)  # whose probabilities the columns take; none: they take labels
    left_out: int = 0  # images without a row

    def write(
        self,
        file: Path,
        predictor: Predicts,
        label_value: str | None = None,
        fill: str | None = None,
    ) -> list[str]:
        """Predict, write all of the file or nothing, and say what it holds.

        Several labels of an image are separated by spaces. DataError where an image cannot be read and `fill` is None.
        """
        predict, known = predictor.predict, predictor.classes
        labels = [str(index) for index in range(len(known))] if label_value == "index" else known
        order = [known.index(name) for name in self.classes]
        filling = [""] * len(self.columns) if fill is None else self._filling(fill, known)
        unreadable: list[str] = []
        if predictor.target.several and not order and (spaced := [name for name in labels if " " in name]):
            raise UsageError(
                f"A submission separates the labels of an image by spaces, and {spaced[0]!r} has one itself.",
                "Use --label-value index, or --probabilities for one column per label.",
            )

        def rows() -> Iterator[list[str]]:
            answers = predict(image for image in self.images if image)
            for row, image in zip(self.rows, self.images, strict=True):
                cells = filling
                if image:
                    answer = next(answers)
                    if answer.probabilities is None:
                        unreadable.append(f"{image!r} ({answer.error})")
                    elif order:
                        cells = [f"{p:.6g}" for p in answer.probabilities[order]]
                    else:
                        chosen, _ = predictor.target.answer(answer.probabilities, predictor.thresholds, 0)
                        cells = [" ".join(labels[k] for k in chosen)]
                line = row.copy()
                for column, cell in zip(self.columns, cells, strict=True):
                    line[column] = cell
                yield line
            if unreadable and fill is None:
                raise DataError(
                    f"{len(unreadable):,} of {count(len(self.images), 'image')} could not be read: {some(unreadable)}.",
                    f"Fix them, or set a label for them with --fill LABEL. {file} was not written.",
                )

        runs.write_csv(file, self.header, rows())
        with file.open(encoding="utf-8", errors="replace", newline="") as written:
            example = [line.rstrip("\n") for line in islice(written, 2)]
        notes = [f"{file}: {count(len(self.rows), 'row')} of {count(len(self.header), 'column')}, beginning"]
        notes += [f"  {line if len(line) <= WIDTH else f'{line[: WIDTH - 2]} …'}" for line in example]
        if missing := self.images.count(""):
            notes.append(f"{count(missing, 'id')} without an image: --fill {fill}.")
        if unreadable:
            notes.append(f"{count(len(unreadable), 'unreadable image')}: --fill {fill}. {some(unreadable)}.")
        if fill is not None and not self.classes and fill not in labels:
            notes.append(f"note: --fill {fill} is not a label that this run predicts{did_you_mean(fill, labels)}")
        if self.left_out:
            notes.append(f"{count(self.left_out, 'image')} not in the sample submission left out.")
        return notes

    def _filling(self, fill: str, known: Sequence[str]) -> list[str]:
        """The answer cells of an image that has no answer of its own."""
        if not self.classes:
            if fill == UNIFORM and fill not in known:
                raise UsageError(
                    f"--fill {fill}: this submission has labels, and {UNIFORM} is only for probabilities.",
                    f"Use a label such as {' or '.join(known[:2])}, or --probabilities.",
                )
            return [fill]
        if fill in known:
            return ["1" if name == fill else "0" for name in self.classes]
        if fill == UNIFORM:
            return [f"{1 / len(known):.6g}"] * len(self.classes)
        raise UsageError(
            f"--fill {fill}: not a class of this run{did_you_mean(fill, known)}.",
            f"Probability columns are filled with a class (1, all others 0) or with {UNIFORM} (the same for all).",
        )


# ---------------------------------------------------------------------------- rows and columns


class Images:
    """The images to label, and the ids they may go by."""

    def __init__(self, paths: Iterable[str], arguments: Sequence[str]) -> None:
        self.paths = list(dict.fromkeys(paths))  # a file named twice is one image
        self.folders = [folder for name in arguments if (folder := shell.path(name)).is_dir()]

    def by(self, form: str) -> dict[str, list[str]]:
        """Ids of one form, in order, each with the images that have it."""
        found: dict[str, list[str]] = defaultdict(list)
        for path in self.paths:
            found[self._id(Path(path), form)].append(path)
        return dict(found)

    def _id(self, path: Path, form: str) -> str:
        if form != "path":
            return path.stem if form == "stem" else path.name
        folder = next((folder for folder in self.folders if path.is_relative_to(folder)), None)
        return (path.relative_to(folder) if folder else path).as_posix()


def lay_out(wanted: Format, images: Images, classes: Sequence[str]) -> Submission:
    """The submission that the command line asks for: rows as in the sample, or else a row an image."""
    if wanted.probability_of is not None and wanted.probability_of not in classes:
        close = did_you_mean(wanted.probability_of, classes)
        raise UsageError(f"--probability-of {wanted.probability_of}: not a class of this run{close}.")
    if wanted.sample is not None:
        return _like_sample(wanted, shell.path(wanted.sample), images, classes)
    form = wanted.id_form or "stem"
    ids = images.by(form)
    if _several(ids):
        other = next((other for other in ID_FORMS[1:] if not _several(images.by(other))), None)
        hint = f"Distinguish them with --id {other}." if other else "Pass one folder that contains them all."
        raise _ambiguous(ids, hint)
    id_column = "id" if wanted.id_column is None else wanted.id_column
    label_column = "label" if wanted.label_column is None else wanted.label_column
    columns = list(classes) if wanted.probabilities else [label_column]
    return Submission(
        header=[id_column, *columns],
        rows=[[name, *[""] * len(columns)] for name in ids],
        images=[image for (image,) in ids.values()],
        columns=list(range(1, len(columns) + 1)),
        classes=list(classes) if wanted.probabilities else _one(wanted),
    )


def _one(wanted: Format) -> list[str]:
    """The class whose probability is the only answer, if that is asked for."""
    return [] if wanted.probability_of is None else [wanted.probability_of]


def _like_sample(wanted: Format, sample: Path, images: Images, classes: Sequence[str]) -> Submission:
    """The sample's own rows; only the cells of its answers are ours."""
    header, rows = _read(sample)
    at, columns = _columns(wanted, sample, header, classes)
    if len(columns) == 1 and wanted.probability_of is None and wanted.label_value is None:
        _refuse_shares(sample, header[columns[0]], [row[columns[0]] for row in rows], classes)
    ids = [row[at] for row in rows]
    known, form = _matching(ids, images, ID_FORMS if wanted.id_form is None else [wanted.id_form])
    missing = [name for name in ids if name not in known]
    if len(missing) == len(ids):
        raise DataError(
            f"No id of {sample} ({_quoted(ids)}) belongs to an image ({some(images.paths)}).",
            "Pass the folder of the test images. An id is a file name with or without its extension, "
            "or the path below the folder.",
        )
    if missing and wanted.fill is None:
        raise DataError(
            f"{sample}: {len(missing):,} of {count(len(ids), 'id')} without an image: {_quoted(missing)} "
            f"(ids are matched by {form}).",
            "Add the images, or set a label for them with --fill LABEL.",
        )
    used = {name: known[name] for name in ids if name in known}
    if _several(used):
        raise _ambiguous(
            used, f"{sample} does not distinguish them: pass only the folder of its images, or remove one."
        )
    return Submission(
        header=header,
        rows=rows,
        images=[used[name][0] if name in used else "" for name in ids],
        columns=columns,
        classes=[header[column] for column in columns] if len(columns) > 1 else _one(wanted),
        left_out=len(images.paths) - len(used),
    )


def _matching(ids: list[str], images: Images, forms: Sequence[str]) -> tuple[dict[str, list[str]], str]:
    """Images by the form of id that all of `ids` have, else the one that most have, and its name."""
    best: tuple[int, dict[str, list[str]], str] = (-1, {}, "")
    for form in forms:
        known = images.by(form)
        matched = sum(name in known for name in ids)
        if matched > best[0]:
            best = (matched, known, form)
        if matched == len(ids):
            break
    return best[1], best[2]


def _columns(wanted: Format, sample: Path, header: list[str], classes: Sequence[str]) -> tuple[int, list[int]]:
    """Which column of the sample holds the ids, and which take the answers."""
    label = _position(header, wanted.label_column, "--label-column", sample)
    at = _position(header, wanted.id_column, "--id-column", sample)
    if at is None:
        at = 1 if label == 0 else 0
    others = [column for column in range(len(header)) if column != at]
    if label is None and len(others) > 1:
        names = [header[column] for column in others]
        lacking, extra = [c for c in classes if c not in names], [n for n in names if n not in classes]
        if lacking or extra or len(names) != len(classes):
            differences = [f"no column for {_quoted(lacking)}"] if lacking else []
            differences += [f"no class for column {_quoted(extra)}"] if extra else []
            raise DataError(
                f"{sample} has {count(len(header), 'column')}: expected an id and a label, or an id and one column "
                f"for each of this run's {count(len(classes), 'class')}, by its name "
                f"({'; '.join(differences) or 'a column occurs twice'}).",
                "Set the column of the labels with --label-column, or use a run that was trained on these classes.",
            )
        if value := wanted.label_value or wanted.probability_of:
            flag = "--label-value" if wanted.label_value else "--probability-of"
            raise UsageError(
                f"{flag} {value}: {sample} has one probability per class, not a single answer.", "Omit it."
            )
        return at, others
    if wanted.probabilities:
        raise UsageError(f"--probabilities: {sample} has one column of labels, not one per class.", "Leave it out.")
    return at, [others[0] if label is None else label]


def _refuse_shares(sample: Path, column: str, cells: Sequence[str], classes: Sequence[str]) -> None:
    """UsageError where a sample's answers are shares, such as 0.5: labels would be marked as certainties."""
    for cell in cells:
        try:
            share = 0 < float(cell) < 1 and cell not in classes
        except ValueError:
            return
        if share:
            raise UsageError(
                f"{sample} has {cell} in its column {column!r}, not a class of this run: it expects probabilities.",
                f"Choose the class:  --probability-of {' or '.join(classes[:2])}"
                f"{', …' if len(classes) > 2 else ''}    Or, if it expects labels:  --label-value name",
            )


def _position(header: list[str], name: str | None, flag: str, sample: Path) -> int | None:
    if name is None:
        return None
    if name not in header:
        raise DataError(
            f"{flag} {name}: {sample} has no such column{did_you_mean(name, header)}.", f"It has {_quoted(header)}."
        )
    return header.index(name)


def _read(sample: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a CSV file, every cell the text that it is."""
    rows = []
    try:
        with io.TextIOWrapper(io.BufferedReader(opened(sample)), "utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in filter(None, reader):  # an empty line is no row
                rows.append(row)
                if len(row) != len(rows[0]):
                    raise DataError(
                        f"{sample}, line {reader.line_num}: {count(len(row), 'cell')} "
                        f"under {count(len(rows[0]), 'column')}.",
                        "Every row must be as long as the header; cells with commas need quotes.",
                    )
    except OSError as problem:
        raise DataError(
            f"--sample-submission {sample}: cannot be read ({problem.strerror or problem}).",
            "Use the sample_submission.csv of the competition.",
        ) from None
    except (csv.Error, UnicodeDecodeError) as problem:
        raise DataError(f"{sample} is not a CSV file in UTF-8: {problem}.", "Save it as CSV, in UTF-8.") from None
    if len(rows) < 2 or len(rows[0]) < 2:
        lacking = "rows below a header" if len(rows) < 2 else f"second column beside {rows[0][0][:60]!r}"
        raise DataError(f"{sample} has no {lacking}.", "Expected ids and labels, separated by commas.")
    return rows[0], rows[1:]


def _several(ids: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: images for name, images in ids.items() if len(images) > 1}


def _ambiguous(ids: dict[str, list[str]], hint: str) -> DataError:
    several = _several(ids)
    listed = [f"{name!r} for {', '.join(map(repr, images[:3]))}" for name, images in several.items()]
    return DataError(f"{count(len(several), 'id')} would each match several images: {some(listed)}.", hint)


def _quoted(names: Iterable[str]) -> str:
    return some([repr(name) for name in names])
