"""Packed images: the same network to the bit as from the folder, from shards in a folder or on an S3 server."""

from __future__ import annotations

import functools
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, Fastcls, command, python
from object_store import Store
from PIL import Image

from fastcls.datasets import buckets, shards
from fastcls.images.decode import decode

pytest.importorskip("pyarrow", reason="needs the extra `shards`")

pytestmark = [pytest.mark.further, pytest.mark.usefixtures("unreported")]
TRAIN = ["--arch", "timm/test_convnext", "--weights", "none", "--size", "32", "--bs", "8", "--epochs", "2"]
FIGURES = ("metrics.json", "predictions.csv", "model.safetensors", "splits.csv")


def photos(folder: Path, each: int = 20, classes: str = "cat dog") -> Path:
    """JPEGs of 40 × 48 pixels that can be learned, in class folders."""
    rng = np.random.default_rng(0)
    for place, name in enumerate(classes.split()):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            pixels = rng.integers(0, 256, (40, 48, 3)) // 2 + 100 * place
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.jpg")
    return folder


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty photographs of two classes, and a data cache of the test's own."""
    monkeypatch.setenv("FASTCLS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "250")
    return photos(tmp_path / "photos")


def trained(path: object, out: str | Path, *words: object) -> dict[str, bytes | str]:
    """A short run's figures: its files by name, and of its images the fingerprint."""
    done = command("recipe", "folder", "--path", path, *TRAIN, "--out", out, *words)
    assert done.code == 0, done.output
    record = json.loads(Path(out, "run.json").read_text())
    return {"images": record["data"]["fingerprint"], **{name: Path(out, name).read_bytes() for name in FIGURES}}


@pytest.fixture(scope="module")
def of_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """The figures of a run on the photographs themselves, each trained once."""
    source = photos(tmp_path_factory.mktemp("source") / "photos")

    @functools.cache
    def figures(*words: object) -> dict[str, Any]:
        return trained(source, tmp_path_factory.mktemp("of_folder") / "run", *words)

    return figures


def test_a_pack_has_every_file_as_it_is_and_says_what_a_node_needs(fastcls: Fastcls, source: Path) -> None:
    done = fastcls("pack", source, "packed", "--shard-mb", "0.02", "--verify")
    assert done.code == 0, done.output
    assert "40 images, 32 train, 8 valid" in done.output and "bytes per image" in done.output
    assert "40 images match their checksums" in done.output
    held = {}
    for file in sorted(Path("packed/shards").iterdir()):
        with tarfile.open(file) as tar:
            held |= {member.name: tar.extractfile(member).read() for member in tar}
    assert held == {file.relative_to(source).as_posix(): file.read_bytes() for file in source.rglob("*.jpg")}
    rows = __import__("pyarrow.parquet").parquet.read_table("packed/manifest.parquet").to_pylist()
    assert len(rows) == 40 and {"path", "label", "group", "split", "sha256", "width", "height"} <= set(rows[0])
    assert {(row["width"], row["height"]) for row in rows} == {(48, 40)}
    assert (decode("packed/cat/3.jpg") == decode(source / "cat" / "3.jpg")).all()


@pytest.mark.parametrize("words", [(), ("--cache-gb", 0), ("--limit", 6, "--class-weights"), ("--balanced",)])
def test_a_pack_trains_the_network_of_its_folder_to_the_bit(
    fastcls: Fastcls, source: Path, of_folder: Any, words: tuple[object, ...]
) -> None:
    assert fastcls("pack", source, "packed", "--shard-mb", "0.02").code == 0
    assert trained("packed", "two", *words) == of_folder(*words)


SMALL = ("--cache-gb", "0.00005")  # of 0.1 MB in shards, decoded 0.2


def kept(home: Path) -> int:
    return sum(file.stat().st_size for file in home.rglob("*.tar"))


def test_a_run_from_object_storage_is_the_same_with_a_cache_smaller_than_the_data(
    fastcls: Fastcls, source: Path, store: Store, of_folder: Any
) -> None:
    done = fastcls("pack", source, store.address, "--shard-mb", "0.01", "--verify")
    assert done.code == 0, done.output
    assert "40 images match their checksums" in done.output
    assert trained(store.address, "two", *SMALL) == of_folder(*SMALL)
    assert 0 < kept(source.parent / "data") <= 50_000
    assert "of packed images" in fastcls("cache").output and fastcls("cache", "--clear", "packs").code == 0
    assert kept(source.parent / "data") == 0
    assert trained(store.address, "three") == of_folder()


def test_a_connection_that_is_cut_and_errors_that_pass_lose_nothing(
    fastcls: Fastcls, source: Path, store: Store, of_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "WAITS", (0.01, 0.01))
    assert fastcls("pack", source, store.address, "--shard-mb", "0.01").code == 0
    store.cut, store.broken, store.after = 2, 2, 5
    assert trained(store.address, "two", *SMALL) == of_folder(*SMALL)
    assert store.cut == store.broken == 0


def test_a_store_that_stalls_is_asked_again_and_given_up_in_the_end(
    fastcls: Fastcls, source: Path, store: Store, of_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "WAITS", (0.01, 0.01))
    monkeypatch.setattr(buckets, "PATIENCE", 1.5)
    assert fastcls("pack", source, store.address, "--shard-mb", "0.01").code == 0
    store.stalled, store.after = 2, 5
    assert trained(store.address, "two", *SMALL) == of_folder(*SMALL)
    assert store.stalled == 0
    store.stalled = 10_000
    done = fastcls("pack", store.address, "--verify")
    assert done.code == 3 and "after 3 attempts: no complete response within 2 s" in done.output, done.output


@pytest.mark.faults
def test_a_command_ends_though_the_store_never_answers(source: Path, store: Store) -> None:
    script = "from fastcls.datasets import buckets; from fastcls.cli import main; buckets.PATIENCE = 3; main()"
    store.tried, store.stalled = ("PUT", ".tar"), 10_000
    done = python("-c", script, "pack", source, store.address, timeout=60)  # the store waits for 120 s
    assert done.returncode == 4 and "after 3 attempts: no complete response" in done.stderr, done.stderr


@pytest.mark.faults
def test_a_store_that_stays_broken_ends_the_run_with_a_message_and_it_goes_on_when_the_store_does(
    fastcls: Fastcls, source: Path, store: Store, of_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "WAITS", (0.01, 0.01))
    assert fastcls("pack", source, store.address, "--shard-mb", "0.01").code == 0
    store.broken, store.after = 10_000, 130
    done = fastcls("recipe", "folder", "--path", store.address, *TRAIN, "--out", "two", "--cache-gb", 0)
    assert done.code == 3, done.output
    assert f"{store.address}/shards/" in done.output and "after 3 attempts" in done.output
    assert "fastcls resume" in done.output
    store.broken = 0
    done = fastcls("resume", "two")
    assert done.code == 0, done.output
    wanted = of_folder("--cache-gb", 0)
    assert {name: Path("two", name).read_bytes() for name in FIGURES} == {name: wanted[name] for name in FIGURES}


def test_recipes_of_published_datasets_find_a_pack_as_they_find_their_folder(
    fastcls: Fastcls, tmp_path: Path, source: Path
) -> None:
    for part in ("train", "val"):
        photos(tmp_path / "imagenette2-160" / part, 10, "n01440764 n02102040")
    assert fastcls("pack", tmp_path / "imagenette2-160", "packed").code == 0
    found = set()
    for path in (tmp_path / "imagenette2-160", "packed"):
        done = fastcls("recipe", "imagenette-resnet18", "--path", path, *TRAIN, "--out", "run", "--overwrite")
        assert done.code == 0, done.output
        found.add(tuple(Path("run", name).read_bytes() for name in FIGURES))
    assert len(found) == 1


def test_loaders_of_items_read_a_pack_with_workers_or_without(fastcls: Fastcls, source: Path, store: Store) -> None:
    """The recipe `folder` with transforms of items that the loaders of pixels do not know."""
    text = (ROOT / "recipes" / "folder.py").read_text()
    known = "item_tfms=transforms.resize(size, min_scale, fit)"
    assert text.count(known) == 1
    Path("items.py").write_text(text.replace(known, 'item_tfms=[FlipItem(0.5), Resize(size, method="squish")]'))
    found = set()
    for number, place in enumerate((source, "packed", store.address)):
        if place != source:
            assert fastcls("pack", source, place, "--shard-mb", "0.02").code == 0
        done = fastcls("recipe", "./items.py", "--path", place, *TRAIN, "--workers", 2, "--out", number)
        assert done.code == 0, done.output
        found.add(Path(str(number), "model.safetensors").read_bytes())
    assert len(found) == 1


def test_several_labels_groups_and_a_test_split_are_packed_too(fastcls: Fastcls, source: Path) -> None:
    names = [f"{name}/{number}.jpg" for name in ("cat", "dog") for number in range(20)]
    rows = [f"{name},{name[:3]} {'old' if i % 3 else ''},{i // 2}" for i, name in enumerate(names)]
    table = source / "labels.csv"
    table.write_text("\n".join(["file,labels,patient", *rows]))
    words = ("--labels", table, "--multi-label", "yes", "--group", "patient", "--test-pct", 0.2)
    assert fastcls("pack", source, "packed", *words).code == 0
    one, two = trained(source, "one", *words), trained("packed", "two")
    for name in ("model.safetensors", "metrics.json", "images"):  # though the rows are not in the order of their names
        assert one[name] == two[name], name
    assert b"group" in two["splits.csv"] and b",test," in two["splits.csv"]


def test_the_probe_and_later_images_and_the_check_read_a_pack(fastcls: Fastcls, source: Path) -> None:
    assert fastcls("pack", source, "packed").code == 0
    assert trained(source, "one", "--tune", "head") == trained("packed", "two", "--tune", "head")
    done = fastcls("check", "packed")
    assert done.code == 0 and "40 images in 2 classes" in done.output, done.output
    runs = [trained("packed", f"fold{k}", "--fold", f"{k}/2", "--epochs", 1) for k in (1, 2)]
    held = [{row.split(",")[0] for row in run["splits.csv"].decode().splitlines() if ",valid," in row} for run in runs]
    assert len(held[0]) == len(held[1]) == 20 and not held[0] & held[1]
    shutil.move("packed", "moved")
    done = fastcls("resume", "two", "--extend-epochs", 1, "--path", "moved")
    assert done.code == 0, done.output


def test_a_pack_that_was_stopped_is_continued_and_comes_out_the_same(
    fastcls: Fastcls, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fastcls("pack", source, "whole", "--shard-mb", "0.02").code == 0
    write, left = buckets.Folder.write, [5]

    def stopped(self: buckets.Folder, name: str, data: bytes | Path) -> None:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        write(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(buckets.Folder, "write", stopped)
        assert fastcls("pack", source, "packed", "--shard-mb", "0.02").code == 130
    first = sorted(Path("packed/shards").iterdir())
    times = [file.stat().st_mtime_ns for file in first]
    done = fastcls("recipe", "folder", "--path", "packed", *TRAIN)
    assert done.code == 3, done.output  # half of it is no pack
    assert first and fastcls("pack", source, "packed", "--shard-mb", "0.02", "--verify").code == 0
    assert [file.stat().st_mtime_ns for file in first] == times
    held = [{f.name: f.read_bytes() for f in Path(name, "shards").iterdir()} for name in ("whole", "packed")]
    assert held[0] == held[1] and sorted(f.name for f in Path("packed").iterdir()) == [
        "fastcls-pack.json", "manifest.parquet", "shards"
    ]  # fmt: skip
    again = fastcls("pack", source, "packed", "--shard-mb", "0.02")
    assert again.code == 0 and "nothing was written" in again.output


def test_images_that_cannot_be_read_are_refused_or_left_out(fastcls: Fastcls, source: Path) -> None:
    (source / "cat" / "3.jpg").write_bytes(b"not an image")
    done = fastcls("pack", source, "packed")
    assert done.code == 3 and "3.jpg" in done.output and "--skip-bad" in done.output
    done = fastcls("pack", source, "packed", "--skip-bad")
    assert done.code == 0 and "39 images" in done.output, done.output


@pytest.mark.parametrize(
    "words, code, says",
    [
        (["photos"], 2, "DESTINATION"),
        (["photos", "photos/inside"], 2, "inside"),
        (["nowhere", "packed"], 3, "does not exist"),
        (["photos", "other"], 4, "contains other files"),
        (["good", "packed"], 2, "packed already"),
        (["photos", "good", "--seed", "7"], 4, "contains other packed images"),
        (["photos", "--verify"], 3, "contains no packed images"),
        (["photos", "nothing://here"], 3, "not a valid address"),
        (["photos", "packed", "--valid-pct", "2"], 2, "between 0 and 1"),
    ],
)
def test_what_cannot_be_packed_is_refused(
    fastcls: Fastcls, source: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, says: str
) -> None:
    monkeypatch.chdir(source.parent)
    Path("other").mkdir()
    Path("other/mine.txt").write_text("mine")
    assert fastcls("pack", "photos", "good").code == 0
    before = Path("good/manifest.parquet").read_bytes()
    done = fastcls("pack", *words)
    assert done.code == code and says in done.output, done.output
    assert Path("other/mine.txt").read_text() == "mine" and Path("good/manifest.parquet").read_bytes() == before
    assert not Path("packed").exists()


def test_damage_is_found_and_named(fastcls: Fastcls, source: Path) -> None:
    def damage(file: Path, at: int) -> None:
        data = bytearray(file.read_bytes())
        data[at] ^= 1
        file.write_bytes(data)

    assert fastcls("pack", source, "shard").code == 0
    for name in ("manifest", "record", "lost"):
        shutil.copytree("shard", name)
    damage(Path("shard/shards/train-00000.tar"), 600)
    done = fastcls("pack", "shard", "--verify")
    assert done.code == 3 and "shards/train-00000.tar" in done.output and ".jpg" in done.output
    damage(Path("manifest/manifest.parquet"), 700)
    done = fastcls("recipe", "folder", "--path", "manifest", *TRAIN)
    assert done.code == 3 and "does not match its checksum" in done.output, done.output
    Path("record/fastcls-pack.json").write_text('{"format": 1}')
    done = fastcls("recipe", "folder", "--path", "record", *TRAIN)
    assert done.code == 3 and "is damaged" in done.output, done.output
    Path("lost/shards/train-00000.tar").unlink()
    done = fastcls("recipe", "folder", "--path", "lost", *TRAIN, "--skip-bad")
    assert done.code == 3 and "train-00000.tar is missing" in done.output, done.output


def test_names_that_lead_out_of_a_pack_are_refused(fastcls: Fastcls, source: Path) -> None:
    import hashlib

    import pyarrow as pa
    import pyarrow.parquet as pq

    assert fastcls("pack", source, "packed").code == 0
    table = pq.read_table("packed/manifest.parquet")
    names = ["../" * 9 + "etc/passwd", *table["path"].to_pylist()[1:]]
    pq.write_table(table.set_column(0, "path", pa.array(names)), "packed/manifest.parquet")
    record = json.loads(Path("packed/fastcls-pack.json").read_text())
    record["manifest"] = hashlib.sha256(Path("packed/manifest.parquet").read_bytes()).hexdigest()
    Path("packed/fastcls-pack.json").write_text(json.dumps(record))
    done = fastcls("recipe", "folder", "--path", "packed", *TRAIN)
    assert done.code == 3 and "lead out of it" in done.output, done.output


@pytest.mark.parametrize("words", [("--group", "cat"), ("--test-pct", "0.2"), ("--labels", "x.csv")])
def test_a_split_or_labels_that_a_pack_was_not_packed_with_are_refused(
    fastcls: Fastcls, source: Path, words: tuple[str, ...]
) -> None:
    assert fastcls("pack", source, "packed").code == 0
    done = fastcls("recipe", "folder", "--path", "packed", *TRAIN, *words)
    assert done.code == 2 and words[0] in done.output and "packed" in done.output, done.output


def test_more_shards_than_a_window_are_shuffled_a_window_at_a_time(
    fastcls: Fastcls, source: Path, of_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastcls.data.packs import Windows

    windows = Windows(np.repeat(np.arange(6), 10), 2)
    order = windows.order(np.random.default_rng(1), np.arange(60))
    assert sorted(order) == list(range(60))
    seen = [set(windows.shard[order[at : at + 20]].tolist()) for at in (0, 20, 40)]
    assert [len(one) for one in seen] == [2, 2, 2] and set().union(*seen) == set(range(6))
    assert fastcls("pack", source, "packed", "--shard-mb", "0.01").code == 0
    monkeypatch.setattr(shards, "WINDOW", 25_000)
    one, two = (trained("packed", out, "--cache-gb", 0) for out in ("one", "two"))
    assert one == two != of_folder("--cache-gb", 0)


def test_predictions_for_packed_images_are_those_for_the_files(
    fastcls: Fastcls, source: Path, store: Store, digits_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "WAITS", (0.01, 0.01))
    for file in source.rglob("*.jpg"):
        Image.open(file).resize((8, 8)).save(file)  # as the network takes them
    assert fastcls("pack", source, store.address).code == 0
    rows = {}
    for place in (str(source), store.address):
        done = fastcls("predict", digits_run, place, "-o", "labels.csv")
        assert done.code == 0, done.output
        lines = Path("labels.csv").read_text().splitlines()[1:]
        rows[place] = sorted(line.replace("\\", "/").rsplit("/", 2)[1:] for line in lines)
        Path("labels.csv").unlink()
    assert rows[str(source)] == rows[store.address] and len(rows[store.address]) == 40
    store.broken = 10_000
    done = fastcls("predict", digits_run, store.address, "-o", "labels.csv")
    assert done.code == 3 and "after 3 attempts" in done.output, done.output
