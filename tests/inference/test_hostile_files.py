"""Every case of hostile_files.py: refused in our words, soon, in little memory; nothing run, nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import command, without_sums
from folders import change, held
from hostile_files import ARCHIVES, MARK, MODELS, PREDICT, TRAIN, Hostile, sound
from killable import Ended, Forks
from PIL import Image

from fastcls.datasets import archives
from fastcls.errors import FastclsError
from fastcls.images import preprocessing

MEGABYTES = 500.0
EVERY = [*MODELS, *ARCHIVES]


@pytest.fixture
def place(tmp_path: Path, digits_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sound run with photographs, in a folder of a folder that nothing may be written to."""
    (tmp_path / "place").mkdir()
    monkeypatch.chdir(tmp_path / "place")
    sound(tmp_path / "place", digits_run)
    return tmp_path / "place"


def test_the_table_is_long_enough() -> None:
    assert len(MODELS) >= 30 and len(ARCHIVES) >= 15
    assert len({case.name for case in EVERY}) == len(EVERY)


def refused_in_process(words: tuple[str, ...]) -> tuple[int, str]:
    if words[0] != "unpack":
        outcome = command(*words)
        return outcome.code, outcome.output
    try:
        archives.unpack(Path(words[1]), Path(words[2]))
    except FastclsError as problem:
        return problem.exit_code, str(problem)
    return 0, ""


@pytest.mark.parametrize("case", [case for case in EVERY if case.light], ids=lambda case: case.name)
def test_hostile_files_are_refused(place: Path, case: Hostile) -> None:
    case.make(place)
    before = held(place.parent)
    code, shown = refused_in_process(case.words)
    assert code == case.code and case.says in " ".join(shown.split()), (code, shown)
    assert held(place.parent) == before and not (place / MARK).exists()


def test_runs_of_before_checksums_and_files_changed_knowingly_are_taken(place: Path) -> None:
    network = place / "run" / "model.onnx"
    network.write_bytes(network.read_bytes() + b"\x32\x01x")  # another domain's note, which changes no answer
    refused = command(*PREDICT)
    assert refused.code == 4 and 'remove its line under "sha256" in run/model.json' in refused.output
    without_sums(place / "run")
    assert command(*PREDICT).code == 0


def test_a_line_of_pixels_is_not_padded_to_gigabytes() -> None:
    spec = {"mode": "RGB", "method": "pad", "pad_mode": "zeros", "resize": [8, 8], "size": [8, 8]}
    with pytest.raises(Image.DecompressionBombError, match="60000 × 1 pixels, which padding makes 60000 × 60000"):
        preprocessing.prepare(np.zeros((1, 60_000, 3), np.uint8), spec)
    assert preprocessing.prepare(np.zeros((1, 600, 3), np.uint8), spec).shape == (8, 8, 3)


Watched = Callable[..., tuple[Ended, float, str]]


@pytest.fixture
def watched(forks: Forks, place: Path) -> Watched:
    """Runs a command in the place: how it ended, the megabytes that it had more than when it began, what it said."""

    def run(*words: str) -> tuple[Ended, float, str]:
        log = forks.folder / "watched.txt"
        log.unlink(missing_ok=True)
        child, before = forks.start(words, log, folder=str(place), limited=True, whole=True)
        ended = forks.wait(child)
        return ended, (ended.most - before) / 1e6, log.read_text(errors="replace")

    return run


@pytest.mark.faults
@pytest.mark.parametrize("case", EVERY, ids=lambda case: case.name)
def test_hostile_files_cost_little_and_do_nothing(place: Path, case: Hostile, watched: Watched) -> None:
    case.make(place)
    before = held(place.parent)
    ended, megabytes, shown = watched(*case.words)
    print(f"{case.name}: {ended.seconds:.2f} s, {megabytes:.0f} MB")
    assert ended.code == case.code and case.says in " ".join(shown.split()), (ended, shown)
    assert "Traceback" not in shown and "error: " in shown
    assert held(place.parent) == before and not (place / MARK).exists()
    assert megabytes < MEGABYTES  # and a process that takes 20 s of a processor is killed: see trials.py


@pytest.mark.faults
@pytest.mark.parametrize(
    "words",
    [
        PREDICT,
        ("report", "run"),
        ("export", "run", "-o", "out"),
        ("export", "run", "--safetensors", "-o", "out"),
        ("check", "run", "-o", "out"),
        ("compare", "run", "run"),
        ("runs", "--folder", "."),
        (*TRAIN, "run"),
        ("resume", "run"),
        ("export", "run", "--torch-export", "-o", "out"),
    ],
    ids=" ".join,
)
def test_no_command_runs_the_recipe_in_a_run_folder(place: Path, words: tuple[str, ...], watched: Watched) -> None:
    if words[0] == "resume":
        change(place / "run" / "run.json", status="interrupted")
    ended, _, shown = watched(*words)
    assert "Traceback" not in shown and not (place / MARK).exists(), shown
    if words[0] == "resume" or "--torch-export" in words:
        assert ended.code == 2 and "--trust" in shown and "recipe.py" in shown
        ended, _, shown = watched(*words, "--trust")
        assert ended.code == 2 and "it was run" in shown and (place / MARK).exists(), "the mark tells"
