"""Fetch a file once, whole and checked: cut connections are resumed, its checksum is held against it."""

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

from fastcls.datasets.archives import locked, unpack
from fastcls.errors import DownloadError, OutputError
from fastcls.runfolder import runs

if TYPE_CHECKING:
    import requests

__all__ = ["cache_dir", "download", "unpack"]

WAITS = (0.5, 1.0, 2.0, 4.0)  # seconds before each further attempt; bytes gained start the row again
TIMEOUT = (10, 60)  # seconds to connect, and to wait for the next bytes
CHUNK = 1 << 16

Progress = Callable[[int, "int | None"], object]


def cache_dir() -> Path:
    """Where datasets are kept: `FASTCLS_DATA`, else the user's cache folder."""
    if named := os.environ.get("FASTCLS_DATA"):
        return Path(named).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("fastcls")) / "data"


def download(
    url: str,
    dest: Path,
    *,
    size: int | None = None,
    md5: str = "",
    sha256: str = "",
    progress: Progress | bool | None = None,
) -> Path:
    """Fetch `url` into the file `dest`, resuming what an earlier try left, and check it; returns `dest`.

    `size` is the expected length, shown where the server states none. Where no checksum is published, the
    first download's SHA-256 is recorded in `<cache>/checksums.json` and later ones must match it.
    `progress`: None draws a bar on a terminal and prints one line elsewhere, False is silent, a function
    is called with (bytes so far, bytes in all or None).
    """
    if not re.match(r"https?://", url):
        raise DownloadError(f"{url!r} is not an address that starts with http:// or https://.")
    dest = Path(dest)
    with locked(dest):
        algorithm, expected = ("md5", md5) if md5 and not sha256 else ("sha256", sha256 or _recorded().get(url, ""))
        expected = expected.lower()
        if dest.is_file() and (not expected or runs.digest(dest, algorithm) == expected):
            return dest
        part = dest.with_suffix(dest.suffix + ".part")
        with _shown(url, dest, progress) as show:
            transfer = _Transfer(url, part, size, show)
            transfer.run(dest)
            found = runs.digest(part, algorithm)
            if transfer.resumed and expected and found != expected:
                # The first bytes may be an older file's, from before the publisher changed it: start anew.
                transfer.discard()
                transfer.run(dest)
                found = runs.digest(part, algorithm)
        if expected and found != expected:
            transfer.discard()
            raise DownloadError(
                f"{url} has the {algorithm} {found}, expected {expected}.",
                _after_mismatch(bool(md5 or sha256)),
            )
        if not expected:
            _record(url, found)
        part.replace(dest)
        transfer.discard()
    return dest


