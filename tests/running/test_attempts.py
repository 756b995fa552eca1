"""Attempts combined at random from layouts, names, damage, moments and commands: what holds of all holds of each.

FASTCLS_ATTEMPTS=500 runs more of them (60:500 those from 60 on), FASTCLS_ATTEMPT=17 the one of seed 17 alone.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from attempts import SMALL, Attempt, attempt, picture
from conftest import command
from materials import interrupted_at_a_checkpoint

ALONE = os.environ.get("FASTCLS_ATTEMPT")
FIRST, _, END = os.environ.get("FASTCLS_ATTEMPTS", "60").rpartition(":")
SEEDS = [int(ALONE)] if ALONE else range(int(FIRST or 0), int(END))
HOW = "FASTCLS_ATTEMPT={} pytest -m faults -n 0 tests/running/test_attempts.py"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data_cache: None) -> tuple[Path, Path]:
    """A run that is done and one that was interrupted, of few images."""
    from random import Random

    home, rng = tmp_path_factory.mktemp("trained"), Random(0)
    for label in ("cat", "dog"):
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
    return home / "finished", home / "cut"


@pytest.mark.faults
@pytest.mark.parametrize("seed", SEEDS)
def test_an_attempt_ends_in_a_result_or_a_message_and_loses_nothing(
    seed: int, tmp_path: Path, trained: tuple[Path, Path]
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
