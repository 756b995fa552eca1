"""Predictions as rows of a table, written as CSV, JSON lines or Parquet while they are made."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastcls.errors import UsageError
from fastcls.inference.predictor import Prediction
from fastcls.inference.requirements import UNSURE, Row
from fastcls.machine import extras
from fastcls.runfolder import runs
from fastcls.runfolder.target import SINGLE, Target

if TYPE_CHECKING:
    from fastcls.inference.deciding import Decider

ROWS = 10_000  # of a Parquet file, written at once
FEATURES = "features"  # the column of lists


@dataclass
class Table:
    """What goes into a row, and how many rows there were.

    threshold: an answer less likely is 'unsure'; of several labels an image, from which on all of them are predicted,
    in place of `thresholds`, each its own.  top_k: so many classes, likeliest first.  all_classes: a column each.
    decider: what adds columns, and decides otherwise than for the likeliest class.  features: how many, last.
    """

    classes: Sequence[str]
    top_k: int = 0
    all_classes: bool = False
    threshold: float = 0
    decider: Decider | None = None
    target: Target = SINGLE
    thresholds: Sequence[float] | None = None
    features: int = 0
    total: int = field(default=0, init=False)
    failed: int = field(default=0, init=False)
    unsure: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise UsageError(f"--threshold {self.threshold:g}: expected a probability from 0 to 1.")
        if not 0 <= self.top_k <= len(self.classes):
            raise UsageError(f"--top-k {self.top_k}: this run has {len(self.classes)} classes.")
        if self.threshold and UNSURE in self.classes and not self.target.several:
            raise UsageError(
                f"--threshold: {UNSURE!r} is a class of this run, so its rows could not be distinguished.",
                "Omit --threshold and filter by the confidence column yourself.",
            )

    @property
    def columns(self) -> dict[str, type]:
        """The titles, and what stands below each."""
        columns: dict[str, type] = {"path": str, "prediction": str, "confidence": float, "error": str}
        columns |= self.decider.columns if self.decider else {}
        for k in range(1, self.top_k + 1):
            columns |= {f"top{k}": str, f"p{k}": float}
        columns |= {f"p:{name}": float for name in self.classes} if self.all_classes else {}
        return columns | ({FEATURES: np.ndarray} if self.features else {})

    def rows(self, answers: Iterable[Prediction]) -> Iterator[Row]:
        """A row an answer, in order."""
        empty = dict.fromkeys(self.columns)
        for answer in answers:
            self.total += 1
            p = answer.probabilities
            if p is None:
                self.failed += 1
                yield empty | {"path": answer.path, "error": answer.error}
            else:
                features = answer.features if self.features else None
                last = {} if features is None else {FEATURES: features.tolist()}
                yield empty | {"path": answer.path} | self._answer(p, answer.p_known) | last

    def _answer(self, p: np.ndarray, p_known: float | None) -> Row:
        chosen, confidence = self.target.answer(p, self.thresholds, self.threshold)
        sure = bool(chosen) or self.target.several
        prediction = self.target.text(self.classes[k] for k in chosen) if sure else UNSURE
        row: Row = {"prediction": prediction, "confidence": confidence}
        row |= self.decider.cells(p, p_known) if self.decider else {}
        self.unsure += row["prediction"] == UNSURE and not self.target.several
        for k, index in enumerate(np.argsort(-p, kind="stable")[: self.top_k].tolist(), start=1):
            row |= {f"top{k}": self.classes[index], f"p{k}": float(p[index])}
        return row | ({f"p:{name}": float(p[i]) for i, name in enumerate(self.classes)} if self.all_classes else {})


Writer = Callable[[Path, Table, Iterable[Row]], object]


def writer_for(target: Path) -> Writer:
    """What writes a file of this suffix, all or nothing; UsageError for another, EnvironmentProblem for pyarrow."""
    suffix = target.suffix.lower()
    if suffix not in WRITERS:
        raise UsageError(
            f"-o {target}: {suffix or 'a name without a suffix'} is not a supported format.",
            f"Choose a file that ends in {', '.join(WRITERS)}.",
        )
    if WRITERS[suffix] is _parquet:
        extras.require(f"-o {target}", "parquet", otherwise="or choose a .csv or .jsonl file.")
    write = WRITERS[suffix]
    return lambda target, table, rows: runs.atomic_path(target, lambda part: write(part, table, rows))


def write_csv(stream: Any, table: Table, rows: Iterable[Row]) -> None:
    """A header and the rows, to an open text file; what is not there is an empty cell, each feature has a column."""

    def cells(row: Row) -> list[Any]:
        features = (row.pop(FEATURES) or [None] * table.features) if table.features else []
        return [_cell(value) for value in (*row.values(), *features)]

    titles = [name for name in table.columns if not table.features or name != FEATURES]
    numbered = [f"feature{i}" for i in range(table.features)]
    runs.write_rows(stream, chain([[*titles, *numbered]], map(cells, rows)))


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return "|".join(value)
    return f"{value:.6g}" if isinstance(value, float) else value


def _csv(target: Path, table: Table, rows: Iterable[Row]) -> None:
    with target.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        write_csv(file, table, rows)


def _json_lines(target: Path, table: Table, rows: Iterable[Row]) -> None:
    with target.open("w", encoding="utf-8", errors="surrogateescape") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _parquet(target: Path, table: Table, rows: Iterable[Row]) -> None:
    import pyarrow
    from pyarrow import parquet

    kinds = {str: pyarrow.string(), float: pyarrow.float64(), list: pyarrow.list_(pyarrow.string())}
    kinds[np.ndarray] = pyarrow.list_(pyarrow.float32())
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in table.columns.items()])
    rest = iter(rows)
    with parquet.ParquetWriter(target, schema) as file:
        while chunk := list(islice(rest, ROWS)):
            for row in chunk:  # Parquet's text is UTF-8, and a path may be in any encoding
                row["path"] = row["path"].encode("utf-8", "replace").decode()
            file.write_table(pyarrow.Table.from_pylist(chunk, schema))


WRITERS: dict[str, Writer] = {".csv": _csv, ".jsonl": _json_lines, ".ndjson": _json_lines, ".parquet": _parquet}
