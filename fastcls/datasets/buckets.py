"""Files of a folder, or at an address of object storage, `s3://bucket/prefix` say: read and written, all or nothing.

What fails, or does not answer in time, is tried a few times. The file systems are pyarrow's (S3, Google Cloud, Azure),
those it lacks fsspec's. Credentials, region and endpoint are theirs to find, in their environment variables and files.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from fastcls.errors import DownloadError, FastclsError, OutputError
from fastcls.log import logger
from fastcls.machine import extras
from fastcls.runfolder import inside, runs

WAITS = (1.0, 3.0)  # seconds before each further attempt; the file system has attempts of its own in each
PATIENCE, RATE = 60.0, 1e6  # seconds that an attempt may take, and bytes a second that it has to come to beyond them
WAITED_FOR = 15.0  # seconds that Google's client tries by itself
BLOCK = 1 << 20

AGAIN = "Check the address, or pack the images again."

T = TypeVar("T")


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether a path names object storage: a scheme, ://, and what is in it. hf:// is the Hugging Face Hub's."""
    return re.match(r"(?!hf://)[a-z][a-z0-9+.-]+://.", os.fspath(path)) is not None


class Folder:
    """The files below a folder."""

    def __init__(self, root: Path) -> None:
        self.address, self.root = str(root), root

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        try:
            with inside.opened(self.root / name) as file:
                return file.read()
        except inside.Foreign as problem:
            raise DownloadError(problem.message, AGAIN) from None
        except OSError as problem:
            raise DownloadError(f"{self.root / name} cannot be read: {problem.strerror}.", AGAIN) from None

    def write(self, name: str, data: bytes | Path) -> None:
        """A file of these bytes, or this one of the same disk, moved."""
        target = self.root / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(data, bytes):
                runs.atomic_write(target, data)
            else:
                data.replace(target)
        except OSError as problem:
            raise OutputError(f"{target} cannot be written: {problem.strerror}.") from None

    def sizes(self) -> dict[str, int]:
        """The files below the folder -> bytes."""
        files = (file for file in self.root.rglob("*") if file.is_file())
        return {file.relative_to(self.root).as_posix(): file.stat().st_size for file in files}

    def remove(self, name: str) -> None:
        """Remove a file."""
        (self.root / name).unlink(missing_ok=True)


