"""Long runs and large datasets: memory that does not grow, and grows no faster than the data."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, command

from fastcls.settings import sources

WATCH = """
class Watch(Callback):
    "Writes the megabytes of memory that the process has after every epoch"
    def after_epoch(self):
        from fastcls.machine import host
        with open(MEMORY, 'a') as file: print(host.resident() / 1e6, file=file)

def fit("""


def environment(data: Path) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "FASTCLS_DATA": str(data)}


@pytest.mark.slow
def test_memory_does_not_grow_over_200_epochs(tmp_path: Path) -> None:
    """A whole run, with checkpoints: 16 to 25 epochs in against the last ten of 200."""
    text = sources.find("digits-cnn").source
    text = text.replace("def fit(", f"MEMORY = {str(tmp_path / 'memory.txt')!r}\n{WATCH.lstrip()}")
    recipe = tmp_path / "mine.py"
    recipe.write_text(text.replace("    learn.fit_one_cycle(", "    learn.add_cb(Watch())\n    learn.fit_one_cycle("))
    words = ["recipe", recipe, "--limit", 20, "--epochs", 200, "--filters", "8,16", "--out", tmp_path / "run"]
    done = subprocess.run(
        [sys.executable, "-m", "fastcls", *map(str, words)], env=environment(tmp_path / "data"), capture_output=True
    )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    megabytes = [float(line) for line in (tmp_path / "memory.txt").read_text().split()]
    early, late = statistics.median(megabytes[15:25]), statistics.median(megabytes[190:200])
    print(f"\n{early:.1f} MB around epoch 20, {late:.1f} MB around epoch 195: {late - early:+.1f} MB")
    assert late - early <= 5


@pytest.mark.slow
@pytest.mark.parametrize("classes", [200, 10_000])
def test_the_memory_of_a_list_of_files_is_in_proportion(tmp_path: Path, classes: int) -> None:
    """A fiftieth of a million files: a fiftieth of 400 MB to list them, and 32 MB that do not depend on them."""
    from benchmarks.growth import make

    make(tmp_path, 20_000, classes, 8)
    words = ["-W", "ignore", "-m", "benchmarks.million", "--side", "fastcls", "--folder", str(tmp_path / "images")]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=environment(tmp_path / "data"),
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"\n{found}")
    assert found["images"] == 20_000 and found["scan MB"] <= 400 / 50 + 32


@pytest.mark.slow
def test_ten_thousand_classes_are_listed_and_split(tmp_path: Path) -> None:
    """Every class keeps an image on each side."""
    from benchmarks.growth import make

    make(tmp_path, 20_000, 10_000, 8)
    listed = command(
        "recipe",
        "folder",
        "--path",
        tmp_path / "images",
        "--dry-run",
        "--arch",
        "squeezenet1_1",
        "--weights",
        "none",
        "--size",
        32,
    )
    assert listed.code == 0 and "10,000 train, 10,000 valid, 10000 classes" in listed.output
