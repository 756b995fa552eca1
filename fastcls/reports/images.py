"""What a run was shown: how many images of each class and split, how large they are, a batch as the network saw it."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from fastcls.errors import OutputError
from fastcls.reports.wording import grouped
from fastcls.runfolder import splits
from fastcls.runfolder.run import Run
from fastcls.runfolder.text import clean

MOST_CLASSES = 200  # rows of the table: the largest and the smallest
MEASURED = 500  # files whose sizes are looked at, evenly over the splits
RARE = 10  # times fewer images than the commonest class has: worth a word


@dataclass(frozen=True)
class Images:
    """Counts by class and split, the sentence about their balance, the sizes, the batch as a data URI."""

    splits: list[str]
    rows: list[tuple[str, list[int]]]
    left_off: int
    balance: str
    sizes: list[tuple[str, str]]
    batch: str


def images(run: Run) -> Images | None:
    """None where the run folder has no readable splits.csv."""
    try:
        table = pd.DataFrame(splits.read(run.folder), columns=["path", "label", "split"])
    except OutputError:
        return None
    if table.empty:
        return None
    counts = table.groupby(["label", "split"]).size().unstack(fill_value=0)
    order = [name for name in ("train", "valid", "test") if name in counts]
    counts = counts[order + [name for name in counts if name not in order]]
    first = counts[counts.columns[0]].sort_values(ascending=False, kind="stable")
    counts = counts.loc[first.index]
    shown = counts
    if len(counts) > MOST_CLASSES:
        shown = pd.concat([counts.iloc[: MOST_CLASSES // 2], counts.iloc[-MOST_CLASSES // 2 :]])
    rows = [(clean(name), [int(n) for n in row]) for name, row in zip(shown.index, shown.to_numpy(), strict=True)]
    return Images(
        [clean(name) for name in counts.columns],
        rows,
        len(counts) - len(shown),
        _balance(first, clean(counts.columns[0])),
        _sizes(table["path"], run.get("data", "root")),
        _batch(run.folder / "figures" / "batch.png"),
    )


def _balance(counts: pd.Series, split: str) -> str:
    most, least = int(counts.iloc[0]), int(counts.iloc[-1])
    if most == least:
        return f"Every class has {grouped(most)} images in {split}."
    first, last = clean(counts.index[0]), clean(counts.index[-1])
    ends = f"“{first}” has {grouped(most)} images in {split}, “{last}” {grouped(least)}"
    if least * RARE <= most:
        return (
            f"The classes are far from balanced: {ends}. Accuracy hides what happens to the rare ones; read macro F1."
        )
    return f"{ends}: near enough to each other for accuracy to mean something."


def _sizes(paths: pd.Series, root: object) -> list[tuple[str, str]]:
    """The commonest sizes and the extremes, read from the headers of some files."""
    if not isinstance(root, str):
        return []
    found: list[tuple[int, int]] = []
    for path in paths.iloc[np.unique(np.linspace(0, len(paths) - 1, MEASURED).astype(int))]:
        try:
            with Image.open(Path(root) / path) as image:
                found.append(image.size)
        except Exception:  # decoders raise what they like, and the audit of the data is elsewhere
            continue
    if not found:
        return []
    (width, height), times = Counter(found).most_common(1)[0]
    smallest, largest = min(found, key=min), max(found, key=max)
    sides = np.median([min(size) for size in found]), np.median([max(size) for size in found])
    return [
        ("looked at", f"{grouped(len(found))} of {grouped(len(paths))} files"),
        ("commonest", f"{width} × {height} ({times / len(found):.0%} of them)"),
        ("median", f"{sides[0]:.0f} on the shorter side, {sides[1]:.0f} on the longer"),
        ("smallest, largest", f"{smallest[0]} × {smallest[1]}, {largest[0]} × {largest[1]}"),
    ]


def _batch(file: Path) -> str:
    try:
        return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode('ascii')}"
    except OSError:
        return ""
