"""A run that is stopped at any of its stages and resumed ends as an uninterrupted one, files of the network and all.

The matrix has every stage, four ways to stop and two ways to load; FASTCLS_STAGES=all runs all of it, or 0:60 a part.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from killable import Trials, digest
from stages import SIGNALS, STAGES

CODES = {"KILL": (-9,), "TERM": (143, 0), "INT": (130, 0), "INT INT": (130, 0)}  # 0: it came when all was done
EVALUATED = ("model.safetensors", "predictions.csv", "metrics.json", "splits.csv", "heatmaps.json")
MODULES = ("fastcls.running.evaluation", "fastcls.reports.build", "onnxruntime", "onnxscript")  # imported once
ALL = [*itertools.product(STAGES, SIGNALS, (0, 2))]
WORDS = ("--epochs", 3, "--limit", 12, "--bs", 9, "--track", "csv")


def chosen() -> list[tuple[str, str, int]]:
    """Every third stage once, signals and loaders in turn; with FASTCLS_STAGES more of them."""
    asked = os.environ.get("FASTCLS_STAGES", "")
    if asked:
        first, _, end = asked.partition(":")
        return ALL if asked == "all" else ALL[int(first) : int(end)]
    return [(stage, list(SIGNALS)[i % 4], 2 * (i % 3 == 2)) for i, stage in enumerate([*STAGES][1::3])]


def sums(folder: Path, *names: str) -> dict[str, str]:
    files = [folder / name for name in names] if names else [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def command(trials: Trials, out: Path, workers: int) -> list[object]:
    images, recipe = trials.folder / "images", trials.folder / "mine.py"
    words = ["recipe", recipe, "--path", images, "--out", out, "--checkpoint-minutes", 0, "--seed", 7, *WORDS]
    return [*words, "--workers", workers, *(["--no-pixels"] if workers else [])]


def run(trials: Trials, log: Path, *words: object, **more: Any) -> int:
    return trials.ask(trials.ask({"words": [str(log), *map(str, words)], "whole": True, **more}))


@pytest.fixture(scope="module")
def whole(trials: Trials) -> Iterator[dict[int, dict[str, Any]]]:
    """What an uninterrupted run leaves behind, with and without workers."""
    found = {}
    for workers in {workers for _, _, workers in chosen()}:
        out = trials.folder / f"whole-{workers}"
        log = trials.folder / "whole.txt"
        assert run(trials, log, *command(trials, out, workers)) == 0, log.read_text()[-3000:]
        found[workers] = digest(out) | sums(out, *EVALUATED)
    yield found


@pytest.mark.faults
@pytest.mark.parametrize(("stage", "signals", "workers"), chosen())
def test_a_run_stopped_at_a_stage_ends_as_an_uninterrupted_one(
    trials: Trials, whole: dict[int, dict[str, Any]], stage: str, signals: str, workers: int
) -> None:
    out = trials.folder / "-".join(f"{stage} {signals} {workers}".replace(",", "").split())
    log, mark = out.with_suffix(".txt"), out.with_suffix(".struck")
    env = {"FASTCLS_DATA": str(out.with_suffix(".data"))}
    images, words = sums(trials.folder / "images"), command(trials, out, workers)
    code = run(trials, log, *words, env=env, strike=[stage, signals, str(mark)])
    assert mark.is_file(), f"the run never came to {stage!r}\n{log.read_text()[-2000:]}"
    assert code in CODES[signals], log.read_text()[-3000:]
    assert "Traceback" not in log.read_text(), log.read_text()[-3000:]
    record = json.loads((out / "run.json").read_text()) if (out / "run.json").is_file() else {}
    if code == 0:
        assert record["status"] == "done"
    elif record.get("status") != "done":
        if not record:  # killed before it had begun: there is nothing to resume
            assert not (out / "checkpoints").exists()
            shutil.rmtree(out)
        again = ["resume", out, "--trust"] if record else words
        assert run(trials, log, *again, env=env) == 0, log.read_text()[-3000:]
    assert json.loads((out / "run.json").read_text())["status"] == "done"
    assert digest(out) | sums(out, *EVALUATED) == whole[workers]
    assert (out / "report.html").is_file() and (out / "model.onnx").is_file() and (out / "log.txt").is_file()
    assert sums(trials.folder / "images") == images
    shutil.rmtree(out)
