"""Packed images: tar files of a hundred megabytes and a Parquet manifest, in a folder or in object storage.

    fastcls-pack.json     what was packed, how it was split, every shard's size and checksum; written last
    manifest.parquet      a row an image: path, label, group, split, sha256, width, height, and where its bytes are
    shards/train-00000.tar …  the files themselves, drawn into the shards of their split at random

An image keeps its name: what would be ROOT/cat/1.jpg in the folder is ROOT/cat/1.jpg here, though there is no such
file, and `read` has its bytes. ROOT is the packed folder; of packed images in object storage it is a folder of the
data cache, where shards are kept for as long as there is room for them. The manifest becomes an index of arrays there,
mapped into memory, so that all processes of a machine share it.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import re
import shutil
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fastcls.datasets.archives import building, locked
from fastcls.datasets.buckets import AGAIN, Bucket, Folder, is_address
from fastcls.datasets.downloads import cache_dir
from fastcls.errors import DataError, DownloadError
from fastcls.log import logger
from fastcls.machine import extras
from fastcls.runfolder import inside, runs
from fastcls.runfolder import target as targets
from fastcls.settings import shell

if TYPE_CHECKING:
    import numpy as np
    from pandas import DataFrame

RECORD, MANIFEST, SHARDS = "fastcls-pack.json", "manifest.parquet", "shards"
FORMAT = 1
SPLITS = ("train", "valid", "test")  # the manifest's rows are in this order
WINDOW = 8e9  # bytes of shards among which an epoch is shuffled; of fewer every order is as likely
_INDEX = 1  # another number where the arrays of an index change
_NAME = re.compile(r"(train|valid|test)-\d{5,}\.tar")
_TEXTS = re.compile("label|group|slice:.*")  # columns that are kept as codes


class Shard(msgspec.Struct):
    """One tar file."""

    name: str
    bytes: int
    images: int
    sha256: str


class Record(msgspec.Struct):
    """What fastcls-pack.json holds."""

    format: int
    created: str
    source: str  # the folder that was packed
    plan: str  # a digest of what went where: the same images, labels and splits have the same
    manifest: str  # its sha256
    images: int
    bytes: int  # of the images
    target: str
    drawn: bool  # whether the validation split was drawn here, from what the source has to train on
    seed: int
    splits: dict[str, int]
    findings: list[str]  # of the check, a line each
    shards: list[Shard]


def key(path: str) -> int:
    """64 bits that stand for a name in the manifest."""
    return int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), "little")


def place(address: str | os.PathLike[str]) -> Bucket | Folder:
    """Where packed images are, or are to be."""
    return Bucket(os.fspath(address)) if is_address(address) else Folder(Path(os.path.abspath(shell.path(address))))  # noqa: PTH100


class Pack:
    """Packed images that can be read; `root` is what their names begin with."""

    def __init__(self, root: Path, home: Path, record: Record, origin: Bucket | Folder) -> None:
        self.root, self.home, self.record, self.origin = root, home, record, origin
        self.remote = isinstance(origin, Bucket)
        self.target = targets.of({"target": record.target})

    @functools.cached_property
    def index(self) -> dict[str, Any]:
        """The arrays of the manifest, and the texts of its coded columns; made once a machine."""
        import numpy as np

        folder = self.home / f"index-{_INDEX}"
        with locked(folder):
            if not folder.is_dir():
                with building(folder) as part:
                    _write_index(self, part)
        found: dict[str, Any] = {file.stem: np.load(file, mmap_mode="r") for file in folder.glob("*.npy")}
        texts = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
        return found | {"texts": dict(texts), **{name: found[f"codes-{i}"] for i, (name, _) in enumerate(texts)}}

    def __len__(self) -> int:
        return self.record.images

    def path(self, row: int) -> str:
        """The name of an image, with the root before it."""
        begin, end = self.index["ends"][row : row + 2]
        return bytes(self.index["paths"][begin:end]).decode()

    def row(self, path: str) -> int | None:
        """The row of an image by its name below the root."""
        found = self.rows([path])
        return None if found is None else int(found[0])

    def rows(self, paths: Sequence[str]) -> np.ndarray | None:
        """(n,) the rows of images by their names below the root; None where one is not among them."""
        import numpy as np

        keys, rows = self.index["keys"], self.index["rows"]
        wanted = np.array([key(path) for path in paths], np.uint64)
        at = np.searchsorted(keys, wanted)
        found = rows[np.minimum(at, len(keys) - 1)]
        root = f"{self.root.as_posix()}/"
        same = all(self.path(row) == root + path for row, path in zip(found.tolist(), paths, strict=True))
        return np.asarray(found) if same else None

    def rows_of(self, files: Sequence[str]) -> np.ndarray | None:
        """`rows` of names with the root before them."""
        cut = len(str(self.root)) + 1
        return self.rows([file[cut:] for file in files])

    def read(self, row: int) -> bytes:
        """The bytes of an image's file; DownloadError where they cannot be had."""
        shard = self.record.shards[int(self.index["shard"][row])]
        begin, size = int(self.index["offset"][row]), int(self.index["size"][row])
        file = f"{self.root}/{SHARDS}/{shard.name}"
        try:
            with inside.opened(file) as opened:
                opened.seek(begin)
                found = opened.read(size)
        except FileNotFoundError:
            if isinstance(self.origin, Bucket):
                return self.origin.read(f"{SHARDS}/{shard.name}", begin, size)
            raise DownloadError(f"{file} is missing.", AGAIN) from None
        except inside.Foreign as problem:
            raise DownloadError(problem.message, AGAIN) from None
        except OSError as problem:
            raise DownloadError(f"{file} cannot be read: {problem.strerror}.", AGAIN) from None
        if len(found) != size:
            raise DownloadError(f"{file} is damaged: it ends too early.", AGAIN)
        return found

    def table(self, published: bool = False) -> DataFrame:
        """Columns path, label and split, and what else was packed; nothing of it is copied from the index.

        published: with the split of the source, before a validation split was drawn.
        """
        import numpy as np
        import pandas as pd
        import pyarrow as pa
        from pandas.arrays import ArrowExtensionArray

        index, n = self.index, len(self)
        ends, blob = (pa.py_buffer(index[name]) for name in ("ends", "paths"))
        columns: dict[str, Any] = {
            "path": pd.array(ArrowExtensionArray(pa.LargeStringArray.from_buffers(n, ends, blob)))
        }
        for name, texts in index["texts"].items():
            if name == "label" and self.target.several:
                lists = [list(self.target.names(text)) for text in texts]
                columns[name] = pd.Series([lists[code] for code in index[name]], dtype=object).array
            else:
                columns[name] = pd.Categorical.from_codes(index[name], texts)
        names = [name for name in SPLITS if self.record.splits.get(name)]
        codes = np.repeat(np.arange(len(names), dtype=np.int8), [self.record.splits[name] for name in names])
        if published and self.record.drawn and "valid" in names:
            codes[codes == names.index("valid")] = names.index("train")
        columns["split"] = pd.Categorical.from_codes(codes, names)
        found = pd.DataFrame(columns, copy=False)
        found.attrs.update({"target": self.target.kind} if self.target.several else {})
        found.attrs.update(layout="packed images", root=str(self.root), pack=str(self.root), notes=[self.described()])
        return found

    def described(self) -> str:
        """A sentence on what is packed and how it was split."""
        how = f"drawn with seed {self.record.seed}" if self.record.drawn else "of the source"
        return f"packed images of {self.record.source}: the validation split is the one {how} at packing."

    def by_shard(self) -> np.ndarray:
        """(n,) the rows in the order in which their bytes are in the shards."""
        import numpy as np

        return np.lexsort((self.index["offset"], self.index["shard"]))

    def below(self, folder: str) -> list[str]:
        """The images below a folder, which is named with the root before it or is the root."""
        start = folder.rstrip("/") + "/"
        return [path for path in map(self.path, range(len(self))) if path.startswith(start)]

    @contextmanager
    def ahead(self, rows: np.ndarray, budget: float) -> Iterator[Callable[[int], None]]:
        """Inside, shards are fetched before the images of `rows`, in this order, need them; within `budget` bytes.

        Gives a function to be called with the number of images that were read. Images of shards that are not there,
        for want of room or of time, are read one by one.
        """
        if not isinstance(self.origin, Bucket):
            yield lambda _: None
            return
        fetcher = _Fetcher(self, self.origin, rows, budget)
        try:
            yield fetcher.moved
        finally:
            fetcher.stop()


