"""What run.json says of a run: how it was asked for, on what data, on which device and versions."""

from __future__ import annotations

import functools
import hashlib
import heapq
import os
import shlex
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
from fastai.learner import Learner

from fastcls.data import packs, target
from fastcls.data.pixels import files, targets
from fastcls.datasets import shards
from fastcls.datasets.layouts import SLICE
from fastcls.datasets.walk import common_root, some
from fastcls.errors import DataError, OutputError
from fastcls.evaluation import judging
from fastcls.inference.export import arch_name
from fastcls.machine import devices
from fastcls.machine.extras import version
from fastcls.runfolder import recorded, runs, splits
from fastcls.settings import sources
from fastcls.settings.request import Request
from fastcls.training.history import History
from fastcls.transforms import resizing
from fastcls.version import __version__

CHUNK = 100_000  # packed images that are named at a time: of a hundred million, all names together take 16 GB
PACKAGES = ("fastai", "torch", "torchvision", "timm", "numpy", "pillow", "scikit-learn", "onnxruntime")


def of(request: Request, learn: Learner, notes: list[str]) -> dict[str, Any]:
    """The record of a run that begins."""
    source, opts = request.source, request.options
    if request.auto_batch:
        notes.append(request.auto_batch["why"])
    return {
        "format": runs.FORMAT,
        "recipe": source.name,
        "title": source.title,
        "claim": source.claim,
        "command": _pinned(request, learn.precision),
        "knobs": {stage: request.stage(stage) for stage in sources.STAGES},
        "options": {
            **{name: value for name, value in vars(opts).items() if name != "extra"},  # which is recorded apart
            "device": learn.dls.device.type,
            "precision": learn.precision,
            "workers": devices.workers(),
        },
        "extra": dict(request.extra),
        "seed": opts.seed,
        **_begun(learn, notes),
        **({"auto_batch": request.auto_batch} if request.auto_batch else {}),
    }


def of_a_learner(learn: Learner, root: Path, notes: list[str]) -> dict[str, Any]:
    """The record of a Learner that was trained by hand on the images below `root`; nobody knows how."""
    return {
        "format": runs.FORMAT,
        "recipe": recorded.BY_HAND,
        "title": f"{arch_name(learn)} on {root.name}, trained by hand",
        "knobs": {},
        "options": {},
        **_begun(learn, notes),
    }


def _begun(learn: Learner, notes: list[str]) -> dict[str, Any]:
    """Where and when, whatever was asked for."""
    return {
        "folder": str(Path.cwd()),
        "versions": versions(),
        "device": devices.describe(learn.dls.device),
        "status": "running",
        "reason": "",
        "started": runs.now(),
        "notes": notes,
    }


def _pinned(request: Request, precision: str) -> str:
    """The command with the precision that was chosen for it: another machine may choose otherwise."""
    if not request.command or request.options.precision != "auto":
        return request.command
    return shlex.join([*request.words_without("--precision"), "--precision", precision])


def versions() -> dict[str, str]:
    """The versions that a run depends on."""
    import platform

    found = {package: version(package) for package in PACKAGES}
    there = {package: text for package, text in found.items() if text != "(missing)"}
    return {"python": platform.python_version(), "fastcls": __version__, **there}


def speed(learn: Learner, history: History) -> dict[str, float]:
    """Images a second in training, the median of the last phase's epochs."""
    grows = any(isinstance(callback, resizing.Grow) for callback in learn.cbs)  # only the end is of full size
    last = history.rows[-1]
    phase = [last] if grows else [row for row in history.rows if row["phase"] == last["phase"]]
    return {"images_per_second": statistics.median(row["images_per_second"] for row in phase)}


