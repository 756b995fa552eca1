"""A check's files: check.html with thumbnails of the findings, check.json, findings.csv with a row an image."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastcls.audit import check_record
from fastcls.audit.audit import Audit
from fastcls.audit.check_record import KIND, RECORD, relative, summary
from fastcls.audit.contents import UNDRAWN
from fastcls.audit.finding import SEVERITIES, Finding
from fastcls.errors import OutputError
from fastcls.reports import shell
from fastcls.reports.thumbnails import Shown, Thumbnails
from fastcls.reports.wording import moment
from fastcls.runfolder import inside, runs
from fastcls.runfolder.text import clean

PAGE, TABLE = "check.html", "findings.csv"
GROUPS, COPIES, LISTED = 24, 4, 200  # shown of a finding: groups, pictures of a group, further file names
SAID = 3  # names of a finding that its sentence says already
CLASSES = 1000  # rows of the table of classes
PICTURES = 7_500_000  # bytes of all pictures of the page
MOODS = {"error": "error", "warning": "warn", "note": ""}


@dataclass(frozen=True)
class Section:
    """A finding as the page shows it."""

    finding: Finding
    groups: list[tuple[list[Shown], int]]  # pictures, and how many copies are not shown
    further: list[str]  # file names that come without a picture
    left: int  # images that are not even named

    @property
    def pictured(self) -> bool:
        """Whether there is anything to see."""
        return any(image.tile.src for images, _ in self.groups for image in images)


def make_folder(out: Path) -> None:
    """Make the folder; OutputError where it cannot be, or holds files of these names that are not a check's."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise OutputError(
            f"-o {out}: this folder cannot be created ({problem.strerror}).", "Choose another folder."
        ) from None
    if not os.access(out, os.W_OK):
        raise OutputError(f"-o {out}: this folder cannot be written.", "Choose another folder.")
    if not any((out / name).exists() for name in (PAGE, RECORD, TABLE)):
        return
    try:  # its head alone: that of a large dataset is longer than what is read of JSON
        with inside.opened(out / RECORD) as file:
            own = json.dumps({"kind": KIND})[1:-1].encode() in file.read(1000)
    except (OSError, inside.Foreign):
        own = False
    if not own:
        raise OutputError(f"-o {out}: it contains {PAGE}, {RECORD} or {TABLE} from another source.")


def write(out: Path, audit: Audit, command: str, seconds: float, started: str) -> Path:
    """Write the three files into `out`; gives the page's path."""
    contents = audit.contents
    facts = summary(audit)
    check_record.write(out, audit, command, seconds, started)
    header = ["severity", "finding", "group", "path", "label", "split", "remark"]
    runs.write_csv(out / TABLE, header, _rows(audit))
    thumbnails = Thumbnails(most=PICTURES)
    classes = _classes(audit)
    html = shell.render(
        "check.html.j2",
        name=clean(contents.root.name),
        root=clean(contents.root),
        layout=clean(contents.layout),
        command=command,
        started=moment(started),
        seconds=seconds,
        facts=facts,
        counts={severity: sum(f.severity == severity for f in audit.findings) for severity in SEVERITIES},
        sections=[_section(finding, thumbnails, contents.root) for finding in audit.findings],
        classes=classes[:CLASSES],
        classes_left=max(len(classes) - CLASSES, 0),
        lost=thumbnails.spent > PICTURES,
        moods=MOODS,
        table_of_all=TABLE,
    )
    return runs.atomic_write(out / PAGE, html)


def _rows(audit: Audit) -> Iterator[list[Any]]:
    for finding in audit.findings:
        head = [finding.severity, finding.kind]
        for number, group in enumerate(finding.groups, 1):
            for item in group:
                path = relative(item.path, audit.contents.root)
                yield [*head, number, path, item.label, item.split, item.remark]
        for name in finding.names:
            yield [*head, "", "", "", "", name]


def _classes(audit: Audit) -> list[tuple[str, dict[str, int], int]]:
    """Name, images a split and images in all of every class, the smallest first."""
    counts: dict[str, Counter[str]] = {}
    for label, split in audit.contents.labels:
        counts.setdefault(label, Counter())[split or UNDRAWN] += 1
    rows = [(clean(label), dict(splits), splits.total()) for label, splits in counts.items()]
    return sorted(rows, key=lambda row: (row[2], row[0]))


def _section(finding: Finding, thumbnails: Thumbnails, root: Path) -> Section:
    groups = [[replace(item, split=item.split or UNDRAWN) for item in group] for group in finding.groups]
    shown = [
        ([thumbnails.shown(item, relative(item.path, root)) for item in group[:COPIES]], max(len(group) - COPIES, 0))
        for group in groups[:GROUPS]
    ]
    rest = [item for group in groups[:GROUPS] for item in group[COPIES:]]
    rest += [item for group in groups[GROUPS:] for item in group]
    names = [clean(relative(item.path, root)) for item in rest]
    names += [clean(name) for name in finding.names if len(finding.names) > SAID]
    return Section(finding, shown, names[:LISTED], max(len(names) - LISTED, 0))
