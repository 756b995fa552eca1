"""The probabilities of predictions.csv as entries (image, class, probability): all of them, or the likeliest five."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fastcls.reports.runfiles import clean

TOP = [(f"top{k}", f"p{k}") for k in range(1, 6)]


@dataclass(frozen=True)
class Probabilities:
    """Entries sorted by class; `whole` tells that none is missing, else each image has its likeliest classes'."""

    rows: np.ndarray
    classes: np.ndarray
    values: np.ndarray
    whole: bool


def read(file: Path, kept: np.ndarray, names: list[str]) -> Probabilities | None:
    """The probabilities of the rows `kept` (a mask over the file's rows), numbered anew; None if they cannot be read.

    names: the classes in order; what is not among them is left out.
    """
    found = _entries(file, kept, names)
    return found if found is not None and ((found.values >= 0) & (found.values <= 1)).all() else None


def _entries(file: Path, kept: np.ndarray, names: list[str]) -> Probabilities | None:
    place = {name: i for i, name in enumerate(names)}
    try:
        header = list(pd.read_csv(file, nrows=0, encoding_errors="surrogateescape").columns)
        dense = {name: place[clean(name[2:])] for name in header if name.startswith("p:") and clean(name[2:]) in place}
        if dense:
            table = pd.read_csv(file, usecols=list(dense), dtype=np.float32, encoding_errors="surrogateescape")
            values = table[list(dense)].to_numpy(np.float32)[kept]
            order = np.argsort(list(dense.values()))
            classes = np.repeat(np.array(list(dense.values()))[order], len(values))
            rows = np.tile(np.arange(len(values)), len(dense))
            return Probabilities(rows, classes, values[:, order].T.ravel(), len(dense) == len(names))
        if not all(column in header for pair in TOP for column in pair):
            return None
        kinds: dict[str, Any] = dict.fromkeys((name for name, _ in TOP), str)
        kinds |= dict.fromkeys((p for _, p in TOP), np.float32)
        options: Any = {"dtype": kinds, "keep_default_na": False, "encoding_errors": "surrogateescape"}
        table = pd.read_csv(file, usecols=list(kinds), **options)[kept]
    except (OSError, ValueError):
        return None
    entries = [
        (
            np.arange(len(table)),
            table[name].map(lambda text: place.get(clean(text), -1)).to_numpy(),
            table[p].to_numpy(),
        )
        for name, p in TOP
    ]
    rows, classes, values = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    rows, classes, values = (part[classes >= 0] for part in (rows, classes, values))
    order = np.argsort(classes, kind="stable")
    return Probabilities(rows[order], classes[order], values[order], False)
