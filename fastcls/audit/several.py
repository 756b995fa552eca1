"""What can be wrong with several labels an image: images without any, labels that never vary, or never part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations

from fastcls.audit.finding import Finding, Item
from fastcls.datasets.walk import count, some

TOGETHER = 5  # images with both, below which two labels that never part may do so by chance
PAIRS = 12  # that are said to go together
Row = tuple[str, tuple[str, ...], str]  # path, labels, split


def findings(rows: Sequence[Row]) -> Iterator[Finding]:
    """How often labels go together, and what of it is odd."""
    labels = [own for _, own, _ in rows]
    sizes = Counter(name for own in labels for name in own)
    pairs = Counter(pair for own in labels for pair in combinations(sorted(own), 2))
    if bare := [row for row in rows if not row[1]]:
        what = f"{count(len(bare), 'image')} of {len(rows):,} have none: they teach what no label looks like."
        groups = tuple((Item(path, "", split, "no label"),) for path, _, split in bare)
        yield Finding("no-labels", "note", "Images without a label", what, "See that none was forgotten.", groups)
    if always := sorted(name for name, n in sizes.items() if n == len(rows)):
        what = f"{some(map(repr, always))}: in every image, so there is nothing to learn and no figure says anything."
        fix = "Leave the label out, or add images without it."
        yield Finding("never-vary", "warning", "Labels that never vary", what, fix, names=tuple(always))
    same = [(a, b) for (a, b), n in pairs.items() if n == sizes[a] == sizes[b] and n >= TOGETHER and n < len(rows)]
    if same:
        listed = some(f"{a!r} and {b!r} ({sizes[a]:,} images)" for a, b in same)
        what = f"{listed}: no image has one without the other, so that a network cannot distinguish them."
        fix = "If they mean one thing, keep one; else add images with one alone."
        yield Finding(
            "never-part", "warning", "Labels that never part", what, fix, names=tuple(f"{a} / {b}" for a, b in same)
        )
    if pairs:
        mean = sum(sizes.values()) / len(rows)
        common = [f"{a} + {b} ({n:,} of {min(sizes[a], sizes[b]):,})" for (a, b), n in pairs.most_common(PAIRS)]
        what = (
            f"An image has {mean:.1f} labels on average, {max(map(len, labels))} at most. Most often: {some(common)}."
        )
        fix = "What nearly always goes together, a network may take for one thing."
        yield Finding("together", "note", "Labels that go together", what, fix, names=tuple(common))
