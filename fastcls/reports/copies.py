"""Duplicates and leaks among a run's images, as its check found them, with pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fastcls.audit import check_record
from fastcls.audit.finding import Item
from fastcls.reports.thumbnails import Thumbnails, Tile
from fastcls.reports.wording import grouped
from fastcls.runfolder.text import clean

GROUPS, EACH = 6, 3  # groups of copies that are pictured of a kind, and images of each


@dataclass(frozen=True)
class Copy:
    """One image of a group, and where it lies."""

    tile: Tile
    path: str
    label: str
    split: str


@dataclass(frozen=True)
class Kind:
    """A finding: leaks, duplicates, one image under two labels."""

    title: str
    what: str
    fix: str
    serious: bool
    groups: list[list[Copy]]
    left_off: int


def copies(run: Path, thumbnails: Thumbnails) -> tuple[list[Kind], str]:
    """The findings, the gravest first, and a sentence on how many images were looked at; ([], '') without a check."""
    found = check_record.read(run)
    if found is None:
        return [], ""
    kinds = [
        Kind(
            clean(finding.title),
            clean(finding.what),
            clean(finding.fix),
            finding.severity == "error",
            [[_copy(item, thumbnails) for item in group[:EACH]] for group in finding.groups[:GROUPS]],
            max(0, len(finding.groups) - GROUPS),
        )
        for finding in found.findings
        if finding.kind in check_record.COPIES
    ]
    part = "all" if found.looked_at >= found.files else f"{grouped(found.looked_at)} of the"
    looked = f"The check before training compared {part} {grouped(found.files)} images with each other"
    more = "" if found.looked_at >= found.files else " (it takes ten seconds at most; `fastcls check` compares all)"
    return kinds, f"{looked}{more}{'.' if kinds else ' and found no two that are one.'}"


def _copy(item: Item, thumbnails: Thumbnails) -> Copy:
    return Copy(thumbnails.tile(item.path), clean(item.path), clean(item.label), clean(item.split))