def ahead_of(paths: Sequence[str], budget: Callable[[], float]) -> AbstractContextManager[Callable[[int], None]]:
    """`Pack.ahead` of files by their names, of one pack or of none; budget: called where shards are to be fetched."""
    pack = None if not paths or Path(paths[0]).is_file() else of_folder(str(Path(paths[0]).parent))
    rows = pack.rows_of(paths) if pack is not None and pack.remote else None
    return nullcontext(lambda _: None) if pack is None or rows is None else pack.ahead(rows, budget())


class _Fetcher:
    """A thread that fetches shards in the order in which they are needed."""

    def __init__(self, pack: Pack, origin: Bucket, rows: np.ndarray, budget: float) -> None:
        import numpy as np

        self.pack, self.origin, self.budget, self.position = pack, origin, budget, 0
        shards = np.asarray(pack.index["shard"])[rows]
        used, first = np.unique(shards, return_index=True)
        last = len(shards) - 1 - np.unique(shards[::-1], return_index=True)[1]
        self.last = dict(zip(used.tolist(), last.tolist(), strict=True))
        self.order = used[np.argsort(first)].tolist()
        self.stopped, self.read_on = threading.Event(), threading.Event()
        self.thread: threading.Thread | None = None

    def moved(self, position: int) -> None:
        self.position = position
        self.read_on.set()
        if self.thread is None:
            self.thread = threading.Thread(target=self._run, daemon=True)
            self.thread.start()

    def stop(self) -> None:
        self.stopped.set()
        self.read_on.set()
        if self.thread is not None:
            self.thread.join()

    def _run(self) -> None:
        folder = self.pack.root / SHARDS
        for code in self.order:
            shard = self.pack.record.shards[code]
            while not self.stopped.is_set() and self.last[code] >= self.position:
                if (folder / shard.name).exists():
                    break
                needed = {c for c, last in self.last.items() if last >= self.position}
                keep = {folder / self.pack.record.shards[c].name for c in needed}
                if trim(self.budget - shard.bytes, keep):
                    try:
                        self._fetch(shard, folder / shard.name)
                    except (DownloadError, OSError) as problem:  # who reads an image of it will see for himself
                        logger.debug(f"{problem}")
                        return
                    break
                self.read_on.clear()
                self.read_on.wait(1)

    def _fetch(self, shard: Shard, file: Path) -> None:
        from filelock import FileLock, Timeout

        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        try:
            with FileLock(file.with_suffix(".lock"), timeout=0):
                self.origin.fetch(f"{SHARDS}/{shard.name}", part, shard.bytes, self.stopped)
                if not self.stopped.is_set():
                    if runs.digest(part) != shard.sha256:
                        raise DownloadError(
                            f"{self.origin.address}/{SHARDS}/{shard.name} does not match its checksum.", AGAIN
                        )
                    part.replace(file)
                part.unlink(missing_ok=True)
        except Timeout:  # another process is fetching it
            return