@dataclass
class _Transfer:
    """One file's way from `url` into `part`, over as many connections as it takes."""

    url: str
    part: Path
    size: int | None
    show: Progress
    resumed: bool = False  # whether bytes of more than one connection were joined

    @property
    def etag(self) -> Path:
        """The server's name for the version that `part` is the beginning of."""
        return self.part.with_name(self.part.name + ".etag")

    def discard(self) -> None:
        """Forget what has arrived."""
        self.part.unlink(missing_ok=True)
        self.etag.unlink(missing_ok=True)
        self.resumed = False

    def reached(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def run(self, dest: Path) -> None:
        """Connect until nothing is missing; give up when several connections in a row bring nothing new."""
        import requests

        hopeless = (requests.exceptions.InvalidURL, requests.TooManyRedirects, requests.exceptions.SSLError)
        failures, best = 0, self.reached()
        with requests.Session() as session:
            while True:
                try:
                    if self.connect(session):
                        return
                    reason = "the connection was cut"
                except requests.RequestException as error:
                    reason = _plain(error)
                    if isinstance(error, hopeless):
                        failures = len(WAITS)
                except OSError as error:
                    raise OutputError(
                        f"{self.part} cannot be written: {error.strerror or error}",
                        f"Free some space in {self.part.parent}; what has arrived is kept.",
                    ) from error
                failures = 0 if self.reached() > best else failures + 1
                best = max(best, self.reached())
                if failures > len(WAITS):
                    raise DownloadError(
                        f"{self.url} could not be downloaded: {reason}.",
                        f"Try again, what has arrived is kept; or fetch it by hand and put it at {dest}",
                    )
                time.sleep(WAITS[max(failures - 1, 0)])

    def connect(self, session: requests.Session) -> bool:
        """Ask once for what is missing; True when nothing is missing any more."""
        offset = self.reached()
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
                    f"{self.url} answers {reply.status_code} {reply.reason or ''}".rstrip() + ".",
                    "Check the address in a browser: the file may have moved.",
                )
            if reply.status_code == 206 and start != offset:
                self.discard()
                return False
            if reply.status_code == 200:  # no Range here, or the file has changed: this is all of it
                self.discard()
                offset = 0
                length = reply.headers.get("Content-Length", "")
                whole = int(length) if length.isdigit() else None
                etag = reply.headers.get("ETag", "")
                if etag and not etag.startswith("W/"):  # a weak one does not promise equal bytes
                    self.etag.write_text(etag)
            self.resumed = self.resumed or offset > 0
            with self.part.open("ab") as file:
                self.show(offset, whole or self.size)
                for chunk in reply.iter_content(CHUNK):
                    file.write(chunk)
                    offset += len(chunk)
                    self.show(offset, whole or self.size)
                file.flush()
                os.fsync(file.fileno())
            return whole is None or offset >= whole


def _content_range(reply: requests.Response) -> tuple[int | None, int | None]:
    """First byte and full length that a 206 or 416 answer states."""
    match = re.match(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)$", reply.headers.get("Content-Range", "").strip())
    if not match:
        return None, None
    start, whole = match.groups()
    return int(start) if start else None, int(whole) if whole != "*" else None


def _plain(error: requests.RequestException) -> str:
    """The innermost cause in words, without the libraries' wrapping."""
    if error.response is not None:
        return f"it answers {error.response.status_code} {error.response.reason or ''}".rstrip()
    inner: BaseException = error
    while cause := inner.__cause__ or inner.__context__:
        inner = cause
    text = str(getattr(inner, "strerror", None) or inner or type(inner).__name__)
    return " ".join(text.split())[:200].rstrip(".")


def _after_mismatch(published: bool) -> str:
    if published:
        return "The file was removed. Try again; if it persists, the publisher has changed the file."
    return (
        "The file was removed: it is not the one first downloaded from there. If you trust the new one, "
        f"delete this address's entry in {cache_dir() / 'checksums.json'} and try again."
    )


def _recorded() -> dict[str, str]:
    file = cache_dir() / "checksums.json"
    try:
        return {str(url): str(value) for url, value in json.loads(file.read_text(encoding="utf-8")).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise OutputError(f"{file} cannot be read: {error}", "Mend or delete it.") from error


def _record(url: str, sha256: str) -> None:
    file = cache_dir() / "checksums.json"
    with locked(file):
        part = file.with_name(file.name + ".part")
        text = json.dumps({**_recorded(), url: sha256}, indent=1, sort_keys=True)
        part.write_text(text + "\n", encoding="utf-8")
        part.replace(file)


@contextmanager
def _shown(url: str, dest: Path, progress: Progress | bool | None) -> Iterator[Progress]:
    """Something to call with the bytes so far: a bar, the caller's function, or nothing."""
    if callable(progress):
        yield progress
    elif progress is False:
        yield lambda done, whole: None
    elif progress or sys.stderr.isatty():
        from rich import progress as bars
        from rich.console import Console

        columns = (
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.DownloadColumn(),
            bars.TransferSpeedColumn(),
            bars.TimeRemainingColumn(),
        )
        with bars.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(dest.name, total=None)
            yield lambda done, whole: bar.update(task, completed=done, total=whole)
    else:
        print(f"Downloading {url} to {dest}", file=sys.stderr, flush=True)
        yield lambda done, whole: None