class Bucket:
    """The files below one address."""

    def __init__(self, address: str) -> None:
        extras.require(f"{address}", "shards")
        self.address = address.rstrip("/")
        self._systems: dict[int, tuple[Any, str]] = {}  # of each process: connections do not survive a fork

    def read(self, name: str, start: int = 0, size: int | None = None) -> bytes:
        """The bytes of a file, or `size` of them from `start` on; DownloadError where they cannot be had."""

        def once() -> bytes:
            system, base = self._system()
            with system.open_input_file(f"{base}/{name}") as file:
                found: bytes = file.read_at(size, start) if size is not None else file.readall()
            if size is not None and len(found) != size:
                raise OSError(f"{len(found):,} of {size:,} bytes received")
            return found

        return self._tried(name, once, DownloadError, "read", size)

    def fetch(self, name: str, into: Path, size: int, stop: threading.Event) -> None:
        """A file of so many bytes, copied until it is to stop; DownloadError where it cannot be had whole."""

        numbers = itertools.count()
        attempt = 0

        def once() -> None:
            nonlocal attempt
            attempt = own = next(numbers)
            came = 0
            system, base = self._system()
            with system.open_input_stream(f"{base}/{name}") as source, into.open("wb") as file:
                while not stop.is_set() and came <= size and (block := source.read(BLOCK)):
                    if attempt != own:  # it was given up, and another one writes
                        return
                    file.write(block)
                    came += len(block)
            if came != size and not stop.is_set():
                raise OSError(f"{came:,} of {size:,} bytes received")

        self._tried(name, once, DownloadError, "read", size)

    def write(self, name: str, data: bytes | Path) -> None:
        """A file of these bytes, or a copy of this one; it is there whole or not at all. OutputError otherwise."""

        def once() -> None:
            system, base = self._system()
            if system.type_name == "local":  # elsewhere folders are parts of names
                system.create_dir(f"{base}/{name}".rpartition("/")[0])
            with system.open_output_stream(f"{base}/{name}") as into:
                if isinstance(data, bytes):
                    into.write(data)
                    return
                with data.open("rb") as file:
                    while block := file.read(8 * BLOCK):
                        into.write(block)

        size = len(data) if isinstance(data, bytes) else data.stat().st_size
        self._tried(name, once, OutputError, "written", size)

    def sizes(self) -> dict[str, int]:
        """The files below the address -> bytes; none where there is nothing yet."""
        from pyarrow import fs

        def once() -> dict[str, int]:
            system, base = self._system()
            found = system.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))
            return {info.path[len(base) + 1 :]: info.size for info in found if info.type == fs.FileType.File}

        return self._tried("", once, DownloadError, "listed")

    def remove(self, name: str) -> None:
        """Remove a file."""

        def once() -> None:
            system, base = self._system()
            system.delete_file(f"{base}/{name}")
            if system.type_name == "local":
                with contextlib.suppress(OSError):  # of a folder that holds others
                    Path(base, name).parent.rmdir()

        self._tried(name, once, OutputError, "removed")

    def _system(self) -> tuple[Any, str]:
        if os.getpid() not in self._systems:
            self._systems[os.getpid()] = _system(self.address)
        return self._systems[os.getpid()]

    def _tried(
        self, name: str, once: Callable[[], T], error: type[FastclsError], done: str, size: int | None = None
    ) -> T:
        """What `once` gives; size: bytes that it moves."""
        place = f"{self.address}/{name}".rstrip("/")
        for wait in (*WAITS, None):
            try:
                return _within(PATIENCE + (size or 0) / RATE, once)
            except FileNotFoundError:
                if error is OutputError:
                    raise error(f"{place} cannot be {done}: it does not exist.", "Check the address.") from None
                raise error(f"{place} does not exist.", AGAIN) from None
            except (OSError, ValueError) as problem:
                if wait is None:
                    why = str(problem).partition("; Details:")[0].strip().splitlines()[0][:200]
                    hint = "Check the network, the credentials and the endpoint, then run the command again"
                    raise error(
                        f"{place} cannot be {done} after {len(WAITS) + 1} attempts: {why}.",
                        f"{hint}; an interrupted run continues with  fastcls resume.",
                    ) from None
                logger.debug(f"{place}: {problem}; retrying in {wait:g} s")
                time.sleep(wait)
        raise AssertionError


_given_up: list[Future[Any]] = []


def leave(code: int) -> None:
    """Exit, at once where an attempt that was given up still waits for its store: Python's end would wait with it."""
    if not all(attempt.done() for attempt in _given_up):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _within(seconds: float, once: Callable[[], T]) -> T:
    """What a call gives; TimeoutError where it takes longer. It is left alone then: a thread cannot be ended."""
    done: Future[T] = Future()

    def work() -> None:
        try:
            done.set_result(once())
        except BaseException as problem:
            done.set_exception(problem)

    threading.Thread(target=work, daemon=True, name="store").start()
    try:
        return done.result(seconds)
    except TimeoutError:
        if done.done():
            raise
        _given_up.append(done)
        raise TimeoutError(f"no complete response within {seconds:,.0f} s") from None


def _system(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    from pyarrow import ArrowInvalid, fs

    # without a network Google's client would try for a quarter of an hour, at every attempt of ours
    limit = f"?retry_limit_seconds={WAITED_FOR:g}" if re.match(r"(gs|gcs)://[^?]*$", address) else ""
    try:
        return fs.FileSystem.from_uri(address + limit)
    except ArrowInvalid as problem:
        import fsspec  # which torch requires

        try:
            system, base = fsspec.core.url_to_fs(address)
        except (ImportError, ValueError) as further:
            raise DownloadError(f"{address} is not a valid address: {further or problem}.") from None
        return fs.PyFileSystem(fs.FSSpecHandler(system)), base.rstrip("/")
