"""Several processes train as one does: its batches, its figures, one run folder; one that is killed ends the others.

Two processes on the CPU, over gloo.
"""

from __future__ import annotations

import json
import os
import random
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
from conftest import ROOT, Fastcls, python
from killable import Trials, digest, saves, until
from object_store import Store
from together import assert_same, history, record

from fastcls.errors import TrainingError
from fastcls.machine import launch, ranks

pytestmark = pytest.mark.further


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
def test_two_processes_train_what_one_does(several: Trials, alone: Path) -> None:
    out = several.folder / "two"
    several.several(2, *several.words("two"))
    assert_same(out, alone)
    assert {float(row["images"]) for row in history(out)} == {41.0}, "every prediction counts once"
    assert record(out)["device"]["processes"] == 2 and "2 × cpu" in several.log(0).read_text()
    assert several.log(1).read_text() == "", "the second process shows nothing"


@pytest.mark.faults
def test_so_do_they_with_loaders_of_items_accumulating_and_clipping(several: Trials) -> None:
    more = ["--no-pixels", "--accumulate", 2, "--clip", 1, "--epochs", 1]
    several.several(1, *several.words("items alone", *more))
    several.several(2, *several.words("items", *more))
    assert_same(several.folder / "items", several.folder / "items alone")


@pytest.mark.faults
def test_a_killed_process_ends_the_other_and_one_process_goes_on(several: Trials, alone: Path) -> None:
    out = several.folder / "killed"
    first, second = several.begin(2, *several.words("killed"))
    until(lambda: saves(out) > 8)
    os.kill(second, signal.SIGKILL)
    began = time.monotonic()
    assert several.wait(second) == -signal.SIGKILL and several.wait(first) == 6
    assert time.monotonic() - began < 300  # long before gloo gives up
    said = several.log(0).read_text()
    assert "Another process of this run ended" in said and f"fastcls resume {out}" in said and "Traceback" not in said
    assert record(out)["status"] == "failed"
    several.several(1, "resume", out, "--trust")
    assert_same(out, alone)
    assert any("processes 2 then, 1 now" in note for note in record(out)["notes"])


@pytest.mark.faults
def test_two_processes_go_on_with_what_one_began_and_a_signal_to_either_stops_both(
    several: Trials, alone: Path
) -> None:
    out = several.folder / "interrupted-0"
    (child,) = several.begin(1, *several.words("interrupted-0"))
    until(lambda: saves(out) > 4)
    os.kill(child, signal.SIGKILL)
    several.wait(child)
    before = saves(out)
    first, second = several.begin(2, "resume", out, "--trust")
    until(lambda: saves(out) > before + 2)
    for _ in range(2):  # a manager's signal to all, and the launcher's that passes it on
        os.kill(second, signal.SIGINT)
        time.sleep(0.05)
    assert (several.wait(first), several.wait(second)) == (130, 130)
    assert record(out)["status"] == "interrupted" and record(out)["reason"] == "Ctrl-C"
    # to the second one, which may be on another machine, the folder need not be there
    several.several(2, "resume", several.folder / "interrupted-{rank}", "--trust")
    assert_same(out, alone)


@pytest.mark.faults
def test_two_processes_write_a_part_each_of_very_many_predictions(several: Trials, alone: Path) -> None:
    from fastcls.runfolder import predictions

    pytest.importorskip("pyarrow", reason="needs pyarrow")
    recipe = several.folder / "many.py"
    text = (several.folder / "mine.py").read_text()
    recipe.write_text(
        text.replace(
            "def get_learner", "from fastcls.runfolder import predictions\npredictions.MANY = 10\n\ndef get_learner", 1
        )
    )
    tables = []
    for count, own in ((1, recipe), (2, recipe), (1, several.folder / "mine.py")):
        words = several.words(f"many {len(tables)}", "--epochs", 1)
        words[1] = own
        several.several(count, *words, whole=True)
        tables.append(predictions.of_run(several.folder / f"many {len(tables)}", probabilities=True))
    runs = [several.folder / f"many {i}" for i in range(3)]
    assert [sorted(file.name for file in (run / "predictions").glob("*")) for run in runs] == [
        ["valid-00000.parquet"],
        ["valid-00000.parquet", "valid-00001.parquet"],
        [],
    ]
    for table in tables[:2]:
        own, whole = (one.sort_values("path", ignore_index=True) for one in (table, tables[2]))
        assert (own[["path", "label", "prediction"]] == whole[["path", "label", "prediction"]]).all(axis=None)
        np.testing.assert_allclose(own["loss"], whole["loss"], rtol=1e-5)
    one, two, small = (json.loads((run / "metrics.json").read_text())["valid"] for run in runs)
    assert one["accuracy"] == two["accuracy"] == small["accuracy"] and one["macro_f1"] == two["macro_f1"]
    assert two["loss"]["value"] == pytest.approx(small["loss"]["value"], rel=1e-6)
    assert "a random sample of" in (runs[1] / "report.html").read_text()


