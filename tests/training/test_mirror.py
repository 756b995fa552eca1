"""Checkpoints in object storage: the same command on a machine without the run folder ends as the uninterrupted run."""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
from conftest import Fastcls, command
from killable import Trials, digest, ended, saves, until
from object_store import Store

from fastcls.datasets import buckets
from fastcls.training import checkpoints, mirror

pytest.importorskip("pyarrow", reason="needs the extra `shards`")
pytestmark = [pytest.mark.further, pytest.mark.usefixtures("unreported")]
WORDS = ("recipe", "digits-cnn", "--limit", 12, "--filters", "4,8", "--epochs", 4, "--seed", 7)
FIGURES = ("metrics.json", "predictions.csv", "model.safetensors", "splits.csv")


def figures(run: str | Path) -> dict[str, Any]:
    """What two runs that came to the same have in common; not the seconds."""
    with Path(run, "history.csv").open(newline="") as file:
        rows = [
            {name: value for name, value in row.items() if name not in ("seconds", "images_per_second")}
            for row in csv.DictReader(file)
        ]
    return {"history": rows, **{name: Path(run, name).read_bytes() for name in FIGURES}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, unreported_module: None) -> dict[str, Any]:
    """The figures of the run that was not interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert command(*WORDS, "--out", out).code == 0
    return figures(out)


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Has the run that comes next stop after so many checkpoints, as Ctrl-C does."""
    save = checkpoints.Store.save

    def set_to(count: int) -> None:
        left = [count]

        def stopping(self: checkpoints.Store, *args: Any) -> Path:
            folder = save(self, *args)
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt
            return folder

        monkeypatch.setattr(checkpoints.Store, "save", stopping)

    return set_to


