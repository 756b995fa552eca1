"""fastcls pack SOURCE DESTINATION: images as shards, for machines that have no room or time for a folder of files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastcls import log
from fastcls.cli import completion
from fastcls.cli.app import app, progress, verb
from fastcls.cli.completion import argument, option
from fastcls.errors import UsageError
from fastcls.settings import shell

if TYPE_CHECKING:
    from fastcls.datasets.shards import Pack

RATE = 1000  # images a second that a node is taken to train, for what it needs of the network


@app.command()
@verb
def pack(
    source: str = argument(
        "SOURCE", "A folder of images, in a layout that the recipe `folder` supports; with --verify, packed images."
    ),
    destination: str = argument("DESTINATION", "A new folder, or an address: s3://bucket/prefix.", ""),
    labels: str = option("--labels FILE", "A CSV file of files and labels."),
    label_regex: str = completion.LABEL_REGEX,
    multi_label: str = completion.MULTI_LABEL,
    valid_pct: float = option(
        "--valid-pct SHARE", "Validation share of each class, if the images have no splits.", 0.2
    ),
    test_pct: float = option("--test-pct SHARE", "Test share, held out for the end.", 0.0),
    group: str = option("--group COLUMN", "Or pattern of paths: images of one group stay together."),
    split_by: str = option("--split-by COLUMN", "Column of dates or numbers: the newest images are held out."),
    newest: float = option("--newest SHARE", "Share of the images held out by --split-by.", 0.2),
    seed: int = option("--seed N", "Seed of the splits and the shards.", 42, min=0),
    skip_bad: bool = option("--skip-bad", "Skip images that cannot be read."),
    shard_mb: float = option("--shard-mb MB", "Size of a tar file.", 128, min=0.001),
    verify: bool = option("--verify", "Read everything back and verify the checksums."),
) -> None:
    """Pack images into tar files and a manifest, to train from.

    \b
    fastcls pack photos packed                        into a folder
    fastcls pack photos s3://bucket/photos            into object storage: S3, gs://, abfs://
    fastcls recipe folder --path s3://bucket/photos   train from it
    fastcls pack packed --verify                      verify every file against its checksum

    The images are checked, near copies and groups are kept together, and the splits are drawn once, as the recipe
    `folder` would; training uses them as packed. The same command continues an interrupted one. Exit code 3 for images
    that cannot be read or differ from their checksums, 4 for a destination that cannot be written.
    """
    from fastcls.running import packing

    if not destination:
        if not verify:
            raise UsageError(
                "No destination given.", f"Add a folder or an address:  {shell.command('pack', source)} DESTINATION"
            )
        _verified(packing.verify(source, progress("verified", "images")))
        return
    log.status("checking the images …")
    done = packing.pack(
        source, destination, labels=labels, label_regex=label_regex, multi_label=multi_label, valid_pct=valid_pct,
        test_pct=test_pct, group=group, split_by=split_by, newest=newest, seed=seed, skip_bad=skip_bad,
        shard_mb=shard_mb, looked=progress("checked", "files"), packed=progress("packed", "images"),
    )  # fmt: skip
    for line in (*done.findings, *done.notes):
        log.logger.info(f"note: {line}")
    _show(done.pack, done.written, done.seconds)
    if verify:
        _verified(packing.verify(destination, progress("verified", "images")))


def _show(found: Pack, written: int, seconds: float) -> None:
    from fastcls.datasets import shards
    from fastcls.datasets.walk import count

    record = found.record
    splits = ", ".join(f"{n:,} {split}" for split in shards.SPLITS if (n := record.splits.get(split)))
    whole = sum(shard.bytes for shard in record.shards)
    index = sum(array.nbytes for array in found.index.values() if hasattr(array, "nbytes"))
    each = record.bytes / max(1, record.images)
    print(f"packed   {found.origin.address}: {count(record.images, 'image')}, {splits}")
    print(f"size     {_gb(whole)} in {count(len(record.shards), 'shard')}, {each / 1e3:,.1f} kB per image")
    if written:
        print(f"rate     {written / 1e6 / seconds:,.1f} MB/s, {seconds:,.0f} s with the check")
    else:
        print("rate     nothing was written: everything was packed already")
    print(
        f"a node   needs {_gb(index)} of disk and page cache for the index ({index / len(found):.0f} bytes per image),"
    )
    room = min(whole, 2 * shards.WINDOW)
    print(f"         {_gb(room)} for shards (--cache-gb), and {RATE * each / 1e6:,.0f} MB/s for {RATE:,} images/s")


def _verified(found: Pack) -> None:
    print(f"verified {found.origin.address}: {len(found):,} images match their checksums")


def _gb(size: float) -> str:
    return f"{size / 1e9:,.2f} GB" if size >= 1e7 else f"{size / 1e6:,.2f} MB"
