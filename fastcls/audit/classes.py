"""What labels alone tell of a dataset: names that differ by case, classes of one split, too few images, imbalance."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from fastcls.audit.finding import Finding, Severity
from fastcls.datasets.walk import count, some

FEW = 10  # training images of a class: below, hardly anything is learned
UNEVEN, LOPSIDED = 3, 10  # largest class over smallest: worth knowing, worth doing something about


def findings(labels: Sequence[str], splits: Sequence[str]) -> Iterator[Finding]:
    """What is wrong with these labels; an empty split is still to be drawn into train and valid."""
    by_split: dict[str, Counter[str]] = defaultdict(Counter)
    for label, split in zip(labels, splits, strict=True):
        by_split[split or "train"][label] += 1
    trained = by_split["train"]
    if len(set(labels)) == 1:
        yield Finding(
            "one-class",
            "error",
            "A single class",
            f"All {count(len(labels), 'image')} have the label {labels[0]!r}.",
            "Sort the images into a folder a class, name a table of labels with --labels, or take the labels from the "
            "file names with --label-regex.",
            names=(labels[0],),
        )
    elif len(trained) == len(splits) and "" in splits:
        yield Finding(
            "single-images",
            "error",
            "A single image a class",
            f"Each of {count(len(trained), 'class')} has a single image, so that none can be held out for validation.",
            "Add images to the classes.",
            names=tuple(sorted(trained)),
        )
    elif not trained:
        yield Finding(
            "no-training-images",
            "error",
            "No training images",
            f"There are images of {some(sorted(by_split))} only.",
            "Name the training split train.",
            names=("train",),
        )
    else:
        yield from _splits(by_split)
        yield from _sizes(trained)
    if alike := _alike(set(labels)):
        sizes = Counter(labels)
        yield Finding(
            "names-alike",
            "warning",
            "Classes that differ by case or spaces",
            f"{some('/'.join(f'{name!r} ({sizes[name]:,})' for name in names) for names in alike)}: the network would "
            "have to tell them apart.",
            "If they are one class, give them one name: move the images into one folder, or correct the table.",
            names=tuple(" / ".join(map(repr, names)) for names in alike),
        )


def _splits(by_split: dict[str, Counter[str]]) -> Iterator[Finding]:
    trained = by_split["train"]
    if strangers := sorted(set().union(*by_split.values()) - set(trained)):
        where = {name: " and ".join(s for s in ("valid", "test") if by_split[s][name]) for name in strangers}
        yield Finding(
            "class-not-in-train",
            "error",
            "Classes without training images",
            f"{some(f'{name!r} (only in {where[name]})' for name in strangers)}: the network could never name them.",
            "Add training images of these classes, or correct the spelling.",
            names=tuple(strangers),
        )
    for split in ("valid", "test"):
        absent = sorted(set(trained) - set(by_split[split])) if by_split[split] else []
        if absent:
            yield Finding(
                f"class-not-in-{split}",
                "warning",
                f"Classes without {'validation' if split == 'valid' else 'test'} images",
                f"{some(map(repr, absent))}: nothing will be known of how well they are recognised.",
                f"Move some of their images into the {split} split.",
                names=tuple(absent),
            )


def _sizes(trained: Counter[str]) -> Iterator[Finding]:
    few = sorted((label for label in trained if trained[label] < FEW), key=lambda label: (trained[label], label))
    if few:
        yield Finding(
            "few-images",
            "warning",
            f"Classes with fewer than {FEW} training images",
            f"{some(f'{label!r} ({trained[label]})' for label in few)}: a network learns these few by heart.",
            "Add images of them, merge them with a related class, or leave them out.",
            names=tuple(few),
        )
    (largest, most), (smallest, least) = trained.most_common()[0], trained.most_common()[-1]
    if most >= UNEVEN * least:
        severity: Severity = "warning" if most >= LOPSIDED * least else "note"
        yield Finding(
            "imbalance",
            severity,
            "Unevenly filled classes",
            f"{largest!r} has {count(most, 'training image')}, {smallest!r} {least:,}: accuracy will speak for the "
            "large classes.",
            "Read macro F1 beside accuracy; try --class-weights of the recipe folder, or add images of rare classes.",
            names=(smallest, largest),
        )


def _alike(names: set[str]) -> list[list[str]]:
    """Names that are one when case, spaces, hyphens, underscores and the way accents are encoded do not count."""
    same: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        plain = unicodedata.normalize("NFKC", name).casefold()
        same[re.sub(r"[\s_\-]+", " ", plain).strip()].append(name)
    return [group for group in same.values() if len(group) > 1]
