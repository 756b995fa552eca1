"""A run folder from a third party: nothing in it leads out, waits, or is obeyed by the terminal."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest
from conftest import Fastcls
from folders import change, held

from fastcls.runfolder import inside
from fastcls.runfolder.text import visible

FOLDERS = ("checkpoints", "figures", "export", "tracking")
VERBS = {
    "resume": ("resume", "run"),
    "report": ("report", "run"),
    "export": ("export", "run"),
    "predict": ("predict", "run", "photo.png"),
    "serve": ("serve", "run"),
    "compare": ("compare", "run", "run"),
    "check": ("check", "run"),
}


@pytest.fixture
def run(tmp_path: Path, digits_run: Path) -> Path:
    (tmp_path / "photo.png").write_bytes(b"not looked at")
    folder = tmp_path / "run"
    shutil.copytree(digits_run, folder)
    return folder


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_is_a_link_is_neither_written_nor_swept(
    fastcls: Fastcls, run: Path, tmp_path: Path, name: str, verb: str
) -> None:
    victim = tmp_path / "victim"
    for file in (".ssh/id_rsa", "losses.png", "model.onnx", "steps.csv"):
        (victim / file).parent.mkdir(parents=True, exist_ok=True)
        (victim / file).write_text("mine")
    before = held(victim)
    change(run / "run.json", status="interrupted" if verb == "resume" else "done")
    shutil.rmtree(run / name, ignore_errors=True)
    (run / name).symlink_to(victim)
    outcome = fastcls(*VERBS[verb])
    assert outcome.code == 4 and f"run/{name} is a link to " in outcome.output, outcome
    assert held(victim) == before


@pytest.mark.parametrize("name", ["run.json", "model.json", "metrics.json", "history.csv", "predictions.csv"])
def test_a_named_pipe_is_refused_at_once(fastcls: Fastcls, run: Path, name: str) -> None:
    (run / name).unlink()
    os.mkfifo(run / name)
    for words in VERBS.values():
        outcome = fastcls(*words)
        assert outcome.code in (2, 3, 4) and ("named pipe" in outcome.output or name == "run.json"), outcome
    (run.parent / "runs" / "recipe").mkdir(parents=True)
    run.rename(run.parent / "runs" / "recipe" / "one")
    listed = fastcls("runs")
    assert listed.code == 0 and (name == "run.json" or "named pipe" in " ".join(listed.output.split()))


def test_a_file_that_is_a_link_is_not_read(fastcls: Fastcls, run: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("epoch\n1\n")
    (run / "history.csv").unlink()
    (run / "history.csv").symlink_to(tmp_path / "secret.csv")
    assert fastcls("report", "run").code == 4


def test_what_a_run_folder_may_hold(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "tracking" / "wandb").mkdir(parents=True)
    (run / "tracking" / "wandb" / "latest-run").symlink_to("../../figures")  # wandb links its newest run so
    inside.check(run)
    with (run / "predictions.csv").open("r+b") as file:
        file.truncate(inside.LARGEST[".csv"] + 1)  # sparse: it takes no room
    with pytest.raises(inside.Foreign, match=r"predictions\.csv is larger than 4,000 MB"):
        inside.check(run)
    (run / "predictions.csv").unlink()
    with socket.socket(socket.AF_UNIX) as bound:
        monkeypatch.chdir(run)  # the names of sockets are short
        bound.bind("socket")
    with pytest.raises(inside.Foreign, match="is a socket"):
        inside.check(run)


def test_control_characters_are_shown_and_forge_nothing(fastcls: Fastcls, run: Path) -> None:
    forged = "\x1b]0;title\x07\x1b[2J\nforged/row  done  0.9999"
    change(run / "run.json", command=forged, status=forged, recipe=forged, title=forged, knobs={"fit": {"x": forged}})
    (run.parent / "runs" / "recipe").mkdir(parents=True)
    shutil.copytree(run, run.parent / "runs" / "recipe" / "one")
    for words in (("runs",), ("resume", "run"), ("compare", "run", "run"), ("compare", "run", "runs/recipe/one")):
        shown = fastcls(*words).output
        assert "\x1b" not in shown and "\x07" not in shown and not shown.startswith("forged/row"), shown
    assert "\\x1b" in fastcls("runs").output


def test_visible_keeps_what_is_text() -> None:
    assert visible("naïve 图片 \U0001f408\tA\nB \udcff") == "naïve 图片 \U0001f408\tA\nB \udcff"
    assert visible("a\x00\x1b\x7f\x9b\r\u202e") == r"a\x00\x1b\x7f\x9b\r\u202e"
