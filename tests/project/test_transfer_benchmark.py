"""benchmarks.transfer: every method gets the same few images, and what is measured is not measured again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT))

from benchmarks import transfer, transfer_data


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Pets' annotations: two breeds, 30 training and 5 test images each."""
    annotations = tmp_path / "oxford-iiit-pet-40" / "annotations"
    annotations.mkdir(parents=True)
    for part, numbers in (("trainval", range(30)), ("test", range(30, 35))):
        names = [f"{breed}_{number}" for breed in ("great_dane", "Bengal") for number in numbers]
        (annotations / f"{part}.txt").write_text("\n".join(names))
    return tmp_path


def test_subsets_are_the_seeds_own_and_never_hold_a_test_image(data: Path) -> None:
    pets = transfer_data.load("pets", data)
    train, valid = pets.subset("10", seed=1)
    assert (train, valid) == transfer_data.load("pets", data).subset("10", seed=1) != pets.subset("10", seed=2)
    assert (len(train), len(valid)) == (16, 4)  # 10 a class, a fifth of them held out
    assert {label for _, label in train} == {label for _, label in valid} == {"great_dane", "Bengal"}
    assert not {*train} & {*valid} and not {*train, *valid} & {*pets.test}
    assert {*train, *valid} <= {image for part in pets.subset("20", seed=1) for image in part}
    assert sum(map(len, pets.subset("all", seed=1))) == 60 and pets.takes_all("30") and not pets.takes_all("20")


def test_a_file_of_rows_says_what_is_left_and_makes_the_table(data: Path) -> None:
    rows = [
        {
            **vars(transfer.Cell("pets", "lite0", method, "5", seed)),
            "images": {"train": 8, "valid": 2, "test": 10},
            "accuracy": accuracy,
            "cpu_train": seconds,
            "hardware": "a CPU",
            "versions": {"torch": "2"},
            "date": "2026-01-01 00:00",
        }
        for method, seed, accuracy, seconds in (("ours-probe", 0, 0.8, 5), ("timm", 0, 0.6, 98), ("timm", 1, 0.7, 102))
    ]
    out = data / "rows.jsonl"
    out.write_text("\n".join(map(json.dumps, rows)) + '\n{"dataset": "pe')  # the last was stopped while written

    def said(*words: str) -> str:
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.transfer", "--data", data, "--out", out, *words]
        return subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert "| Pets | EfficientNet-Lite0 | 5 | 80.0 (1); 5 s | 65.0 ± 7.1 (2); 100 s, 20.0× |" in said("--table")
    left = said("--list", "--only", "pets,lite0", "--methods", "ours-probe,timm", "--shots", "5", "--seeds", "2")
    assert left.startswith("1 cells") and "pets lite0 ours-probe 5 1: about" in left
