"""Decoded images are kept, shared, bounded and never trusted blindly."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastcls import cache
from fastcls.errors import DataError, OutputError

AS_THEY_ARE = {"mode": "RGB", "method": "", "resize": None, "size": None, "pad_mode": "", "mean": None, "std": None}
WHOLE = {"mode": "RGB", "short": 12, "resample": "BICUBIC"}


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


@pytest.mark.parametrize("damage", ["a flipped bit", "cut short", "no shapes", "no record"])
def test_a_damaged_store_is_built_again(files: list[str], damage: str) -> None:
    pixels = cache.obtain(files, AS_THEY_ARE, cache.GB).pixels.copy()
    folder = cache.folder_of_stores() / cache.listing()[0]["name"]
    file = folder / "pixels.u8"
    content = bytearray(file.read_bytes())
    if damage == "a flipped bit":
        content[100] ^= 1
        file.write_bytes(content)
    elif damage == "cut short":
        file.write_bytes(content[:-1])
    elif damage == "no shapes":
        (folder / "shapes.npy").unlink()
    else:
        (folder / "store.json").write_text("{")
    assert (cache.obtain(files, AS_THEY_ARE, cache.GB).pixels == pixels).all()


def test_images_that_are_none_are_named_all_together(files: list[str]) -> None:
    Path(files[1]).write_text("no image")
    content = Path(files[2]).read_bytes()
    Path(files[2]).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError) as caught:
        cache.obtain(files, AS_THEY_ARE, cache.GB)
    assert "2 of 12" in caught.value.message and files[1] in caught.value.message and files[2] in caught.value.message
    assert not cache.listing()


def test_the_budget_is_kept_and_the_least_recently_used_makes_room(files: list[str]) -> None:
    size = 12 * 16 * 20 * 3
    with pytest.raises(OutputError, match="--cache-gb"):
        cache.obtain(files, AS_THEY_ARE, size / 2)
    for i, part in enumerate((files[:4], files[4:8], files[8:])):
        cache.obtain(part, AS_THEY_ARE, size * 0.7)
        os.utime(cache.folder_of_stores() / cache._key(part, AS_THEY_ARE) / "store.json", (i, i))
    assert {store["name"] for store in cache.listing()} == {
        cache._key(part, AS_THEY_ARE) for part in (files[4:8], files[8:])
    }


def test_a_store_larger_than_memory_is_mapped(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = cache.obtain(files, AS_THEY_ARE, cache.GB)
    monkeypatch.setattr(cache, "_free_memory", lambda: 0.0)
    mapped = cache.obtain(files, AS_THEY_ARE, cache.GB)
    assert isinstance(mapped.pixels, np.memmap) and (mapped.pixels == whole.pixels).all()


def test_two_at_once_build_one_store(files: list[str]) -> None:
    with ThreadPoolExecutor(2) as pool:
        stores = list(pool.map(lambda _: cache.obtain(files, AS_THEY_ARE, cache.GB), range(2)))
    assert (stores[0].pixels == stores[1].pixels).all() and len(cache.listing()) == 1


def test_the_cache_verb_lists_and_clears(files: list[str], fastcls) -> None:
    assert "No decoded images" in fastcls("cache").output
    cache.obtain(files, AS_THEY_ARE, cache.GB)
    cache.obtain(files, WHOLE, cache.GB)
    shown = fastcls("cache").output
    assert "whole" in shown and "as is" in shown and "photos" in shown and "MB" in shown
    name = cache.listing()[0]["name"]
    wrong = fastcls("cache", "--clear", name[:-1])
    assert wrong.code == 2 and name in wrong.output
    assert fastcls("cache", "--clear", name).code == 0
    assert [store["name"] for store in cache.listing()] != [name] and len(cache.listing()) == 1
    assert "freed" in fastcls("cache", "--clear", "all").output and not cache.listing()
