"""Attempts combined at random from layouts, names, damage, moments and commands: what holds of all holds of each.

FASTCLS_ATTEMPTS=500 runs more of them (20:500 those from 20 on), FASTCLS_ATTEMPT=17 the one of seed 17 alone.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from random import Random

import pytest
from attempts import SMALL, Attempt, attempt, picture
from conftest import Fastcls, command
from limits import within
from materials import interrupted_at_a_checkpoint

from fastcls.runfolder import register

ALONE = os.environ.get("FASTCLS_ATTEMPT")
FIRST, _, END = os.environ.get("FASTCLS_ATTEMPTS", "12").rpartition(":")
SEEDS = [int(ALONE)] if ALONE else range(int(FIRST or 0), int(END))
HOW = "FASTCLS_ATTEMPT={} pytest -m faults -n 0 tests/running/test_attempts.py"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data_cache: None) -> tuple[Path, Path, Path]:
    """A run that is done, one that was interrupted, and one of several labels an image, of few images."""
    home, rng, labels = tmp_path_factory.mktemp("trained"), Random(0), ("cat", "dog")
    for label in labels:
        for number in range(6):
            file = home / "photos" / label / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(picture(rng))
    words = ["recipe", "folder", "--path", home / "photos", *SMALL, "--out"]
    outcome = command(*words, home / "finished")
    assert outcome.code == 0, outcome.output
    with interrupted_at_a_checkpoint():
        outcome = command(*words, home / "cut", "--epochs", 2)
    assert outcome.code == 130, outcome.output
    rows = [f"{label}/{number}.png,{'cat;dog' if number % 2 else label}\n" for label in labels for number in range(6)]
    (home / "tags.csv").write_text("".join(["path,tags\n", *rows]))
    outcome = command(*words, home / "tagged", "--labels", home / "tags.csv")
    assert outcome.code == 0, outcome.output
    return home / "finished", home / "cut", home / "tagged"


def test_names_that_lead_nowhere_in_their_own_ways_are_named(
    fastcls: Fastcls, digits_run: Path, tmp_path: Path
) -> None:
    """What the attempts found, in short: a file for a folder, a circle of links, nobody's home, a named pipe."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "circle.csv").symlink_to("circle.csv")
    (tmp_path / "photo.png").write_bytes(picture(Random(0)))
    os.mkfifo(tmp_path / "pipe.csv")
    shutil.copytree(digits_run, tmp_path / "other")
    predict = ["predict", digits_run, "photo.png", "-o"]
    for code, *words in (
        (4, "compare", digits_run, "other", "--out", "file"),
        (4, "compare", digits_run, "other", "--out", "file/below"),
        (3, "check", "circle.csv"),
        (4, *predict, "circle.csv"),
        (3, *predict, "out.csv", "--sample-submission", "circle.csv"),
        (3, *predict, "out.csv", "--sample-submission", "pipe.csv"),
        (3, "check", "~nobody-of-this-name"),
        (3, "predict", digits_run, "~nobody-of-this-name"),
        (4, "predict", "~nobody-of-this-name", "photo.png"),
    ):
        with within(20):
            outcome = fastcls(*words)
        assert outcome.code == code and "error: " in outcome.output, (words, outcome)
    assert (tmp_path / "file").read_text() == "mine" and not (tmp_path / "out.csv").exists()


def test_a_list_of_runs_that_is_a_named_pipe_is_not_waited_for(fastcls: Fastcls) -> None:
    state = Path(os.environ["XDG_STATE_HOME"], "fastcls")
    state.mkdir(parents=True)
    os.mkfifo(state / "runs.txt")
    with within(20):
        assert fastcls("runs").code == 0
        register.add(Path("run"))


@pytest.mark.faults
@pytest.mark.parametrize("seed", SEEDS)
def test_an_attempt_ends_in_a_result_or_a_message_and_loses_nothing(
    seed: int, tmp_path: Path, trained: tuple[Path, Path, Path]
) -> None:
    made = Attempt(seed, tmp_path / "attempt", *trained)
    try:
        attempt(made)
    except BaseException:
        print(f"seed {seed}; alone:  {HOW.format(seed)}")
        print(*made.done, sep="\n")
        raise
    if ALONE:
        print(*made.done, sep="\n")