class Images:
    """The images of a run: every file with its split and label, named relative to their common folder."""

    def __init__(self, learn: Learner) -> None:
        dls = learn.dls
        self.skipped: list[str] = getattr(dls, "skipped", [])  # what cannot be read, a line each
        self.vocab = [str(name) for name in dls.vocab]
        self.target = target.of(dls)
        self.datasets = {"train": dls.train_ds, "valid": dls.valid_ds}
        test = getattr(dls, "test_items", None)
        if test is not None:
            self.datasets["test"] = dls.test_dl(test, with_labels=True).dataset
        self.packed = all(packs.is_packed(dataset.items) for dataset in self.datasets.values())
        named = packs.first_and_last if self.packed else files
        ends = {split: named(dataset) for split, dataset in self.datasets.items()}
        self.root = common_root([path for paths in ends.values() for path in paths])
        self.prefix = os.path.join(self.root, "")  # noqa: PTH118
        self._held = None if self.packed else [row for split, paths in ends.items() for row in self._read(split, paths)]
        by_path = getattr(dls, "groups", {})
        own = [path for dataset in self.datasets.values() for path in files(dataset)] if by_path else []
        self.groups = {self.relative(path): by_path[path] for path in own if path in by_path}
        self.slices: dict[str, dict[str, str]] = {}  # title -> path -> value
        for dataset in self.datasets.values():
            for name in getattr(dataset.items, "columns", ()):
                if name.startswith(SLICE):
                    values = zip(map(self.relative, files(dataset)), dataset.items[name], strict=True)
                    self.slices.setdefault(name.removeprefix(SLICE), {}).update(values)

    @property
    def rows(self) -> Iterator[tuple[str, str, str]]:
        """Path, split and label of every image."""
        every = chain.from_iterable(map(self._read, self.datasets)) if self._held is None else self._held
        return (row[:3] for row in every)

    def _read(self, split: str, own: Sequence[str] = ()) -> Iterator[tuple[str, str, str, int | str]]:
        """Rows of a split and the bytes of their files, `own`; packed ones are named as they are asked for."""
        dataset, judge = self.datasets[split], judging.of(self.target)
        labels = targets(dataset).numpy()
        pack = packs.of(dataset) if self.packed else None
        step = max(1, len(labels)) if pack is None else CHUNK
        for begin in range(0, len(labels), step):
            part = slice(begin, begin + step)
            paths, texts = own or files(dataset, part), judge.texts(labels[part], self.vocab)
            sizes = map(_size, paths) if pack is None else pack.index["size"][packs.rows(dataset, pack)[part]].tolist()
            yield from zip(map(self.relative, paths), repeat(split, len(texts)), texts, sizes, strict=True)

    def _sorted(self, split: str) -> Iterable[tuple[str, str, str, int | str]]:
        rows = self._read(split)
        return rows if packs.in_order(self.datasets[split]) else sorted(rows)

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 over name, split, label and size of every file: the same data, packed or not, give the same text."""
        digest = hashlib.sha256()
        every = heapq.merge(*map(self._sorted, self.datasets)) if self._held is None else sorted(self._held)
        for row in every:
            digest.update("\0".join(map(str, row)).encode() + b"\n")
        return digest.hexdigest()

    def agreed(self) -> str:
        """What all processes of a run must have alike; of packed images it takes no list of them."""
        if self._held is not None:
            return self.fingerprint
        digest = hashlib.sha256("\0".join(self.vocab).encode())
        for split, dataset in self.datasets.items():
            pack = packs.of(dataset)
            assert pack is not None
            digest.update(f"\n{split}\0{len(dataset)}\0{pack.record.manifest}\n".encode())
            digest.update(packs.rows(dataset, pack).astype(np.int64).tobytes())
            digest.update(targets(dataset).numpy().tobytes())
        return digest.hexdigest()

    def relative(self, path: str) -> str:
        """A file's name in splits.csv and predictions.csv."""
        rest = path.removeprefix(self.prefix)
        if len(rest) < len(path) and os.sep == "/" and not any(odd in f"/{rest}" for odd in ("//", "/./")):
            return rest  # what follows comes to the same, in ten times the time
        absolute = Path(path).absolute()
        return absolute.relative_to(self.root).as_posix() if absolute.is_relative_to(self.root) else str(absolute)

    def describe(self) -> dict[str, Any]:
        """The record's `data`."""
        return {
            "root": str(self.root),
            "fingerprint": self.fingerprint,
            "images": {split: len(dataset) for split, dataset in self.datasets.items() if len(dataset)},
            "classes": len(self.vocab),
            "target": self.target.kind,
            **({"skipped": self.skipped} if self.skipped else {}),
            **({"groups": len(set(self.groups.values()))} if self.groups else {}),
        }


def _size(path: str) -> int | str:
    """The bytes of a file, packed or not; '' of one that is not there."""
    try:
        return shards.stamp(path)[0]
    except (OSError, ValueError):
        return ""


def refuse_other_images(
    before: Mapping[str, Any], data: Mapping[str, Any], out: Path, rows: Iterable[tuple[str, str, str]]
) -> None:
    """DataError where the images, now `rows`, are no longer those that the run in `out` began with."""
    if before.get("fingerprint") != data["fingerprint"]:
        raise DataError(
            f"The images in {data['root']} are not the ones that {out} was trained on: {_difference(out, rows)}.",
            "Restore them, or start a new run.",
        )


def _difference(run: Path, rows: Iterable[tuple[str, str, str]]) -> str:
    """What became of the images that a run listed, in words."""
    try:
        was = {path: (split, label) for path, label, split in splits.read(run)}
    except OutputError:
        return "files, labels or splits differ"
    now = {path: (split, label) for path, split, label in rows}
    gone, new = [path for path in was if path not in now], [path for path in now if path not in was]
    moved = [path for path in was if path in now and was[path] != now[path]]
    if gone or new:
        parts = [f"{len(paths):,} {what} ({some(paths)})" for what, paths in (("missing", gone), ("new", new)) if paths]
        return " and ".join(parts)
    return f"{len(moved):,} in another split or class ({some(moved)})" if moved else "the sizes of files differ"


def other_surroundings(before: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """A sentence on what differs from where the run began, so that its results may; else nothing."""
    pairs = [
        (name, was, record[group].get(name))
        for group in ("versions", "device")
        for name, was in (before.get(group) or {}).items()
        if group == "versions" or name in ("type", "name", "threads", "processes")
    ]
    differ = "; ".join(f"{name} {was} then, {now} now" for name, was, now in pairs if was != now)
    return f"resumed in another environment ({differ}): the last digits of results may differ." if differ else ""