@pytest.fixture
def begun(
    fastcls: Fastcls, stop_after: Callable[[int], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[object]:
    """The words of a command whose run was stopped after three checkpoints, and its machine lost; they are in kept/."""
    words = [*WORDS, "--out", "run", "--checkpoints", tmp_path / "kept", "--resume", "auto"]
    send = mirror._Sender.send

    def sent(self: Any, checkpoint: Path) -> None:
        send(self, checkpoint)
        self.finish()  # of checkpoints that wait only the newest is sent, and these come fast

    stop_after(3)
    with monkeypatch.context() as patch:
        patch.setattr(mirror._Sender, "send", sent)
        done = fastcls(*words)
    assert done.code == 130, done.output
    shutil.rmtree("run")
    stop_after(1000)
    return words


@pytest.mark.parametrize("kind", ["s3", "memory", "file"])
def test_a_machine_without_the_run_folder_continues_to_the_same_weights_and_history(
    fastcls: Fastcls, kind: str, request: Any, tmp_path: Path, whole: Any, stop_after: Callable[[int], None]
) -> None:
    address = {"memory": f"memory://{tmp_path.name}/kept", "file": (tmp_path / "kept").as_uri()}.get(kind)
    address = address or f"{request.getfixturevalue('store').address}/kept"
    words = (*WORDS, "--out", "run", "--checkpoints", address, "--resume", "auto")
    for count in (1, 2):
        stop_after(count)
        done = fastcls(*words)
        assert done.code == 130, done.output
        shutil.rmtree("run")
    stop_after(1000)
    done = fastcls(*words)
    assert done.code == 0 and "fetched checkpoint 00000003" in done.output, done.output
    assert figures("run") == whole


def test_the_two_newest_are_kept_and_a_run_that_was_done_ends_again(
    fastcls: Fastcls, begun: list[object], whole: Any
) -> None:
    assert sorted(folder.name for folder in Path("kept").iterdir()) == ["00000002", "00000003"]
    sums = Path("kept/00000003/MANIFEST").read_text().splitlines()
    assert {line.split("  ")[1] for line in sums} >= {"state.safetensors", "run.json", "recipe.py", "history.csv"}
    for line in sums:
        digest, name = line.split("  ")
        assert hashlib.sha256(Path("kept/00000003", name).read_bytes()).hexdigest() == digest
    for _ in range(2):
        done = fastcls(*begun)
        assert done.code == 0 and "fetched checkpoint" in done.output and figures("run") == whole, done.output
        assert [file.name for file in Path("run/checkpoints").iterdir() if file.name.startswith(".")] == []
        shutil.rmtree("run")


def test_a_half_written_checkpoint_is_never_taken(fastcls: Fastcls, begun: list[object], whole: Any) -> None:
    shutil.copytree("kept", "before")
    Path("kept/00000003/MANIFEST").unlink()  # the machine was lost while it was sent
    done = fastcls(*begun)
    assert done.code == 0 and "fetched checkpoint 00000002" in done.output and figures("run") == whole, done.output
    for damage in ("state.safetensors", "run.json"):
        for name in ("run", "kept"):
            shutil.rmtree(name)
        shutil.copytree("before", "kept")
        file = Path("kept/00000003", damage)
        file.write_bytes(file.read_bytes()[:-9])
        done = fastcls(*begun)
        assert done.code == 0 and f"00000003 was refused: {damage} does not match its manifest" in done.output
        assert "fetched checkpoint 00000002" in done.output and figures("run") == whole


def hostile(name: str, data: bytes) -> None:
    """Have both checkpoints in kept/ hold a file, with its checksum, in place of their own."""
    for folder in Path("kept").iterdir():
        (folder / Path(name).name).write_bytes(data)
        lines = [line for line in (folder / "MANIFEST").read_text().splitlines() if not line.endswith(f"  {name}")]
        lines.append(f"{hashlib.sha256(data).hexdigest()}  {name}")
        (folder / "MANIFEST").write_text("\n".join(lines) + "\n")


def test_what_a_third_party_put_there_is_refused(fastcls: Fastcls, begun: list[object], tmp_path: Path) -> None:
    shutil.copytree("kept", "before")
    for name, data, says in (
        ("../../escaped.py", b"", "its manifest was not written by fastcls"),
        ("model.pkl", b"", "its manifest was not written by fastcls"),
        ("recipe.py", b" " * 1_000_001, "recipe.py is too large"),
        ("run.json", b"[" * 1000, "cannot be read"),
        ("recipe.py", b"raise SystemExit('ran')", "started with a different"),
    ):
        hostile(name, data)
        done = fastcls(*begun)
        assert done.code in (2, 4) and says in done.output and "ran" not in done.output.split(), done.output
        assert {file.parent.parent.name for file in tmp_path.rglob("escaped.py")} <= {"kept"}
        for folder in ("run", "kept"):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree("before", "kept")


def test_another_command_does_not_take_the_checkpoints_of_a_run(fastcls: Fastcls, begun: list[object]) -> None:
    done = fastcls(*begun[:-2])
    assert done.code == 4 and "already has checkpoints of a run" in done.output and "--resume auto" in done.output
    done = fastcls(*begun, "--lr", "0.5")
    assert done.code == 2 and "started with a different --lr" in done.output, done.output
    time.sleep(1.1)  # runs of a recipe and a seed are distinguished by the second in which they began
    assert fastcls(*WORDS, "--epochs", 1, "--out", "other").code == 0
    assert not Path("run").exists()
    words = [word if word != "run" else "other" for word in begun]
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    done = fastcls(*[word if word != "run" else "mine" for word in begun])
    assert done.code == 4 and "not empty" in done.output and [f.name for f in Path("mine").iterdir()] == ["notes.txt"]
    done = fastcls("compare", "digits-cnn", "--vary", "lr=0.1,0.2", "--checkpoints", "kept")
    assert done.code == 2 and "--checkpoints" in done.output
    done = fastcls(*words)
    assert done.code == 4 and "of another run than other" in done.output, done.output


def test_a_recipe_of_ones_own_continues_where_it_is_the_same(
    fastcls: Fastcls, stop_after: Callable[[int], None]
) -> None:
    assert fastcls("recipe", "digits-cnn", "--copy", "mine.py").code == 0
    words = ["recipe", "./mine.py", *WORDS[2:], "--out", "run", "--checkpoints", "kept", "--resume", "auto"]
    stop_after(1)
    assert fastcls(*words).code == 130
    shutil.rmtree("run")
    stop_after(1000)
    source = Path("mine.py").read_text()
    Path("mine.py").write_text(source + "\n# changed\n")
    done = fastcls(*words)
    assert done.code == 2 and "started with a different" in done.output and not Path("run").exists(), done.output
    Path("mine.py").write_text(source)
    done = fastcls(*words)
    assert done.code == 0 and "resumed" in done.output, done.output


@pytest.fixture
def refusing(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store that refuses to write manifests, so many times as `broken` says."""
    monkeypatch.setattr(buckets, "WAITS", (0.01, 0.01))
    store.tried, store.error = ("PUT", "/MANIFEST"), "403 Forbidden"
    return store


def test_training_goes_on_where_the_store_does_not_and_says_so(
    fastcls: Fastcls, refusing: Store, whole: Any, stop_after: Callable[[int], None]
) -> None:
    refusing.broken = 10_000
    words = (*WORDS, "--out", "run", "--checkpoints", f"{refusing.address}/kept", "--resume", "auto")
    stop_after(2)
    done = fastcls(*words)
    assert done.code == 130 and f"checkpoints cannot be sent to {refusing.address}/kept" in done.output, done.output
    assert "after 3 attempts" in done.output and "Those in run/checkpoints are complete" in done.output
    refusing.broken = 0
    stop_after(1000)
    done = fastcls(*words)
    assert done.code == 0 and "fetched" not in done.output and figures("run") == whole, done.output
    shutil.rmtree("run")
    assert "fetched" in fastcls(*words).output and figures("run") == whole


def test_training_does_not_wait_for_a_store_that_stalls(
    fastcls: Fastcls, refusing: Store, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "PATIENCE", 1.5)
    refusing.stalled = 10_000
    done = fastcls(*WORDS, "--out", "run", "--checkpoints", f"{refusing.address}/kept")
    assert done.code == 0 and "no complete response" in done.output and figures("run") == whole, done.output


def test_an_address_that_cannot_be_written_is_refused_before_training(fastcls: Fastcls, refusing: Store) -> None:
    refusing.tried, refusing.broken = ("PUT", "/writable"), 10_000
    Path("file.txt").touch()
    for address, says in (
        (f"{refusing.address}/kept", "cannot be written after 3 attempts"),
        ("nothing://here", "not a valid address"),
        ("/proc/kept", "cannot be written"),
        ("file.txt", "this is a file"),
        ("file.txt/kept", "is a file"),
    ):
        done = fastcls(*WORDS, "--out", "run", "--checkpoints", address)
        assert done.code in (3, 4) and says in done.output, done.output
        assert not Path("run").exists()


def _saved_or_ended(child: int, run: Path, checkpoint: int) -> bool:
    return saves(run) >= checkpoint or ended(child)


@pytest.mark.faults
def test_runs_that_are_killed_and_their_machine_lost_come_back(trials: Trials, tmp_path: Path) -> None:
    trials.run(*trials.words(tmp_path / "whole"))
    wanted, random = digest(tmp_path / "whole"), Random(0)
    out, words = tmp_path / "run", trials.words(tmp_path / "run")
    words += ["--checkpoints", tmp_path / "kept", "--resume", "auto"]
    for _ in range(8):
        child, enough = trials.start(*words), random.randint(1, 6)
        until(partial(_saved_or_ended, child, out, saves(out) + enough))
        os.kill(child, signal.SIGKILL)
        assert trials.wait(child) in (-signal.SIGKILL, 0)
        shutil.rmtree(out, ignore_errors=True)
    trials.run(*words)
    assert digest(out) == wanted and (trials.folder / "log.txt").read_text().count("fetched checkpoint") >= 4


def test_a_run_folder_that_was_left_behind_catches_up(
    fastcls: Fastcls, whole: Any, stop_after: Callable[[int], None]
) -> None:
    words = [*WORDS, "--out", "run", "--checkpoints", "kept"]
    stop_after(1)
    assert fastcls(*words).code == 130
    shutil.copytree("run", "left")
    stop_after(1)
    assert fastcls("resume", "run").code == 130
    shutil.rmtree("run")
    Path("left").rename("run")
    stop_after(1000)
    done = fastcls("resume", "run")
    assert done.code == 0 and "run/checkpoints/00000002" in done.output and figures("run") == whole, done.output
