"""What all processes of a run but the first do: build the same learner, train their shares, write nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from fastai.learner import Learner

from fastcls import checkpoints, distributed, ranks, record, recorded, runs, training
from fastcls.errors import DataError
from fastcls.loading import prepared
from fastcls.request import Request
from fastcls.screen import Screen
from fastcls.stop import Stop


def run(request: Request, stop: Stop) -> None:
    """Take part in a run that the first process makes."""
    with prepared(request) as ready:
        plan = getattr(ready.learn.dls, "plan", None)
        if plan is not None:
            plan.prepare()  # one process a machine decodes, the others wait for it
        found, extensions = begin(ready.learn, record.Images(ready.learn).describe()["fingerprint"])
        fit, knobs = ready.recipe.fit, request.stage("fit")
        training.fit(ready.learn, fit, knobs, Path(), Screen(quiet=True), stop, found, extensions)


def resume(stop: Stop, trust: bool) -> None:
    """Take part in a run that the first process goes on with; its folder need not be on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in distributed.shared(None).items():
            runs.atomic_write(Path(folder) / name, text)
        again = recorded.request(Path(folder), trust)
        recorded.enter(runs.read_json(Path(folder) / "run.json"))
        run(again, stop)


def tell(folder: Path) -> None:
    """The first process's part of `resume`: what the others need to know of the run."""
    distributed.shared({name: (folder / name).read_text(encoding="utf-8") for name in ("run.json", "recipe.py")})


def begin(
    learn: Learner, fingerprint: str, found: checkpoints.Checkpoint | None = None, extensions: Sequence[int] = ()
) -> tuple[checkpoints.Checkpoint | None, list[int]]:
    """Wait until every process has its images; then all begin where the first one does, from its checkpoint if any.

    DataError, by every process, where one has other images, labels or splits.
    """
    if ranks.world() == 1:
        return found, list(extensions)
    distributed.meet()
    every = distributed.everyones(fingerprint)
    others = [str(rank) for rank, held in enumerate(every) if held != every[0]]
    if others:
        raise DataError(
            f"Rank {', '.join(others)} of {len(every)} processes has other images, labels or splits than the first.",
            "Copy the dataset to every machine, at the place that the command names; run  fastcls check  on each.",
        )
    held = None if found is None else {"state": found.state, "best": found.best}
    told, extensions = distributed.shared([held, list(extensions)])
    if not ranks.first() and told is not None:
        found = checkpoints.Checkpoint(Path(), **told)
    return found, extensions
