"""The run folder: where a run's files go, how they are written, how they are read and listed.

A file is written under a temporary name, synced and renamed, so a reader finds the old file or the new
one, never half of one. Nothing in a run folder is a pickle and nothing in it is executed.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import random
import secrets
import shlex
import shutil
import string
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcls.errors import OF_SYSTEM, OutputError, UsageError, did_you_mean, of_system
from fastcls.runfolder import hub, inside, register, schema
from fastcls.settings import shell, synonyms

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

FORMAT = 1  # of run.json and model.json; a reader refuses a newer one
HOME = Path("runs")
EVALUATION = "evaluation.json"  # of a folder that `evaluate` wrote
NO_HEAT = "no Grad-CAM:"  # how a note begins that says why
PROBE = "linear probe"  # a phase in history.csv: epoch 0, before anything is trained
STAMP = "%Y%m%d-%H%M%S"  # of a run folder's name, in UTC


def atomic_path(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a temporary file beside `path`, sync it and rename it to `path`."""
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode)  # safetensors makes files that only their owner reads
        temporary.replace(path)
    except (FileExistsError, NotADirectoryError) as problem:
        raise OutputError(f"{path} cannot be written: its folder is a file.", "Choose another folder.") from problem
    except OSError as problem:
        hint = OF_SYSTEM.get(problem.errno or 0, "")
        raise OutputError(f"{path} cannot be written: {problem.strerror or problem}.", hint) from problem
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path


def atomic_write(path: Path, data: str | bytes) -> Path:
    """Write text (UTF-8) or bytes to `path`, all or nothing."""
    raw = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
    return atomic_path(path, lambda temporary: temporary.write_bytes(raw))


