"""Fetch a file once, whole and checked: interrupted connections are resumed, the checksum of the whole is verified."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastcls.datasets.archives import locked
from fastcls.errors import DownloadError, OutputError
from fastcls.log import logger
from fastcls.runfolder import runs
from fastcls.settings import shell

if TYPE_CHECKING:
    import requests

WAITS = (0.5, 1.0, 2.0, 4.0)  # seconds before each further attempt; bytes gained start the row again
TIMEOUT = (10, 60)  # seconds to connect, and to wait for the next bytes
CHUNK = 1 << 16


def cache_dir() -> Path:
    """Where datasets are kept: `FASTCLS_DATA`, else the user's cache folder."""
    if named := os.environ.get("FASTCLS_DATA"):
        return shell.path(named).absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("fastcls")) / "data"


def download(url: str, dest: Path, *, size: int = 0, md5: str = "") -> Path:
    """Fetch `url` into the file `dest`, resuming what an earlier try left, and check it; returns `dest`.

    size: the expected bytes, shown where the server states none. Without an md5, the first download's SHA-256 is
    recorded in `<cache>/checksums.json` and later ones must match it. DownloadError where it cannot be fetched.
    """
    if not re.match(r"https?://", url):
        raise DownloadError(f"{url!r} is not an address that starts with http:// or https://.")
    dest = Path(dest)
    with locked(dest):
        algorithm, expected = ("md5", md5.lower()) if md5 else ("sha256", _recorded().get(url, ""))
        if dest.is_file() and (not expected or runs.digest(dest, algorithm) == expected):
            return dest
        with _progress(url, dest, size) as show:
            transfer = _Transfer(url, dest.with_suffix(dest.suffix + ".part"), show)
            found = transfer.run(dest, algorithm)
            if transfer.resumed and expected and found != expected:
                # The first bytes may be an older file's, from before the publisher changed it: start anew.
                transfer.discard()
                found = transfer.run(dest, algorithm)
        if expected and found != expected:
            transfer.discard()
            hint = "Try again; if it persists, the publisher has changed the file."
            if not md5:
                record = f"delete this address's entry in {cache_dir() / 'checksums.json'} and try again."
                hint = (
                    f"It differs from the file that was first downloaded from there. If you trust the new one, {record}"
                )
            raise DownloadError(f"{url} has the {algorithm} {found}, expected {expected}; it was removed.", hint)
        if not expected:
            _record(url, found)
        transfer.part.replace(dest)
        transfer.discard()
    return dest


