"""predictions.csv, its parts where there are many images, and probe.csv: a row an evaluated image.

Nothing else writes or reads their columns.

Names stay text, so that a class called 'NA' or '007' keeps its name; bytes that are not UTF-8 are kept too.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastcls.errors import OutputError, UsageError, did_you_mean
from fastcls.runfolder import parts, runs
from fastcls.runfolder.text import clean

FILE = "predictions.csv"
PARTS = "predictions"  # a folder of Parquet parts in place of FILE, where there are more than MANY images
MANY = 1_000_000
MOST = 200_000_000  # probabilities, of all images and classes, above which there are parts as well: 0.8 GB
BASELINE = "probe.csv"  # what the linear probe predicts: NAMES alone
NAMES = ("split", "path", "label", "prediction")
NUMBERS = ("confidence", "calibrated", "loss")
GROUP = "group"  # where there are groups: images of one belong together; empty for an image that is alone
TOP = tuple((f"top{k}", f"p{k}") for k in range(1, 6))
DENSE = 100  # up to so many classes, a column 'p:CLASS' each; above, the five most likely in TOP


def write(
    file: Path,
    classes: Sequence[str],
    rows: Iterable[tuple[Sequence[str], Sequence[float], np.ndarray]],
    dense: bool = False,
    groups: Mapping[str, str] | None = None,
) -> Path:
    """Write rows of NAMES, NUMBERS and the probabilities (classes,) of an image.

    dense: of each class, if many. groups: that of each path, where there are groups.
    """
    dense = dense or len(classes) <= DENSE
    own = [GROUP] if groups else []
    columns = [f"p:{name}" for name in classes] if dense else [column for pair in TOP for column in pair]

    def cells() -> Iterator[list[str]]:
        for names, numbers, p in rows:
            if dense:
                probabilities = [f"{value:.6g}" for value in p.tolist()]
            else:
                probabilities = [cell for i in _likeliest(p) for cell in (classes[i], f"{p[i]:.6g}")]
            group = [groups.get(names[1], "")] if groups else []
            yield [*names, *(f"{number:.6g}" for number in numbers), *group, *probabilities]

    return runs.write_csv(file, [*NAMES, *NUMBERS, *own, *columns], cells())


def _likeliest(p: np.ndarray) -> np.ndarray:
    """(…, 5) the classes of the highest probabilities (…, classes), the highest first."""
    top = np.argpartition(p, -5)[..., -5:]
    return np.take_along_axis(top, np.argsort(-np.take_along_axis(p, top, -1)), -1)


@contextlib.contextmanager
def writing_part(file: Path, split: str, classes: Sequence[str]) -> Iterator[Callable[..., None]]:
    """Yields what adds images to a part of a large run's predictions.

    It takes paths (n,), labels and predictions (n,) as class indices, NUMBERS (3, n) and probabilities (n, classes).
    """
    import pandas as pd

    names = pd.Index(list(map(str, classes)), dtype=object)  # what is no UTF-8 among them is no pandas text
    with parts.writing(file) as add:

        def images(
            paths: Sequence[str], labels: np.ndarray, predicted: np.ndarray, numbers: np.ndarray, p: np.ndarray
        ) -> None:
            def named(codes: np.ndarray) -> Any:
                return pd.Categorical.from_codes(codes, names)

            table = {
                "split": pd.Categorical.from_codes(np.zeros(len(p), int), [split]),
                "path": pd.Series(paths, dtype=object),
            }
            table |= {
                "label": named(labels),
                "prediction": named(predicted),
                **dict(zip(NUMBERS, numbers, strict=True)),
            }
            if len(names) <= DENSE:
                table |= {f"p:{name}": p[:, i] for i, name in enumerate(names)}
            else:
                top = _likeliest(p)
                for k, (name, value) in enumerate(TOP):
                    table |= {name: named(top[:, k]), value: p[np.arange(len(p)), top[:, k]]}
            add(pd.DataFrame(table))

        yield images


def there(run: Path) -> bool:
    """Whether a run has predictions, in a file or in parts."""
    return (run / FILE).is_file() or in_parts(run)


def in_parts(run: Path) -> bool:
    """Whether what is read of a run's predictions is a sample."""
    return not (run / FILE).is_file() and bool(parts.files(run / PARTS))


