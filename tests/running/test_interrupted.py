"""Runs, searches and comparisons that are interrupted, started twice, or lose who reads them."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Fastcls
from materials import interrupted_at_a_checkpoint

from fastcls.machine.screen import Screen
from fastcls.machine.stop import listening
from fastcls.reports import build
from fastcls.runfolder import runs
from fastcls.running import runner, series

SMALL = ["--epochs", 2, "--limit", 20, "--filters", "8", "--bs", 20]
COMPARE = ["compare", "digits-cnn", *SMALL, "--vary", "dropout=0,0.3", "--out", "grid"]


def run_of(folder: str) -> Path:
    """The only run of a comparison."""
    (file,) = Path(folder).glob("*/*/run.json")
    return file.parent


@contextlib.contextmanager
def broken_pipe(name: str, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Standard output or error whose reader is gone, as `| tee` is after Ctrl-C."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream, patch.context() as here:  # noqa: PTH123
        here.setattr(sys, name, stream)
        yield
        os.dup2(os.open(os.devnull, os.O_WRONLY), writer)  # so that it can be closed


def test_ctrl_c_that_ends_the_reader_too_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    with broken_pipe("stderr", monkeypatch), listening() as stop:
        stop.patient = True
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked == signal.SIGINT


def test_a_run_whose_reader_is_gone_keeps_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with broken_pipe("stdout", monkeypatch):
        screen = Screen()
        screen.print("one")
        screen.print("two")
        screen.write_log(tmp_path / "log.txt")
    assert (tmp_path / "log.txt").read_text() == "one\ntwo\n"


@pytest.mark.usefixtures("unreported")
def test_ctrl_c_between_two_runs_ends_a_comparison(fastcls: Fastcls, monkeypatch: pytest.MonkeyPatch) -> None:
    """It falls into gc.collect(), where what a finaliser raises is ignored."""
    collect = gc.collect

    class Finalised:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    def interrupted() -> int:
        Finalised()
        return collect()

    monkeypatch.setattr(series.gc, "collect", interrupted)
    outcome = fastcls(*COMPARE)
    assert outcome.code == 130 and "the same command continues" in outcome.output
    assert "run 2 of 2" not in outcome.output and len(list(Path("grid").glob("*/*/metrics.json"))) == 1
    monkeypatch.undo()


def test_a_comparison_that_is_under_way_is_left_alone(fastcls: Fastcls) -> None:
    with interrupted_at_a_checkpoint():
        assert fastcls(*COMPARE).code == 130
    run = run_of("grid")
    before = sorted(str(path) for path in run.rglob("*"))
    for folder in (Path("grid"), run):
        with runs.locked(folder):
            outcome = fastcls(*COMPARE)
        assert outcome.code == 4 and "Another process is training into" in outcome.output
        assert sorted(str(path) for path in run.rglob("*")) == before


@pytest.mark.usefixtures("unreported")
@pytest.mark.faults
def test_images_that_are_others_now_cost_a_comparison_nothing(fastcls: Fastcls, digits_run: Path) -> None:
    shutil.copytree(json.loads((digits_run / "run.json").read_text())["data"]["root"], "photos")
    words = [*COMPARE, "--path", "photos"]
    with interrupted_at_a_checkpoint():
        assert fastcls(*words).code == 130
    rows = (run_of("grid") / "splits.csv").read_text().splitlines()
    image = Path("photos", rows[1].split(",")[0])  # one of those that the run takes
    held = image.read_bytes()
    image.write_bytes(held + b"of another size")
    saved = sorted(Path("grid").glob("*/*/checkpoints/*"))
    outcome = fastcls(*words)
    assert outcome.code == 3 and "photos" in outcome.output and "run 2 of 2" not in outcome.output, outcome
    assert saved and sorted(Path("grid").glob("*/*/checkpoints/*")) == saved
    image.write_bytes(held)
    again = fastcls(*words)
    assert again.code == 0 and again.output.count("resumed") == 1, again


def test_a_finished_run_is_not_written_over(fastcls: Fastcls, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process trains into the folder, and ends, while this one is prepared."""
    prepared = runner.prepared

    @contextlib.contextmanager
    def slowly(request: Any) -> Iterator[Any]:
        with prepared(request) as ready:
            Path("r").mkdir()
            Path("r/run.json").write_text("theirs")
            yield ready

    monkeypatch.setattr(runner, "prepared", slowly)
    outcome = fastcls("recipe", "digits-cnn", *SMALL, "--out", "r")
    assert outcome.code == 4 and "this folder is not empty" in outcome.output
    assert Path("r/run.json").read_text() == "theirs"


@pytest.mark.usefixtures("unexported")
def test_a_run_killed_while_its_report_is_written_is_resumed(fastcls: Fastcls, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as here:
        here.setattr(build, "write", killed)
        here.setattr(runner._Run, "_stopped", lambda *args, **kwargs: None)
        with pytest.raises(Killed):
            fastcls("recipe", "digits-cnn", *SMALL, "--out", "r")
    before = Path("r/model.safetensors").read_bytes()
    outcome = fastcls("resume", "r")
    assert outcome.code == 0 and "resumed" in outcome.output
    assert Path("r/report.html").is_file() and Path("r/log.txt").is_file()
    assert "had not finished" not in Path("r/report.html").read_text()
    assert Path("r/model.safetensors").read_bytes() == before
    assert json.loads(Path("r/run.json").read_text())["status"] == "done"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_two_signals_end_a_command_without_a_traceback(digits_run: Path, number: int) -> None:
    words = [sys.executable, "-m", "fastcls", "predict", str(digits_run), "-"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, env=env, text=True, bufsize=1, **pipes) as child:
        assert child.stdin and child.stderr
        child.stdin.write("nowhere.png\n" * 6000)  # more than the pipe holds: the command has begun to read
        child.send_signal(number)
        child.send_signal(number)
        assert child.wait(60) == {signal.SIGINT: 130, signal.SIGTERM: 143}[signal.Signals(number)]
        assert child.stderr.read() == ""
