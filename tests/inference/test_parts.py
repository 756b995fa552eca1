"""predict --parts: the rows of the plain command in files that the same command completes, by one process or more."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, Fastcls, python
from filelock import FileLock
from killable import until
from limits import within
from object_store import Store
from PIL import Image

from fastcls.datasets import buckets
from fastcls.inference import parts

pytestmark = pytest.mark.further

Rows = dict[str, dict[str, str]]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Fifty pictures of 8 × 8 pixels, one of which cannot be read."""
    monkeypatch.setenv("FASTCLS_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(parts, "SIZE", 10)
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(25):
            pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


def rows_of(text: str) -> Rows:
    found = list(csv.DictReader(text.splitlines()))
    assert len({Path(row["path"]).name + Path(row["path"]).parent.name for row in found}) == len(found)
    return {"/".join(Path(row.pop("path")).parts[-2:]): row for row in found}


def answered(out: str) -> Rows:
    """The rows of all parts; each has a header of its own."""
    files = sorted(Path(out).glob("part-*.csv"))
    assert files
    header = files[0].read_text().splitlines()[0]
    lines = [line for file in files for line in file.read_text().splitlines()[1:]]
    return rows_of("\n".join([header, *lines]))


def same(ours: Rows, plain: Rows) -> None:
    """The network may round its last digits otherwise where a batch has other images beside this one."""
    assert ours.keys() == plain.keys()
    for path, row in plain.items():
        for name, value in row.items():
            number = name.startswith(("confidence", "feature")) or (name.startswith("p") and name[1:].isdigit())
            expected = pytest.approx(float(value), rel=1e-4, abs=1e-5) if number and value else value
            assert (float(ours[path][name]) if number and value else ours[path][name]) == expected, (path, name)


def test_parts_have_the_rows_of_the_plain_command_and_are_completed(
    fastcls: Fastcls, photos: Path, digits_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "a" / "3.png").write_bytes(b"no image")
    words = ["predict", digits_run, photos, "--calibrated", "--top-k", 2, "--coverage", 0.9, "--features"]
    plain = fastcls(*words)
    assert plain.code == 3
    words += ["-o", "labels", "--parts", "csv"]
    written, left = parts._Writer._answer, [3]

    def stopped(self: Any, *args: Any) -> None:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        written(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(parts._Writer, "_answer", stopped)
        assert fastcls(*words).code == 130
    times = {file: file.stat().st_mtime_ns for file in Path("labels").glob("part-*")}
    assert len(times) == 2
    done = fastcls(*words)
    assert done.code == 3 and "49 of 50 images labelled: labels, 5 parts (2 of them before)" in done.output, done.output
    assert {file: file.stat().st_mtime_ns for file in times} == times
    same(answered("labels"), rows_of(plain.stdout))
    again = fastcls(*words)
    assert again.code == 3 and "5 of them before" in again.output
    assert {file.name for file in Path("labels").iterdir()} == {"_fastcls", *(f"part-{n:05d}.csv" for n in range(5))}


def test_what_is_there_already_is_not_taken_for_the_answers_to_another_question(
    fastcls: Fastcls, photos: Path, digits_run: Path
) -> None:
    words = ["predict", digits_run, photos, "-o", "labels", "--parts", "jsonl"]
    assert fastcls(*words).code == 0
    before = {file: file.read_bytes() for file in Path("labels").glob("part-*")}
    for more, code, says in (
        (["--top-k", 2], 4, "--top-k differ"),
        (["--threshold", 0.5], 4, "--threshold differ"),
        (["--parts", "csv"], 4, "--parts differ"),
        (["--parts", "xml"], 2, "expected csv, jsonl"),
        (["--json"], 2, "--json writes to"),
        (["--id", "stem"], 2, "marked Submission"),
        (["--top-k", 20], 2, "10 classes"),
    ):
        done = fastcls(*words, *more)
        assert done.code == code and says in done.output, done.output
    shutil.copy(photos / "a" / "3.png", photos / "a" / "99.png")
    done = fastcls(*words)
    assert done.code == 4 and "has predictions for other images" in done.output, done.output
    assert {file: file.read_bytes() for file in Path("labels").glob("part-*")} == before
    (photos / "a" / "99.png").unlink()
    file, record = sorted(before)[0], Path("labels", "_fastcls", "00000.json")
    images = json.loads(record.read_text())["images"]
    Path("labels/.part-00000.jsonl-x.jsonl").touch()  # of a process that was killed
    Path("labels/_fastcls/00000 (1).json").touch()  # as a program that keeps folders alike leaves them
    counts = json.loads(record.read_text()) | {"total": None}
    for damaged, text in (
        (file, ""),
        (record, json.dumps({"images": images})),
        (record, json.dumps(counts)),
        (record, "["),
    ):
        damaged.write_text(text)
        assert fastcls(*words).code == 0 and file.read_bytes() == before[file]
    assert not list(Path("labels").glob(".part-*"))
    for line in Path("labels/part-00004.jsonl").read_text().splitlines():
        Path(json.loads(line)["path"]).unlink()
    done = fastcls(*words)
    assert done.code == 4 and "images that were removed" in done.output, done.output
    assert {file: file.read_bytes() for file in Path("labels").glob("part-*")} == before
    for more, code, says in (
        (["--processes", 2], 2, "--parts parquet"),
        (["--parts", "csv"], 2, "-o FOLDER"),
        (["--parts", "csv", "-o", "-"], 2, "-o FOLDER"),
        (["--parts", "csv", "-o", "other", "--processes", 99_999_999], 2, "expected at most"),
        (["--parts", "csv", "-o", "other", "--processes", 0], 2, "1 or more"),
        (["--parts", "csv", "-o", photos], 4, "not empty"),
    ):
        done = fastcls("predict", digits_run, photos, *more)
        assert done.code == code and says in done.output and "--resume" not in done.output, done.output
    Path("labels/_fastcls/job.json").write_text("{")
    done = fastcls(*words)
    assert done.code == 4 and "remove labels, and run the command again" in done.output, done.output
    done = fastcls("predict", digits_run, photos, "-o", digits_run, "--parts", "csv")
    assert done.code == 4 and "not empty" in done.output and "--resume" not in done.output, done.output
    Path("empty").mkdir()
    for nothing, says in (("nowhere", "nowhere: no such file"), ("empty", "empty: there are no images")):
        done = fastcls("predict", digits_run, nothing, "-o", "other", "--parts", "csv")
        assert done.code == 3 and says in done.output and not Path("other").exists(), done.output
    done = fastcls("predict", digits_run, "-", "-o", "other", "--parts", "csv", stdin="x.png")
    assert done.code == 2 and "standard input" in done.output and not Path("other").exists()


def test_packed_images_are_answered_shard_by_shard(
    fastcls: Fastcls, photos: Path, store: Store, digits_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    monkeypatch.setattr(buckets, "WAITS", (0.01, 0.01))
    assert fastcls("pack", photos, store.address, "--shard-mb", "0.005", "--skip-bad").code == 0
    plain = rows_of(fastcls("predict", digits_run, photos).stdout)
    words = ["predict", digits_run, store.address, "-o", "labels", "--parts"]
    store.after, store.broken, store.error = 12, 10_000, "403 Forbidden"
    done = fastcls(*words, "parquet")
    assert done.code == 3 and "after 3 attempts" in done.output, done.output
    there = list(Path("labels").glob("part-*"))
    assert 0 < len(there) < 5
    store.broken = store.asked = 0
    done = fastcls(*words, "parquet")
    assert done.code == 0 and f"({len(there)} of them before)" in done.output, done.output
    found = parquet.read_table("labels").to_pylist()  # as a data set, which _fastcls is no part of
    assert len(found) == 50
    ours = {"/".join(Path(row["path"]).parts[-2:]): row for row in found}
    assert {path: row["prediction"] for path, row in ours.items()} == {p: row["prediction"] for p, row in plain.items()}


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (Path.unlink, "is missing"),
        (lambda shard: shard.write_bytes(shard.read_bytes()[:600]), "is damaged: it ends too early"),
        (lambda shard: (shard.unlink(), os.mkfifo(shard)), "is a named pipe, not a file"),
        (lambda shard: (shard.unlink(), shard.mkdir()), "Is a directory"),
        (lambda shard: (shard.unlink(), shard.symlink_to(shard.name)), "Too many levels of symbolic links"),
    ],
    ids=["missing", "cut", "pipe", "folder", "circle"],
)
def test_a_damaged_shard_is_named_and_the_command_ends_once_it_is_back(
    fastcls: Fastcls, photos: Path, digits_run: Path, damage: Callable[[Path], object], says: str
) -> None:
    pytest.importorskip("pyarrow", reason="needs pyarrow")
    assert fastcls("pack", photos, "packed", "--shard-mb", "0.005").code == 0
    shard = max(Path("packed/shards").glob("*.tar"))
    shutil.copy(shard, "whole")
    damage(shard)
    words = ["predict", digits_run, "packed", "-o", "labels", "--parts", "csv"]
    with within(30):
        done = fastcls(*words)
    assert done.code == 3 and f"{shard} {says}" in done.output.replace("cannot be read: ", ""), done.output
    shutil.rmtree(shard) if shard.is_dir() else shard.unlink(missing_ok=True)
    shutil.copy("whole", shard)
    done = fastcls(*words)
    assert done.code == 0 and len(answered("labels")) == 50, done.output


def test_several_processes_divide_the_parts(fastcls: Fastcls, photos: Path, digits_run: Path) -> None:
    plain = rows_of(fastcls("predict", digits_run, photos).stdout)
    done = fastcls("predict", digits_run, photos, "-o", "labels", "--parts", "csv", "--processes", 2)
    assert done.code == 0 and "50 of 50 images labelled: labels, 5 parts" in done.output, done.output
    same(answered("labels"), plain)


def test_a_part_that_another_machine_has_begun_is_waited_for(fastcls: Fastcls, photos: Path, digits_run: Path) -> None:
    words = ["predict", digits_run, photos, "-o", "labels", "--parts", "csv"]
    assert fastcls(*words).code == 0
    for file in (Path("labels/part-00002.csv"), Path("labels/_fastcls/00002.json")):
        file.unlink()
    begun, ended = threading.Event(), threading.Event()

    def other_machine() -> None:
        with FileLock("labels/_fastcls/00002.lock"):
            begun.set()
            time.sleep(1)
            ended.set()

    threading.Thread(target=other_machine).start()
    assert begun.wait(10)
    done = fastcls(*words)
    assert done.code == 0 and ended.is_set() and Path("labels/part-00002.csv").is_file(), done.output
    assert "(4 of them before)" in done.output


@pytest.mark.faults
def test_a_process_that_is_killed_loses_its_part_alone(fastcls: Fastcls, photos: Path, digits_run: Path) -> None:
    for number in range(600):
        (photos / f"{number}.png").hardlink_to(photos / "a" / "3.png")
    script = "from fastcls.cli import main; from fastcls.inference import parts; parts.SIZE = 1; main()"
    words = ["predict", digits_run, photos, "-o", "labels", "--parts", "csv", "--processes", "2"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    whole = subprocess.Popen(
        [sys.executable, "-c", script, *words], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until(lambda: any(Path("labels").glob("part-*")))
    children = Path(f"/proc/{whole.pid}/task/{whole.pid}/children").read_text().split()
    commands = {int(child): Path(f"/proc/{child}/cmdline").read_text() for child in children}
    os.kill(next(child for child, command in commands.items() if "spawn_main" in command), signal.SIGKILL)
    said = whole.communicate(timeout=300)[1]
    assert whole.returncode == 6 and "1 of 2 processes were killed by SIGKILL" in said, said
    done = python("-c", script, *words)
    assert done.returncode == 0 and "650 of 650 images labelled" in done.stdout, done.stderr
    assert len(answered("labels")) == 650