def counts(run: Path) -> Any:
    """How many images there are of each split, label and prediction: a DataFrame of these and `count`; exact.

    Of a run in parts alone, whose tables are samples; ValueError where they cannot be read.
    """
    return parts.counts(run / PARTS, [name for name in NAMES if name != "path"])


def write_baseline(file: Path, rows: Iterable[Sequence[str]]) -> Path:
    """Write rows of NAMES."""
    return runs.write_csv(file, NAMES, rows)


def read(file: Path, probabilities: bool = False) -> Any:
    """A DataFrame of NAMES as text and NUMBERS as floats (NaN where there is none), with `probabilities` their columns.

    GROUP is text, where the file has it. Of a run in parts it is `parts.SAMPLE` images of each split. OSError or
    ValueError where the file is not that.
    """
    import pandas as pd

    if file.name == FILE and in_parts(file.parent):
        table = parts.sample(file.parent / PARTS, "split", "path", None if probabilities else (*NAMES, *NUMBERS))
        for name in NUMBERS:
            table[name] = table[name].astype(float)
        return table

    text = {*NAMES, *NUMBERS, GROUP, *(name for name, _ in TOP)}
    table = pd.read_csv(
        file,
        dtype=defaultdict(lambda: np.float32, dict.fromkeys(text, str)),  # type: ignore[arg-type, return-value]
        keep_default_na=False,
        encoding="utf-8",
        encoding_errors="surrogateescape",
        usecols=None if probabilities else lambda name: name in text,
    )
    if missing := [name for name in NAMES if name not in table]:
        raise ValueError(f"it has no column {', '.join(missing)}")
    if (short := table[list(NAMES)].isna().any(axis=1)).any():
        raise ValueError(f"line {int(short.argmax()) + 2} is too short")
    for name in NUMBERS:
        values = table[name] if name in table else pd.Series(np.nan, index=table.index)
        table[name] = pd.to_numeric(values, errors="coerce").astype(float)
    return table


def of_run(run: Path, name: str = FILE, probabilities: bool = False) -> Any:
    """`read` of a run's file; OutputError where it cannot be read."""
    try:
        return read(run / name, probabilities)
    except (OSError, ValueError) as problem:
        raise OutputError(f"{run / name} cannot be read: {type(problem).__name__}: {problem}.") from None


# ------------------------------------------------------------------ probabilities


@dataclass(frozen=True)
class Probabilities:
    """Entries (image, class, probability) sorted by class; `whole`: none is missing, else an image has its top five."""

    rows: np.ndarray
    classes: np.ndarray
    values: np.ndarray
    whole: bool

    def dense(self, n: int, classes: int) -> np.ndarray:
        """(n, classes), 0 where the file does not name a class."""
        found = np.zeros((n, classes), np.float32)
        found[self.rows, self.classes] = self.values
        return found


def entries(table: Any, names: Sequence[str]) -> Probabilities | None:
    """The probabilities in a table that was read with them; None where it has none, or what is none.

    names: the classes in order; what is not among them is left out.
    """
    place = {name: i for i, name in enumerate(names)}
    dense = {name: place[clean(name[2:])] for name in table if name.startswith("p:") and clean(name[2:]) in place}
    if dense:
        known = table[list(dense)].to_numpy(np.float32)
        order = np.argsort(list(dense.values()))
        classes = np.repeat(np.array(list(dense.values()))[order], len(known))
        rows, values = np.tile(np.arange(len(known)), len(dense)), known[:, order].T.ravel()
    elif all(column in table for pair in TOP for column in pair):
        classes = np.concatenate([table[name].map(lambda text: place.get(clean(text), -1)) for name, _ in TOP])
        order = np.argsort(classes, kind="stable")[np.count_nonzero(classes < 0) :]
        rows, classes = np.tile(np.arange(len(table)), len(TOP))[order], classes[order]
        values = np.concatenate([table[p].to_numpy() for _, p in TOP])[order]
    else:
        return None
    shares = bool(((values >= 0) & (values <= 1)).all())
    return Probabilities(rows, classes, values, len(dense) == len(names)) if shares else None