COUNTED = """
import torch.distributed as dist
calls = [0]

def counting(collective):
    def call(*args, **kwargs):
        calls[0] += 1
        return collective(*args, **kwargs)
    return call

for name in ("all_reduce", "all_gather", "broadcast", "barrier"):
    setattr(dist, name, counting(getattr(dist, name)))

class Count(Callback):
    order = -100
    def before_train(self): self.before = calls[0]
    def after_train(self): print(f"{len(self.dls.train)} steps, {calls[0] - self.before} collectives")

def fit(learn, epochs: int = 1):
    learn.fit_one_cycle(epochs, 5e-3, cbs=Count())
"""


@pytest.mark.faults
def test_no_step_has_a_collective_but_those_of_ddp(several: Trials) -> None:
    recipe = several.folder / "counted.py"
    recipe.write_text((several.folder / "mine.py").read_text().partition("def fit(")[0] + COUNTED)
    words = several.words("counted", "--checkpoint-minutes", 60, "--no-sync-norm")
    words[1] = recipe
    several.several(2, *words)
    assert "5 steps, 0 collectives" in several.log(0).read_text()


@pytest.mark.faults
def test_a_loss_of_one_process_that_is_not_finite_ends_both_and_is_not_saved(several: Trials) -> None:
    recipe = several.folder / "spoilt.py"
    spoil = """
class Spoil(Callback):
    order = 5  # before the loss is looked at
    def after_pred(self):
        import torch.distributed as dist
        if self.training and self.iter == 2 and dist.get_rank() == 1:
            self.learn.pred = self.pred * float("nan")

def fit(learn, epochs: int = 1):
    learn.fit_one_cycle(epochs, 5e-3, cbs=Spoil())
"""
    recipe.write_text((several.folder / "mine.py").read_text().partition("def fit(")[0] + spoil)
    words = several.words("spoilt", "--checkpoint-minutes", 60)
    words[1] = recipe
    assert [several.wait(child) for child in several.begin(2, *words)] == [6, 6]
    said = several.log(0).read_text()
    assert "The loss became nan in epoch 1, batch 3" in said and "Traceback" not in said
    assert saves(several.folder / "spoilt") == 0


def figures(run: Path) -> dict[str, Any]:
    """What two runs must have in common, to the bit, the pass over their images among it."""
    return digest(run) | {name: (run / name).read_bytes() for name in ("metrics.json", "predictions.csv")}


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_a_whole_job_that_is_killed_comes_back_by_the_same_command(several: Trials) -> None:
    """SIGKILL to both processes at random moments of the whole run, report and all; FASTCLS_KILLS of them."""
    rng, kills, wanted = random.Random(5), 0, int(os.environ.get("FASTCLS_KILLS", "1"))
    whole, began = several.folder / "whole job", time.monotonic()
    several.several(2, *several.words("whole job", "--resume", "auto"), whole=True)
    length, trial = time.monotonic() - began, 0
    while kills < wanted:
        out, words = several.folder / f"job {trial}", several.words(f"job {trial}", "--resume", "auto")
        for _ in range(rng.randint(1, 3)):
            children = several.begin(2, *words, whole=True)
            time.sleep(rng.uniform(0, length))
            for child in rng.sample(children, 2):
                os.kill(child, signal.SIGKILL)
            killed = [several.wait(child) for child in children]
            kills += -signal.SIGKILL in killed
        several.several(2, *words, whole=True)
        assert figures(out) == figures(whole), f"trial {trial}"
        shutil.rmtree(out)
        trial += 1
    print(f"{kills} kills in {trial} jobs")


