"""A comparison's table and what there is to say about it, as text: for the terminal, Markdown and the page alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastcls.comparison.comparison import Entry, Row
from fastcls.comparison.differences import McNemar
from fastcls.reports.wording import duration, grouped


@dataclass(frozen=True)
class Column:
    """A column of the table: its heading, a row's text, and what a page sorts the row by."""

    heading: str
    text: Callable[[Row], str]
    key: Callable[[Row], float | None]


def columns(rows: Sequence[Row], split: str) -> list[Column]:
    """The columns after the setting's name."""
    figures = [
        Column(f"accuracy on {split}, %", lambda row: spread(row.means["accuracy"], row.deviation), _mean("accuracy")),
        Column("runs", _count, lambda row: len(row.entries)),
        Column("difference", lambda row: "" if row.baseline else difference(row), _gap),
    ]
    costs = {
        "training": ("train_seconds", duration),
        "img/s": ("images_per_second", grouped),
        "parameters": ("parameters", _millions),
        "trained": ("trained_parameters", _millions),
        "peak memory": ("peak_memory_bytes", lambda value: f"{value / 1e9:.2f}\u202fGB"),
    }
    if all(row.means["trained_parameters"] == row.means["parameters"] for row in rows if row.entries):
        del costs["trained"]
    return figures + [Column(heading, _text(cost, word), _mean(cost)) for heading, (cost, word) in costs.items()]


def name(row: Row) -> str:
    """A setting in words: the baseline's knobs, or those that differ from them."""
    words = " ".join(f"{key}={value}" for key, value in (row.setting if row.baseline else row.changed).items())
    return f"{words} (baseline)".strip() if row.baseline else words


def markdown(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """A Markdown table, its first column to the left, the others to the right."""
    lines = [["setting", *(column.heading for column in columns)], ["---", *["---:"] * len(columns)]]
    lines += [[name(row), *(column.text(row) for column in columns)] for row in rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def spread(value: float, deviation: float) -> str:
    """'87.21 ± 0.31', in percent; without a deviation where there is a single run."""
    if math.isnan(value):
        return "–"
    return f"{value * 100:.2f}" + ("" if math.isnan(deviation) else f" ± {deviation * 100:.2f}")


def difference(row: Row) -> str:
    """'+1.20 (-0.31 to +2.71)', in percentage points."""
    found = row.difference
    if found is None:
        return "–"
    text = f"{found.value * 100:+.2f}"
    if found.low is None or found.high is None:
        return text
    return f"{text} ({found.low * 100:+.2f} to {found.high * 100:+.2f})"


def notes(rows: Sequence[Row], test: McNemar | None) -> list[str]:
    """How to read the table, a sentence each."""
    held = [row for row in rows if row.difference is not None]
    over = {row.difference.over for row in held if row.difference}
    found = conclusions(held)
    if any(len(row.entries) > 1 for row in rows):
        found.append("± is the standard deviation over the seeds.")
    for what in ("seeds and images", "seeds"):
        if what in over:
            found.append(
                f"Differences are to the baseline, in percentage points, with a 95 % interval over the {what}."
            )
    if "images" in over:
        found.append(
            "Where a setting has a single run its difference, in percentage points, has a 95 % interval over the "
            "images alone: it tells these two networks apart and says nothing of other seeds."
        )
    if test:
        found.append(verdict(test))
    if len(held) > 4:
        found.append(f"Had none of the {len(held)} settings any effect, one interval in twenty would still miss zero.")
    return found


def conclusions(rows: Sequence[Row]) -> list[str]:
    """Which settings were shown to differ from the baseline, and which were not."""
    parts: dict[str, list[str]] = {"Better than": [], "Worse than": [], "Not shown to differ from": []}
    for row in rows:
        if row.difference and row.difference.low is not None:
            shown = "Better than" if row.difference.value > 0 else "Worse than"
            parts[shown if row.difference.shown else "Not shown to differ from"].append(name(row))
    return [f"{what} the baseline: {'; '.join(names)}." for what, names in parts.items() if names]


def verdict(test: McNemar) -> str:
    """McNemar's test as a sentence."""
    chance = "p < 0.0001" if test.p < 1e-4 else f"p = {test.p:.4f}" if test.p < 0.1 else f"p = {test.p:.2f}"
    tells = "a difference that luck hardly explains" if test.p < 0.05 else "no more than luck would explain"
    return (
        f"On the same {test.images:,} images the first run alone is right on {test.only_first:,}, the second alone on "
        f"{test.only_second:,}: {tells} (exact McNemar test, {chance})."
    )


def cautions(entries: Sequence[Entry], split: str) -> list[str]:
    """What makes these runs less comparable than their table looks."""
    records = [entry.record for entry in entries if not entry.failed]
    found = []
    seen = {(record.get("seed"), record.get("data", {}).get("fingerprint")) for record in records}
    if len(seen) > len({seed for seed, _ in seen}):  # another seed may draw another split
        found.append("The runs did not see the same images: part of a difference may be the data's.")
    if len({str(sorted(record.get("device", {}).items())) for record in records}) > 1:
        found.append("The runs were made on different devices or thread counts: their times do not compare.")
    if records and split == "valid":
        text = "Without a test split these figures are the validation split's"
        if any(record.get("options", {}).get("keep") != "last" for record in records):
            text += ", which has also chosen each run's best epoch (--keep last would not choose)"
        found.append(f"{text}.")
    return found


def _gap(row: Row) -> float | None:
    return row.difference.value if row.difference else None


def _mean(figure: str) -> Callable[[Row], float | None]:
    return lambda row: None if math.isnan(row.means[figure]) else row.means[figure]


def _text(figure: str, word: Callable[[float], str]) -> Callable[[Row], str]:
    return lambda row: "–" if math.isnan(row.means[figure]) else word(row.means[figure])


def _count(row: Row) -> str:
    return str(len(row.entries)) + (f" ({row.failed} failed)" if row.failed else "")


def _millions(value: float) -> str:
    return f"{value / 1e6:.2f}\u202fM" if value >= 1e5 else grouped(value)
