"""Pack a folder of images into shards: looked through, grouped and split once, so that training need not be.

What goes where is settled before the first byte is written, by the images, their splits and the seed. Each shard is
recorded beside itself when it is whole, so that the same command continues where an earlier one was stopped; the
record of all, which makes a folder packed images, is written last.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fastcls.audit import audit, contents
from fastcls.datasets import shards
from fastcls.datasets.buckets import AGAIN, Bucket, Folder
from fastcls.datasets.groups import COLUMN
from fastcls.datasets.layouts import SLICE
from fastcls.datasets.shards import MANIFEST, RECORD, SHARDS, SPLITS, Pack, Record, Shard
from fastcls.datasets.walk import count, file_size
from fastcls.errors import OF_SYSTEM, DataError, OutputError, UsageError
from fastcls.images import decode
from fastcls.images.check import broken_images, reading
from fastcls.machine import extras, host
from fastcls.runfolder import runs
from fastcls.settings import options

if TYPE_CHECKING:
    from pandas import DataFrame

MB = 1e6
PARTS = "parts"  # the records of shards that are whole, until all are
FILES_AT_ONCE = 256  # read before they are written

Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Packed:
    """What came of it."""

    pack: Pack
    findings: list[str]  # of the check, a line each
    notes: list[str]
    seconds: float
    written: int  # bytes of images; those of an earlier command are not among them


def pack(
    source: str,
    destination: str,
    *,
    labels: str = "",
    label_regex: str = "",
    multi_label: str = "auto",
    valid_pct: float = 0.2,
    test_pct: float = 0.0,
    group: str = "",
    split_by: str = "",
    newest: float = 0.2,
    seed: int = 42,
    skip_bad: bool = False,
    shard_mb: float = 128,
    looked: Progress | None = None,
    packed: Progress | None = None,
) -> Packed:
    """Check, group, split and pack the images of a folder.

    destination: a folder, or an address of object storage. shard_mb: of a tar file, in 10^6 bytes. The others are those
    of `layouts.find` and `data.split`. DataError for images that cannot be read, or a layout that is none; OutputError
    where the destination holds something else, or cannot be written.
    """
    extras.require("fastcls pack", "shards")
    began, place = time.perf_counter(), shards.place(destination)
    found = contents.read(source, labels, label_regex, lenient=False, multi_label=multi_label)
    if shards.opened(found.root) is not None:
        raise UsageError(f"{source} is packed already.", "Pass the original folder, or copy the packed files.")
    if isinstance(place, Folder) and (place.root == found.root or found.root in place.root.parents):
        raise UsageError(f"{destination} is inside {source}.", "Choose a folder outside it.")
    held = place.sizes()
    _refuse_others(place, held)
    if isinstance(place, Folder):
        runs.check_place(place.root, "DESTINATION ")
    looked_at = audit.audit(found, looked) if len(found.rows) <= audit.FILES else audit.quick(found, looked)
    if looked_at.unreadable and not skip_bad:
        raise broken_images(looked_at.unreadable, looked_at.files)
    bad = {path for path, image in looked_at.measured.items() if image.fault}
    findings = [finding.line for finding in looked_at.findings if finding.severity != "note"]
    with options.using(options.Options(seed=seed)) as notes:
        table = _split(found, bad, valid_pct, test_pct, group, split_by, newest)
        notes += [note for note in table.attrs["notes"] if note not in notes]
    plan = _Plan(table, found.root, seed, shard_mb * MB)
    if RECORD in held:
        done = _opened(place)
        if done.record.plan != plan.digest(range(len(plan.files))):
            raise OutputError(
                f"{destination} contains other packed images.", "Choose another destination, or remove them."
            )
        return Packed(done, findings, notes, time.perf_counter() - began, 0)
    written = plan.write(place, held, packed)
    plan.finish(place, str(found.root), found.target.kind, findings)
    for name in place.sizes():
        if name.startswith(f"{PARTS}/"):
            place.remove(name)
    if isinstance(place, Folder) and (place.root / PARTS).is_dir():
        (place.root / PARTS).rmdir()
    return Packed(_opened(place), findings, notes, time.perf_counter() - began, written)


def _opened(place: Bucket | Folder) -> Pack:
    found = shards.opened(place.address)
    if found is None:
        raise DataError(f"{place.address} contains no packed images.", "Pack them:  fastcls pack SOURCE DESTINATION")
    return found


def _refuse_others(place: Bucket | Folder, held: dict[str, int]) -> None:
    own = (f"{SHARDS}/", f"{PARTS}/")
    if others := sorted(name for name in held if not name.startswith(own) and name not in (RECORD, MANIFEST)):
        raise OutputError(f"{place.address} contains other files: {others[0]}.", "Choose an empty or new folder.")


def _split(found: contents.Contents, bad: set[str], *how: Any) -> DataFrame:
    """The images as a table in the order of the folder, every split drawn."""
    import pandas as pd

    from fastcls import data

    rows = [row for row in found.rows if row[0] not in bad]
    table = pd.DataFrame(rows, columns=["path", "label", "split"])
    several = found.target.several
    if several:
        table["label"] = [list(found.target.names(label)) for label in table["label"]]
    for title, values in found.further.items():
        table[f"{SLICE}{title}"] = table["path"].map(values).fillna("")
    missing = not (table["split"] == "valid").any()
    notes = found.notes + ([f"left out {count(len(bad), 'image')} that cannot be read."] if bad else [])
    table.attrs.update(layout=found.layout, root=str(found.root), notes=notes)
    table = data.split(table, *how)
    table.attrs["drawn"] = missing
    table["label"] = [found.target.text([label] if isinstance(label, str) else label) for label in table["label"]]
    return table


class _Plan:
    """Which image goes into which shard."""

    def __init__(self, table: DataFrame, root: Path, seed: int, most: float) -> None:
        import numpy as np

        self.root, self.seed, self.drawn = root, seed, table.attrs["drawn"]
        order = np.argsort(table["split"].map(SPLITS.index).to_numpy(), kind="stable")
        self.table = table.iloc[order].reset_index(drop=True)
        self.files: list[str] = self.table["path"].tolist()
        self.sizes = [file_size(path) for path in self.files]
        if too_large := next((path for path, size in zip(self.files, self.sizes, strict=True) if size >= 2**31), ""):
            raise DataError(f"{too_large} is larger than 2 GB.", "Leave it out.")
        self.names = [Path(path).relative_to(root).as_posix() for path in self.files]
        self.members: dict[str, list[int]] = {}  # of each shard the rows, in the order of its files
        for split in SPLITS:
            rows = np.flatnonzero((self.table["split"] == split).to_numpy()).tolist()
            random.Random(f"{seed} {split}").shuffle(rows)  # so that any few shards are a sample of all images
            filled = most
            own: list[int] = []
            for row in rows:
                if filled >= most:
                    filled, own = 0.0, []
                    number = sum(name.startswith(split) for name in self.members)
                    self.members[f"{split}-{number:05d}.tar"] = own
                own.append(row)
                filled += self.sizes[row]

    def digest(self, rows: Sequence[int]) -> str:
        """What these rows are, in this order."""
        found = hashlib.sha256()
        columns = [self.table[name].tolist() for name in self.columns]
        for row in rows:
            fields = [self.names[row], self.sizes[row], *(column[row] for column in columns)]
            found.update(json.dumps(fields).encode() + b"\n")
        return found.hexdigest()

    @property
    def columns(self) -> list[str]:
        """Those of the table that the manifest has too."""
        return [name for name in self.table if name in ("label", "split", COLUMN) or name.startswith(SLICE)]

    def write(self, place: Bucket | Folder, held: dict[str, int], progress: Progress | None) -> int:
        """Every shard that is not there yet; gives the bytes of the images written."""
        written = done = 0
        for name, rows in self.members.items():
            part = self._part(place, held, name)
            if part is None:
                with _scratch(place) as folder:
                    record = self._write_shard(folder / name, rows)
                    place.write(f"{SHARDS}/{name}", folder / name)
                place.write(f"{PARTS}/{name}.json", json.dumps(record).encode())
                written += sum(self.sizes[row] for row in rows)
                held[f"{SHARDS}/{name}"], held[f"{PARTS}/{name}.json"] = record["bytes"], 1
            done += len(rows)
            if progress is not None:
                progress(done, len(self.files))
        return written

    def _part(self, place: Bucket | Folder, held: dict[str, int], name: str) -> dict[str, Any] | None:
        """The record of a shard that an earlier command wrote of the same images."""
        if f"{PARTS}/{name}.json" not in held:
            return None
        try:
            record = json.loads(place.read(f"{PARTS}/{name}.json"))
            whole = record["bytes"] == held.get(f"{SHARDS}/{name}") and record["plan"] == self.digest(
                self.members[name]
            )
        except (ValueError, KeyError, TypeError):
            return None
        return record if whole else None

    def _write_shard(self, file: Path, rows: list[int]) -> dict[str, Any]:
        """A tar file of these rows; its record, with a list for each of its rows' columns."""
        record: dict[str, Any] = {"plan": self.digest(rows), "offset": [], "sha256": [], "width": [], "height": []}
        broken: list[str] = []

        def read(path: str) -> tuple[bytes, str, int, int]:
            from PIL import Image

            data = decode.file_bytes(path)
            with Image.open(io.BytesIO(data)) as image:
                return data, hashlib.sha256(data).hexdigest(), *image.size

        def looked(row: int) -> tuple[bytes, str, int, int] | str:
            try:
                return reading(self.files[row], read)
            except DataError as problem:
                return problem.message

        try:
            with tarfile.open(file, "w") as tar, ThreadPoolExecutor(host.cores()) as pool:
                for start in range(0, len(rows), FILES_AT_ONCE):
                    some = rows[start : start + FILES_AT_ONCE]
                    for row, one in zip(some, pool.map(looked, some), strict=True):
                        if isinstance(one, str):
                            broken.append(one)
                            continue
                        if len(one[0]) != self.sizes[row]:
                            raise DataError(f"{self.files[row]} changed during packing.", "Run the command again.")
                        info = tarfile.TarInfo(self.names[row])
                        info.size, info.mode = len(one[0]), 0o644
                        tar.addfile(info)
                        record["offset"].append(tar.offset)
                        tar.fileobj.write(one[0] + bytes(-len(one[0]) % tarfile.BLOCKSIZE))  # type: ignore[union-attr]
                        tar.offset += len(one[0]) + -len(one[0]) % tarfile.BLOCKSIZE
                        for name, value in zip(("sha256", "width", "height"), one[1:], strict=True):
                            record[name].append(value)
        except OSError as problem:
            hint = OF_SYSTEM.get(problem.errno or 0, "")
            raise OutputError(f"{file} cannot be written: {problem.strerror or problem}.", hint) from None
        if broken:
            raise broken_images(broken, len(self.files))
        return record | {"bytes": file.stat().st_size, "tar": runs.digest(file)}

    def finish(self, place: Bucket | Folder, source: str, target: str, findings: list[str]) -> None:
        """Write the manifest, then the record that makes it all packed images."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        held = place.sizes()
        columns: dict[str, list[Any]] = {
            name: [None] * len(self.files) for name in ("shard", "offset", "sha256", "width", "height")
        }
        listed = []
        for number, (name, rows) in enumerate(self.members.items()):
            part = self._part(place, held, name)
            if part is None:
                raise OutputError(
                    f"{place.address}/{SHARDS}/{name} was removed during packing.", "Run the command again."
                )
            for column in columns:
                for at, row in enumerate(rows):
                    columns[column][row] = number if column == "shard" else part[column][at]
            listed.append(Shard(name, part["bytes"], len(rows), part["tar"]))
        group = self.table[COLUMN].tolist() if COLUMN in self.table else [""] * len(self.files)
        texts = {name: self.table[name].tolist() for name in self.columns if name != COLUMN}
        sha = [bytes.fromhex(text) for text in columns.pop("sha256")]
        whole = {
            "path": self.names, **texts, "group": group,
            "sha256": pa.array(sha, pa.binary(32)),
            **{name: pa.array(columns[name], pa.int32()) for name in ("width", "height", "shard")},
            "offset": pa.array(columns["offset"], pa.int64()),
            "size": pa.array(self.sizes, pa.int32()),
            "key": pa.array([shards.key(name) for name in self.names], pa.uint64()),
        }  # fmt: skip
        record = Record(
            shards.FORMAT, runs.now(), source, self.digest(range(len(self.files))), "", len(self.files),
            sum(self.sizes), target, self.drawn, self.seed, self.table["split"].value_counts().to_dict(),
            findings, listed,
        )  # fmt: skip
        save(place, pa.table(whole), record, pq)


def save(place: Bucket | Folder, manifest: Any, record: Record, parquet: Any) -> None:
    """Write the manifest, and last the record with its checksum."""
    buffer = io.BytesIO()
    parquet.write_table(manifest, buffer, compression="zstd")
    data = buffer.getvalue()
    record.manifest = hashlib.sha256(data).hexdigest()
    place.write(MANIFEST, data)
    place.write(RECORD, msgspec.json.format(msgspec.json.encode(record), indent=1))


@contextmanager
def _scratch(place: Bucket | Folder) -> Iterator[Path]:
    """A folder for a shard that is being written, on the disk of the destination if that is one."""
    if isinstance(place, Folder):
        try:
            place.root.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise OutputError(f"{place.root} cannot be written: {problem.strerror}.") from None
    near = place.root.parent if isinstance(place, Folder) else None
    with tempfile.TemporaryDirectory(prefix=".packing-", dir=near) as folder:
        yield Path(folder)


def verify(address: str, progress: Progress | None = None) -> Pack:
    """Read every shard and compare it, and every image in it, with its checksum; DataError names what differs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = _opened(shards.place(address))
    rows = pq.read_table(
        pa.BufferReader(found.origin.read(MANIFEST)), columns=["path", "shard", "offset", "size", "sha256"]
    )
    rows = rows.sort_by("shard").to_pydict()
    damaged, done = [], 0
    for number, shard in enumerate(found.record.shards):
        data = found.origin.read(f"{SHARDS}/{shard.name}")
        if hashlib.sha256(data).hexdigest() != shard.sha256:
            damaged.append(f"{SHARDS}/{shard.name}")
        for at in range(done, done + shard.images):
            begin = rows["offset"][at]
            image = data[begin : begin + rows["size"][at]]
            if rows["shard"][at] != number or hashlib.sha256(image).digest() != rows["sha256"][at]:
                damaged.append(rows["path"][at])
        done += shard.images
        if progress is not None:
            progress(done, len(found))
    if damaged:
        more = f" and {len(damaged) - 5:,} more" if len(damaged) > 5 else ""
        raise DataError(f"{address} is damaged: {', '.join(damaged[:5])}{more}.", AGAIN)
    return found
