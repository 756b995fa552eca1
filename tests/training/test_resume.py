"""A killed run, resumed, ends as if nothing had happened: weights, optimiser, history, best weights, bit by bit."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Fastcls
from folders import csv_rows
from killable import AUTO, VARIANTS, Trials, digest, ended, saves, until
from PIL import Image
from safetensors.torch import load_file

from fastcls.errors import OutputError
from fastcls.machine.stop import Stopped, listening
from fastcls.training.checkpoints import Store


def uninterrupted(trials: Trials, name: str = "no workers") -> Path:
    """The run that a killed one must end as."""
    whole = trials.folder / f"whole {name}"
    if not whole.exists():
        trials.run(*trials.words(whole, *(VARIANTS | AUTO)[name]))
    return whole


def kill_and_resume(trials: Trials, name: str, times: int, seed: int) -> None:
    """`times` runs, each killed at a random moment, up to three times, and resumed until it ends.

    A moment is so many saves, one a batch, and a little more: seconds alone would depend on what else runs here. A run
    that ended before it was killed is followed by another.
    """
    rng = random.Random(seed)
    whole = uninterrupted(trials, name)
    expected, killed = digest(whole), 0
    for trial in range(5 * times):
        kills = 0
        out = trials.folder / f"killed {name} {trial}"
        command = trials.words(out, *(VARIANTS | AUTO)[name])
        for _ in range(rng.randint(1, 3)):
            child, moment = trials.start(*command), rng.randint(now := saves(out), max(now, saves(whole) - 1))
            until(lambda: ended(child) or saves(out) >= moment)  # noqa: B023
            time.sleep(rng.uniform(0, 0.02))  # a step and its save
            os.killpg(child, signal.SIGKILL)
            code = trials.wait(child)
            kills += code == -signal.SIGKILL
            if code == 0:
                break
            if (out / "run.json").is_file():
                command = ["resume", out, "--trust"]
            else:
                shutil.rmtree(out, ignore_errors=True)  # killed before it had begun
        if not (out / "run.json").is_file() or json.loads((out / "run.json").read_text())["status"] != "done":
            trials.run(*command)
        assert digest(out) == expected, f"trial {trial} of {name!r}"
        shutil.rmtree(out)
        killed += kills > 0
        if killed == times:
            return
    pytest.fail(f"only {killed} of {5 * times} runs could be killed before they ended")


def test_a_killed_run_ends_as_an_uninterrupted_one(trials: Trials) -> None:
    kill_and_resume(trials, "no workers", 1, seed=1)


@pytest.mark.faults
@pytest.mark.parametrize("name", VARIANTS)
def test_twelve_killed_runs_end_as_uninterrupted_ones(trials: Trials, name: str) -> None:
    kill_and_resume(trials, name, 3, seed=2)


@pytest.mark.faults
def test_a_killed_run_of_as_many_epochs_as_pay_ends_as_an_uninterrupted_one(trials: Trials) -> None:
    kill_and_resume(trials, "auto", 3, seed=4)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_two_hundred_killed_runs_end_as_uninterrupted_ones(trials: Trials, name: str) -> None:
    kill_and_resume(trials, name, 67, seed=3)


def test_signals_save_say_how_to_go_on_and_lose_nothing(trials: Trials) -> None:
    out = trials.folder / "signalled"
    command = trials.words(out, "--checkpoint-minutes", 60)
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        newest = max((int(folder.name) for folder in out.glob("checkpoints/[0-9]*")), default=0)
        child = trials.start(*command)
        until((out / "checkpoints" / f"{newest + 1:08d}").exists)
        os.kill(child, number)
        assert trials.wait(child) == code
        record = json.loads((out / "run.json").read_text())
        assert record["status"] == "interrupted" and record["reason"] == signal_name(number)
        assert f"fastcls resume {out}" in (out / "log.txt").read_text() and (out / "history.csv").is_file()
        assert not list(out.glob(".*")), "temporary files"
        command = ["resume", out, "--trust"]
    printed = (trials.folder / "log.txt").read_text()
    assert "finishing the step and saving; once more stops immediately" in printed and "Traceback" not in printed
    trials.run(*command)
    assert digest(out) == digest(uninterrupted(trials))
    assert len(json.loads((out / "run.json").read_text())["resumed"]) == 2


def signal_name(number: int) -> str:
    return {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}[signal.Signals(number)]


def test_the_second_signal_stops_at_once() -> None:
    with listening() as stop:
        stop.patient = True
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked == signal.SIGINT
        with pytest.raises(Stopped) as stopped:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        assert stopped.value.code == 130
        os.kill(os.getpid(), signal.SIGINT)  # while the first is cleaned up after: the same wish


def test_a_signal_amid_a_finaliser_is_not_lost() -> None:
    class Finalised:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped), listening() as outer, listening() as stop:
        assert stop is outer, "one ear for a whole search"
        with stop.deferred():
            Finalised()
        pytest.fail("the signal was lost")


def test_a_validation_that_breaks_down_does_not_cost_its_epoch(trials: Trials) -> None:
    recipe = (trials.folder / "mine.py").read_text()
    flag = trials.folder / "broken"
    broken = recipe.replace(
        "def get_learner(",
        f"def sound(preds, targs):\n    if Path({str(flag)!r}).exists(): raise ValueError('a metric of mine')\n"
        "    return accuracy(preds, targs)\n\ndef get_learner(",
    ).replace("metrics=accuracy", "metrics=sound")
    (trials.folder / "metric.py").write_text(broken)
    command = ["recipe", trials.folder / "metric.py", "--path", trials.folder / "images", "--seed", 7, "--out"]
    trials.run(*command, trials.folder / "whole metric")
    out = trials.folder / "broken metric"
    child = trials.start(*command, out)
    until((out / "checkpoints" / f"{2:08d}").exists)
    flag.touch()
    assert trials.wait(child) not in (0, 130, 143)
    flag.unlink()
    assert json.loads((out / "run.json").read_text())["status"] == "failed"
    state = json.loads((sorted((out / "checkpoints").glob("[0-9]*"))[-1] / "state.json").read_text())["state"]
    assert state["position"]["batch"] == 5, "all batches of the epoch are trained"
    trials.run("resume", out, "--trust")
    assert digest(out) == digest(trials.folder / "whole metric")


def test_a_loss_that_is_not_finite_leaves_the_best_weights_and_names_them(trials: Trials) -> None:
    recipe = (trials.folder / "mine.py").read_text()
    (trials.folder / "diverges.py").write_text(
        recipe.replace("learn.fine_tune(epochs, 5e-3, freeze_epochs=1)", "learn.fit(1, 1e-3); learn.fit(1, 1e9)")
    )
    out = trials.folder / "diverged"
    child = trials.start(
        "recipe", trials.folder / "diverges.py", "--path", trials.folder / "images", "--precision", "fp32", "--out", out
    )
    assert trials.wait(child) == 6
    record = json.loads((out / "run.json").read_text())
    assert record["status"] == "failed" and "The loss became" in record["reason"]
    log = (out / "log.txt").read_text()
    (weights,) = out.glob("checkpoints/*/best.safetensors")
    assert str(weights) in log and "go on" not in log
    assert all(tensor.isfinite().all() for tensor in load_file(weights).values())


def test_a_finished_run_is_trained_further(trials: Trials) -> None:
    out, killed = trials.folder / "extended", trials.folder / "extended and killed"
    for copy in (out, killed):
        shutil.copytree(uninterrupted(trials), copy)
    trials.run("resume", out, "--trust", "--extend-epochs", 2)
    rows = csv_rows(out / "history.csv")
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert float(rows[-1]["lr"]) < 1e-5 < float(rows[-2]["lr"]) < 5e-4
    child = trials.start("resume", killed, "--trust", "--extend-epochs", 2)
    until((killed / "checkpoints" / f"{28:08d}").exists)
    os.killpg(child, signal.SIGKILL)
    trials.wait(child)
    trials.run("resume", killed, "--trust")
    assert digest(killed) == digest(out)


def test_what_cannot_be_resumed_is_refused(trials: Trials, fastcls: Fastcls, tmp_path: Path) -> None:
    out = trials.folder / "to refuse"
    child = trials.start(*trials.words(out))
    until((out / "checkpoints" / f"{2:08d}").exists)
    os.killpg(child, signal.SIGSTOP)
    busy = fastcls("resume", out, "--trust")
    assert busy.code == 4 and "Another process is training into" in busy.output
    os.killpg(child, signal.SIGKILL)
    trials.wait(child)
    untrusted = fastcls("resume", out)
    assert untrusted.code == 2 and "--trust" in untrusted.output and "recipe.py" in untrusted.output
    unfinished = fastcls("resume", out, "--trust", "--extend-epochs", 1)
    assert unfinished.code == 2 and "not finished" in unfinished.output
    other = fastcls("recipe", "digits-cnn", "--resume", out)
    assert other.code == 2 and "is a run of mine, not of digits-cnn" in other.output
    knobs = fastcls("recipe", "digits-cnn", "--resume", out, "--epochs", 3)
    assert knobs.code == 2 and "--epochs" in knobs.output
    image = trials.folder / "images" / "red" / "0.png"
    held = image.read_bytes()
    try:
        image.write_bytes((trials.folder / "images" / "red" / "1.png").read_bytes() + b"\0")
        changed = fastcls("resume", out, "--trust")
    finally:
        image.write_bytes(held)
    assert changed.code == 3 and "are not the ones that" in changed.output
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(record | {"status": "done"}))
    finished = fastcls("resume", out, "--trust")
    assert finished.code == 2 and "is finished" in finished.output and "--extend-epochs" in finished.output
    assert fastcls("resume", tmp_path / "nothing").code == 4


@pytest.mark.usefixtures("unreported")
def test_images_that_were_moved_are_found_by_path(fastcls: Fastcls, tmp_path: Path) -> None:
    for digit in range(10):
        for number in range(6):
            file = tmp_path / "photos" / str(digit) / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((8, 8), 20 + digit).save(file)
    words = ["recipe", "digits-cnn", "--path", "photos", "--epochs", 1, "--filters", 4, "--out", "run"]
    assert fastcls(*words).code == 0
    (tmp_path / "disk2").mkdir()
    (tmp_path / "photos").rename(tmp_path / "disk2/photos")
    further = ["resume", "run", "--extend-epochs", 1]
    lost = fastcls(*further)
    assert lost.code == 3 and "as --path" in lost.output
    refused = fastcls("recipe", "digits-cnn", "--resume", "run", "--path", "disk2/photos")
    assert refused.code == 2 and "fastcls resume run --path disk2/photos" in refused.output
    found = fastcls(*further, "--path", "disk2/photos")
    assert found.code == 0, found.output
    record = json.loads((tmp_path / "run/run.json").read_text())
    now = str(tmp_path / "disk2/photos")
    assert record["data"]["root"] == now and record["command"].endswith(f"--path {now}")
    (tmp_path / "disk2/photos/0/0.png").unlink()
    other = fastcls("resume", "run", "--extend-epochs", 1, "--path", "disk2/photos")
    assert other.code == 3 and "are not the ones that" in other.output
    assert json.loads((tmp_path / "run/run.json").read_text()) == record, "a refusal changes nothing"


def state(step: int) -> dict[str, Any]:
    rng = torch.Generator().manual_seed(step)
    weights = {f"{i}.weight": torch.randn(16, 8, 3, 3, generator=rng) for i in range(4)}
    return {"step": step, "lr": 0.1 + step / 3, "moments": (0.9, 0.99), "model": weights, "empty": [], 3: None}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path)
    for step in (1, 2, 3):
        found.save(state(step), state(1)["model"])
    return found


def test_a_checkpoint_comes_back_as_it_was_saved_and_two_are_kept(store: Store) -> None:
    assert [folder.name for folder in store.folders()] == ["00000002", "00000003"]
    found, refused = store.newest()
    assert found is not None and not refused
    expected = state(3)
    assert found.state.keys() == expected.keys() and found.state["moments"] == (0.9, 0.99)
    assert found.state["lr"] == expected["lr"]
    assert all(torch.equal(found.state["model"][name], expected["model"][name]) for name in expected["model"])
    listed = subprocess.run(["sha256sum", "-c", "MANIFEST"], cwd=found.folder, capture_output=True, text=True)
    assert listed.returncode == 0, listed


@pytest.mark.parametrize("kind", ["truncated", "flipped"])
def test_damaged_checkpoints_are_refused_every_time(store: Store, kind: str) -> None:
    """100 truncations, 100 flipped bits, in all files: the checkpoint before is taken each time."""
    newest = store.folders()[-1]
    rng = random.Random(0)
    files = [newest / name for name in ("state.safetensors", "state.json", "best.safetensors", "MANIFEST")]
    refusals = 0
    for i in range(100):
        file = files[i % 4]
        held = file.read_bytes()
        at = rng.randrange(len(held))
        damaged = (
            held[:at] if kind == "truncated" else held[:at] + bytes([held[at] ^ 1 << rng.randrange(8)]) + held[at + 1 :]
        )
        file.write_bytes(damaged)
        found, refused = store.newest()
        assert found is not None and found.state["step"] == 2
        refusals += len(refused)
        file.write_bytes(held)
    assert refusals == 100
    found, refused = store.newest()
    assert found is not None and found.state["step"] == 3 and not refused


def test_a_save_does_not_sign_what_was_damaged_on_the_disk(store: Store) -> None:
    best = store.folders()[-1] / "best.safetensors"
    held = best.read_bytes()
    best.write_bytes(held[:-1] + bytes([held[-1] ^ 1]))
    store.save(state(4), state(1)["model"])
    found, refused = store.newest()
    assert found is not None and found.state["step"] == 4 and not refused
    assert (found.folder / "best.safetensors").read_bytes() == held


def test_a_full_disk_costs_no_checkpoint(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file: file.read_bytes() for file in store.home.rglob("*") if file.is_file()}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="the disk is full") as refusal:
        store.save(state(4), {})
    assert "fastcls resume" in refusal.value.hint
    assert {file: file.read_bytes() for file in store.home.rglob("*") if file.is_file()} == before


def test_leftovers_of_a_killed_save_are_swept(store: Store) -> None:
    (store.home / ".00000004").mkdir()
    (store.home / ".00000004" / "state.safetensors").write_bytes(b"half")
    assert store.newest()[0] is not None
    store.sweep()
    assert [path.name for path in sorted(store.home.iterdir())] == ["00000002", "00000003"]
