"""Decoded images are kept, shared, bounded and never trusted blindly."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from fastcls.errors import DataError, OutputError
from fastcls.images import cache
from fastcls.machine import host
from fastcls.settings import options

AS_THEY_ARE = {"mode": "RGB", "method": "", "resize": None, "size": None, "pad_mode": "", "mean": None, "std": None}
WHOLE = {"mode": "RGB", "cover": [12, 12], "resample": "BICUBIC"}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Twelve photographs of 16 × 20 pixels, and a cache folder of the test's own."""
    monkeypatch.setenv("FASTCLS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "250")
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (16, 20, 3), np.uint8)).save(tmp_path / "photos" / f"{i}.png")
    return sorted(map(str, (tmp_path / "photos").iterdir()))


def never(*_: object) -> None:
    raise AssertionError("an image was decoded again")


def test_a_store_holds_every_pixel_and_is_not_built_twice(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    store = cache.obtain(files, AS_THEY_ARE, cache.GB)
    assert store.uniform and store.pixels.shape == (12, 16, 20, 3)
    for i, file in enumerate(files):
        assert (store.pixels[i] == np.asarray(Image.open(file))).all()
    monkeypatch.setattr(cache, "decoded", never)
    assert (cache.obtain(files, AS_THEY_ARE, cache.GB).pixels == store.pixels).all()


def test_whole_images_keep_their_shape_and_are_shrunk_to_the_short_side(files: list[str]) -> None:
    Image.new("RGB", (40, 10), (9, 8, 7)).save(files[0])
    store = cache.obtain(files, WHOLE, cache.GB)
    assert not store.uniform
    shapes = [image.shape for image in store.images(np.array([0, 1]))]
    assert shapes == [(10, 40, 3), (12, 15, 3)]
    assert (store.images(np.array([0]))[0] == (9, 8, 7)).all()


def test_a_changed_file_and_another_treatment_make_another_store(files: list[str]) -> None:
    cache.obtain(files, AS_THEY_ARE, cache.GB)
    Image.new("RGB", (20, 16), (1, 2, 3)).save(files[3])
    os.utime(files[3], ns=(1, 1))
    assert (cache.obtain(files, AS_THEY_ARE, cache.GB).pixels[3] == (1, 2, 3)).all()
    cache.obtain(files, WHOLE, cache.GB)
    assert len(cache.listing()) == 3


@pytest.mark.parametrize("room", [1e9, 0.0], ids=["read", "mapped"])
@pytest.mark.parametrize(
    "damage", ["a flipped bit", "cut short", "no shapes", "other shapes", "no record", "of other files"]
)
def test_a_damaged_store_is_built_again_and_says_so(
    files: list[str], damage: str, room: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "available", lambda: room)
    pixels = cache.obtain(files, AS_THEY_ARE, cache.GB).pixels.copy()
    folder = cache.folder_of_stores() / cache.listing()[0]["name"]
    if damage == "of other files":  # as large, but of other images
        cache.obtain(files[::-1], AS_THEY_ARE, cache.GB)
        (other,) = (store["name"] for store in cache.listing() if store["name"] != folder.name)
        shutil.rmtree(folder)
        (folder.parent / other).rename(folder)
        assert not (np.fromfile(folder / "pixels.u8", np.uint8) == pixels.ravel()).all()
    file = folder / "pixels.u8"
    content = bytearray(file.read_bytes())
    if damage == "a flipped bit":
        content[100] ^= 1
        file.write_bytes(content)
    elif damage == "cut short":
        file.write_bytes(content[:-1])
    elif damage == "no shapes":
        (folder / "shapes.npy").unlink()
    elif damage == "other shapes":
        np.save(folder / "shapes.npy", np.array([[20, 16, 3]] * 12, np.int32))
    elif damage == "no record":
        (folder / "store.json").write_text("{")
    with options.using(options.Options()) as notes:
        store = cache.obtain(files, AS_THEY_ARE, cache.GB)
        assert (store.pixels == pixels).all() and isinstance(store.pixels, np.memmap) == (room == 0)
        assert len(notes) == 1 and f"{folder} were damaged" in notes[0]
        assert (cache.obtain(files, AS_THEY_ARE, cache.GB).pixels == pixels).all() and len(notes) == 1


def test_images_that_are_none_are_named_all_together(files: list[str]) -> None:
    Path(files[1]).write_text("no image")
    content = Path(files[2]).read_bytes()
    Path(files[2]).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="2 of 12 images cannot be read") as caught:
        cache.obtain(files, AS_THEY_ARE, cache.GB)
    assert files[1] in caught.value.message and files[2] in caught.value.message
    Path(files[5]).unlink()
    with pytest.raises(DataError, match=f"1 of 12 images cannot be read:\n  {files[5]}"):
        cache.obtain(files, AS_THEY_ARE, cache.GB)
    assert not cache.listing()


