"""What can be wrong with labels and splits, and with several labels an image."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations

from fastcls.audit.finding import Finding, Item
from fastcls.datasets.walk import count, some

FEW = 10  # training images of a class: below, hardly anything is learned
UNEVEN, LOPSIDED = 3, 10  # largest class over smallest: worth knowing, worth doing something about
TOGETHER = 5  # images with both, below which two labels that never part may do so by chance
PAIRS = 12  # that are said to go together
Row = tuple[str, tuple[str, ...], str]  # path, labels, split


def label_findings(rows: Sequence[tuple[str, str]]) -> Iterator[Finding]:
    """What is wrong with labels and their splits; an empty split is still to be drawn into train and valid."""
    labels = [label for label, _ in rows]
    by_split: dict[str, Counter[str]] = defaultdict(Counter)
    for label, split in rows:
        by_split[split or "train"][label] += 1
    trained = by_split["train"]
    if len(set(labels)) == 1:
        yield Finding(
            "one-class", "error", "A single class",
            f"All {count(len(labels), 'image')} have the label {labels[0]!r}.",
            "Sort the images into one folder per class, pass a table of labels as --labels, or take the labels from "
"the file names with --label-regex.",
            names=(labels[0],),
        )  # fmt: skip
    elif len(trained) == len(rows) and any(not split for _, split in rows):
        yield Finding(
            "single-images", "error", "A single image per class",
            f"Each of {count(len(trained), 'class')} has a single image, so that none can be held out for validation.",
            "Add images to the classes.",
            names=tuple(sorted(trained)),
        )  # fmt: skip
    elif not trained:
        yield Finding(
            "no-training-images", "error", "No training images", f"There are only images of {some(sorted(by_split))}.",
            "Name the training split train.", names=("train",),
        )  # fmt: skip
    else:
        yield from _split_findings(by_split)
        yield from _size_findings(trained)
    same: dict[str, list[str]] = defaultdict(list)  # names, without case, spaces, hyphens and how accents are encoded
    for name in sorted(set(labels)):
        plain = unicodedata.normalize("NFKC", name).casefold()
        same[re.sub(r"[\s_\-]+", " ", plain).strip()].append(name)
    if alike := [group for group in same.values() if len(group) > 1]:
        sizes = Counter(labels)
        listed = some("/".join(f"{name!r} ({sizes[name]:,})" for name in group) for group in alike)
        yield Finding(
            "names-alike", "warning", "Classes that differ by case or spaces",
            f"{listed}: the network would have to distinguish them.",
            "If they are one class, give them one name: move the images into one folder, or correct the table.",
            names=tuple(" / ".join(map(repr, group)) for group in alike),
        )  # fmt: skip


def _split_findings(by_split: dict[str, Counter[str]]) -> Iterator[Finding]:
    trained = by_split["train"]
    if unknown := sorted(set().union(*by_split.values()) - set(trained)):
        where = {name: " and ".join(s for s in ("valid", "test") if by_split[s][name]) for name in unknown}
        listed = some(f"{name!r} (only in {where[name]})" for name in unknown)
        yield Finding(
            "class-not-in-train", "error", "Classes without training images",
            f"{listed}: the network could never predict them.",
            "Add training images of these classes, or correct the spelling.",
            names=tuple(unknown),
        )  # fmt: skip
    for split, title in (("valid", "validation"), ("test", "test")):
        if absent := sorted(set(trained) - set(by_split[split])) if by_split[split] else []:
            yield Finding(
                f"class-not-in-{split}", "warning", f"Classes without {title} images",
                f"{some(map(repr, absent))}: they cannot be evaluated.",
                f"Move some of their images into the {split} split.",
                names=tuple(absent),
            )  # fmt: skip


def _size_findings(trained: Counter[str]) -> Iterator[Finding]:
    if few := sorted((label for label in trained if trained[label] < FEW), key=lambda name: (trained[name], name)):
        yield Finding(
            "few-images", "warning", f"Classes with fewer than {FEW} training images",
            f"{some(f'{label!r} ({trained[label]})' for label in few)}: the network will memorise so few images.",
            "Add images, merge them with a related class, or remove them.",
            names=tuple(few),
        )  # fmt: skip
    (largest, most), (smallest, least) = trained.most_common()[0], trained.most_common()[-1]
    if most >= UNEVEN * least:
        yield Finding(
            "imbalance", "warning" if most >= LOPSIDED * least else "note", "Imbalanced classes",
            f"{largest!r} has {count(most, 'training image')}, {smallest!r} {least:,}: accuracy mostly measures the "
            "large classes.",
            "Look at macro F1, too; try --class-weights of the recipe folder, or add images of rare classes.",
            names=(smallest, largest),
        )  # fmt: skip


def set_findings(rows: Sequence[Row]) -> Iterator[Finding]:
    """How often labels go together, and what of it is odd."""
    labels = [own for _, own, _ in rows]
    sizes = Counter(name for own in labels for name in own)
    pairs = Counter(pair for own in labels for pair in combinations(sorted(own), 2))
    if bare := [row for row in rows if not row[1]]:
        what = f"{count(len(bare), 'image')} of {len(rows):,} have none: they are examples of no label."
        groups = tuple((Item(path, "", split, "no label"),) for path, _, split in bare)
        yield Finding("no-labels", "note", "Images without a label", what, "Check that no label was forgotten.", groups)
    if always := sorted(name for name, n in sizes.items() if n == len(rows)):
        what = f"{some(map(repr, always))}: in every image, so there is nothing to learn and its metrics mean nothing."
        fix = "Remove the label, or add images without it."
        yield Finding("never-vary", "warning", "Labels that never vary", what, fix, names=tuple(always))
    same = [(a, b) for (a, b), n in pairs.items() if n == sizes[a] == sizes[b] and n >= TOGETHER and n < len(rows)]
    if same:
        listed = some(f"{a!r} and {b!r} ({sizes[a]:,} images)" for a, b in same)
        what = f"{listed}: no image has one without the other, so that a network cannot distinguish them."
        fix = "If they mean the same, keep one; otherwise add images with only one of them."
        names = tuple(f"{a} / {b}" for a, b in same)
        yield Finding("never-part", "warning", "Labels that always occur together", what, fix, names=names)
    if pairs:
        mean = sum(sizes.values()) / len(rows)
        common = [f"{a} + {b} ({n:,} of {min(sizes[a], sizes[b]):,})" for (a, b), n in pairs.most_common(PAIRS)]
        most = max(map(len, labels))
        what = f"An image has {mean:.1f} labels on average, {most} at most. Most frequent: {some(common)}."
        fix = "A network may not distinguish labels that nearly always occur together."
        yield Finding("together", "note", "Labels that often occur together", what, fix, names=tuple(common))
