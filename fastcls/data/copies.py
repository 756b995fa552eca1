"""Copies and near copies of images kept on one side of a split that is drawn at random.

What `fastcls check` finds is one group each, bounded: images that are similar without being copies, of a fixed camera
say, would become one group of thousands, which no split could divide. Groups that large are left alone, and that is
said. What is measured is kept for the check, which then has nothing left to measure.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence

from fastcls.datasets.walk import count, file_size, slashes
from fastcls.images import duplicates
from fastcls.images.decode import file_bytes
from fastcls.images.measurements import measure_all
from fastcls.settings import options

MOST_IMAGES = 100_000  # of more, identical files alone are looked for: measuring takes 0.3 to 0.9 ms of a core each
FEWEST, USUAL = 5, 50  # images that a group may have in a dataset however small, and in one of some hundreds


def together(paths: Sequence[str]) -> list[str]:
    """The group of each file, named by its first file; empty for a file that is alone. What was done becomes a note."""
    every = list(dict.fromkeys(paths))
    near = len(every) <= MOST_IMAGES
    found, loose = alike(every)
    root = os.path.commonpath(every) if len(every) > 1 else ""
    group: dict[str, str] = {}
    for members in found:
        group |= dict.fromkeys(members, slashes(os.path.relpath(members[0], root)))
    if group:
        kept = count(len(group), "image")
        kinds = "copies or near copies" if near else "identical files"
        options.note(f"{kept} are {kinds} ({count(len(set(group.values())), 'group')}): each group stays in one split.")
    if loose:
        many = f"{count(sum(map(len, loose)), 'image')} are similar, in groups of up to {max(map(len, loose)):,}"
        options.note(
            f"{many}, too many to be kept together ({loose[0][0]} is one): the split separates them, so metrics may "
            "be too high. Use --group to keep related images together."
        )
    if not near:
        options.note(f"With more than {MOST_IMAGES:,} images, only identical files are kept together, not near copies.")
    return [group.get(path, "") for path in paths]


def alike(paths: Sequence[str]) -> tuple[list[list[str]], list[list[str]]]:
    """Groups of copies and near copies, and groups of so many that they are merely similar."""
    found = _near(paths) if len(paths) <= MOST_IMAGES else _identical(paths)
    largest = max(FEWEST, min(USUAL, len(paths) // 10), len(paths) // 100)
    return [one for one in found if len(one) <= largest], [one for one in found if len(one) > largest]


def _near(paths: Sequence[str]) -> list[list[str]]:
    """Identical files, and pictures that look the same; of images below duplicates.TINY a side identical ones alone."""
    measured = [image for image in measure_all(paths) if not image.fault]
    groups = duplicates.groups(measured, [(image.path, "", "") for image in measured])
    tiny = {image.path for image in measured if min(image.width, image.height) < duplicates.TINY}
    found = []
    for one in groups:
        if tiny.isdisjoint(one.paths):
            found.append(list(one.paths))
        else:
            of_bytes: dict[int, list[str]] = defaultdict(list)
            for path, content in zip(one.paths, one.contents, strict=True):
                of_bytes[content].append(path)
            found += [members for members in of_bytes.values() if len(members) > 1]
    return found


def _identical(paths: Sequence[str]) -> list[list[str]]:
    """Files of the same bytes; read are those alone that share their size with another."""
    by_size: dict[int, list[str]] = defaultdict(list)
    for path in paths:
        by_size[file_size(path)].append(path)
    found: dict[str, list[str]] = defaultdict(list)
    for members in by_size.values():
        if len(members) > 1:
            for path in members:
                found[hashlib.sha256(file_bytes(path)).hexdigest()].append(path)
    return [members for members in found.values() if len(members) > 1]