def trim(budget: float, keep: set[Path] | frozenset[Path] = frozenset()) -> bool:
    """Remove kept shards, the least recently fetched first and none of `keep`; whether the rest is within `budget`."""
    found = []
    for file in folder_of_packs().glob(f"*/{SHARDS}/*.tar"):
        try:
            status = file.stat()
        except OSError:
            continue
        found.append((status.st_mtime, status.st_size, file))
    total = sum(size for _, size, _ in found)
    for _, size, file in sorted(found):
        if total <= budget:
            break
        if file not in keep:
            file.unlink(missing_ok=True)
            total -= size
    return total <= budget


def folder_of_packs() -> Path:
    """Where indexes, and the shards of packed images in object storage, are kept."""
    return cache_dir() / "packs"


def size() -> int:
    """Bytes that indexes and fetched shards take."""
    return sum(file.stat().st_size for file in folder_of_packs().rglob("*") if file.is_file())


def clear() -> int:
    """Remove them all; gives the bytes that were freed. A run that reads them fetches what it needs again."""
    freed = size()
    runs.discard(folder_of_packs())
    return freed


# ---------------------------------------------------------------------------- packed images found


def opened(path: str | os.PathLike[str]) -> Pack | None:
    """The packed images at an address or in a folder; None for a folder that holds none."""
    if is_address(path):
        return _at(os.fspath(path).rstrip("/"))
    root = Path(os.path.abspath(shell.path(path)))  # noqa: PTH100  a link stays the name the user gave
    return _in(root) if os.path.isfile(root / RECORD) else None  # noqa: PTH113  a Path raises where it may not look