@pytest.mark.faults
def test_what_they_cannot_do_together_is_said_once_by_whom_it_concerns(several: Trials) -> None:
    other = several.folder / "images-1"
    shutil.copytree(several.folder / "images", other)
    (several.folder / "images-0").symlink_to(several.folder / "images")
    with (other / "red" / "0.png").open("ab") as image:
        image.write(b"\0")
    words = [*several.words("other images"), "--path", several.folder / "images-{rank}"]
    assert [several.wait(child) for child in several.begin(2, *words)] == [3, 3]
    said = several.log(0).read_text()
    assert "Rank 1 of 2 processes has different images" in said and "fastcls check" in said
    assert several.log(1).read_text().startswith(f"rank 1 on {socket.gethostname()}: error: ")
    odd = several.begin(2, *several.words("odd", "--bs", 15))
    assert [several.wait(child) for child in odd] == [2, 2]
    assert "2 processes cannot share a batch of 15" in several.log(0).read_text()
    assert "--bs 14 or 16" in several.log(0).read_text()
    unused = several.begin(2, *several.words("unused", "--unused"))
    assert [several.wait(child) for child in unused] == [6, 6]
    assert "get no gradient" in several.log(0).read_text()


@pytest.mark.faults
def test_two_processes_train_from_a_store_the_network_of_the_folder(
    several: Trials, store: Store, fastcls: Fastcls
) -> None:
    images, shards, folder = several.folder / "images", several.folder / "shards", several.folder / "folder"
    assert fastcls("pack", images, store.address, "--shard-mb", "0.02").code == 0
    words = ["recipe", "folder", "--arch", "timm/test_convnext", "--weights", "none", "--size", 32, "--bs", 16]
    words += ["--epochs", 1, "--device", "cpu", "--precision", "fp32", "--cache-gb", 0]
    for path, out in ((store.address, shards), (images, folder)):
        several.several(2, *words, "--path", path, "--out", out, env=store.env)
    assert digest(shards) == digest(folder)


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
    fastcls: Fastcls, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused(code: int, *said: str, words: str) -> None:
        outcome = fastcls(*words.split())
        assert outcome.code == code and all(text in outcome.output for text in said), outcome.output

    refused(2, "--gpus and --processes", words="recipe digits-cnn --gpus 2 --processes 2")
    refused(2, "--gpus 2 and --device cpu", words="recipe digits-cnn --gpus 2 --device cpu")
    refused(2, "--processes 0: expected", words="recipe digits-cnn --processes 0")
    refused(2, "--processes 9999: expected at most", words="recipe digits-cnn --processes 9999")
    refused(2, "--ba", words="recipe digits-cnn --processes 2 --bas 3")
    assert not list(tmp_path.iterdir())
    for name, value in {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    refused(2, "4 processes were started", "recipe or resume", words="runs")
    refused(2, "2 processes were started on this machine, and --gpus is 4", words="recipe digits-cnn --gpus 4")


@pytest.mark.parametrize(
    ("rank", "world", "said"),
    [
        ("x", "2", "RANK is 'x', not a number"),
        ("0", "many", "WORLD_SIZE is 'many', not a number"),
        ("-1", "2", "RANK is '-1', not a number"),
        ("5", "2", "RANK=5: of WORLD_SIZE=2 processes the last is 1"),
    ],
)
def test_an_environment_that_cannot_be_of_a_process_is_refused(rank: str, world: str, said: str) -> None:
    words = ["-c", "import sys; from fastcls.cli import main; sys.argv[1:] = ['runs']; main()"]
    outcome = python(*words, env={"RANK": rank, "WORLD_SIZE": world})
    assert outcome.returncode == 5 and said in outcome.stderr and "Traceback" not in outcome.stderr, outcome.stderr


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
    fastcls: Fastcls, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    outcome = fastcls("recipe", "digits-cnn", "--bas", 3)
    assert outcome.code == 2 and "accelerate launch was given several processes but started one" in outcome.output
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