@dataclass
class _Transfer:
    """The transfer of one file from `url` into `part`, over as many connections as it takes."""

    url: str
    part: Path
    show: Callable[[int, int | None], object]  # bytes so far, bytes in all
    resumed: bool = False  # whether bytes of more than one connection were joined

    @property
    def etag(self) -> Path:
        """The server's name for the version that `part` is the beginning of."""
        return self.part.with_name(self.part.name + ".etag")

    @property
    def received(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def discard(self) -> None:
        """Forget what has arrived."""
        self.part.unlink(missing_ok=True)
        self.etag.unlink(missing_ok=True)
        self.resumed = False

    def run(self, dest: Path, algorithm: str) -> str:
        """Connect until nothing is missing, and give the checksum; up to len(WAITS) connections may bring nothing."""
        import requests

        hopeless = (requests.exceptions.InvalidURL, requests.TooManyRedirects, requests.exceptions.SSLError)
        failures, best = 0, self.received
        with requests.Session() as session:
            while True:
                try:
                    if self.connect(session):
                        return runs.digest(self.part, algorithm)
                    reason = "the connection was interrupted"
                except requests.RequestException as error:
                    reason = _reason(error)
                    if isinstance(error, hopeless):
                        failures = len(WAITS)
                except OSError as error:
                    raise OutputError(
                        f"{self.part} cannot be written: {error.strerror or error}",
                        f"Free some space in {self.part.parent}; the part already downloaded is kept.",
                    ) from error
                failures = 0 if self.received > best else failures + 1
                best = max(best, self.received)
                if failures > len(WAITS):
                    raise DownloadError(
                        f"{self.url} could not be downloaded: {reason}.",
                        f"Try again (the part already downloaded is kept), or download it by hand to {dest}",
                    )
                time.sleep(WAITS[max(failures - 1, 0)])

    def connect(self, session: requests.Session) -> bool:
        """Request once what is missing; True when nothing is missing any more."""
        offset = self.received
        headers = {"Accept-Encoding": "identity"}  # a byte range counts the file's own bytes
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if self.etag.exists():
                headers["If-Range"] = self.etag.read_text()
        with session.get(self.url, headers=headers, stream=True, timeout=TIMEOUT) as reply:
            start, whole = _content_range(reply)
            if reply.status_code == 416:
                if offset and offset == whole:
                    return True
                self.discard()  # longer than the file, so not its beginning
                return False
            if reply.status_code in (408, 425, 429) or reply.status_code >= 500:
                reply.raise_for_status()
            if reply.status_code not in (200, 206):
                raise DownloadError(
                    f"{self.url} replies {reply.status_code} {reply.reason or ''}".rstrip() + ".",
                    "Check the address in a browser: the file may have moved.",
                )
            if reply.status_code == 206 and start != offset:
                self.discard()
                return False
            if reply.status_code == 200:  # no Range here, or the file has changed: this is all of it
                self.discard()
                offset, length = 0, reply.headers.get("Content-Length", "")
                whole = int(length) if length.isdigit() else None
                etag = reply.headers.get("ETag", "")
                if etag and not etag.startswith("W/"):  # a weak one does not promise equal bytes
                    self.etag.write_text(etag)
            self.resumed = self.resumed or offset > 0
            with self.part.open("ab") as file:
                for chunk in reply.iter_content(CHUNK):
                    file.write(chunk)
                    offset += len(chunk)
                    self.show(offset, whole)
                file.flush()
                os.fsync(file.fileno())
            return whole is None or offset >= whole


def _content_range(reply: requests.Response) -> tuple[int | None, int | None]:
    """First byte and full length that a reply of status 206 or 416 states."""
    match = re.match(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)$", reply.headers.get("Content-Range", "").strip())
    start, whole = match.groups() if match else (None, None)
    return int(start) if start else None, int(whole) if whole and whole != "*" else None


def _reason(error: requests.RequestException) -> str:
    """The innermost cause in words, without the libraries' wrapping."""
    if error.response is not None:
        return f"it replies {error.response.status_code} {error.response.reason or ''}".rstrip()
    inner: BaseException = error
    while cause := inner.__cause__ or inner.__context__:
        inner = cause
    text = str(getattr(inner, "strerror", None) or inner or type(inner).__name__)
    return " ".join(text.split())[:200].rstrip(".")


def _recorded() -> dict[str, str]:
    file = cache_dir() / "checksums.json"
    try:
        return {str(url): str(value) for url, value in json.loads(file.read_text(encoding="utf-8")).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise OutputError(f"{file} cannot be read: {error}", "Fix or delete it.") from error


def _record(url: str, sha256: str) -> None:
    file = cache_dir() / "checksums.json"
    with locked(file):
        runs.write_json(file, {**_recorded(), url: sha256})


@contextmanager
def _progress(url: str, dest: Path, size: int) -> Iterator[Callable[[int, int | None], object]]:
    """A function of the bytes so far and in all that draws a bar on a terminal; elsewhere one line is printed."""
    if not sys.stderr.isatty():
        logger.info(f"Downloading {url} to {dest}")
        yield lambda done, whole: None
        return
    from rich import progress
    from rich.console import Console

    columns = (progress.TextColumn("{task.description}"), progress.BarColumn(), progress.DownloadColumn())
    further = (progress.TransferSpeedColumn(), progress.TimeRemainingColumn())
    with progress.Progress(*columns, *further, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(dest.name, total=size or None)
        yield lambda done, whole: bar.update(task, completed=done, total=whole or size or None)
