"""A run that is stopped at any of its stages and resumed ends as an uninterrupted one, files of the network and all.

The matrix has every stage, four ways to stop, two ways to load, one and two processes; FASTCLS_STAGES=all runs all of
it, 0:60 or 0:1088:17 a part.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from killable import Trials, digest
from stages import SIGNALS, STAGES

CODES = {"KILL": (-9,), "TERM": (143, 0), "INT": (130, 0), "INT INT": (130, 0)}  # 0: it came when all was done
EVALUATED = ("model.safetensors", "predictions.csv", "metrics.json", "splits.csv", "heatmaps.json")
WORDS = ("--epochs", 3, "--limit", 12, "--bs", 8, "--track", "csv", "--checkpoint-minutes", 0, "--seed", 7)
ALL = [*itertools.product(STAGES, SIGNALS, (0, 2), (1, 2))]
Case = tuple[str, str, int, int]  # stage, signals, workers, processes


def chosen() -> list[Case]:
    """Every ninth stage once, signals and loaders in turn; with FASTCLS_STAGES more of them."""
    if asked := os.environ.get("FASTCLS_STAGES", ""):
        return ALL if asked == "all" else ALL[slice(*map(int, asked.split(":")))]
    signals = itertools.cycle(SIGNALS)
    return [(stage, next(signals), 2 * (i % 3 == 2), 1 + (i % 7 == 4)) for i, stage in enumerate([*STAGES][1::9])]


def sums(folder: Path, *names: str) -> dict[str, str]:
    files = [folder / name for name in names] if names else [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def command(trials: Trials, out: Path, workers: int) -> list[object]:
    words = ["recipe", trials.folder / "mine.py", "--path", trials.folder / "images", "--out", out, *WORDS]
    return [*words, "--workers", workers, *(["--no-pixels"] if workers else [])]


@pytest.fixture(scope="module")
def whole(trials: Trials) -> Callable[[int, int], dict[str, Any]]:
    """What an uninterrupted run leaves behind, each made once."""

    @functools.cache
    def made(workers: int, processes: int) -> dict[str, Any]:
        out = trials.folder / f"whole-{workers}-{processes}"
        trials.several(processes, *command(trials, out, workers), whole=True)
        return digest(out) | sums(out, *EVALUATED)

    return made


@pytest.mark.faults
@pytest.mark.parametrize(("stage", "signals", "workers", "processes"), chosen())
def test_a_run_stopped_at_a_stage_ends_as_an_uninterrupted_one(
    trials: Trials, whole: Callable[[int, int], dict[str, Any]], stage: str, signals: str, workers: int, processes: int
) -> None:
    out = trials.folder / re.sub(r"\W+", "-", f"{stage} {signals} {workers} {processes}")
    mark, env = out.with_suffix(".struck"), {"FASTCLS_DATA": str(out.with_suffix(".data"))}
    images, words = sums(trials.folder / "images"), command(trials, out, workers)
    late = [*STAGES].index(stage) >= [*STAGES].index("evaluation")
    start = functools.partial(trials.begin, processes, env=env, whole=late)
    code, *others = map(trials.wait, start(*words, strike=[stage, signals, str(mark)]))
    said = "".join(trials.log(rank).read_text() for rank in range(processes))[-3000:]
    if processes == 2 and stage.startswith("cache") and not mark.is_file():
        pytest.skip("the other process decoded the images")
    assert mark.is_file(), f"the run never came to {stage!r}\n{said}"
    assert code in CODES[signals] and "Traceback" not in said, said
    assert all(other in (0, 6, *CODES[signals]) for other in others), said
    record = json.loads((out / "run.json").read_text()) if (out / "run.json").is_file() else {}
    if code == 0:
        assert record["status"] == "done"
    elif record.get("status") != "done":
        if not record:  # killed before it had begun: there is nothing to resume
            assert not (out / "checkpoints").exists()
            shutil.rmtree(out, ignore_errors=True)
        again = ["resume", out, "--trust"] if record else words
        assert set(map(trials.wait, start(*again))) == {0}, trials.log(0).read_text()[-3000:]
    assert json.loads((out / "run.json").read_text())["status"] == "done"
    found = digest(out) | (sums(out, *EVALUATED) if late else {})
    assert found == {name: value for name, value in whole(workers, processes).items() if name in found}
    assert not late or {"report.html", "model.onnx", "log.txt"} <= {file.name for file in out.iterdir()}
    assert sums(trials.folder / "images") == images
    shutil.rmtree(out)
