"""Copies among images: files of the same bytes, and the same picture re-encoded, resized, retouched or made gray.

Near copies are pairs whose 64-bit perceptual hashes differ in few bits and whose small versions agree; the more bits,
the better they have to agree. The pairs are found without comparing all with all: where hashes differ in at most FAR
bits, one of four bands of 16 bits differs in a bit at most, so every band is looked up as it is and with each bit
flipped. Most pairs of up to FARTHER bits are found that way too. Pictures of a burst, moved and lit a little otherwise,
differ in more: they are found by comparing the small versions of all with all, while there are not too many.

    groups = duplicates.groups(measure_all(paths), rows)
    [group for group in groups if group.leak]
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fastcls.images.measure import Measured

BAND = 16
FAR, SAME = 7, 0.95  # bits, correlation of the small versions
FARTHER, MORE_SAME = 10, 0.98
BURST = ((8, 0.9), (12, 0.93), (18, 0.97))  # ... of photographs, larger than SMALL a side: bits, correlation
SMALL, COMPARED = 64, 20_000  # with so many all are compared with all, 4 s of a core
SAME_TINY, TINY = 0.99, 32  # ... of images below so many pixels a side, such as digits, which are similar anyway
FLAT = 4.0  # contrast below which a picture is a plain surface, whose hash means nothing
COLOURLESS = 4  # levels between the channels of a picture without colour, with room for what JPEG makes of it
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # as Pillow weighs them: a gray copy is compared by it
WINDOW = 256  # neighbours looked at in a list of equal bands: bounds the work where thousands look alike
AT_ONCE = 200_000  # pairs verified at a time
_ONES = np.array([bin(word).count("1") for word in range(2**BAND)], np.uint8)  # bits that are set


@dataclass(frozen=True)
class Group:
    """Images that are copies of each other, in the order they were given."""

    paths: tuple[str, ...]
    splits: tuple[str, ...]
    labels: tuple[str, ...]
    contents: tuple[int, ...]  # a number for each: files of the same bytes have the same

    @property
    def identical(self) -> bool:
        """Whether all are the same bytes."""
        return len(set(self.contents)) == 1

    @property
    def leak(self) -> bool:
        """Whether copies are in different splits."""
        return len(set(self.splits)) > 1

    @property
    def two_labels(self) -> bool:
        """Whether copies have different labels."""
        return len(set(self.labels)) > 1

    @property
    def contradiction(self) -> bool:
        """Whether the very same bytes have different labels."""
        return len(set(zip(self.contents, self.labels, strict=True))) > len(set(self.contents))


def groups(measured: Sequence[Measured], rows: Sequence[tuple[str, str, str]]) -> list[Group]:
    """The groups of copies among rows (path, split, label) whose files were measured."""
    by_digest: dict[bytes, list[str]] = defaultdict(list)
    for image in measured:
        if image.digest and not image.fault:
            by_digest[image.digest].append(image.path)
    place = {path: at for at, paths in enumerate(by_digest.values()) for path in paths}
    once = {image.digest: image for image in measured if not image.fault}
    component = connected(near_pairs([once[digest] for digest in by_digest]), len(by_digest))
    members: dict[int, list[int]] = defaultdict(list)
    for row, (path, _, _) in enumerate(rows):
        if path in place:
            members[component[place[path]]].append(row)
    found = []
    for at in members.values():
        if len(at) > 1:
            paths, splits, labels = zip(*(rows[row] for row in at), strict=True)
            found.append(Group(paths, splits, labels, tuple(place[path] for path in paths)))
    return found


def connected(pairs: np.ndarray, n: int) -> list[int]:
    """To which group each of `n` belongs, where pairs belong together (SciPy's would delay every run by its import)."""
    parent = list(range(n))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = at = parent[parent[at]]
        return at

    for left, right in pairs.tolist():
        parent[root(right)] = root(left)
    return list(map(root, range(n)))


def near_pairs(images: Sequence[Measured]) -> np.ndarray:
    """(n, 2) positions of images that show the same picture."""
    textured = np.array([at for at, image in enumerate(images) if image.contrast >= FLAT], np.int64)
    if len(textured) < 2:
        return np.zeros((0, 2), np.int64)
    hashes = np.array([images[at].hash for at in textured], np.uint64)
    small = np.stack([images[at].small for at in textured]).reshape(len(textured), -1)  # type: ignore[arg-type]
    colours = small.reshape(len(small), -1, 3)
    gray, light = np.ptp(colours, 2).max(1) <= COLOURLESS, colours @ LUMINANCE
    tiny = np.array([min(images[at].width, images[at].height) < TINY for at in textured])
    found = [np.zeros((0, 2), np.int64)]
    large = np.array([min(images[at].width, images[at].height) >= SMALL for at in textured]).nonzero()[0]
    if 2 <= len(large) <= COMPARED:
        found.append(large[_bursts(hashes[large], small[large])])
    for left, right in _candidates(hashes):
        for start in range(0, len(left), AT_ONCE):
            i, j = left[start : start + AT_ONCE], right[start : start + AT_ONCE]
            bits = _bits_apart(hashes[i], hashes[j])
            close = bits <= FARTHER
            i, j, bits = i[close], j[close], bits[close]
            enough = np.where(tiny[i] & tiny[j], SAME_TINY, np.where(bits <= FAR, SAME, MORE_SAME))
            agree = _correlation(small[i], small[j])
            agree = np.where(gray[i] | gray[j], _correlation(light[i], light[j]), agree)
            alike = agree >= enough
            found.append(np.stack([i[alike], j[alike]], 1))
    return textured[np.unique(np.concatenate(found), axis=0)]


def _bursts(hashes: np.ndarray, small: np.ndarray) -> np.ndarray:
    """(n, 2) positions of pairs that one of BURST's limits takes for the same scene."""
    vectors = small - small.mean(1, keepdims=True, dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-6)
    found = [np.zeros((0, 2), np.int64)]
    least = min(same for _, same in BURST)
    for start in range(0, len(vectors), 1000):
        alike = vectors[start : start + 1000] @ vectors[start:].T
        i, j = np.nonzero(alike >= least)
        same, i, j = alike[i, j][i < j], i[i < j] + start, j[i < j] + start
        bits = _bits_apart(hashes[i], hashes[j])
        close = np.any([(bits <= most) & (same >= enough) for most, enough in BURST], axis=0)
        found.append(np.stack([i[close], j[close]], 1))
    return np.concatenate(found)


def _candidates(hashes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions of pairs of which some band differs in a bit at most; a pair may come more than once."""
    every = np.arange(len(hashes))
    for shift in range(0, 64, BAND):
        bands = ((hashes >> np.uint64(shift)) & np.uint64(2**BAND - 1)).astype(np.int64)
        order = np.argsort(bands, kind="stable")
        ends = np.cumsum(np.bincount(bands, minlength=2**BAND))
        starts = np.concatenate([[0], ends[:-1]])
        rank = np.empty_like(order)
        rank[order] = every
        for mask in (0, *(1 << bit for bit in range(BAND))):
            own = every if mask == 0 else np.flatnonzero(bands & mask)  # a pair is found from one side alone
            wanted = bands[own] ^ mask
            first = rank[own] + 1 if mask == 0 else starts[wanted]
            counts = np.minimum(ends[wanted] - first, WINDOW)
            left = np.repeat(own, counts)
            steps = np.arange(len(left)) - np.repeat(np.cumsum(counts) - counts, counts)
            right = order[np.repeat(first, counts) + steps]
            yield np.minimum(left, right), np.maximum(left, right)


def _bits_apart(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return _ONES[(left ^ right).view(np.uint16).reshape(-1, 4)].sum(1)


def _correlation(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    a, b = (x.astype(np.float32) - x.mean(1, keepdims=True, dtype=np.float32) for x in (left, right))
    return (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1)).clip(1e-6)
