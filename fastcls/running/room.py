"""Whether the disk has room for what a run writes, asked before it trains."""

from __future__ import annotations

import shutil
from pathlib import Path

from fastai.learner import Learner

from fastcls.errors import OutputError
from fastcls.settings import options
from fastcls.training import checkpoints

GB = 1e9
PAGE = 15e6  # bytes of the report, its figures and the rest, at most (docs/reliability.md has the report's)
ROW, COLUMN, COLUMNS = 150, 12, 100  # bytes of a line of predictions.csv and of each probability in it
AMPLE = 1.5  # times what is needed: below it a note says so


def needed(learn: Learner) -> float:
    """Bytes that a run writes at most: checkpoints, the network twice, tables, the report.

    A checkpoint has the weights, an optimiser's two moments, accumulated gradients and the best weights.
    """
    state = sum(tensor.nbytes for tensor in learn.model.state_dict().values())
    parameters = sum(parameter.nbytes for parameter in learn.model.parameters())
    gradients = parameters if options.current().accumulate > 1 else 0
    checkpoint = 2 * state + 2 * parameters + gradients
    test = getattr(learn.dls, "test_items", None)  # a table, perhaps
    evaluated = len(learn.dls.valid_ds) + (0 if test is None else len(test))
    rows = evaluated * (ROW + COLUMN * min(len(learn.dls.vocab), COLUMNS)) + len(learn.dls.train_ds) * ROW
    return (checkpoints.KEPT + 1) * checkpoint + 2 * state + rows + PAGE


def require(learn: Learner, out: Path) -> None:
    """OutputError where the disk of a run folder has too little room for the run; a note where it has hardly enough."""
    there = sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) if out.is_dir() else 0
    need = max(needed(learn) - there, 0)  # a resumed run writes over what it wrote
    free = shutil.disk_usage(out).free
    if free < need:
        resumed = (out / checkpoints.FOLDER).is_dir()
        other = "move the run's folder to another disk" if resumed else "choose a folder on another disk with --out"
        raise OutputError(
            f"The run needs {_shown(need)} in {out} (checkpoints, the network, the report), but its disk has "
            f"{_shown(free)} free.",
            f"Free some space, or {other}. `fastcls cache` lists decoded images.",
        )
    if free < AMPLE * need:
        options.note(f"the run needs {_shown(need)} in {out}; its disk has {_shown(free)} free.")


def _shown(size: float) -> str:
    return f"{size / GB:.1f} GB" if size >= 0.1 * GB else f"{size / 1e6:.0f} MB"