def write_json(path: Path, value: Mapping[str, Any]) -> Path:
    """Write JSON with a fixed key order; values json cannot hold are written as text."""
    return atomic_write(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """Write a CSV file with a header row."""

    def fill(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            write_rows(file, chain([header], rows))

    return atomic_path(path, fill)


def write_rows(file: SupportsWrite[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write rows as CSV to an open text file; a carriage return, which csv leaves as it is, is quoted."""
    writer = csv.writer(file, lineterminator="\n")
    quoting = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        (quoting if any(isinstance(cell, str) and "\r" in cell for cell in row) else writer).writerow(row)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of ours, as `schema` has it; OutputError where it is missing, broken or from a newer fastcls."""
    try:
        value = schema.load(path)
    except inside.Foreign:
        raise
    except FileNotFoundError:
        raise OutputError(f"{path.parent} has no {path.name}: it is not a complete run folder.") from None
    except (OSError, ValueError) as problem:
        if refused := of_system(problem):
            raise refused from None
        raise OutputError(
            f"{path} cannot be read: {problem}.", "Restore this file from a copy, or create its folder again."
        ) from None
    version = value.get("format", FORMAT)
    if not isinstance(version, int) or version > FORMAT:
        raise OutputError(f"{path} was written by a newer fastcls.", "Upgrade:  pip install -U fastcls")
    return value


def digest(file: Path, algorithm: str = "sha256") -> str:
    """The checksum of a file of any size, in hexadecimal."""
    import hashlib

    with file.open("rb") as stream:
        return hashlib.file_digest(stream, partial(hashlib.new, algorithm, usedforsecurity=False)).hexdigest()


def sqlite_url(file: Path) -> str:
    """A database file's address as SQLAlchemy reads it, whatever signs the names of its folders have."""
    from sqlalchemy import URL

    # the driver is named, or MLflow would make a folder of the address
    return URL.create("sqlite+pysqlite", database=str(file.absolute())).render_as_string()


def now() -> str:
    """The time in UTC, to the second, as run.json and check.json write it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def new_folder(recipe: str, now: datetime | None = None) -> Path:
    """A name that no run has yet: runs/<recipe>/<UTC time>-<4 letters>.

    Where the clock was set back by less than a day, it takes the second after the newest run: names are in order.
    """
    when = now or datetime.now(UTC)
    for run in reversed(listing()):
        with contextlib.suppress(ValueError):
            latest = datetime.strptime(run.name[:15], STAMP).replace(tzinfo=UTC)
            if timedelta(0) <= latest - when < timedelta(days=1):
                when = latest + timedelta(seconds=1)
            break  # the newest that is named so
    time = when.strftime(STAMP)
    letters = "".join(random.SystemRandom().choices(string.ascii_lowercase, k=4))
    return HOME / recipe / f"{time}-{letters}"


DEPTH = 4  # folders below one that is named, in which its runs are looked for
OUT = "--out "  # what most commands name a run folder by


def check_writable(folder: Path, option: str = OUT) -> None:
    """Refuse a run folder that holds something already or could not be written, and leave no trace.

    option: what the user named it by.
    """
    check_place(folder, option)
    if folder.exists() and any(folder.iterdir()):
        hint = "Choose a new folder."
        if option == OUT and (folder / "run.json").is_file():
            hint += "\nTo continue the run, or replace it:  fastcls recipe … --resume auto  or  --overwrite"
        raise OutputError(f"{option}{folder}: this folder is not empty.", hint)


def check_place(folder: Path, option: str = OUT) -> None:
    """Refuse a folder, there or to be made, that is a file or could not be written, and leave no trace."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{option}{folder}: this is a file, not a folder.", "Choose a new folder.")
    parent = folder
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir():
        raise OutputError(f"{option}{folder}: {parent} is a file, not a folder.", "Choose another folder.")
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as problem:
        raise OutputError(
            f"{option}{folder}: {parent} cannot be written ({problem.strerror}).", "Choose another folder."
        ) from None


def remove(folder: Path) -> None:
    """Remove a run folder; OutputError where it is none, or another process trains into it."""
    if not (folder / "run.json").is_file():
        raise OutputError(
            f"{folder} is not a run folder (it has no run.json).", "Remove it yourself, or choose another."
        )
    inside.check(folder)
    with locked(folder):
        shutil.rmtree(folder)


def discard(folder: Path) -> None:
    """Remove a folder of ours, whoever changes it meanwhile; OutputError where some of it stays."""
    shutil.rmtree(folder, ignore_errors=True)
    if os.path.lexists(folder):
        raise OutputError(f"{folder} cannot be removed completely.", "Change its permissions, or remove it.")


@contextlib.contextmanager
def whole(folder: Path) -> Iterator[None]:
    """What is written into a new folder inside is there whole, or the folder is not."""
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


BEGINNING = ("recipe.py", "splits.csv", "slices.csv")  # what a run writes before its run.json


def remove_beginning(folder: Path, recipe: str) -> None:
    """Empty the folder of a run that was killed before its run.json, whose recipe's source this is; no other."""
    held = list(folder.iterdir()) if folder.is_dir() else []
    kept = [path for path in held if not path.name.startswith(tuple(f".{name}-" for name in (*BEGINNING, "run.json")))]
    ours = {path.name for path in kept} <= set(BEGINNING) and all(path.is_file() for path in held)
    if not ours or (kept and _text(folder / "recipe.py") != recipe):
        return
    with locked(folder):
        for path in held:
            path.unlink(missing_ok=True)


def _text(file: Path) -> str | None:
    with contextlib.suppress(OSError, ValueError):
        return file.read_text(encoding="utf-8")
    return None


_held: set[int] = set()


def _let_go() -> None:
    """In a forked child, a loader's worker say: it must not keep a run locked that was killed."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


@contextlib.contextmanager
def locked(folder: Path, patience: float = 0) -> Iterator[None]:
    """Keep other processes from training into a run folder meanwhile; OutputError where one does.

    patience: seconds to wait for it to end.
    """
    until = time.monotonic() + patience
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows has no such locks
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    _held.add(handle)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() < until:
                        time.sleep(0.5)
                        continue
                    hint = "Wait for it, or stop it."
                    raise OutputError(f"Another process is training into {folder}.", hint) from None
        yield
    finally:
        _held.discard(handle)
        os.close(handle)


def find(name: str, done: bool = False) -> Path:
    """The run folder called `name`: a path, a folder name under runs/, a recipe's newest, or 'last', the newest of all.

    Those that were written elsewhere are remembered (`register`); `hf://OWNER/NAME[@REVISION]` is downloaded from the
    Hugging Face Hub (`hub`). done: of several the newest that ended well. OutputError where
    there is none, or one that holds what does not belong into it.
    """
    if name.startswith(hub.PREFIX):
        return hub.run(name)
    folder = _find(name, done)
    inside.check(folder)
    return folder


def _find(name: str, done: bool) -> Path:
    if not name:
        raise UsageError("The name of the run is empty.", "List the runs:  fastcls runs")
    path = shell.path(name)
    if (path / "run.json").is_file():
        return path
    known = everywhere()
    candidates = [run for run in reversed(known) if _is_called(run, name)]
    if not done and candidates:
        return candidates[0]
    for run in candidates:
        if _recorded(run).get("status") == "done":
            return run
    if candidates:
        raise OutputError(
            f"No run {'' if name == 'last' else f'of {name} '}is finished: the newest, {candidates[0]}, is "
            f"{_recorded(candidates[0]).get('status')}.",
            f"Resume it:  {shell.command('resume', candidates[0])}",
        )
    _refuse_file(name, path)
    if path.exists():
        raise OutputError(f"{name} is not a run folder: it has no run.json.", "List the runs:  fastcls runs")
    raise OutputError(
        f"There is no run {name!r}{did_you_mean(name, [r.name for r in known])}.", "List the runs:  fastcls runs"
    )


def _refuse_file(name: str, path: Path) -> None:
    """OutputError for a file in a run's place, with the commands that take it."""
    if not path.is_file():
        return
    if (path.parent / "run.json").is_file():
        raise OutputError(f"{name} is a file of a run; the run is its folder.", f"Name it:  {path.parent}")
    weights = shlex.quote(str(path.with_suffix(".safetensors")))
    train = f"fastcls recipe folder --path PHOTOS --arch NAME --weights {weights}"
    if path.suffix in synonyms.PICKLES:
        what = "is a file of another tool, a pickle, and not a run folder"
        train = f"If you trust who made it:  {shell.command('import', name, '--trust-pickle')}  then  {train}"
    elif path.suffix == ".safetensors":
        what, train = "holds weights, and is not a run folder", f"To start from them:  {train}"
    else:
        return
    raise OutputError(f"{name} {what}.", train)


def _written(run: Path) -> float:
    with contextlib.suppress(OSError):
        return (run / "run.json").stat().st_mtime
    return 0.0


def _is_called(run: Path, name: str) -> bool:
    below = () if run.is_absolute() else (run.parent.name, f"{run.parent.name}/{run.name}")
    return name in ("last", run.name, *below) or name == recipe_of(run)


def recipe_of(run: Path) -> Any:
    """The name of a run's recipe; None where its record cannot be read."""
    return _recorded(run).get("recipe")


def _recorded(run: Path) -> dict[str, Any]:
    try:
        return read_json(run / "run.json")
    except OutputError:
        return {"status": "damaged"}


def everywhere() -> list[Path]:
    """All run folders, oldest first: those below runs/ by their short path, and those remembered from elsewhere."""
    here = {run.absolute(): run for run in listing()}
    found = {run: here.get(run, run) for run in [*here, *register.newest_first()]}
    return sorted(found.values(), key=_written)


def below(folder: Path) -> list[Path]:
    """The run folders below any folder, itself among them, oldest first; of any depth those that are remembered."""
    home = Path(os.path.abspath(folder))  # noqa: PTH100  without .., and links are left as they are
    deep = (file.parent for depth in range(DEPTH + 1) for file in home.glob("*/" * depth + "run.json"))
    remembered = (run for run in register.newest_first() if run.is_relative_to(home))
    short = {run.absolute(): run for run in listing()}  # as other verbs take them
    return sorted({short.get(run, run) for run in (*deep, *remembered)}, key=lambda run: (run.name, run.parent.name))


def listing(home: Path | None = None) -> list[Path]:
    """All run folders below `home` (runs/ by default), oldest first."""
    found = (home or HOME).glob("*/*/run.json")
    return sorted((file.parent for file in found), key=lambda run: (run.name, run.parent.name))
