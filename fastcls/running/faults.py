"""What can end a training from outside: a disk too small for the run, and errors that name what and how to continue."""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fastai.learner import Learner

from fastcls.data.pixels import files
from fastcls.errors import DataError, DownloadError, OutputError, TrainingError
from fastcls.images import check
from fastcls.machine import host
from fastcls.settings import options, shell
from fastcls.training.checkpoints import BEST, FOLDER, KEPT, Store

WAIT = 0.5  # seconds
FULL = (errno.ENOSPC, errno.EDQUOT)
GB = 1e9
PAGE = 15e6  # bytes of the report, its figures and the rest, at most (docs/reliability.md has the report's)
ROW, COLUMN, COLUMNS = 150, 12, 100  # bytes of a line of predictions.csv and of each probability in it
AMPLE = 1.5  # times what is needed: below it a note says so
ONE_VALUE = "Expected more than 1 value per channel when training"  # torch's words
SEVERAL_FILES = (OSError, SyntaxError, DataError)  # what an image raises that was sound when the run began


def space_needed(learn: Learner) -> float:
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
    return (KEPT + 1) * checkpoint + 2 * state + rows + PAGE


def require_space(learn: Learner, out: Path) -> None:
    """OutputError where the disk of a run folder has too little room for the run; a note where it has hardly enough."""
    there = sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) if out.is_dir() else 0
    need = max(space_needed(learn) - there, 0)  # a resumed run writes over what it wrote
    free = shutil.disk_usage(out).free
    if free < need:
        resumed = (out / FOLDER).is_dir()
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


@contextlib.contextmanager
def translated(learn: Learner, knobs: Mapping[str, Any], out: Path) -> Iterator[None]:
    """Errors of this block become ours where their cause is known.

    knobs: of all stages, to be suggested otherwise. out: the run folder.
    """
    try:
        yield
    except Exception as problem:
        known = _known(problem, learn, knobs, out)
        if known is None:
            raise
        raise known from problem


@contextlib.contextmanager
def batches_of_one(knobs: Mapping[str, Any]) -> Iterator[None]:
    """TrainingError in place of torch's refusal to train batch norm on one value per channel."""
    try:
        yield
    except ValueError as problem:
        known = _one_image(problem, knobs)
        if known is None:
            raise
        raise known from problem


def _known(problem: Exception, learn: Learner, knobs: Mapping[str, Any], out: Path) -> Exception | None:
    go_on = f"continue  {shell.command('resume', out)}"
    if host.ran_out(problem):
        return out_of_memory(problem, knobs, getattr(learn, "precision", "fp32"))
    if isinstance(problem, ValueError) and (known := _one_image(problem, knobs)):
        return known
    lost = isinstance(problem, (ConnectionError, EOFError)) and learn.dls.train.fake_l.num_workers > 0
    if lost or (isinstance(problem, RuntimeError) and "DataLoader worker" in str(problem)):
        return _dead_worker(problem, go_on)
    if isinstance(problem, OSError) and problem.errno in (*FULL, errno.EROFS):
        what = problem.filename or out
        return OutputError(f"{what} cannot be written: {problem.strerror}.", f"Fix that, then {go_on}")
    if isinstance(problem, DataError) and not Store(out).folders():
        return None  # it was so from the start, which the error says by itself
    if isinstance(problem, DownloadError):  # no image is damaged, and asking for each would take the attempts of each
        return DownloadError(problem.message, f"Check the network and the store, then {go_on}")
    if isinstance(problem, SEVERAL_FILES):
        return _unreadable(problem, learn, go_on)
    return None


def _one_image(problem: ValueError, knobs: Mapping[str, Any]) -> TrainingError | None:
    """A batch of one image, of which batch norm has one value per channel: torch's refusal names neither."""
    if ONE_VALUE not in str(problem):
        return None
    batch = knobs.get("bs")
    ways = ["--bs 2 or more" if isinstance(batch, int) else "batches of 2 images or more"]
    ways.append("a network without batch norm, such as --arch convnext_tiny" if "arch" in knobs else "no batch norm")
    return TrainingError(
        f"Batch norm cannot be trained on batches of one image{f' (--bs {batch})' if batch == 1 else ''}.",
        f"Use {ways[0]}, or {ways[1]}.",
    )


def out_of_memory(problem: BaseException, knobs: Mapping[str, Any], precision: str) -> TrainingError:
    """What to turn down, with the values it has."""
    opts = options.current()
    ways = []
    batch, size = knobs.get("bs"), knobs.get("size")
    if isinstance(batch, int):
        if (half := max(2, batch // 2)) < batch:  # batch norm has nothing to learn from one image
            ways.append(f"a smaller batch: --bs {half}, or let --auto-batch find the largest that fits")
            ways.append(
                f"gradient accumulation, with the same effective batch size: --bs {half} "
                f"--accumulate {2 * opts.accumulate}"
            )
    else:
        ways.append("a smaller batch, and --accumulate 2 for the same effective batch size")
    ways.append(f"smaller images: --size {size * 3 // 4}" if isinstance(size, int) else "smaller images")
    if precision == "fp32":
        ways.append("precision: --precision bf16 halves the memory of activations")
    text = re.sub(r"^Exception occured in .*\s+", "", str(problem))  # fastai's, of a callback
    first = text.splitlines()[0] if text else type(problem).__name__
    return TrainingError(f"Out of memory: {first}", "What helps:\n  " + "\n  ".join(ways))


def _dead_worker(problem: Exception, go_on: str) -> TrainingError:
    try:
        time.sleep(WAIT)  # where the pipe to it broke first, torch says by a signal which process it was
    except RuntimeError as cause:
        problem = cause
    text = str(problem)
    found = re.search(r"pid\(?s?\)? ?([\d, ]+)", text)
    how = re.search(r"killed by signal: ([^.]+)", text)
    what = f"A data loader worker{f' (pid {found[1].strip()})' if found else ''} "
    what += f"was killed ({how[1].strip()})." if how else "ended unexpectedly."
    return TrainingError(
        what,
        "Usually memory ran out: main memory, or /dev/shm if it says 'Bus error'. Start a new run with fewer --workers "
        f"(0 for none), or {go_on}",
    )


def _unreadable(problem: Exception, learn: Learner, go_on: str) -> Exception | None:
    """Which of the run's images cannot be read any more; None where all can, so that it was something else."""
    try:
        for dataset in _datasets(learn):
            check.refuse_broken(files(dataset))
        for dataset in _datasets(learn):
            check.refuse_broken(files(dataset), decode=True)
    except DataError as found:
        return DataError(found.message, f"Restore them, then {go_on}\nOr start a new run without them.")
    return None


def _datasets(learn: Learner) -> Iterator[Any]:
    yield learn.dls.train_ds
    yield learn.dls.valid_ds
    if getattr(learn.dls, "test_items", None) is not None:
        yield learn.dls.test_dl(learn.dls.test_items).dataset


def left(out: Path, again: bool) -> Iterator[str]:
    """What a run that stopped leaves: its best weights, and how to resume it where that may end differently."""
    saved = Store(out).folders()
    finished = (out / "history.csv").is_file()
    yield (
        f"weights  {saved[-1] / BEST}: those of the best epoch so far"
        if saved and finished
        else "weights  none: no epoch was finished"
    )
    if saved and again:
        yield f"resume   {shell.command('resume', out)}"
