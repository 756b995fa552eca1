"""Many files measured, a thread a core; what was measured is kept, so that a file is decoded once for all checks.

Kept in one SQLite file of the data cache by path, size and time of the file, and by the Pillow that read it. It is a
convenience: where it cannot be read or written, files are measured again.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from fastcls.audit.measure import SIDE, Measured, measure
from fastcls.datasets.downloads import cache_dir
from fastcls.machine import cpus

FORMAT = 2  # of what is kept: another number where `Measured` or how it is measured changes
MOST = 2_000_000  # files that are kept, some 400 bytes each; those measured longest ago make room
CHUNK = 64  # files a thread takes at a time
BATCH = 10_000  # files measured before they are kept, so that a check that is stopped goes on from there
ASKED = 500  # files asked for at a time
COLUMNS = [field.name for field in fields(Measured) if field.name != "path"]


def measure_all(
    paths: Sequence[str], progress: Callable[[int, int], object] | None = None, seconds: float = math.inf
) -> list[Measured]:
    """Every file measured, in order; of those not yet known, as many as `seconds` allow, drawn at random.

    progress is told (files known, files in all).
    """
    end = time.monotonic() + seconds
    stamps = _stamps(paths)
    found = _recall(stamps)
    missing = [path for path in dict.fromkeys(paths) if path not in found]
    if seconds < math.inf:
        random.Random(0).shuffle(missing)  # part of them then speaks for all
    fresh: list[Measured] = []

    def several(start: int) -> list[Measured]:
        return [measure(path) for path in missing[start : start + CHUNK] if time.monotonic() < end]

    try:
        with warnings.catch_warnings(), ThreadPoolExecutor(cpus.cores()) as pool:
            warnings.simplefilter("ignore")  # Pillow's, of odd EXIF and palettes: what matters becomes a finding
            for some in pool.map(several, range(0, len(missing), CHUNK)):
                found |= {image.path: image for image in some}
                fresh += some
                if progress is not None:
                    progress(len(found), len(paths))
                if len(fresh) >= BATCH:
                    _keep(fresh, stamps)
                    fresh = []
    finally:
        _keep(fresh, stamps)
    return [found[path] for path in paths if path in found]


def file() -> Path:
    """Where the measurements are kept."""
    return cache_dir() / f"measured-{FORMAT}.sqlite"


def size() -> int:
    """Bytes that the measurements take."""
    return file().stat().st_size if file().is_file() else 0


def clear() -> int:
    """Forget all measurements; gives the bytes that were freed."""
    before = size()
    with contextlib.suppress(OSError):
        file().unlink(missing_ok=True)
    return before - size()


def _stamps(paths: Sequence[str]) -> dict[str, str]:
    """What tells a file from its other versions; files that are not there have none."""
    known = {}
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            stat = os.stat(path)  # noqa: PTH116  a Path a file would take four times as long
            known[path] = f"{stat.st_size} {stat.st_mtime_ns} {PIL.__version__}"
    return known


@contextlib.contextmanager
def _table() -> Iterator[sqlite3.Connection]:
    """The table of measurements, to be read or written in one go."""
    file().parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(file(), timeout=5)) as connection, connection:
        connection.execute(f"CREATE TABLE IF NOT EXISTS measured (path PRIMARY KEY, stamp, {', '.join(COLUMNS)})")
        yield connection


def _recall(stamps: Mapping[str, str]) -> dict[str, Measured]:
    """The files that were measured as they are now."""
    found: dict[str, Measured] = {}
    names = {_key(path): path for path in stamps}
    keys = list(names)
    try:
        if not file().exists():
            return {}
        with _table() as table:
            for start in range(0, len(keys), ASKED):
                asked = keys[start : start + ASKED]
                marks = ", ".join("?" * len(asked))
                for key, stamp, *values in table.execute(f"SELECT * FROM measured WHERE path IN ({marks})", asked):
                    path = names[key]
                    if stamp == stamps[path]:
                        found[path] = _decoded(path, values)
    except (sqlite3.Error, OSError, ValueError):
        return found
    return found


def _keep(images: Sequence[Measured], stamps: Mapping[str, str]) -> None:
    """Keep what was measured; not of files that could not be opened, which may be opened the next time."""
    rows = [
        (_key(image.path), stamps[image.path], *_encoded(image))
        for image in images
        if image.digest and image.path in stamps
    ]
    if not rows:
        return
    try:
        with _table() as table:
            table.executemany(f"INSERT OR REPLACE INTO measured VALUES ({', '.join('?' * len(rows[0]))})", rows)
            table.execute("DELETE FROM measured WHERE rowid <= (SELECT max(rowid) FROM measured) - ?", (MOST,))
    except sqlite3.OperationalError:  # no room, no permission, or another process is writing
        return
    except (sqlite3.Error, OSError):  # a damaged file
        with contextlib.suppress(OSError):
            file().unlink(missing_ok=True)


def _key(path: str) -> bytes:
    return os.fsencode(os.path.abspath(path))  # noqa: PTH100  a Path a file would take four times as long


def _encoded(image: Measured) -> list[Any]:
    values = {name: getattr(image, name) for name in COLUMNS}
    values["hash"] = image.hash.to_bytes(8, "big")  # SQLite's integers are signed
    values["small"] = None if image.small is None else image.small.tobytes()
    return list(values.values())


def _decoded(path: str, values: Sequence[Any]) -> Measured:
    known = dict(zip(COLUMNS, values, strict=True))
    known["hash"] = int.from_bytes(known["hash"], "big")
    known["transparent"] = bool(known["transparent"])
    if known["small"] is not None:
        known["small"] = np.frombuffer(known["small"], np.uint8).reshape(SIDE, SIDE, 3)
    return Measured(path, **known)
