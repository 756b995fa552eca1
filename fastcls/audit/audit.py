"""Everything wrong with a dataset: its files, its pixels, its copies and its labels, as findings with their remedy."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from fastcls.audit import labels, shortcuts
from fastcls.audit.contents import Contents
from fastcls.audit.finding import Finding, Item, Severity, by_severity
from fastcls.audit.rules import RULES, relative_rules
from fastcls.datasets.walk import count
from fastcls.images import duplicates
from fastcls.images.duplicates import Group
from fastcls.images.measure import Measured
from fastcls.images.measurements import measure_all

SECONDS, FILES = 10.0, 100_000  # of a quick look, at most
OF_SIZES = ("few-images", "imbalance", "no-training-images", "one-class")

Progress = Callable[[int, int], object]  # files looked at, files in all


@dataclass(frozen=True)
class Audit:
    """What a dataset holds, the files measured, the findings, the gravest first."""

    contents: Contents
    measured: dict[str, Measured]
    findings: list[Finding]
    shortcuts: shortcuts.Shortcuts | None = None
    together: dict[str, str] = field(default_factory=dict)  # path -> its group, or the first of its copies

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def unreadable(self) -> list[str]:
        """The files at which training would stop, each with the reason."""
        return [f"{path}: {image.reason}" for path, image in self.measured.items() if image.fault]

    @property
    def files(self) -> int:
        """Files that the dataset lists."""
        return len(_files_of(self.contents))


def audit(contents: Contents, progress: Progress | None = None) -> Audit:
    """Look at every image of `contents`."""
    return _findings(contents, measure_all(_files_of(contents), progress))


def quick(contents: Contents, progress: Progress | None = None, sizes: bool = True) -> Audit:
    """Look at the images for SECONDS, and at those that were looked at before; at most at FILES of them.

    sizes: whether the number of images in a class means anything, and whether there is something to train on.
    """
    files = _files_of(contents)
    if len(files) > FILES:
        files = random.Random(0).sample(files, FILES)
    found = _findings(contents, measure_all(files, progress, SECONDS))
    return replace(found, findings=[one for one in found.findings if sizes or one.kind not in OF_SIZES])


def _files_of(contents: Contents) -> list[str]:
    return list(dict.fromkeys(path for path, _, _ in contents.rows))


def _findings(contents: Contents, images: Sequence[Measured]) -> Audit:
    measured = {image.path: image for image in images}
    groups = duplicates.groups(images, [(path, split, label) for path, label, split in contents.rows])
    several = contents.target.several
    together = {path: group.paths[0] for group in groups for path in group.paths} | contents.groups
    short = None if several else shortcuts.find(contents.rows, measured, together)  # which predict one class an image
    found = [
        *_of_table(contents),
        *_of_files(contents, measured),
        *_of_copies(groups, measured),
        *labels.label_findings(contents.labels),
        *(labels.set_findings(contents.sets) if several else ()),
        *(short.findings() if short else ()),
    ]
    if contents.notes:
        title, hint = "Left out, or read in a special way", "Check that this is what you want."
        found.append(Finding("layout", "note", title, " ".join(contents.notes), hint, names=tuple(contents.notes)))
    return Audit(contents, measured, by_severity(found), short, together)


def _of_table(contents: Contents) -> Iterator[Finding]:
    for what, rows in contents.faults.items():
        have = "has" if len(rows) == 1 else "have"
        text = f"{count(len(rows), 'row')} of the table of labels {have} {what}; training refuses the table."
        title = f"Rows of the table: {what}"
        yield Finding("table", "error", title, text, "Correct or remove these rows.", names=tuple(rows))


def _of_files(contents: Contents, measured: dict[str, Measured]) -> Iterator[Finding]:
    for rule in (*RULES, *relative_rules([image for image in measured.values() if not image.fault])):
        remarks = {path: remark for path, image in measured.items() if (remark := rule.remark(image))}
        rows = {path: (label, split) for path, label, split in contents.rows if path in remarks}
        if rows:
            groups = tuple((Item(path, *row, remarks[path]),) for path, row in rows.items())
            what = f"{count(len(rows), 'image')} {rule.what}."
            yield Finding(rule.kind, rule.severity, rule.title, what, rule.fix, groups)


def _of_copies(groups: Sequence[Group], measured: dict[str, Measured]) -> Iterator[Finding]:
    kinds: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        if group.two_labels:
            kinds["two-labels" if group.contradiction else "near-two-labels"].append(group)
        if group.leak:
            kinds["leaks"].append(group)
        if not group.two_labels and not group.leak:
            kinds["duplicates" if group.identical else "near-duplicates"].append(group)
    drawn = any("" in group.splits for group in groups)
    random_split = " A random split drawn by training keeps the copies on one side." if drawn else ""
    once = "Keep one of each, or put all copies in one split with a split column or split folders."
    near: Severity = "warning" if drawn else "note"
    texts: list[tuple[str, Severity, str, str, str]] = [
        ("two-labels", "error", "One image under two labels",
         "at least one of the labels is wrong, and no network can predict both.",
         "Decide which label is right and remove the other copies; if an image may have several, --multi-label yes."),
        ("leaks", "error", "Leaks: one image in two splits",
         "metrics on images that were trained on are too high.",
         "Remove the copies from train or from the other split."),
        ("near-two-labels", "warning", "Near copies under two labels",
         "either a label is wrong, or the small difference is what distinguishes the classes.",
         "Look at them; if a label is wrong, correct it or remove the image."),
        ("duplicates", "warning", "Duplicates", f"the same file more than once.{random_split}", once),
        ("near-duplicates", near, "Near duplicates",
         f"the same image re-encoded, resized or slightly changed.{random_split}", once),
    ]  # fmt: skip
    for kind, severity, title, what, hint in texts:
        if chosen := kinds[kind]:
            text = f"{count(len(chosen), 'group')}, {count(sum(len(group.paths) for group in chosen), 'image')}"
            if kind == "leaks":
                same = sum(group.identical for group in chosen)
                text += f" ({same:,} of identical files, {len(chosen) - same:,} of near copies)"
            items = tuple(_items(group, measured) for group in chosen)
            yield Finding(kind, severity, title, f"{text}: {what}", hint, items)


def _items(group: Group, measured: dict[str, Measured]) -> tuple[Item, ...]:
    """The copies, each with what distinguishes it from the others."""
    items = []
    for path, label, split in zip(group.paths, group.labels, group.splits, strict=True):
        image = measured[path]
        remark = "identical file" if group.identical else f"{image.format}, {image.width} × {image.height}"
        items.append(Item(path, label, split, remark))
    return tuple(items)
