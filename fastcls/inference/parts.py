"""Predictions for more images than one sitting answers: a folder of parts, which the same command completes.

    part-00000.parquet …   a row an image, SIZE images each; written whole or not at all
    _fastcls/job.json      what was asked of which network: another command is refused
    _fastcls/00000.json    written after its part: which images these are, how many could not be read

Packed images are taken shard by shard, so that each shard is fetched once. A process takes the next part that no other
one holds the lock of: several of one machine, or of several that share the folder, divide the parts among themselves.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from fastcls.datasets import buckets, inputs, shards
from fastcls.errors import FastclsError, OutputError, TrainingError, UsageError
from fastcls.images import cache
from fastcls.inference import answers, requirements
from fastcls.log import logger
from fastcls.runfolder import model_files, runs
from fastcls.settings import options

SIZE = 10_000  # images of a part
COUNTS = {"total", "failed", "unsure"}  # that a part's record has
HELD = "_fastcls"  # begins so that readers of a folder of Parquet files pass over it
FLAGS = {"network": "the run's networks", "paths": "PATHS", "kind": "--parts", "temperature": "--calibrated"}
FORMATS = tuple(suffix.removeprefix(".") for suffix in answers.WRITERS)


@dataclass(frozen=True)
class Job:
    """What is asked of a run, for images as `inputs.collect` takes them."""

    run: Path
    paths: tuple[str, ...]
    out: Path
    kind: str  # of FORMATS
    wanted: requirements.Wanted
    temperature: float = 1
    tta: bool = False
    top_k: int = 0
    probabilities: bool = False
    threshold: float = 0
    features: bool = False
    size: int = field(default_factory=lambda: SIZE)  # images of a part

    def begin(self) -> None:
        """Make the folder; OutputError where it holds anything but earlier answers to the same."""
        asked = asdict(self) | {"network": model_files.read(self.run).get("sha256")}
        asked = json.loads(json.dumps({key: asked[key] for key in asked if key not in ("run", "out")}))
        record = self.out / HELD / "job.json"
        if record.is_file():
            try:
                before = runs.read_json(record)
            except OutputError as problem:
                problem.hint = f"It describes the parts next to it: remove {self.out}, and run the command again."
                raise
            if others := [key for key, value in asked.items() if before.get(key) != value]:
                names = ", ".join(FLAGS.get(key, f"--{key.replace('_', '-')}") for key in others)
                raise OutputError(
                    f"-o {self.out} has the predictions of another command: {names} differ{'s' * (len(others) == 1)}.",
                    "Choose another folder, or remove it.",
                )
            return
        runs.check_writable(self.out, "-o ")
        runs.write_json(record, asked)

    def chunks(self) -> Iterator[list[str]]:
        """The images of each part."""
        images = inputs.collect(self.paths, by_shard=True)
        while chunk := list(islice(images, self.size)):
            yield chunk

    def file(self, number: int) -> Path:
        return self.out / f"part-{number:05d}.{self.kind}"

    def record(self, number: int) -> Path:
        return self.out / HELD / f"{number:05d}.json"

    def records(self) -> list[int]:
        """The numbers of the parts that have one."""
        return sorted(int(path.stem) for path in (self.out / HELD).glob("*.json") if path.stem.isdecimal())

    def done(self, number: int, chunk: Sequence[str]) -> dict[str, Any] | None:
        """What is recorded of a part that is whole; OutputError where it is of other images."""
        if not self.record(number).is_file() or not self.file(number).is_file():
            return None
        try:
            found = runs.read_json(self.record(number))
        except OutputError:
            found = {}
        counted = all(isinstance(found.get(name), int) for name in COUNTS)
        if not counted or found.get("bytes") != self.file(number).stat().st_size:
            return None  # one of the two was damaged: the images are answered again
        if found.get("images") != _digest(chunk):
            raise OutputError(
                f"{self.file(number)} has predictions for other images: some were added or removed.",
                "Choose another folder, or remove it.",
            )
        return found


@dataclass
class Done:
    """How many images have an answer, in all parts."""

    total: int = 0
    failed: int = 0
    unsure: int = 0
    parts: int = 0
    before: int = 0  # parts that were there


def complete(job: Job, processes: int = 1) -> Done:
    """Answer for the images that have no answer yet. TrainingError where a process was killed."""
    if "-" in job.paths:
        raise UsageError(
            "--parts needs to read the list of images again, and standard input can only be read once.",
            "Use a table of paths, or a folder.",
        )
    writer = _Writer(job)  # before anything is written: what is asked may be refused
    if next(job.chunks(), None) is None:
        raise UsageError("Nothing to predict: the list of images is empty.")
    job.begin()
    found = Done(before=len(job.records()))
    if processes > 1:
        _start(job, processes)
    else:
        writer.work()
    writer.work(wait=True)  # for what other machines have begun
    for number, chunk in enumerate(job.chunks()):
        if (part := job.done(number, chunk)) is None:
            raise OutputError(f"{job.file(number)} was removed while predicting.", "Run the command again.")
        found.total, found.parts = found.total + part["total"], number + 1
        found.failed, found.unsure = found.failed + part["failed"], found.unsure + part["unsure"]
    if beyond := [number for number in job.records() if number >= found.parts]:
        raise OutputError(
            f"{job.file(beyond[0])} has predictions for images that were removed.",
            "Choose another folder, or remove it.",
        )
    # of processes that let go, and that were killed
    for left in (*(job.out / HELD).glob("*.lock"), *job.out.glob(".part-*")):
        left.unlink(missing_ok=True)
    return found


class _Writer:
    """A network that answers for parts."""

    def __init__(self, job: Job) -> None:
        self.job, self.write = job, answers.writer_for(job.file(0))
        self.predictor = requirements.predictor(job.run, job.temperature, job.tta, job.wanted, job.features)
        self.decider = None
        if job.wanted:
            from fastcls.inference.deciding import decider

            self.decider = decider(job.run, job.wanted, job.temperature)
        self.table()

    def table(self) -> answers.Table:
        job, network = self.job, self.predictor
        rule = (network.target, network.thresholds, network.width if job.features else 0)
        return answers.Table(network.classes, job.top_k, job.probabilities, job.threshold, self.decider, *rule)

    def work(self, wait: bool = False) -> None:
        """Answer for every part that is not done; of those of another process where `wait`, when it has let go."""
        from filelock import FileLock, Timeout

        for number, chunk in enumerate(self.job.chunks()):
            if self.job.done(number, chunk) is None:
                lock = FileLock(self.job.record(number).with_suffix(".lock"), timeout=-1 if wait else 0)
                with contextlib.suppress(Timeout), lock:
                    if self.job.done(number, chunk) is None:
                        self._answer(number, chunk)

    def _answer(self, number: int, chunk: list[str]) -> None:
        table = self.table()
        with shards.ahead_of(chunk, lambda: cache.room(options.current().cache_gb)) as read:
            rows = table.rows(self.predictor.predict(chunk))
            self.write(self.job.file(number), table, (row for count, row in enumerate(rows) if read(count) is None))
        counts = {"total": table.total, "failed": table.failed, "unsure": table.unsure}
        size = self.job.file(number).stat().st_size
        runs.write_json(self.job.record(number), {"images": _digest(chunk), "bytes": size, **counts})
        logger.info(f"{self.job.file(number)}: {table.total:,} images")


def _start(job: Job, count: int) -> None:
    """The work of several processes, each with its share of the cores."""
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_member, args=(job, rank, count), daemon=True) for rank in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    codes = [worker.exitcode for worker in workers if worker.exitcode]
    if not codes:
        return
    if killed := [code for code in codes if code is not None and code < 0]:
        raise TrainingError(
            f"{len(killed)} of {count} processes were killed by {signal.Signals(-killed[0]).name}; the system does "
            "this when memory runs out.",
            "The same command continues; fewer --processes need less memory.",
        )
    raise SystemExit(codes[0])


def _member(job: Job, rank: int, count: int) -> None:
    """One process of several; its errors are printed as the command's are."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends it
    if hasattr(os, "sched_setaffinity"):
        own = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, own[rank::count] or [own[rank % len(own)]])
    try:
        _Writer(job).work()
    except FastclsError as problem:
        print(f"error: {problem.message}\n{problem.hint}", file=sys.stderr)
        buckets.leave(problem.exit_code)


def _digest(chunk: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(chunk).encode("utf-8", "surrogateescape")).hexdigest()
