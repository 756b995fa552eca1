"""Many files measured, a thread a core; what was measured is kept, so that all checks decode a file once.

Kept in one SQLite file of the data cache by path, size and time of the file, and by the Pillow that read it. It is a
convenience: where it cannot be read or written, files are measured again.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import PIL

from fastcls.datasets import shards
from fastcls.datasets.downloads import cache_dir
from fastcls.images.measure import SIDE, Measured, measure
from fastcls.machine import host

FORMAT = 4  # of what is kept: another number where `Measured` or how it is measured changes
MOST = 2_000_000  # files that are kept, some 800 bytes each; those measured longest ago make room
CHUNK = 64  # files a thread takes at a time
BATCH = 10_000  # files measured before they are kept, so that a check that is stopped continues from there
QUERY = 500  # files looked up at a time


def measure_all(
    paths: Sequence[str], progress: Callable[[int, int], object] | None = None, seconds: float = math.inf
) -> list[Measured]:
    """Every file measured, in order; of those not yet known, as many as `seconds` allow, drawn at random.

    progress is called with (files known, files in all).
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
        with warnings.catch_warnings(), ThreadPoolExecutor(host.cores()) as pool:
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
    """The file of the measurements."""
    return cache_dir() / f"measured-{FORMAT}.sqlite"


def size() -> int:
    """Bytes that the measurements take."""
    return file().stat().st_size if file().is_file() else 0


def clear() -> int:
    """Remove all measurements; gives the bytes that were freed."""
    before = size()
    file().unlink(missing_ok=True)
    return before - size()


def _stamps(paths: Sequence[str]) -> dict[str, str]:
    """What distinguishes a file from its other versions; missing files have none."""
    known = {}
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            known[path] = "{} {} {}".format(*shards.stamp(path), PIL.__version__)
    return known


@contextlib.contextmanager
def _table() -> Iterator[sqlite3.Connection]:
    """The table of measurements, to be read or written in one go."""
    file().parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(file(), timeout=5)) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS measured (path PRIMARY KEY, stamp, record)")
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
            for start in range(0, len(keys), QUERY):
                some = keys[start : start + QUERY]
                marks = ", ".join("?" * len(some))
                for key, stamp, record in table.execute(f"SELECT * FROM measured WHERE path IN ({marks})", some):
                    path = names[key]
                    if stamp == stamps[path]:
                        found[path] = _decoded(path, record)
    except (sqlite3.Error, OSError, ValueError, TypeError, KeyError):
        return found
    return found


def _keep(images: Sequence[Measured], stamps: Mapping[str, str]) -> None:
    """Keep what was measured; not of files that could not be opened, which may be opened the next time."""
    known = [image for image in images if image.digest and image.path in stamps]
    rows = [(_key(image.path), stamps[image.path], _encoded(image)) for image in known]
    if not rows:
        return
    try:
        with _table() as table:
            table.executemany("INSERT OR REPLACE INTO measured VALUES (?, ?, ?)", rows)
            table.execute("DELETE FROM measured WHERE rowid <= (SELECT max(rowid) FROM measured) - ?", (MOST,))
    except sqlite3.OperationalError:  # no room, no permission, or another process is writing
        return
    except (sqlite3.Error, OSError):  # a damaged file
        with contextlib.suppress(OSError):
            file().unlink(missing_ok=True)


def _key(path: str) -> bytes:
    return os.fsencode(os.path.abspath(path))  # noqa: PTH100  a Path a file would take four times as long


def _encoded(image: Measured) -> str:
    """A record as JSON, without its path, which may be no text."""
    bytes_of = {"digest": image.digest.hex(), "small": None if image.small is None else image.small.tobytes().hex()}
    return json.dumps({**asdict(image), **bytes_of, "path": ""})


def _decoded(path: str, record: str) -> Measured:
    known = json.loads(record)
    if small := known["small"]:
        small = np.frombuffer(bytes.fromhex(small), np.uint8).reshape(SIDE, SIDE, 3)
    return Measured(**{**known, "path": path, "digest": bytes.fromhex(known["digest"]), "small": small})
