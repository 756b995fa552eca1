"""A table of images in parts: Parquet files, one a process that evaluated, read within fixed memory.

What is read is exact counts, and a sample of the images that depends on their names alone: the same ones whichever
process wrote them, in every run on these images. The columns are `predictions`'.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fastcls.runfolder import inside, runs

T = TypeVar("T")
SAMPLE = 20_000  # images of a split
ROWS = 65_536  # read and written at once
SEED = "fastcls sample 1"  # 16 letters that names are hashed with


@contextlib.contextmanager
def writing(file: Path) -> Iterator[Callable[[Any], None]]:
    """Yields what adds a DataFrame to a part, each of the same columns; the part is there at the end, or not at all.

    Repeated text, a categorical column, is kept once.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}")
    writer: Any = None
    held: list[Any] = []

    def flush() -> None:
        nonlocal writer
        if held:
            table = pd.concat(held, ignore_index=True)
            arrow = pa.Table.from_pydict({name: _column(table[name]) for name in table})
            writer = writer or pq.ParquetWriter(temporary, arrow.schema, compression="zstd")
            writer.write_table(arrow)
            held.clear()

    def add(table: Any) -> None:
        held.append(table)
        if sum(map(len, held)) >= ROWS:
            flush()

    try:
        yield add
        flush()
    finally:
        if writer is not None:
            writer.close()
    if writer is not None:
        runs.atomic_path(file, temporary.replace)


def _column(values: Any) -> Any:
    """Text as bytes, which need not be UTF-8; a path is kept as it is, other text as a dictionary."""
    import pyarrow as pa

    if values.dtype.kind == "f":
        return pa.array(values.to_numpy(np.float32))
    if values.dtype == "category":
        names = pa.array([_bytes(name) for name in values.cat.categories], pa.binary())
        return pa.DictionaryArray.from_arrays(pa.array(values.cat.codes.to_numpy(np.int32)), names)
    return pa.array(list(map(_bytes, values)), pa.binary())


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _texts(values: Any) -> Any:
    """A column of bytes as text; what is not UTF-8 is no text to pandas, but an object."""
    import pandas as pd

    return pd.Series(list(map(_text, values)), values.index, dtype=object)


def files(folder: Path) -> list[Path]:
    """The parts in a folder, in the order of their names."""
    return sorted(folder.glob("*.parquet")) if folder.is_dir() else []


def chosen(paths: Sequence[str], most: int = SAMPLE) -> np.ndarray:
    """Which images of a split are in its sample: their places, rising."""
    hashes = np.concatenate(
        [_hashes([_bytes(path) for path in paths[at : at + ROWS]]) for at in range(0, len(paths), ROWS)]
    )
    return np.sort(np.argsort(hashes, kind="stable")[:most])


def _hashes(paths: Sequence[bytes]) -> np.ndarray:
    from pandas.util import hash_array

    return hash_array(np.array(paths, object), hash_key=SEED, categorize=False)


def counts(folder: Path, names: Sequence[str]) -> Any:
    """A DataFrame of these columns of text and `count`, the rows that have them. OSError, ValueError as of `sample`."""
    return _scanned(folder, *names).copy()


def sample(folder: Path, split: str, path: str, columns: Sequence[str] | None = None) -> Any:
    """A DataFrame: of each value of the column `split` the images that `chosen` names by their `path`.

    columns: those to read; all by default. OSError or ValueError where a part is not one.
    """
    import pandas as pd
    import pyarrow.parquet as pq

    places = _sampled(folder, split, path)
    found = []
    for number, file in enumerate(files(folder)):
        own, start = places[places[:, 0] == number][:, 1], 0
        with inside.opened(file) as stream:
            opened = pq.ParquetFile(stream)
            wanted = [name for name in opened.schema_arrow.names if columns is None or name in columns]
            for batch in opened.iter_batches(ROWS, columns=wanted):
                rows = own[(own >= start) & (own < start + batch.num_rows)] - start
                if len(rows):
                    found.append(batch.take(rows).to_pandas())
                start += batch.num_rows
    table = pd.concat([frame.astype(_plain(frame)) for frame in found], ignore_index=True)
    for name in table.select_dtypes(object):
        table[name] = _texts(table[name])
    return table


def _plain(frame: Any) -> dict[str, type]:
    return {name: object for name in frame if frame[name].dtype == "category"}


def _batches(folder: Path, columns: Sequence[str]) -> Iterator[tuple[int, int, Any]]:
    """(part, first row, table) of these columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for number, file in enumerate(files(folder)):
        start = 0
        try:
            with inside.opened(file) as stream:
                for batch in pq.ParquetFile(stream).iter_batches(ROWS, columns=list(columns)):
                    yield number, start, batch
                    start += batch.num_rows
        except pa.ArrowException as problem:
            raise ValueError(f"{file.name} is not one of its parts ({str(problem).splitlines()[0]})") from None


def _cached(read: Callable[..., T]) -> Callable[..., T]:
    """Of a folder and names: read once, and anew where a part has changed."""
    cached = functools.lru_cache(maxsize=4)(lambda key, *arguments: read(*arguments))
    return lambda folder, *names: cached(
        tuple((file.name, *file.stat()[6:9]) for file in files(folder)), folder, *names
    )


@_cached
def _scanned(folder: Path, *names: str) -> Any:
    import pandas as pd

    total: Any = None
    for _, _, batch in _batches(folder, names):
        frame = batch.to_pandas()
        own = frame.astype(_plain(frame)).groupby(list(names), sort=False).size()
        total = own if total is None else total.add(own, fill_value=0)
    if total is None:
        return pd.DataFrame(columns=[*names, "count"])
    table = total.astype(np.int64).rename("count").reset_index()
    for name in names:
        table[name] = _texts(table[name])
    return table


@_cached
def _sampled(folder: Path, split: str, path: str) -> np.ndarray:
    """(n, 2): part and row of the sampled images, in their order."""
    held: dict[bytes, list[np.ndarray]] = {}
    for number, start, batch in _batches(folder, [split, path]):
        hashes = _hashes(batch.column(path).to_pylist())
        splits = np.array(batch.column(split).to_pylist(), object)
        for name in dict.fromkeys(splits.tolist()):
            rows = np.flatnonzero(splits == name)
            entry = np.column_stack(
                [hashes[rows], np.full(len(rows), number, np.uint64), (start + rows).astype(np.uint64)]
            )
            own = held.setdefault(name, [])
            own.append(entry[np.argsort(entry[:, 0], kind="stable")[:SAMPLE]])
            if len(own) > 16:
                held[name] = [_least(own)]
    if not held:
        return np.empty((0, 2), np.int64)
    return np.concatenate([_least(own)[:, 1:].astype(np.int64) for own in held.values()])


def _least(entries: Sequence[np.ndarray]) -> np.ndarray:
    """Those of the least hashes, in the order of the parts."""
    every = np.concatenate(entries)
    every = every[np.argsort(every[:, 0], kind="stable")[:SAMPLE]]
    return every[np.lexsort((every[:, 2], every[:, 1]))]
