"""What a run was shown: how many images of each class and split, how large they are, a batch as the network saw it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from fastcls.audit.check_record import Found
from fastcls.errors import OutputError
from fastcls.reports.shell import data_uri
from fastcls.reports.wording import grouped
from fastcls.runfolder import splits
from fastcls.runfolder import target as targets
from fastcls.runfolder.run import Run
from fastcls.runfolder.target import Target
from fastcls.runfolder.text import clean

ORDER = ["train", "valid", "test"]
MOST_CLASSES = 200  # rows of the table: the largest and the smallest
RARE = 10  # times fewer images than the commonest class has: worth a word


def images(run: Run, found: Found | None) -> dict[str, Any] | None:
    """What the section "Data" shows; None where the run folder has no readable splits.csv.

    found: its check. Counts by class and split, the sentence about their balance, the sizes, the batch as a data URI.
    """
    try:
        table = pd.DataFrame(splits.read(run.folder), columns=["path", "label", "split"])
    except OutputError:
        return None
    if table.empty:
        return None
    target = targets.of(run.get("data") or {})
    table["label"] = table["label"].map(target.names)
    counts = pd.crosstab(*(table.explode("label", ignore_index=True)[column] for column in ("label", "split")))
    counts = counts[sorted(counts, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))]
    counts = counts.sort_values(counts.columns[0], ascending=False, kind="stable")
    shown = counts
    if len(counts) > MOST_CLASSES:
        shown = pd.concat([counts.iloc[: MOST_CLASSES // 2], counts.iloc[-MOST_CLASSES // 2 :]])
    return {
        "splits": [clean(name) for name in counts.columns],
        "rows": [(clean(label), numbers) for label, *numbers in shown.itertuples(name=None)],
        "left_off": len(counts) - len(shown),
        "balance": _balance(counts.iloc[:, 0], clean(counts.columns[0]), target) + _bare(table["label"]),
        "sizes": _sizes(found),
        "batch": _batch(run.folder / "figures" / "batch.png"),
    }


def _bare(labels: pd.Series) -> str:
    """How many labels images have, where that varies."""
    sizes = labels.map(len)
    if (sizes == 1).all():
        return ""
    without = int((sizes == 0).sum())
    none = f"; {grouped(without)} have none" if without else ""
    return f" An image has {sizes.mean():.1f} labels on average, {int(sizes.max())} at most{none}."


def _balance(counts: pd.Series, split: str, target: Target) -> str:
    most, least = int(counts.iloc[0]), int(counts.iloc[-1])
    if most == least:
        return f"Every {target.noun} has {grouped(most)} images in {split}."
    first, last = clean(counts.index[0]), clean(counts.index[-1])
    ends = f"“{first}” has {grouped(most)} images in {split}, “{last}” {grouped(least)}"
    if least * RARE <= most:
        return (
            f"The {target.plural} are imbalanced: {ends}. {'Micro F1' if target.several else 'Accuracy'} hides "
            "how the rare ones do; look at macro F1."
        )
    if target.several:
        return f"{ends}."
    return f"{ends}: balanced enough for accuracy to be meaningful."


def _sizes(found: Found | None) -> list[tuple[str, str]]:
    """The widths and heights that the check before training has measured."""
    rows = []
    for side, pixels in (found.sizes if found else {}).items():
        least, median, most = (grouped(pixels.get(key)) for key in ("least", "median", "most"))
        rows.append((side, f"{least} pixels" if least == most else f"{least} to {most} pixels, median {median}"))
    return rows


def _batch(file: Path) -> str:
    try:
        return data_uri(file.read_bytes())
    except OSError:
        return ""
