"""Several processes train as one does: its batches, its figures, one run folder; one that is killed ends the others.

Two processes on the CPU, over gloo. The network computes in 64 bits, so that what is left of the difference between
averaging two halves of a batch and summing the whole is far below any mistake in sharing out images, in the moments of
batch norm, in gradients or in figures: those would show in the first digits.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from killable import Trials
from PIL import Image

from fastcls.errors import TrainingError
from fastcls.machine import launch, ranks

RECIPE = '''"""Augmentation, batch norm, a frozen phase and a whole one, in 64 bits."""
from fastai.vision.all import *
from fastcls import data, models, transforms

class Exact(nn.Module):
    def __init__(self, net, unused):
        super().__init__()
        self.net, self.unused = net.double(), nn.Linear(1, 1) if unused else nn.Identity()

    def forward(self, x): return self.net(x.double())

def counted(preds, targs): return float(len(preds))

def get_learner(path: str, bs: int = 16, pixels: bool = True, unused: bool = False):
    block = DataBlock(blocks=(ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label,
                      splitter=data.stratified(parent_label, 0.3),
                      item_tfms=transforms.resize(16) if pixels else Resize(16, method='squish'),
                      batch_tfms=transforms.augment(flip=True, rotate=10., translate=0.1, jitter=0.2))
    dls = data.loaders(block, path, bs=bs)
    net = Exact(models.cnn(3, dls.c, (8, 16)), unused)
    return models.learner(dls, net, metrics=[accuracy, AccumMetric(counted, dim_argmax=-1, name='images')],
                          splitter=lambda m: L(m.net[:3], nn.ModuleList([m.net[3:], m.unused])).map(params))

def fit(learn, epochs: int = 2):
    learn.fine_tune(epochs, 5e-3, freeze_epochs=1)
'''
IMAGES = {"red": 47, "green": 45, "blue": 44}  # 41 to validate with: two processes cannot share them evenly


class Several(Trials):
    """Runs of any number of processes, forked from one that has imported everything."""

    def begin(self, count: int, *words: object, env: dict[str, str] | None = None) -> list[int]:
        """The process numbers, by rank; what each shows goes to rank-<n>.txt."""
        store = self.folder / f"store {time.monotonic_ns()}"
        started = []
        for rank in range(count):
            log = self.log(rank)
            log.unlink(missing_ok=True)
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
            shown = {**place, ranks.RENDEZVOUS: store.as_uri()} if count > 1 else {}
            shown = {name: str(value) for name, value in shown.items()} | (env or {})
            mine = [str(word).replace("{rank}", str(rank)) for word in words]
            started.append(self.ask({"words": [str(log), *mine], "env": shown}))
        return started

    def several(self, count: int, *words: object) -> None:
        for rank, child in enumerate(self.begin(count, *words)):
            assert self.ask(child) == 0, self.log(rank).read_text()[-3000:]

    def log(self, rank: int) -> Path:
        return self.folder / f"rank-{rank}.txt"

    def words(self, out: str, *more: object) -> list[object]:
        recipe, images = self.folder / "mine.py", self.folder / "images"
        common = ["--device", "cpu", "--precision", "fp32", "--checkpoint-minutes", 0, "--seed", 7]
        return ["recipe", recipe, "--path", images, "--out", self.folder / out, *common, *more]


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    folder = tmp_path_factory.mktemp("several")
    draw(folder / "images")
    (folder / "mine.py").write_text(RECIPE)
    found = Several(folder, "fastcls.training.parallel")
    with found.server:
        yield found
        found.server.kill()


def draw(home: Path) -> None:
    rng = np.random.default_rng(0)
    for channel, (klass, count) in enumerate(IMAGES.items()):
        (home / klass).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 200, (16, 16, 3))
            pixels[4:9, 4:9, channel] += 55
            Image.fromarray(pixels.astype(np.uint8)).save(home / klass / f"{i}.png")


@pytest.fixture(scope="module")
def alone(several: Several) -> Path:
    """What one process makes of it."""
    several.several(1, *several.words("alone"))
    return several.folder / "alone"


def state(run: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    (newest,) = sorted((run / "checkpoints").glob("[0-9]*"))[-1:]
    return {name: load_file(newest / f"{name}.safetensors") for name in ("state", "best")}


def history(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def assert_same(run: Path, other: Path) -> None:
    """Every tensor of the last checkpoint, the best weights, and every figure of the history, but for rounding."""
    for name, tensors in state(run).items():
        expected = state(other)[name]
        assert tensors.keys() == expected.keys() and not any("module." in key for key in tensors)
        for key, value in tensors.items():
            rounding = 1e-9 if value.dtype == np.float64 else 1e-6  # losses are kept in 32 bits
            np.testing.assert_allclose(value, expected[key], rounding, 1e-12, err_msg=f"{name} {key}")
    rows, expected_rows = history(run), history(other)
    assert len(rows) == len(expected_rows)
    for row, expected_row in zip(rows, expected_rows, strict=True):
        for name in ("train_loss", "valid_loss", "accuracy", "images", "lr", "step"):
            assert float(row[name]) == pytest.approx(float(expected_row[name]), rel=1e-6), name
        assert row["phase"] == expected_row["phase"]
    record, expected_record = (json.loads((folder / "run.json").read_text()) for folder in (run, other))
    assert record["best_epoch"] == expected_record["best_epoch"] and record["status"] == "done"


def record(run: Path) -> dict[str, Any]:
    return json.loads((run / "run.json").read_text())


def until(condition: Any, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def saves(run: Path) -> int:
    return max((int(folder.name) for folder in (run / "checkpoints").glob("[0-9]*")), default=0)


def test_the_processes_batches_are_the_whole_batch() -> None:
    from fastcls.data.dataloaders import shard

    order = np.random.default_rng(0).permutation(103)
    for world, drop_last in ((2, True), (2, False), (4, True), (4, False), (8, False)):
        bs = 16
        parts = [shard(order, bs, drop_last, ranks.Place(rank, world)) for rank in range(world)]
        assert len({len(part) for part in parts}) == 1, "every process takes as many steps"
        batches = [order[i : i + bs] for i in range(0, len(order), bs)]
        for number, batch in enumerate(batches[:-1] if drop_last else batches):
            share = bs // world
            found = np.stack([part[number * share : (number + 1) * share] for part in parts], 1).flatten()
            assert (found[: len(batch)] == batch).all(), "put together in turn they are the batch"
            assert set(found) == set(batch), "what fills up the last one comes from it"


@pytest.mark.faults
def test_two_processes_train_what_one_does(several: Several, alone: Path) -> None:
    out = several.folder / "two"
    several.several(2, *several.words("two"))
    assert_same(out, alone)
    assert {float(row["images"]) for row in history(out)} == {41.0}, "every prediction counts once"
    assert record(out)["device"]["processes"] == 2 and "2 × cpu" in several.log(0).read_text()
    assert several.log(1).read_text() == "", "the second process shows nothing"


@pytest.mark.faults
def test_so_do_they_with_loaders_of_items_accumulating_and_clipping(several: Several) -> None:
    more = ["--no-pixels", "--accumulate", 2, "--clip", 1, "--epochs", 1]
    several.several(1, *several.words("items alone", *more))
    several.several(2, *several.words("items", *more))
    assert_same(several.folder / "items", several.folder / "items alone")


@pytest.mark.faults
def test_a_killed_process_ends_the_other_and_one_process_goes_on(several: Several, alone: Path) -> None:
    out = several.folder / "killed"
    first, second = several.begin(2, *several.words("killed"))
    until(lambda: saves(out) > 8)
    os.kill(second, signal.SIGKILL)
    began = time.monotonic()
    assert several.ask(second) == -signal.SIGKILL and several.ask(first) == 6
    assert time.monotonic() - began < 300  # long before gloo gives up
    said = several.log(0).read_text()
    assert "Another process of this run ended" in said and f"fastcls resume {out}" in said and "Traceback" not in said
    assert record(out)["status"] == "failed"
    several.several(1, "resume", out, "--trust")
    assert_same(out, alone)
    assert any("processes 2 then, 1 now" in note for note in record(out)["notes"])


@pytest.mark.faults
def test_two_processes_go_on_with_what_one_began_and_a_signal_to_either_stops_both(
    several: Several, alone: Path
) -> None:
    out = several.folder / "interrupted-0"
    (child,) = several.begin(1, *several.words("interrupted-0"))
    until(lambda: saves(out) > 4)
    os.kill(child, signal.SIGKILL)
    several.ask(child)
    before = saves(out)
    first, second = several.begin(2, "resume", out, "--trust")
    until(lambda: saves(out) > before + 2)
    for _ in range(2):  # a manager's signal to all, and the launcher's that passes it on
        os.kill(second, signal.SIGINT)
        time.sleep(0.05)
    assert (several.ask(first), several.ask(second)) == (130, 130)
    assert record(out)["status"] == "interrupted" and record(out)["reason"] == "Ctrl-C"
    # to the second one, which may be on another machine, the folder need not be there
    several.several(2, "resume", several.folder / "interrupted-{rank}", "--trust")
    assert_same(out, alone)


@pytest.mark.faults
def test_what_they_cannot_do_together_is_said_once_by_whom_it_concerns(several: Several) -> None:
    other = several.folder / "images-1"
    shutil.copytree(several.folder / "images", other)
    (several.folder / "images-0").symlink_to(several.folder / "images")
    with (other / "red" / "0.png").open("ab") as image:
        image.write(b"\0")
    words = [*several.words("other images"), "--path", several.folder / "images-{rank}"]
    assert [several.ask(child) for child in several.begin(2, *words)] == [3, 3]
    said = several.log(0).read_text()
    assert "Rank 1 of 2 processes has other images" in said and "fastcls check" in said
    assert several.log(1).read_text().startswith(f"rank 1 on {socket.gethostname()}: error: ")
    odd = several.begin(2, *several.words("odd", "--bs", 15))
    assert [several.ask(child) for child in odd] == [2, 2]
    assert "2 processes cannot share a batch of 15" in several.log(0).read_text()
    assert "--bs 14 or 16" in several.log(0).read_text()
    unused = several.begin(2, *several.words("unused", "--unused"))
    assert [several.ask(child) for child in unused] == [6, 6]
    assert "get no gradient" in several.log(0).read_text()


def start(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let `launch` start a script instead of this very command."""
    monkeypatch.setattr(
        sys, "orig_argv", ["python", "-c", "import os, signal, sys, time\nrank = os.environ['RANK']\n" + script]
    )
    monkeypatch.setattr(os, "environ", os.environ.copy())  # which the launcher adds to


