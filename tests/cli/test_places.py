"""Places that may not be read or written, or are full: exit code and message, and the user's files as they were."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Fastcls
from limits import small_disk, unprivileged, within
from PIL import Image

import fastcls as api
from fastcls.errors import OutputError
from fastcls.runfolder import register

DENIED, FULL = "Permission denied", "No space left on device"
TRAINED = ("digits-cnn", "--epochs", 1, "--limit", 6, "--filters", 4)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits_run: Path) -> Path:
    """A folder with the run, class folders of images as it takes them, and their table."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTCLS_DATA", str(tmp_path / "data"))
    for name in ("3", "5"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(3):
            Image.effect_noise((8, 8), 40 + 9 * number).save(tmp_path / "photos" / name / f"{number}.png")
    rows = [f"{file.relative_to(tmp_path / 'photos')},{file.parent.name}" for file in sorted(tmp_path.rglob("*.png"))]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows]))
    shutil.copytree(digits_run, tmp_path / "run")
    return tmp_path


@contextlib.contextmanager
def mode(path: Path, bits: int) -> Iterator[None]:
    """A path with these rights, under someone to whom they apply."""
    before = path.stat().st_mode
    path.chmod(bits)
    try:
        with unprivileged():
            yield
    finally:
        path.chmod(before)


def held(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("place", "code", "words"),
    [
        ("photos/5", 3, ["predict", "run", "photos"]),
        ("photos/5", 3, ["check", "photos"]),
        ("photos/5", 3, ["evaluate", "run", "photos"]),
        ("photos/5", 3, ["pack", "photos", "packed"]),
        ("photos/5/1.png", 3, ["predict", "run", "photos"]),
        ("photos/5/1.png", 3, ["evaluate", "run", "photos"]),
        ("photos", 3, ["predict", "run", "photos"]),
        ("photos", 3, ["check", "photos"]),
        ("photos", 3, ["evaluate", "run", "photos"]),
        ("labels.csv", 3, ["predict", "run", "labels.csv"]),
        ("labels.csv", 3, ["check", "photos", "--labels", "labels.csv"]),
        ("labels.csv", 3, ["evaluate", "run", "photos", "--labels", "labels.csv"]),
        ("run/run.json", 4, ["report", "run"]),
        ("run/run.json", 4, ["export", "run"]),
        ("run/model.onnx", 4, ["predict", "run", "photos"]),
        ("run/predictions.csv", 4, ["export", "run"]),
        ("run/model.safetensors", 4, ["export", "run", "--safetensors"]),
        ("run", 4, ["predict", "run", "photos"]),
    ],
)
def test_what_may_not_be_read_is_named(fastcls: Fastcls, here: Path, place: str, code: int, words: list[str]) -> None:
    before = held(here / "photos")
    with mode(here / place, 0):
        outcome = fastcls(*words)
        assert outcome.code == code and DENIED in outcome.output and Path(place).name in outcome.output, outcome.output
    assert held(here / "photos") == before and not (here / "packed").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["recipe", *TRAINED],
        ["predict", "../run", "../photos", "-o", "x.csv"],
        ["predict", "../run", "../photos", "-o", "x", "--parts", "csv"],
        ["export", "../run", "-o", "x"],
        ["check", "../photos"],
        ["evaluate", "../run", "../photos"],
        ["pack", "../photos", "x"],
        ["compare", *TRAINED, "--seeds", 2],
        ["search", *TRAINED, "--space", "lr=0.1,0.2"],
        ["lr-find", *TRAINED],
        ["recipe", "digits-cnn", "--copy", "mine"],
    ],
    ids=lambda words: words[0],
)
def test_a_folder_that_may_not_be_written_is_refused_before_the_work(
    fastcls: Fastcls, here: Path, words: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "locked").mkdir()
    monkeypatch.chdir(here / "locked")
    monkeypatch.setattr("fastcls.audit.audit.audit", None)  # `pack` looks at its images for long
    if words[0] == "check":
        monkeypatch.undo()
        monkeypatch.chdir(here / "locked")
    with mode(here / "locked", 0o555):
        outcome = fastcls(*words)
    assert outcome.code == 4 and ("cannot be" in outcome.output) and "/new:" not in outcome.output, outcome.output
    assert not list((here / "locked").iterdir())


def test_a_run_that_may_not_be_written_is_left_as_it_is(fastcls: Fastcls, here: Path) -> None:
    before = held(here / "run")
    with mode(here / "run", 0o555):
        for words in (["report", "run"], ["export", "run"]):
            outcome = fastcls(*words)
            assert outcome.code == 4 and DENIED in outcome.output, outcome.output
        with pytest.raises(OutputError, match=DENIED):
            api.report(here / "run")
        assert fastcls("predict", "run", "photos", "-o", "answers.csv").code == 0
    assert held(here / "run") == before


def test_a_remembered_run_that_may_not_be_looked_at_is_in_no_ones_way(fastcls: Fastcls, here: Path) -> None:
    shutil.copytree(here / "run", here / "away" / "run")
    register.add(here / "run")
    register.add(here / "away" / "run")
    with mode(here / "away", 0):
        assert fastcls("predict", "last", "photos").code == 0
        outcome = fastcls("runs")
        assert outcome.code == 0 and str(here / "run") in outcome.output and "away" not in outcome.output


def test_a_cache_that_may_not_be_written_is_said_to_stay(fastcls: Fastcls, here: Path) -> None:
    assert fastcls("check", "photos").code == 0
    with mode(here / "data", 0o555):
        outcome = fastcls("cache", "--clear", "all")
        assert outcome.code == 4 and DENIED in outcome.output and str(here / "data") in outcome.output, outcome.output
    assert fastcls("cache", "--clear", "all").code == 0 and not list((here / "data").glob("measured*"))
    (here / "data" / "packs" / "one").mkdir(parents=True)
    (here / "data" / "packs" / "one" / "index").write_text("")
    with mode(here / "data" / "packs" / "one", 0o555):
        outcome = fastcls("cache", "--clear", "packs")
        assert outcome.code == 4 and "packs cannot be removed" in outcome.output, outcome.output


def test_a_full_disk_leaves_nothing_half_written(fastcls: Fastcls, here: Path) -> None:
    before = held(here / "photos")
    with small_disk(here / "disk", 1 << 18) as disk:
        for room in (0, 4096, 65_536):
            (disk / "filling").write_bytes(bytes((1 << 18) - room))
            for words in (
                ["predict", "run", "photos", "-o", disk / "x.csv"],
                ["predict", "run", "photos", "-o", disk / "parts", "--parts", "csv"],
                ["export", "run", "-o", disk / "exported", "--onnx", "--safetensors"],
                ["check", "photos", "-o", disk / "checked"],
                ["evaluate", "run", "photos", "-o", disk / "evaluated"],
                ["pack", "photos", disk / "packed"],
                ["recipe", *TRAINED, "--out", disk / "trained"],
            ):
                with within(60):
                    outcome = fastcls(*words)
                assert outcome.code in (0, 4), outcome.output
                if outcome.code:
                    assert FULL in outcome.output or "MB free" in outcome.output, outcome.output
                files = sorted(path.name for path in disk.rglob("*") if path.is_file() and path.name != "filling")
                results = {"x.csv", "part-00000.csv", "check.html", "report.html", "run.json", "fastcls-pack.json"}
                assert outcome.code == 0 or not results.intersection(files), files
                assert not [name for name in files if name.startswith(".")], files
                for path in disk.iterdir():
                    if path.name != "filling":
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert held(here / "photos") == before
