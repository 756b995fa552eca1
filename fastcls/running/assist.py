"""A run of several processes: the first one runs it, the others build the same learner, train, and write nothing."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcls.errors import DataError, UsageError
from fastcls.machine import ranks
from fastcls.machine.screen import Screen
from fastcls.machine.stop import Stop, listening
from fastcls.runfolder import recorded, runs
from fastcls.running.loading import import_fastai, prepared
from fastcls.settings.request import Request

if TYPE_CHECKING:
    from fastai.learner import Learner

    from fastcls.training.checkpoints import Checkpoint

START, DONE = "start", "done"  # what rank 0 says of a run that is not to be continued
SAME = "Give every process the same command."


@contextlib.contextmanager
def joined(order: Any = None) -> Iterator[Stop]:
    """The run's processes as a group, where there are several, with an ear for signals.

    order: what rank 0 has the others do, where it knows.
    """
    with listening() as stop, contextlib.ExitStack() as group:
        if ranks.world() > 1:
            import_fastai()
            from fastcls.training import distributed

            group.enter_context(distributed.joined())
            if order is not None:
                announce(order)
        yield stop


def join_run(request: Request | None, trust: bool = False) -> None:
    """What `runner.run` or `runner.resume` is to every process but the first, which says which of them it is.

    request: what this process was asked to start, or to continue by `--resume auto`; None: to continue only.
    """
    from fastcls.training import distributed

    with joined() as stop:
        order = distributed.broadcast(None)
        if order == START and request is not None:
            _run(request, stop)
        elif order == START:
            raise UsageError("Rank 0 starts a run, but this process was asked to continue one.", SAME)
        elif order != DONE:
            _resume(order, stop, request, trust)


def announce(order: Any) -> None:
    """The first process's part of `join_run`: START, DONE, or what `continued` gives."""
    if ranks.world() > 1:
        from fastcls.training import distributed

        distributed.broadcast(order)


def continued(folder: Path, request: Request) -> Any:
    """What the other processes need to know of a run to continue it; its folder need not be on their machines."""
    return [recorded.texts(folder), request.options.auto_epochs, request.knobs.get("path", "")]


def _run(request: Request, stop: Stop) -> None:
    from fastcls.running import evaluation, faults, record
    from fastcls.training import resume as training

    with prepared(request) as ready:
        plan = getattr(ready.learn.dls, "plan", None)
        if plan is not None:
            plan.prepare()  # one process a machine decodes, the others wait for it
        images = record.Images(ready.learn)
        knobs, found, extensions = begin(images.agreed(), request.stage("fit"))
        with faults.translated(ready.learn, request.stage("get_learner") | knobs, Path("RUN")):
            training.fit(ready.learn, ready.recipe.fit, knobs, Path(), Screen(quiet=True), stop, found, extensions)
            evaluation.evaluated(ready.learn, images.relative)


def _resume(order: Any, stop: Stop, request: Request | None, trust: bool) -> None:
    texts, auto_epochs, path = order
    with tempfile.TemporaryDirectory() as folder:
        for name, text in texts.items():
            runs.atomic_write(Path(folder) / name, text)
        trust = trust or (request is not None and request.source.source == texts["recipe.py"])
        again = recorded.request(Path(folder), trust)
        if path:
            again.knobs = {**again.knobs, "path": path}
        again.options = replace(again.options, auto_epochs=auto_epochs)
        with recorded.entered(runs.read_json(Path(folder) / "run.json")):
            _run(again, stop)


@contextlib.contextmanager
def shares(learn: Learner) -> Iterator[None]:
    """Meanwhile the loaders give this process's share of every batch, as they do in training."""
    loaders = [loader for loader in learn.dls if hasattr(loader, "part")]
    before = [loader.part for loader in loaders]
    for loader in loaders:
        loader.part = ranks.here()
    try:
        yield
    finally:
        for loader, part in zip(loaders, before, strict=True):
            loader.part = part


def begin(
    images: str, knobs: dict[str, Any], found: Checkpoint | None = None, extensions: Sequence[int] = ()
) -> tuple[dict[str, Any], Checkpoint | None, list[int]]:
    """Wait until every process has its images; then all train as the first one does, from its checkpoint if any.

    images: `Images.agreed`; knobs: those of `fit`. DataError, by every process, where one has other images.
    """
    from fastcls.training import checkpoints, distributed

    if ranks.world() == 1:
        return knobs, found, list(extensions)
    distributed.barrier()
    every = distributed.all_gather(images)
    others = [str(rank) for rank, held in enumerate(every) if held != every[0]]
    if others:
        raise DataError(
            f"Rank {', '.join(others)} of {len(every)} processes has different images, labels or splits from rank 0.",
            "Copy the dataset to the same path on every machine and run  fastcls check  on each.",
        )
    held = None if found is None else {"state": found.state, "best": found.best}
    knobs, values, further = distributed.broadcast([knobs, held, list(extensions)])
    if not ranks.first() and values is not None:
        found = checkpoints.Checkpoint(Path(), **values)
    return knobs, found, list(further)
