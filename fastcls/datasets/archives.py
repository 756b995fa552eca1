"""Build a folder, or unpack an archive into one, so that nothing half done is mistaken for complete.

    building  a temporary sibling that becomes the folder when it is complete
    locked    one process at a time makes a file or folder; the others wait and find it made
    unpack    tar and zip, with the promise of `building`

An archive is untrusted: every member is checked before it is written, and what all come to together. Symbolic links
are refused altogether, because paths through one have fooled such checks (CVE-2025-4517), and a folder of images needs
none.
"""

from __future__ import annotations

import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from fastcls.errors import DataError, OutputError
from fastcls.log import logger

MAX_BYTES = 100 * 2**30  # unpacked; no dataset of the catalogue comes near
MAX_MEMBERS = 5_000_000
MAX_RATIO, FREE = 100, 2**30  # unpacked to packed, once it is more than that: images are compressed already
MAX_HEADER = 1 << 20  # bytes of a long name or of pax fields, which tarfile reads into memory whole


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
            logger.info(f"Waiting for another process that is making {target}")
            lock.acquire()
    except OSError as error:
        raise OutputError(
            f"{target.parent} cannot be written: {error.strerror or error}",
            "Set the environment variable FASTCLS_DATA to a folder that you can write to.",
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """A temporary sibling that becomes `folder` when the block ends well, and vanishes when it does not."""
    if folder.exists():
        raise OutputError(f"{folder} exists already.", "Remove it first, or choose another folder.")
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
            f"Free some space, or make {folder.parent} writable for this user.",
        ) from error


def unpack(archive: Path | Sequence[Path], dest: Path) -> Path:
    """Unpack one archive (or several, side by side) into the new folder `dest`; returns `dest`.

    Reads tar (plain, gz, xz, bz2) and zip; a MATLAB file (.mat) is copied. DataError for a damaged archive, and for
    members that are absolute, climb out with `..`, are links out of the folder, symbolic links, devices or pipes, or
    unpack to more than MAX_BYTES or are more than MAX_MEMBERS.
    """
    with building(Path(dest)) as part:
        for one in [archive] if isinstance(archive, (str, Path)) else archive:
            if Path(one).suffix == ".mat":
                shutil.copyfile(one, part / Path(one).name)
            else:
                _extract(Path(one), part, _Members(Path(one)))
    return Path(dest)


class _Members:
    """Checks the members of an archive one after the other, and what they come to together."""

    def __init__(self, archive: Path) -> None:
        if not archive.is_file():
            raise DataError(f"The archive {archive} does not exist.")
        self.archive, self.packed = archive, archive.stat().st_size
        self.bytes = self.members = 0

    def check(self, name: str, size: int, kind: str = "", link: str = "") -> None:
        """DataError where a member may not be written; kind: what it is, unless a file or a folder."""
        self.members += 1
        self.bytes += max(size, 0)
        if reason := _unsafe(name):
            raise self.refused(name, reason)
        if self.members > MAX_MEMBERS:
            raise self.refused(name, f"it has more than {MAX_MEMBERS:,} members")
        if self.bytes > MAX_BYTES:
            raise self.refused(name, f"it unpacks to more than {MAX_BYTES:,} bytes")
        if self.bytes > FREE and self.bytes > MAX_RATIO * self.packed:
            raise self.refused(name, f"it unpacks to more than {MAX_RATIO} times its own size")
        if kind:
            raise self.refused(name, f"it is {kind}")
        if _unsafe(link):
            raise self.refused(name, f"it links to {link!r}")

    def refused(self, name: str, reason: str) -> DataError:
        shown = name if len(name) <= 80 else name[:77] + "..."
        return DataError(
            f"The archive {self.archive} is refused at member {shown!r}: {reason}.",
            "Nothing was unpacked. Such an archive can overwrite files outside the folder or fill the disk: "
            "unpack it by hand if you trust its source.",
        )


def _unsafe(name: str) -> str:
    """Why a name leads anywhere but down, read as POSIX and as Windows would; empty where it does not."""
    plain = name.replace("\\", "/")
    if plain.startswith("/") or re.match(r"[A-Za-z]:/", plain):
        return "its path is absolute"
    if ".." in PurePosixPath(plain).parts:
        return "it leaves the folder with '..'"
    return "its name contains a NUL" if "\0" in name else ""


def _extract(archive: Path, into: Path, members: _Members) -> None:
    import gzip
    import lzma
    import tarfile
    import zipfile
    import zlib

    damaged = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile)
    try:
        with archive.open("rb") as file:
            zipped = file.read(2) == b"PK"
        (_extract_zip if zipped else _extract_tar)(archive, into, members)
    except (*damaged, NotImplementedError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"The archive {archive} is damaged or has an unknown format: {reason}.",
            "Delete it and download it again. Supported are tar (gz, xz, bz2) and zip archives.",
        ) from error
    except RuntimeError as error:  # zipfile's, where a password is required
        raise DataError(f"The archive {archive} cannot be read: {error}.", "Unpack it by hand.") from error


def _extract_tar(archive: Path, into: Path, members: _Members) -> None:
    import tarfile

    names, fields = tarfile.GNU_TYPES, (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
    extended = {*names, *fields} - {tarfile.GNUTYPE_SPARSE}

    class Header(tarfile.TarInfo):
        """A header whose further fields are small enough for memory."""

        @classmethod
        def frombuf(cls, buf: Any, encoding: str, errors: str) -> Header:
            header = super().frombuf(buf, encoding, errors)
            if header.type in extended and header.size > MAX_HEADER:
                raise members.refused("(a header)", f"it is {header.size:,} bytes long")
            return header

    with tarfile.open(archive, tarinfo=Header) as tar:
        for member in tar:
            plain = member.isreg() or member.isdir() or member.islnk()
            kind = "" if plain else "a symbolic link" if member.issym() else "a device or pipe"
            members.check(member.name, member.size, kind, member.linkname if member.islnk() else "")
            try:
                tar.extract(member, into, filter="data")
            except tarfile.FilterError as error:
                raise members.refused(member.name, str(error)) from error
            except (KeyError, FileExistsError, IsADirectoryError, NotADirectoryError) as error:
                raise members.refused(member.name, "it contradicts another member") from error
        # tarfile takes a header it cannot read for the end, so a cut archive would pass for a whole one.
        tar.fileobj.seek(tar.offset)  # type: ignore[union-attr]
        if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # type: ignore[union-attr]
            raise tarfile.ReadError("it is truncated")


def _extract_zip(archive: Path, into: Path, members: _Members) -> None:
    import zipfile

    kinds = {0: "", stat.S_IFREG: "", stat.S_IFDIR: "", stat.S_IFLNK: "a symbolic link"}
    with zipfile.ZipFile(archive) as bundle:
        infos = bundle.infolist()
        for info in infos:  # the central directory states every size: check all before writing any
            if reason := _unsafe(info.orig_filename):
                raise members.refused(info.orig_filename, reason)
            kind = kinds.get(stat.S_IFMT(info.external_attr >> 16), "a device or pipe")
            members.check(info.filename, info.file_size, kind)
        for info in infos:
            try:
                bundle.extract(info, into)
            except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
                raise members.refused(info.filename, "it contradicts another member") from error