def test_the_budget_is_kept_and_the_least_recently_used_makes_room(files: list[str]) -> None:
    size = 12 * 16 * 20 * 3
    with pytest.raises(OutputError, match="cache_gb="):
        cache.obtain(files, AS_THEY_ARE, size / 2)
    names: list[str] = []
    for i, part in enumerate((files[:4], files[4:8], files[8:])):
        cache.obtain(part, AS_THEY_ARE, size * 0.7)
        (new,) = {store["name"] for store in cache.listing()} - set(names)
        names.append(new)
        os.utime(cache.folder_of_stores() / new / "store.json", (i, i))
    assert {store["name"] for store in cache.listing()} == set(names[1:])
    cache.obtain(files[4:8], AS_THEY_ARE, size * 0.7)  # used now
    cache.obtain(files[:4], AS_THEY_ARE, size * 0.7)
    assert {store["name"] for store in cache.listing()} == {names[1], names[0]}


def test_a_disk_without_room_is_said_before_anything_is_decoded(
    files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000))
    monkeypatch.setattr(cache, "_build", never)
    with pytest.raises(OutputError, match=r"would need .* GB; .* has 0\.0 GB free"):
        cache.obtain(files, AS_THEY_ARE, cache.GB)


BUILD = """
import json, sys
from fastcls.images import cache
count = lambda path, how, decoded=cache.decoded: calls.append(path) or decoded(path, how)
calls, cache.decoded = [], count
sys.stdin.readline()
store = cache.obtain(json.loads(sys.argv[1]), json.loads(sys.argv[2]), 1e9)
print(len(calls), int(store.pixels.sum()))
"""


def test_two_processes_at_once_build_one_store(files: list[str]) -> None:
    words = [sys.executable, "-c", BUILD, json.dumps(files), json.dumps(AS_THEY_ARE)]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    both = [subprocess.Popen(words, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    counts, sums = zip(*(map(int, process.communicate(timeout=120)[0].split()) for process in both), strict=True)
    assert sorted(counts)[0] == 0, "the one that came second decoded nothing"
    assert sums[0] == sums[1] and len(cache.listing()) == 1


def test_what_a_killed_run_left_half_written_goes_when_its_images_are_stored(files: list[str]) -> None:
    cache.obtain(files, AS_THEY_ARE, cache.GB)
    folder = cache.folder_of_stores() / cache.listing()[0]["name"]
    cache.clear([folder.name])
    remains = folder.with_name(f".{folder.name}-x7y")
    remains.mkdir()
    (remains / "pixels.u8").write_bytes(b"half")
    cache.obtain(files, AS_THEY_ARE, cache.GB)
    assert folder.is_dir() and not remains.exists()


def test_the_cache_verb_lists_and_clears(files: list[str], fastcls) -> None:
    assert "No decoded images" in fastcls("cache").output and "Runs cache their images there" in fastcls("cache").output
    cache.obtain(files, AS_THEY_ARE, cache.GB)
    cache.obtain(files, WHOLE, cache.GB)
    cache.obtain(files[:2], AS_THEY_ARE | {"mode": "L", "method": "squish", "resize": [8, 8], "size": [8, 8]}, cache.GB)
    shown = fastcls("cache").output
    for part in (
        "whole, reduced to cover 12 × 12",
        "as is",
        "squish to 8 × 8, grey",
        "photos",
        str(cache.folder_of_stores()),
    ):
        assert part in shown
    name = cache.listing()[0]["name"]
    wrong = fastcls("cache", "--clear", name[:-1])
    assert wrong.code == 2 and name in wrong.output and len(cache.listing()) == 3
    assert fastcls("cache", "--clear", name).code == 0
    assert name not in {store["name"] for store in cache.listing()} and len(cache.listing()) == 2
    assert "MB freed" in fastcls("cache", "--clear", "all").output and not cache.listing()


def test_a_machine_without_control_groups_and_limits_has_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """As macOS, or a network namespace."""

    monkeypatch.setattr(host, "GROUPS", Path("/nowhere"))
    assert host.available() > 0
