"""Kaggle submissions: what the command line asks of one, and the file that is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol

from fastcls.datasets.walk import count, some
from fastcls.errors import DataError, UsageError, did_you_mean
from fastcls.inference.predictor import Prediction
from fastcls.runfolder import runs
from fastcls.runfolder.target import Target

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
            raise UsageError(f"--id {self.id_form}: takes stem, name or path.")
        if self.label_value not in (None, "name", "index"):
            raise UsageError(f"--label-value {self.label_value}: takes name or index.")
        if self.id_column is not None and self.id_column == self.label_column:
            raise UsageError(
                f"--id-column and --label-column are both {self.id_column!r}.", "Give the two columns different names."
            )
        if self.probability_of is not None and (self.probabilities or self.label_value):
            raise UsageError(
                f"--probability-of {self.probability_of}: the answer is one probability, and "
                f"{'--probabilities' if self.probabilities else '--label-value'} asks for another.",
                "Leave one out.",
            )
        label = "--label-column" if self.label_column is not None else "--label-value" if self.label_value else ""
        if self.probabilities and label:
            raise UsageError(
                f"{label} asks for one column of labels, --probabilities for a column a class.", "Leave one out."
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
                "Give --label-value index, or --probabilities for a column a label.",
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
                    f"Fix them, or give the label to write for them with --fill LABEL. {file} was not written.",
                )

        runs.write_csv(file, self.header, rows())
        with file.open(encoding="utf-8", errors="replace", newline="") as written:
            example = [_shortened(line.rstrip("\n")) for line in islice(written, 2)]
        notes = [f"{file}: {count(len(self.rows), 'row')} of {count(len(self.header), 'column')}, beginning"]
        notes += [f"  {line}" for line in example]
        if missing := self.images.count(""):
            notes.append(f"{count(missing, 'id')} without an image: --fill {fill}.")
        if unreadable:
            notes.append(f"{count(len(unreadable), 'unreadable image')}: --fill {fill}. {some(unreadable)}.")
        if fill is not None and not self.classes and fill not in labels:
            notes.append(f"note: --fill {fill} is no label that this run predicts{did_you_mean(fill, labels)}")
        if self.left_out:
            notes.append(f"{count(self.left_out, 'image')} not in the sample submission left out.")
        return notes

    def _filling(self, fill: str, known: Sequence[str]) -> list[str]:
        """The answer cells of an image that has no answer of its own."""
        if not self.classes:
            if fill == UNIFORM and fill not in known:
                raise UsageError(
                    f"--fill {fill}: this submission takes labels, and {UNIFORM} is of probabilities, all the same.",
                    f"Give a label, {' or '.join(known[:2])} say, or ask for --probabilities.",
                )
            return [fill]
        if fill in known:
            return ["1" if name == fill else "0" for name in self.classes]
        if fill == UNIFORM:
            return [f"{1 / len(known):.6g}"] * len(self.classes)
        raise UsageError(
            f"--fill {fill}: no class of this run{did_you_mean(fill, known)}.",
            f"Probability columns are filled with a class (1, all others 0) or with {UNIFORM} (the same for all).",
        )


def _shortened(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 2]} …"
