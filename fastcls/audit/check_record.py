"""check.json: what an audit found, as a file; a check writes it beside its page, every run into its folder.

found = check_record.read(run)              # None where there is none
[finding for finding in found.findings if finding.kind in check_record.COPIES]
"""

from __future__ import annotations

import os
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fastcls.audit.audit import Audit, Progress, quick
from fastcls.audit.contents import UNDRAWN
from fastcls.audit.contents import read as read_contents
from fastcls.audit.finding import Finding
from fastcls.audit.shortcuts import Shortcuts
from fastcls.errors import OutputError
from fastcls.images.check import broken_images
from fastcls.runfolder import runs
from fastcls.settings import shell
from fastcls.version import __version__

RECORD = "check.json"
KIND = "fastcls check"
COPIES = ("two-labels", "leaks", "near-two-labels", "duplicates", "near-duplicates")


@dataclass(frozen=True)
class Found:
    """A check that was recorded: findings whose paths are relative to the images' root, and how many files it saw.

    sizes: of `summary`."""

    findings: list[Finding]
    looked_at: int
    files: int
    shortcuts: Shortcuts | None = None
    sizes: dict[str, dict[str, int]] = field(default_factory=dict)


def read(folder: Path) -> Found | None:
    """The check.json of a run or a check; None where there is none that can be read."""
    import msgspec

    try:
        return msgspec.convert(runs.read_json(folder / RECORD), Found)
    except (OutputError, msgspec.ValidationError):
        return None


def leaked(run: Path, rows: Iterable[tuple[str, str, str]], groups: Mapping[str, str]) -> dict[str, set[str]]:
    """Of each split the images that have a copy, or another image of their group, in train.

    rows: path, split, label. groups: the group of a path, where there are groups. Copies are those that the run's check
    found.
    """
    found = read(run)
    together = [
        [item.path for item in group]
        for finding in (found.findings if found else ())
        if finding.kind == "leaks"
        for group in finding.groups
    ]
    members: dict[str, list[str]] = defaultdict(list)
    for path, name in groups.items():
        if name:
            members[name].append(path)
    held: dict[str, set[str]] = defaultdict(set)
    several = [*together, *members.values()]
    wanted = {path for paths in several for path in paths}
    split_of = {path: split for path, split, _ in rows if path in wanted} if wanted else {}
    for paths in several:
        if any(split_of.get(path) == "train" for path in paths):
            for path in paths:
                if (split := split_of.get(path, "train")) != "train":
                    held[split].add(path)
    return dict(held)


def write(out: Path, audit: Audit, command: str, seconds: float, started: str) -> Path:
    """Write check.json into `out`; gives its path."""
    contents = audit.contents
    record: dict[str, Any] = {"format": runs.FORMAT, "kind": KIND, "fastcls": __version__, "command": command}
    record |= {"started": started, "seconds": round(seconds, 1), "root": str(contents.root), "layout": contents.layout}
    record |= {"files": audit.files, "looked_at": len(audit.measured), **summary(audit)}
    record |= {"shortcuts": vars(audit.shortcuts) if audit.shortcuts else None}
    record |= {"findings": [_finding(finding, contents.root) for finding in audit.findings]}
    return runs.write_json(out / RECORD, record)


def precheck(run: Path, sizes: bool = True, progress: Progress | None = None) -> list[str]:
    """Look at the images of a run folder that has its splits.csv; gives a line an error or warning.

    Takes audit.SECONDS at most where they were not looked at before. sizes: whether the number of images in a class
    means anything. DataError names the images at which training would stop.
    """
    began, started = time.perf_counter(), runs.now()
    found = quick(read_contents(str(run)), progress, sizes)
    if found.unreadable:
        raise broken_images(found.unreadable, found.files)
    command = shell.command("check", run)
    write(run, found, command, time.perf_counter() - began, started)
    serious = [finding for finding in found.findings if finding.severity != "note"]
    lines = [finding.line for finding in serious]
    if any(finding.groups for finding in serious):
        lines.append(f"`{command}` shows these images.")
    if (looked := len(found.measured)) < found.files:
        part = f"only {looked:,} of {found.files:,} images were checked for copies and faults, to save time"
        lines.append(f"{part}; `{command}` checks all of them.")
    return lines


def summary(audit: Audit) -> dict[str, Any]:
    """How many images of which kind there are: images, splits, classes, formats, modes, width and height."""
    read = [image for image in audit.measured.values() if not image.fault]
    sizes = {
        side: {"least": min(values), "median": int(statistics.median(values)), "most": max(values)}
        for side in ("width", "height")
        if (values := [getattr(image, side) for image in read])
    }
    return {
        "images": len(audit.contents.rows),
        "splits": dict(Counter(split or UNDRAWN for _, _, split in audit.contents.rows)),
        "classes": len({name for name, _ in audit.contents.labels}),
        "formats": dict(Counter(image.format for image in read).most_common()),
        "modes": dict(Counter(image.mode for image in read).most_common()),
        "sizes": sizes,
    }


def relative(path: str, root: Path) -> str:
    """The path below `root`, or as it is where it is elsewhere."""
    inside = os.path.relpath(path, root)
    return path if inside.startswith("..") else Path(inside).as_posix()


def _finding(finding: Finding, root: Path) -> dict[str, Any]:
    groups = [[{**asdict(item), "path": relative(item.path, root)} for item in group] for group in finding.groups]
    return {**vars(finding), "count": finding.count, "groups": groups}