def found(path: str | os.PathLike[str]) -> tuple[Pack, int] | None:
    """The packed image that a path names, below the folder of its pack; None where it names none."""
    name = os.path.abspath(path)  # noqa: PTH100
    pack = of_folder(os.path.dirname(name))  # noqa: PTH120
    if pack is None:
        return None
    row = pack.row(name[len(str(pack.root)) + 1 :].replace(os.sep, "/"))
    return None if row is None else (pack, row)


def of_folder(folder: str) -> Pack | None:
    """The packed images that a folder, which need not exist, is or would be part of."""
    folder = os.path.abspath(folder)  # noqa: PTH100
    while not os.path.isdir(folder):  # noqa: PTH112  a Path a file would take ten times as long
        folder = os.path.dirname(folder)  # noqa: PTH120
    while not os.path.isfile(os.path.join(folder, RECORD)):  # noqa: PTH113, PTH118
        folder, below = os.path.dirname(folder), folder  # noqa: PTH120
        if folder == below:
            return None
    return _in(Path(folder))


def bytes_of(path: str | os.PathLike[str]) -> bytes | None:
    """The bytes of a packed image; None where the path names none."""
    here = found(path)
    return None if here is None else here[0].read(here[1])


def stamp(path: str) -> tuple[int, int]:
    """Bytes of a file, packed or not, and a number that changes with it; OSError where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116  a Path a file would take four times as long
    except (FileNotFoundError, NotADirectoryError):
        here = found(path)
        if here is None:
            raise
        return int(here[0].index["size"][here[1]]), int(here[0].record.manifest[:15], 16)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "a pipe or a device, not a file")
    return status.st_size, status.st_mtime_ns


def _in(root: Path) -> Pack:
    status = (root / RECORD).stat()
    return _cached(str(root), status.st_mtime_ns, status.st_ino)


@functools.lru_cache(8)
def _cached(folder: str, *_: int) -> Pack:
    root = Path(folder)
    record = _record((root / RECORD).read_bytes(), folder)
    origin = root / "origin.txt"
    if origin.is_file() and root.parent == folder_of_packs():
        return Pack(root, root, record, Bucket(origin.read_text(encoding="utf-8")))
    return Pack(root, _home(folder, record), record, Folder(root))


def _at(address: str) -> Pack:
    bucket = Bucket(address)
    data = bucket.read(RECORD)
    home = _home(address, _record(data, address))
    if not (home / RECORD).is_file() or (home / RECORD).read_bytes() != data:
        shutil.rmtree(home, ignore_errors=True)
        runs.atomic_write(home / "origin.txt", address)
        runs.atomic_write(home / RECORD, data)
    return _in(home)


def _home(address: str, record: Record) -> Path:
    digest = hashlib.sha256(f"{address}\0{record.manifest}".encode()).hexdigest()[:12]
    name = re.sub(r"[^\w.-]+", "-", address).strip("-")[-40:]
    return folder_of_packs() / f"{name}-{digest}"


def _record(data: bytes, where: str) -> Record:
    try:
        record = msgspec.json.decode(data, type=Record)
        names = [shard.name for shard in record.shards]
        fit = all(map(_NAME.fullmatch, names)) and set(record.splits) <= set(SPLITS)
        if not fit or sum(record.splits.values()) != record.images or not re.fullmatch("[0-9a-f]{64}", record.manifest):
            raise msgspec.ValidationError("names, splits and numbers contradict each other")
    except msgspec.MsgspecError as problem:
        raise DataError(f"{where}/{RECORD} is damaged: {problem}.", AGAIN) from None
    if record.format > FORMAT:
        raise DataError(f"{where} was packed by a newer fastcls.", "Upgrade:  pip install -U fastcls")
    extras.require(f"{where}, packed images,", "shards")
    return record


# ---------------------------------------------------------------------------- the index


def _write_index(pack: Pack, into: Path) -> None:
    """The manifest as arrays: names and where they end, codes, places in shards, and the rows by key."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    where = f"{pack.origin.address}/{MANIFEST}"
    data = pack.origin.read(MANIFEST)
    if hashlib.sha256(data).hexdigest() != pack.record.manifest:
        raise DataError(f"{where} does not match its checksum.", AGAIN)
    file = pq.ParquetFile(pa.BufferReader(data))
    texts: list[tuple[str, list[str]]] = []
    for name in filter(_TEXTS.fullmatch, file.schema_arrow.names):
        column = file.read([name])[name].combine_chunks().dictionary_encode()
        own, codes = column.dictionary.to_pylist(), column.indices.to_numpy()
        if name == "group" and not any(own):
            continue
        kind = np.int8 if len(own) < 2**7 else np.int16 if len(own) < 2**15 else np.int32  # as pandas has them
        np.save(into / f"codes-{len(texts)}.npy", codes.astype(kind))
        texts.append((name, own))
    names = file.read(["path"])["path"].cast(pa.large_string()).combine_chunks()
    if len(names) != pack.record.images or pc.any(pc.match_substring_regex(names, r"^/|(^|/)\.\.?(/|$)|//")).as_py():
        raise DataError(f"{where} is damaged: its rows differ, or names lead out of it.", AGAIN)
    start, nothing = (pa.scalar(text, pa.large_string()) for text in (f"{pack.root.as_posix()}/", ""))
    full = pc.binary_join_element_wise(start, names, nothing)
    _, ends, blob = full.buffers()
    np.save(into / "ends.npy", np.frombuffer(ends, np.int64)[: len(full) + 1])
    np.save(into / "paths.npy", np.frombuffer(blob, np.uint8))
    del names, full, ends, blob
    for name, width in (("shard", np.int32), ("offset", np.int64), ("size", np.int32)):
        column = file.read([name])[name].to_numpy()
        if name == "shard" and len(column) and not 0 <= column.min() <= column.max() < len(pack.record.shards):
            raise DataError(f"{where} is damaged: it lists shards that are missing.", AGAIN)
        np.save(into / f"{name}.npy", column.astype(width))
    keys = file.read(["key"])["key"].to_numpy()
    rows = np.argsort(keys, kind="stable")
    np.save(into / "keys.npy", keys[rows])
    np.save(into / "rows.npy", rows.astype(np.int32))
    (into / "texts.json").write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")
