"""Held-out images that training has seen: copies of training images, or of a group that is trained on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastcls.audit import check_record


def leaked(run: Path, rows: Sequence[tuple[str, str, str]], groups: Mapping[str, str]) -> dict[str, set[str]]:
    """Of each split the images that have a copy, or another image of their group, in train.

    rows: path, split, label. groups: the group of a path, where there are groups. Copies are those that the run's check
    found.
    """
    found = check_record.read(run)
    split_of = {path: split for path, split, _ in rows}
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
    for paths in (*together, *members.values()):
        if any(split_of.get(path) == "train" for path in paths):
            for path in paths:
                if (split := split_of.get(path, "train")) != "train":
                    held[split].add(path)
    return dict(held)
