"""A killed run, resumed, ends as if nothing had happened: weights, optimiser, history, best weights, bit by bit."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from safetensors.torch import load_file

from fastcls.errors import OutputError
from fastcls.machine.stop import Stopped, listening
from fastcls.training.checkpoints import Store

RECIPE = '''"""Augmentation, dropout, mixup, batch norm, early stopping's callback, both phases of fine_tune."""
from fastai.vision.all import *
from fastcls import data, models, transforms
from fastcls.training.averaging import ema
from fastcls.transforms.mixing import mix

def get_learner(path: str, opt: str = 'adamw', bs: int = 16, pixels: bool = True, average: float = 0.):
    from fastcls.training.optimizers import optimizer
    block = DataBlock(blocks=(ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label,
                      splitter=data.stratified(parent_label, 0.25),
                      item_tfms=transforms.resize(16) if pixels else Resize(16, method='squish'),
                      batch_tfms=transforms.augment(flip=True, rotate=10., translate=0.1, jitter=0.2))
    dls = data.loaders(block, path, bs=bs)
    net = models.cnn(3, dls.c, (8, 16), dropout=0.3)
    return models.learner(dls, net, metrics=accuracy, opt_func=optimizer(opt), cbs=[*mix(mixup=0.4), *ema(average)],
                          splitter=lambda m: L(m[:3], m[3:]).map(params))

def fit(learn, epochs: int = 3):
    learn.fine_tune(epochs, 5e-3, freeze_epochs=1)
'''


class Trials:
    """Runs that can be killed: processes forked from one that has imported everything."""

    def __init__(self, folder: Path, *modules: str) -> None:
        self.folder = folder
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "FASTCLS_DATA": str(folder / "data")}
        self.server = subprocess.Popen(
            [sys.executable, ROOT / "tests" / "support" / "trials.py", *modules],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env,
        )  # fmt: skip
        assert self.server.stdout and self.server.stdout.readline() == "ready\n"

    def ask(self, what: Any) -> int:
        assert self.server.stdin and self.server.stdout
        self.server.stdin.write(json.dumps(what) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def start(self, *words: object) -> int:
        return self.ask([str(self.folder / "log.txt"), *map(str, words)])

    def run(self, *words: object) -> None:
        assert self.ask(self.start(*words)) == 0, (self.folder / "log.txt").read_text()[-3000:]


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    folder = tmp_path_factory.mktemp("trials")
    rng = np.random.default_rng(0)
    for klass, colour in {"red": 0, "green": 1, "blue": 2}.items():
        (folder / "images" / klass).mkdir(parents=True)
        for i in range(40):
            pixels = rng.integers(0, 200, (16, 16, 3))
            pixels[4:9, 4:9, colour] += 55
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / klass / f"{i}.png")
    (folder / "mine.py").write_text(RECIPE)
    found = Trials(folder)
    with found.server:
        yield found
        found.server.kill()


def digest(run: Path) -> dict[str, Any]:
    """What two runs must have in common: every tensor of the last checkpoint, the best weights, the history."""
    (last,) = sorted((run / "checkpoints").glob("[0-9]*"))[-1:]
    with (run / "history.csv").open(newline="") as file:
        rows = [
            {key: value for key, value in row.items() if key not in ("seconds", "images_per_second")}
            for row in csv.DictReader(file)
        ]
    files = {
        name: hashlib.sha256((last / name).read_bytes()).hexdigest()
        for name in ("state.safetensors", "best.safetensors")
    }
    return {"history": rows, "best_epoch": json.loads((run / "run.json").read_text())["best_epoch"], **files}


def words(trials: Trials, out: Path, *more: object) -> list[object]:
    recipe, images = trials.folder / "mine.py", trials.folder / "images"
    return ["recipe", recipe, "--path", images, "--out", out, "--checkpoint-minutes", 0, "--seed", 7, *more]


VARIANTS: dict[str, list[object]] = {
    "no workers": [],
    "two workers": ["--workers", 2, "--no-pixels"],
    "accumulating": ["--opt", "ranger", "--accumulate", 2, "--clip", 1, "--average", 0.9],
}


AUTO = {"auto": ["--epochs", "auto", "--best-by", "f1"]}  # how long it takes is not known before


def saves(run: Path) -> int:
    """How often a run has saved itself."""
    return max((int(folder.name) for folder in (run / "checkpoints").glob("[0-9]*")), default=0)


def ended(child: int) -> bool:
    return Path(f"/proc/{child}/stat").read_text().split()[2] == "Z"


def kill_and_resume(trials: Trials, name: str, times: int, seed: int) -> None:
    """`times` runs, each killed at a random moment, up to three times, and resumed until it ends.

    A moment is so many saves, one a batch, and a little more: seconds alone would depend on what else runs here. A run
    that ended before it was killed is followed by another.
    """
    rng = random.Random(seed)
    whole = trials.folder / f"whole {name}"
    trials.run(*words(trials, whole, *(VARIANTS | AUTO)[name]))
    expected, killed = digest(whole), 0
    for trial in range(5 * times):
        kills = 0
        out = trials.folder / f"killed {name} {trial}"
        command = words(trials, out, *(VARIANTS | AUTO)[name])
        for _ in range(rng.randint(1, 3)):
            child, moment = trials.start(*command), rng.randint(now := saves(out), max(now, saves(whole) - 1))
            until(lambda: saves(out) >= moment or ended(child))  # noqa: B023
            time.sleep(rng.uniform(0, 0.02))  # a step and its save
            os.killpg(child, signal.SIGKILL)
            code = trials.ask(child)
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


@pytest.mark.parametrize("name", VARIANTS)
def test_a_killed_run_ends_as_an_uninterrupted_one(trials: Trials, name: str) -> None:
    kill_and_resume(trials, name, 1, seed=1)


@pytest.mark.faults
@pytest.mark.parametrize("name", VARIANTS)
def test_twenty_killed_runs_end_as_uninterrupted_ones(trials: Trials, name: str) -> None:
    kill_and_resume(trials, name, 7, seed=2)


@pytest.mark.faults
def test_a_killed_run_of_as_many_epochs_as_pay_ends_as_an_uninterrupted_one(trials: Trials) -> None:
    kill_and_resume(trials, "auto", 3, seed=4)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_two_hundred_killed_runs_end_as_uninterrupted_ones(trials: Trials, name: str) -> None:
    kill_and_resume(trials, name, 67, seed=3)


def until(condition: Any, seconds: float = 60) -> None:
    """Wait until it holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_signals_save_say_how_to_go_on_and_lose_nothing(trials: Trials) -> None:
    whole = trials.folder / "whole signals"
    trials.run(*words(trials, whole))
    out = trials.folder / "signalled"
    command = words(trials, out, "--checkpoint-minutes", 60)
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        newest = max((int(folder.name) for folder in out.glob("checkpoints/[0-9]*")), default=0)
        child = trials.start(*command)
        until((out / "checkpoints" / f"{newest + 1:08d}").exists)
        os.kill(child, number)
        assert trials.ask(child) == code
        record = json.loads((out / "run.json").read_text())
        assert record["status"] == "interrupted" and record["reason"] == signal_name(number)
        said = (out / "log.txt").read_text()
        assert f"fastcls resume {out}" in said
        command = ["resume", out, "--trust"]
    assert "finishing the step and saving; once more stops at once" in (trials.folder / "log.txt").read_text()
    trials.run(*command)
    assert digest(out) == digest(whole)
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
    assert trials.ask(child) not in (0, 130, 143)
    flag.unlink()
    assert json.loads((out / "run.json").read_text())["status"] == "failed"
    state = json.loads((sorted((out / "checkpoints").glob("[0-9]*"))[-1] / "state.json").read_text())["state"]
    assert state["position"]["batch"] == 5, "all batches of the epoch are trained"
    trials.run("resume", out, "--trust")
    assert digest(out) == digest(trials.folder / "whole metric")


def test_a_loss_that_is_no_number_leaves_the_best_weights_and_names_them(trials: Trials) -> None:
    recipe = (trials.folder / "mine.py").read_text()
    (trials.folder / "diverges.py").write_text(
        recipe.replace("learn.fine_tune(epochs, 5e-3, freeze_epochs=1)", "learn.fit(1, 1e-3); learn.fit(1, 1e9)")
    )
    out = trials.folder / "diverged"
    child = trials.start(
        "recipe", trials.folder / "diverges.py", "--path", trials.folder / "images", "--precision", "fp32", "--out", out
    )
    assert trials.ask(child) == 6
    record = json.loads((out / "run.json").read_text())
    assert record["status"] == "failed" and "The loss became" in record["reason"]
    log = (out / "log.txt").read_text()
    (weights,) = out.glob("checkpoints/*/best.safetensors")
    assert str(weights) in log and "go on" not in log
    assert all(tensor.isfinite().all() for tensor in load_file(weights).values())


def test_a_finished_run_is_trained_further(trials: Trials) -> None:
    out, killed = trials.folder / "extended", trials.folder / "extended and killed"
    trials.run(*words(trials, out))
    shutil.copytree(out, killed)
    trials.run("resume", out, "--trust", "--extend-epochs", 2)
    with (out / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert float(rows[-1]["lr"]) < 1e-5 < float(rows[-2]["lr"]) < 5e-4
    child = trials.start("resume", killed, "--trust", "--extend-epochs", 2)
    until((killed / "checkpoints" / f"{28:08d}").exists)
    os.killpg(child, signal.SIGKILL)
    trials.ask(child)
    trials.run("resume", killed, "--trust")
    assert digest(killed) == digest(out)


def test_what_cannot_be_resumed_is_refused(trials: Trials, fastcls: Any, tmp_path: Path) -> None:
    out = trials.folder / "to refuse"
    child = trials.start(*words(trials, out))
    until((out / "checkpoints" / f"{2:08d}").exists)
    os.killpg(child, signal.SIGSTOP)
    busy = fastcls("resume", out, "--trust")
    assert busy.code == 4 and "Another process is training into" in busy.output
    os.killpg(child, signal.SIGKILL)
    trials.ask(child)
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
    assert changed.code == 3 and "are not those that" in changed.output
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(record | {"status": "done"}))
    finished = fastcls("resume", out, "--trust")
    assert finished.code == 2 and "is finished" in finished.output and "--extend-epochs" in finished.output
    assert fastcls("resume", tmp_path / "nothing").code == 4


def state(step: int) -> dict[str, Any]:
    rng = torch.Generator().manual_seed(step)
    weights = {f"{i}.weight": torch.randn(16, 8, 3, 3, generator=rng) for i in range(4)}
    return {"step": step, "lr": 0.1 + step / 3, "moments": (0.9, 0.99), "model": weights, "empty": [], 3: None}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path)
    for step in (1, 2, 3):
        found.save(state(step), state(1)["model"], best_epoch=1)
    return found


def test_a_checkpoint_comes_back_as_it_was_saved_and_two_are_kept(store: Store) -> None:
    assert [folder.name for folder in store.folders()] == ["00000002", "00000003"]
    found, refused = store.newest()
    assert found is not None and not refused
    expected = state(3)
    assert found.state.keys() == expected.keys() and found.state["moments"] == (0.9, 0.99)
    assert found.state["lr"] == expected["lr"]
    assert all(torch.equal(found.state["model"][name], expected["model"][name]) for name in expected["model"])
    best = [folder / "best.safetensors" for folder in store.folders()]
    assert best[0].samefile(best[1]), "the best weights are written once"
    listed = subprocess.run(["sha256sum", "-c", "MANIFEST"], cwd=found.folder, capture_output=True, text=True)
    assert listed.returncode == 0, listed


@pytest.mark.parametrize("kind", ["truncated", "flipped"])
def test_damaged_checkpoints_are_refused_every_time(store: Store, kind: str) -> None:
    """100 truncations, 100 flipped bits, in all files: the checkpoint before is taken each time."""
    newest = store.folders()[-1]
    rng = random.Random(0)
    files = [newest / name for name in ("state.safetensors", "state.json", "MANIFEST")]
    refusals = 0
    for i in range(100):
        file = files[i % 3]
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


def test_a_full_disk_costs_no_checkpoint(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file: file.read_bytes() for file in store.home.rglob("*") if file.is_file()}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="the disk is full") as refusal:
        store.save(state(4), {}, best_epoch=None)
    assert "fastcls resume" in refusal.value.hint
    assert {file: file.read_bytes() for file in store.home.rglob("*") if file.is_file()} == before


def test_leftovers_of_a_killed_save_are_swept(store: Store) -> None:
    (store.home / ".00000004").mkdir()
    (store.home / ".00000004" / "state.safetensors").write_bytes(b"half")
    assert store.newest()[0] is not None
    store.sweep()
    assert [path.name for path in sorted(store.home.iterdir())] == ["00000002", "00000003"]
