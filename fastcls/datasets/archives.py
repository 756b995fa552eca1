"""Unpack an archive, or build a folder, so that nothing half done is ever taken for done.

    building  a temporary sibling that becomes the folder when it is complete
    locked    one process at a time makes a file or folder, the others wait and find it made
    unpack    tar and zip, under the promise of `building`, and no member may leave the folder

An archive is bytes that a stranger chose. Every member is judged by its header before it is written;
symbolic links are refused altogether, because a path that runs through one is how such judgements
have been fooled (CVE-2025-4517), and a folder of images needs none.
"""

from __future__ import annotations

import re
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from fastcls.errors import DataError, EnvironmentProblem, OutputError

MAX_BYTES = 100 * 2**30  # unpacked; no dataset of the catalogue comes near
MAX_MEMBERS = 5_000_000
MAX_RATIO, FREE = 100, 2**30  # unpacked to packed, once it is more than that: images are compressed already
MAX_READ = 1 << 20  # the longest read a sound tar header asks for; a longer one is an attack on memory


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Let one process at a time make `target`; the others wait, then find it made."""
    from filelock import FileLock, Timeout

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.with_name(f".{target.name}.lock"))
        try:
            lock.acquire(timeout=2)
        except Timeout:
            print(f"Waiting for another process that is making {target}", file=sys.stderr, flush=True)
            lock.acquire()
    except OSError as error:
        raise OutputError(
            f"{target.parent} cannot be written: {error.strerror or error}",
            "Name a folder for datasets that you may write to in the environment variable FASTCLS_DATA.",
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """A temporary sibling that becomes `folder` when the block ends well, and vanishes when it does not."""
    import shutil
    import tempfile

    if folder.exists():
        raise OutputError(f"{folder} is already there.", "Remove it first, or name another folder.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            part.chmod(0o755)  # mkdtemp's 0700 would keep a shared cache to its first user
            yield part
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise OutputError(
            f"{error.filename or folder} cannot be written: {error.strerror or error}",
            f"Free some space, or let this user write to {folder.parent}.",
        ) from error


def unpack(
    archive: Path | Sequence[Path], dest: Path, *, max_bytes: int = MAX_BYTES, max_members: int = MAX_MEMBERS
) -> Path:
    """Unpack one archive (or several, side by side) into the new folder `dest`; returns `dest`.

    Reads tar (plain, gz, xz, bz2) and zip; a file of MATLAB's (.mat) is put there as it is. Refuses members that are
    absolute, climb out with `..`, are links out of the folder, symbolic links, devices or pipes, and archives that
    unpack to more than `max_bytes` or hold more than `max_members`.
    """
    archives = [Path(archive)] if isinstance(archive, (str, Path)) else [Path(one) for one in archive]
    with building(Path(dest)) as part:
        for one in archives:
            if one.suffix == ".mat":
                shutil.copyfile(one, part / one.name)
                continue
            _extract(one, part, _Allowance(one, max_bytes, max_members))
    return Path(dest)


class _Allowance:
    """Counts what an archive unpacks to, and refuses it once that is too much."""

    def __init__(self, archive: Path, max_bytes: int, max_members: int) -> None:
        self.archive, self.max_bytes, self.max_members = archive, max_bytes, max_members
        self.bytes = self.members = 0
        self.packed = archive.stat().st_size if archive.is_file() else 0

    def take(self, name: str, size: int) -> None:
        self.members += 1
        self.bytes += max(size, 0)
        if self.members > self.max_members:
            raise _refused(self.archive, name, f"it holds more than {self.max_members:,} members")
        if self.bytes > self.max_bytes:
            raise _refused(self.archive, name, f"it unpacks to more than {self.max_bytes:,} bytes")
        if self.bytes > FREE and self.bytes > MAX_RATIO * self.packed:
            raise _refused(self.archive, name, f"it unpacks to more than {MAX_RATIO} times its own size")


def _extract(archive: Path, into: Path, allowance: _Allowance) -> None:
    import gzip
    import lzma
    import tarfile
    import zipfile
    import zlib

    if not archive.is_file():
        raise DataError(f"The archive {archive} does not exist.")
    damaged: tuple[type[Exception], ...]
    damaged = (
        EOFError,
        gzip.BadGzipFile,
        zlib.error,
        lzma.LZMAError,
        tarfile.TarError,
        zipfile.BadZipFile,
        NotImplementedError,
    )
    try:
        if zipfile.is_zipfile(archive) and not _tar_magic(archive):
            _extract_zip(archive, into, allowance)
        else:
            _extract_tar(archive, into, allowance)
    except damaged as error:
        raise DataError(
            f"The archive {archive} is damaged or of an unknown kind: {str(error) or type(error).__name__}.",
            "Delete it and download it again. Tar (gz, xz, bz2) and zip archives can be unpacked.",
        ) from error
    except RuntimeError as error:  # how zipfile says that a password is wanted
        raise DataError(f"The archive {archive} cannot be read: {error}.", "Unpack it by hand.") from error


def _extract_tar(archive: Path, into: Path, allowance: _Allowance) -> None:
    import tarfile

    if not hasattr(tarfile, "data_filter"):
        raise EnvironmentProblem(
            f"This Python ({sys.version.split()[0]}) cannot unpack tar archives safely.",
            "Use Python 3.10.12, 3.11.4 or newer, or unpack by hand and give the folder with --path.",
        )
    with _decompressed(archive) as stream, tarfile.open(fileobj=_Bounded(stream, archive), mode="r:") as tar:  # type: ignore[call-overload]
        for member in tar:
            _check_name(archive, member.name)
            allowance.take(member.name, member.size)
            if member.issym():
                raise _refused(archive, member.name, "it is a symbolic link")
            if member.islnk():
                _check_name(archive, member.linkname, of=member.name)
            try:
                tar.extract(member, into, filter="data")
            except tarfile.FilterError as error:
                raise _refused(archive, member.name, _reason(error)) from error
            except (KeyError, FileExistsError, IsADirectoryError, NotADirectoryError) as error:
                raise _refused(archive, member.name, "it contradicts another member") from error
        # tarfile takes a header it cannot read for the end, so a cut archive would pass for a whole one.
        tar.fileobj.seek(tar.offset)
        if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it stops before its end")


def _extract_zip(archive: Path, into: Path, allowance: _Allowance) -> None:
    import zipfile

    with zipfile.ZipFile(archive) as bundle:
        members = bundle.infolist()
        for member in members:  # the central directory states every size: judge all before writing any
            _check_name(archive, member.orig_filename)
            _check_name(archive, member.filename)
            allowance.take(member.filename, member.file_size)
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                what = "a symbolic link" if kind == stat.S_IFLNK else "a device or pipe"
                raise _refused(archive, member.filename, f"it is {what}")
        for member in members:
            try:
                bundle.extract(member, into)
            except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
                raise _refused(archive, member.filename, "it contradicts another member") from error


def _check_name(archive: Path, name: str, of: str = "") -> None:
    """Refuse a name that leads anywhere but down, read as POSIX and as Windows would."""
    plain = name.replace("\\", "/")
    if plain.startswith("/") or re.match(r"[A-Za-z]:/", plain):
        raise _refused(archive, of or name, "its path is absolute" if not of else f"it links to {name!r}")
    if ".." in PurePosixPath(plain).parts:
        raise _refused(archive, of or name, "it climbs out with '..'" if not of else f"it links to {name!r}")
    if "\0" in name:
        raise _refused(archive, of or name, "its name holds a NUL")


def _refused(archive: Path, member: str, reason: str) -> DataError:
    shown = member if len(member) <= 80 else member[:77] + "..."
    return DataError(
        f"The archive {archive} is refused at member {shown!r}: {reason}.",
        "Nothing was unpacked. Archives like this are how files outside the folder get overwritten, or a "
        "disk filled: unpack it by hand if you know where it comes from.",
    )


def _reason(error: Exception) -> str:
    """Why tarfile's data filter refuses a member, in our words where we have them."""
    known = {
        "AbsolutePathError": "its path is absolute",
        "OutsideDestinationError": "it leaves the folder",
        "SpecialFileError": "it is a device or pipe",
        "AbsoluteLinkError": "it links to an absolute path",
        "LinkOutsideDestinationError": "it links out of the folder",
    }
    return known.get(type(error).__name__, str(error))


def _tar_magic(archive: Path) -> bool:
    """Whether this is an uncompressed tar: one that ends in a zip is still read as what it begins as."""
    with archive.open("rb") as file:
        return file.read(512)[257:262] == b"ustar"


def _decompressed(archive: Path) -> Any:
    import bz2
    import gzip
    import lzma

    with archive.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(b"\x1f\x8b"):
        return gzip.open(archive, "rb")
    if magic.startswith(b"BZh"):
        return bz2.open(archive, "rb")
    if magic == b"\xfd7zXZ\0":
        return lzma.open(archive, "rb")
    return archive.open("rb")


class _Bounded:
    """A readable file that refuses one huge read: tarfile takes a long-name header into memory whole."""

    def __init__(self, file: IO[bytes], archive: Path) -> None:
        self.file, self.archive = file, archive

    def read(self, size: int) -> bytes:
        if size > MAX_READ:
            raise _refused(self.archive, "(a header)", f"it is {size:,} bytes long")
        return self.file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)