@pytest.fixture
def handlers() -> Iterator[None]:
    """What listens to signals is again what it was: torch's agent leaves its own."""
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT
    before = [signal.getsignal(number) for number in numbers]
    yield
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which drops one that waits
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
class TestLauncher:
    def test_gives_each_process_its_place(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        names = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", ranks.FOLDER]
        start(monkeypatch, f"open({str(tmp_path)!r} + '/' + rank, 'w').write(' '.join(os.environ[n] for n in {names}))")
        assert launch.launch(2, Path("run")) == 0
        assert [(tmp_path / rank).read_text() for rank in "01"] == ["0 0 2 2 run", "1 1 2 2 run"]

    def test_says_who_was_killed_and_ends_the_others(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "checkpoints" / "00000001").mkdir(parents=True)
        start(monkeypatch, "os.kill(os.getpid(), signal.SIGKILL) if rank == '1' else time.sleep(600)")
        began = time.monotonic()
        with pytest.raises(TrainingError) as refusal:
            launch.launch(2, tmp_path)
        assert time.monotonic() - began < 300
        assert "Rank 1 of 2 processes was killed by SIGKILL" in refusal.value.message
        assert f"fastcls resume {tmp_path} --processes 2" in refusal.value.hint

    def test_shows_what_a_silent_process_died_of(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        start(monkeypatch, "sys.exit('no such image on this machine') if rank == '1' else time.sleep(600)")
        assert launch.launch(2, tmp_path) == 1
        said = capfd.readouterr().err
        assert said == "Rank 1 of 2 processes ended with exit code 1:\nno such image on this machine\n"
        start(monkeypatch, "time.sleep(rank == '1'); print('the same', file=sys.stderr); sys.exit(3)")
        assert launch.launch(2, tmp_path) == 3
        assert capfd.readouterr().err == "the same\n", "what all die of, the first one says"

    @pytest.mark.parametrize(("number", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
    def test_passes_signals_on_and_waits(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: str, code: int
    ) -> None:
        start(
            monkeypatch,
            f"def save(*_): time.sleep(0.5); open({str(tmp_path)!r} + '/' + rank, 'w'); sys.exit({code})\n"
            f"signal.signal(signal.{number}, save)\n"
            f"if rank == '0': time.sleep(0.5); os.kill(os.getppid(), signal.{number})\n"
            "time.sleep(600)",
        )
        assert launch.launch(2, tmp_path) == code
        assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]

    def test_lets_a_hang_up_under_nohup_disturb_nobody(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        start(monkeypatch, "time.sleep(0.5); os.kill(os.getppid(), signal.SIGHUP); time.sleep(0.5)")
        assert launch.launch(2, tmp_path) == 0


def test_a_process_ends_when_its_launcher_is_gone() -> None:
    script = "import time; from fastcls.machine import launch; launch.follow(); print(flush=True); time.sleep(600)"
    launcher = f"import os, subprocess, sys; os.environ[{launch.LAUNCHER!r}] = str(os.getpid())\n"
    launcher += f"child = subprocess.Popen([sys.executable, '-c', {script!r}]); print(child.pid, flush=True)\n"
    launcher += "child.wait()"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", launcher], stdout=subprocess.PIPE, env=env)
    assert process.stdout
    child = int(process.stdout.readline())
    process.stdout.readline()  # it follows
    process.kill()
    process.wait()
    until(lambda: not Path(f"/proc/{child}").exists(), 60)


def test_a_command_line_that_cannot_be_met_is_refused(
    fastcls: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused(code: int, *said: str, words: str) -> None:
        outcome = fastcls(*words.split())
        assert outcome.code == code and all(text in outcome.output for text in said), outcome.output

    refused(2, "--gpus and --processes", words="recipe digits-cnn --gpus 2 --processes 2")
    refused(2, "--gpus 2 and --device cpu", words="recipe digits-cnn --gpus 2 --device cpu")
    refused(2, "--processes 0: takes", words="recipe digits-cnn --processes 0")
    refused(2, "--processes 9999: takes at most", words="recipe digits-cnn --processes 9999")
    refused(2, "--ba", words="recipe digits-cnn --processes 2 --bas 3")
    assert not list(tmp_path.iterdir())
    for name, value in {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    refused(2, "4 processes were started", "recipe or resume", words="runs")
    refused(2, "2 processes were started on this machine, and --gpus asks for 4", words="recipe digits-cnn --gpus 4")


def test_processes_without_a_gpu_each_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from fastcls.errors import EnvironmentProblem
    from fastcls.machine import devices
    from fastcls.settings import options

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(EnvironmentProblem, match=r"2 processes on this machine need 2 CUDA GPUs; torch finds 1"):
        devices.device()
    with options.using(options.Options(device="cpu")):
        assert devices.device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.device() == torch.device("cuda", 1)


def test_accelerate_that_started_one_process_of_several_is_noticed(
    fastcls: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    outcome = fastcls("recipe", "digits-cnn", "--bas", 3)
    assert outcome.code == 2 and "accelerate launch was asked for several processes and started one" in outcome.output
    assert "--device cpu --processes N" in outcome.output


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


SMALL = "--path images --epochs 1 --limit 20 --filters 8,16 --device cpu --precision fp32 --out run"
NODES = "-m torch.distributed.run --nnodes 2 --nproc-per-node 1 --master-addr 127.0.0.1 --master-port PORT --node-rank"
WAYS = {  # to start two processes: a command a machine
    "one machine": ["-m fastcls recipe ./mine.py --processes 2"],
    "torchrun": ["-m torch.distributed.run --standalone --nproc-per-node 2 -m fastcls recipe ./mine.py"],
    "accelerate": [
        "-m accelerate.commands.launch --multi_gpu --num_processes 2 --main_process_port PORT "
        "-m fastcls recipe ./mine.py"
    ],
    "two machines": [f"{NODES} {rank} -m fastcls recipe ./mine.py" for rank in (0, 1)],
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_start_them_ends_in_one_whole_run(way: str, digits_run: Path, tmp_path: Path) -> None:
    """Whatever starts them; of two machines each has the recipe and the images, and the first one the run folder."""
    images = Path(record(digits_run)["data"]["root"])
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    port, started = str(free_port()), []
    for rank, words in enumerate(WAYS[way]):
        machine = tmp_path / f"machine-{rank}"
        shutil.copytree(images, machine / "images")
        shutil.copy(ROOT / "recipes" / "digits-cnn.py", machine / "mine.py")
        command = [sys.executable, *f"{words} {SMALL}".replace("PORT", port).split()]
        started.append(subprocess.Popen(command, cwd=machine, env=env, stdout=subprocess.PIPE, text=True))
    said = [process.communicate(timeout=500)[0] for process in started]
    assert [process.returncode for process in started] == [0] * len(started), said
    run = tmp_path / "machine-0" / "run"
    assert record(run)["status"] == "done" and record(run)["device"]["processes"] == 2
    assert (run / "report.html").is_file() and (run / "model.onnx").is_file()
    assert said[0].count("accuracy") >= 2 and said[1:] in ([], [""])
    assert sorted(path.name for path in (tmp_path / f"machine-{len(started) - 1}").iterdir()) == sorted(
        ["images", "mine.py", *(["run"] if len(started) == 1 else [])]
    )