@dataclass(frozen=True)
class HeldOut:
    """The images of a split that training did not see; labels and predictions are class indices."""

    split: str
    paths: np.ndarray  # (n,)
    labels: np.ndarray  # (n,)
    own: np.ndarray  # (n,) the probability of the label
    predicted: np.ndarray  # (n,)
    entries: Probabilities
    classes: int
    groups: list[str] | None = None  # (n,) of each image, empty where it is alone; None where there are none

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def dense(self) -> np.ndarray:
        """(n, classes), 0 where predictions.csv does not name the class."""
        return self.entries.dense(len(self), self.classes)


def held_out(run: Path, names: Sequence[str]) -> dict[str, HeldOut]:
    """The evaluated splits, test before valid; empty where the run has none. OutputError for a damaged file."""
    if not there(run):
        return {}
    table, found = of_run(run, probabilities=True), {}
    place = {clean(name): i for i, name in enumerate(names)}
    labels, predicted = (
        table[column].map(lambda name: place.get(clean(name), -1)).to_numpy(int) for column in ("label", "prediction")
    )
    for split in sorted(set(table["split"])):
        kept = (table["split"] == split).to_numpy() & (labels >= 0) & (predicted >= 0)
        own = np.exp(-table["loss"].to_numpy(float)[kept])
        known = entries(table[kept], list(place)) if kept.any() else None
        if known is not None and np.isfinite(own).all():
            groups = table[GROUP][kept].tolist() if GROUP in table else None
            images = table["path"].to_numpy()[kept], labels[kept], own, predicted[kept]
            found[split] = HeldOut(split, *images, known, len(names), groups)
    return found


def named(row: Any) -> dict[str, float]:
    """The classes that a row of a table with probabilities names, each with its probability."""
    if TOP[0][0] in row:
        return {row[name]: row[p] for name, p in TOP}
    return {name.removeprefix("p:"): value for name, value in row.items() if name.startswith("p:")}


# ------------------------------------------------------------------ image by image


@dataclass(frozen=True)
class Predicted:
    """An image of a run, its label, and what the network predicts."""

    path: str  # below the run's data folder
    label: str
    prediction: str
    confidence: float | None  # calibrated, where the run is

    @property
    def wrong(self) -> bool:
        return self.label != self.prediction


def images(run: Path, split: str) -> list[Predicted]:
    """The images of a split, in the order of predictions.csv; none where there is no such file.

    UsageError for a split that was not evaluated, OutputError for a file that is no predictions.csv.
    """
    if not there(run):
        return []
    calibrated = runs.read_json(run / "model.json").get("temperature") is not None
    table = of_run(run)
    splits = list(dict.fromkeys(table["split"]))
    if split not in splits:
        raise UsageError(
            f"--split {split}: this run was not evaluated on it{did_you_mean(split, splits)}",
            f"Evaluated: {', '.join(splits) or 'none'}.",
        )
    own = table[table["split"] == split]
    confidences = [None if value != value else value for value in own["calibrated" if calibrated else "confidence"]]
    return [Predicted(*row) for row in zip(own["path"], own["label"], own["prediction"], confidences, strict=True)]


def coverage(images: Sequence[Predicted], steps: int = 100) -> list[tuple[int, int]]:
    """For each threshold 0, 1/steps, … 1: the images predicted with at least that confidence, and the correct ones.

    Empty where the run did not record its confidence.
    """
    if not images or any(image.confidence is None for image in images):
        return []
    confidence = np.array([image.confidence for image in images], dtype=float)
    right = np.array([not image.wrong for image in images])
    kept = confidence[None] >= np.arange(steps + 1)[:, None] / steps
    return list(zip(kept.sum(1).tolist(), (kept & right).sum(1).tolist(), strict=True))
