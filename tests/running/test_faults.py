"""What breaks while a run trains: each fault is named, and the run goes on as if it had not been."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import tempfile
from collections import namedtuple
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import Fastcls
from killable import RECIPE, VARIANTS, Trials, digest, until
from PIL import Image

from fastcls.errors import Diverged, OutputError, TrainingError
from fastcls.machine import host
from fastcls.machine.screen import Screen
from fastcls.runfolder import runs
from fastcls.running import auto_batch, faults
from fastcls.settings import options, sources
from fastcls.settings.request import Request
from fastcls.training import guard
from fastcls.training.checkpoints import Store

GREEDY = """
class Greedy(Module):
    "A network that takes more memory than there is from `most` images on"
    def __init__(self, net, most): self.net, self.most = net, most
    def forward(self, x):
        if self.training and len(x) > self.most:
            raise torch.OutOfMemoryError(f'CUDA out of memory. Tried to allocate {len(x)} GiB.')
        return self.net(x)

def get_learner("""


def edited(name: str, *changes: tuple[str, str]) -> Callable[[Trials], Path]:
    """The recipe of the killed runs with some text replaced, in a file of its own."""

    def write(trials: Trials) -> Path:
        text = RECIPE
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        file = trials.folder / f"{name}.py"
        file.write_text(text)
        return file

    return write


NAP = """
import time
def nap(x: PILImage):
    time.sleep(0.004)
    return x

def get_learner("""
NET = "models.cnn(3, dls.c, (8, 16), dropout=0.3)"
SQUISH = "else Resize(16, method='squish')"
slow = edited("slow", (SQUISH, SQUISH.replace("Resize", "[Resize") + ", Transform(nap)]"), ("def get_learner(", NAP))
greedy = edited(
    "greedy",
    ("def get_learner(", GREEDY),
    (f"net = {NET}", f"net = Greedy({NET}, 26)"),
    ("m: L(m[:3], m[3:])", "m: L(m.net[:3], m.net[3:])"),
)


def start(trials: Trials, recipe: Path, out: Path, *more: object) -> int:
    command = trials.words(out, *more)
    return trials.start("recipe", recipe, *command[2:])


def whole(trials: Trials, variant: str) -> dict[str, Any]:
    """What the run of a variant is without any fault, made once."""
    out = trials.folder / f"whole-{variant}".replace(" ", "-")
    if not out.exists():
        assert trials.wait(start(trials, slow(trials), out, *VARIANTS[variant])) == 0
    return digest(out)


def log(out: Path) -> str:
    return (out / "log.txt").read_text()


def said(trials: Trials) -> str:
    """Everything that the runs of these trials printed."""
    return (trials.folder / "log.txt").read_text()


def checkpoint(out: Path, number: int) -> Callable[[], bool]:
    return (out / "checkpoints" / f"{number:08d}").exists


@pytest.mark.faults
def test_a_killed_loader_process_is_named_and_the_run_goes_on(trials: Trials) -> None:
    out = trials.folder / "orphan"
    child = start(trials, slow(trials), out, *VARIANTS["two workers"])
    until(checkpoint(out, 2))
    workers = Path(f"/proc/{child}/task/{child}/children")
    until(lambda: bool(workers.read_text().split()))
    pid = int(workers.read_text().split()[0])
    os.kill(pid, signal.SIGKILL)
    assert trials.wait(child) == 6
    # the latter, and perhaps not finite, where its pipe breaks before the signal comes
    assert re.search(rf"A data loader worker( \(pid {pid}\))? (was killed \(Killed\)|ended unexpectedly)", said(trials))
    assert f"fastcls resume {out}" in log(out)
    assert json.loads((out / "run.json").read_text())["status"] == "failed"
    trials.run("resume", out, "--trust")
    assert digest(out) == whole(trials, "two workers")


@pytest.mark.faults
@pytest.mark.parametrize(
    ("damage", "loading"), [("vanished", "no workers"), ("truncated", "no workers"), ("vanished", "two workers")]
)
def test_an_image_lost_during_the_run_is_named_and_the_run_goes_on(
    trials: Trials, damage: str, loading: str, fastcls: Fastcls
) -> None:
    """Of images that are not kept decoded: they are read in every epoch."""
    out = trials.folder / f"{damage}-{loading}".replace(" ", "-")
    image = trials.folder / "images" / "red" / "7.png"
    held = image.read_bytes()
    child = start(trials, slow(trials), out, *VARIANTS[loading], "--cache-gb", 0)
    until(checkpoint(out, 2))
    try:
        image.unlink()
        if damage == "truncated":
            image.write_bytes(held[: len(held) // 2])
        assert trials.wait(child) == 3
        refused = fastcls("resume", out, "--trust")
        assert refused.code == 3 and ("1 missing (red/7.png)" if damage == "vanished" else "sizes") in refused.output
    finally:
        image.write_bytes(held)
    record = json.loads((out / "run.json").read_text())
    assert record["status"] == "failed" and str(image) in record["reason"]
    assert "Restore them, then continue" in said(trials) and f"fastcls resume {out}" in log(out)
    trials.run("resume", out, "--trust")
    assert digest(out) == whole(trials, loading)


@pytest.mark.faults
def test_a_disk_that_fills_up_costs_no_checkpoint_and_the_run_goes_on(trials: Trials) -> None:
    flag = trials.folder / "full"
    recipe = edited("full", ("def fit(", f"""
import errno, os
fsync = os.fsync
def full(handle):
    if Path({str(flag)!r}).exists(): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    fsync(handle)
os.fsync = full

def fit("""))(trials)  # fmt: skip
    out = trials.folder / "full-disk"
    child = start(trials, recipe, out)
    until(checkpoint(out, 3))
    flag.touch()
    assert trials.wait(child) == 4
    flag.unlink()
    printed = said(trials)
    assert "disk is full" in printed and "Earlier checkpoints are complete" in printed
    assert f"resume   fastcls resume {out}" in printed
    assert Store(out).newest()[0] is not None
    trials.run("resume", out, "--trust")
    assert digest(out) == whole(trials, "no workers")


@pytest.mark.faults
def test_a_clock_set_back_by_an_hour_changes_nothing_but_times_of_day(trials: Trials) -> None:
    recipe = edited("back", ("def fit(", """class Back(Callback):
    def after_epoch(self):
        import time
        own = time.time
        if self.epoch == 0: time.time = lambda: own() - 3600

def fit("""), ("learn.fine_tune(", "learn.add_cb(Back())\n    learn.fine_tune("))(trials)  # fmt: skip
    out = trials.folder / "clock"
    assert trials.wait(start(trials, recipe, out)) == 0
    assert digest(out)["history"] == whole(trials, "no workers")["history"]


def test_names_of_runs_are_in_order_when_the_clock_was_set_back(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    now = datetime(2026, 11, 21, 12, tzinfo=UTC)
    made = []
    for when in (now, now - timedelta(hours=1), now - timedelta(minutes=59), now + timedelta(hours=3)):
        made.append(runs.new_folder("digits-cnn", when))
        made[-1].mkdir(parents=True)
        (made[-1] / "run.json").write_text("{}")
        assert runs.find("last") == made[-1]
    assert made == runs.listing() and [run.name[:15] for run in made[1:3]] == ["20261121-120001", "20261121-120002"]
    assert runs.new_folder("digits-cnn", now - timedelta(days=400)).name.startswith("2025"), (
        "a clock that was years off"
    )


@pytest.mark.faults
def test_a_loss_that_is_not_finite_stops_within_a_step_where_losses_arrive_late(trials: Trials) -> None:
    """As on a GPU, whose losses are looked at one step later: no checkpoint of every step may hold the bad one."""
    recipe = edited("late", ("def fit(", """from fastcls.training.guard import Guard
Guard.at_once = staticmethod(lambda loss: False)
class Poison(Callback):
    def before_batch(self):
        if self.training and self.train_iter == 11: self.learn.xb = (self.xb[0] * float('nan'),)

def fit("""), ("learn.fine_tune(", "learn.add_cb(Poison())\n    learn.fine_tune("))(trials)  # fmt: skip
    out = trials.folder / "late"
    assert trials.wait(start(trials, recipe, out)) == 6
    reason = json.loads((out / "run.json").read_text())["reason"]
    assert reason.startswith("The loss became nan in epoch 4, batch 2, at a learning rate of")
    printed = said(trials)
    for cause in ("the learning rate: ", "the precision: it is fp32", "the data: "):
        assert cause in printed
    newest = Store(out).newest()[0]
    assert newest is not None and newest.state["callbacks"]["History#0"]["step"] == 16, "every sound step was saved"
    assert all(tensor.isfinite().all() for tensor in newest.state["model"].values())


def test_weights_that_are_not_finites_are_not_saved_though_the_loss_was_one() -> None:
    learn: Any = SimpleNamespace(model=torch.nn.Linear(2, 2), epoch=4, xb=(torch.ones(1, 2),), precision="bf16")
    guard.Guard().check(learn)
    learn.model.weight.data[1, 0] = float("inf")
    with pytest.raises(Diverged, match="Weights became NaN or infinite in epoch 5") as refused:
        guard.Guard().check(learn)
    assert "try --precision fp32" in refused.value.hint
    learn.xb = (torch.tensor([float("nan")]),)
    with pytest.raises(Diverged) as refused:
        guard.Guard().check(learn)
    assert refused.value.hint.splitlines()[1].startswith("  the data: after its transforms, this batch")


@pytest.mark.faults
def test_out_of_memory_says_what_to_turn_down_and_auto_batch_finds_what_fits(trials: Trials) -> None:
    recipe, out, other = greedy(trials), trials.folder / "greedy", trials.folder / "whole-greedy"
    assert trials.wait(start(trials, recipe, out, "--bs", 32)) == 6
    printed = said(trials)
    for way in ("CUDA", "--bs 16", "--auto-batch", "--accumulate 2", "smaller images", "--precision bf16"):
        assert way in printed.partition("Out of memory: ")[2]
    shutil.rmtree(out)
    assert trials.wait(start(trials, recipe, other, "--bs", 26)) == 0
    child = start(trials, recipe, out, "--auto-batch")
    until(checkpoint(out, 2))
    os.killpg(child, signal.SIGKILL)
    trials.wait(child)
    record = json.loads((out / "run.json").read_text())
    assert record["knobs"]["get_learner"]["bs"] == record["auto_batch"]["batch"] == 26
    assert " --bs 26" in record["command"] and "--auto-batch" not in record["command"]
    assert "28 does not fit: CUDA out of memory" in record["auto_batch"]["why"]
    trials.run("resume", out, "--trust")
    assert digest(out) == digest(other)


@pytest.fixture
def memory_of_100_images(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Trials that take 10 MB an image where a run may take 1 GB; gives the sizes that were tried for real."""
    trained: list[int] = []

    def train(self: Any, batch: int) -> auto_batch.Trial:
        self.images = 700
        trained.append(batch)
        return auto_batch.Trial(batch, batch <= 100, 1e7 * batch, "" if batch <= 100 else "no room")

    monkeypatch.setattr(auto_batch._Search, "_train", train)
    monkeypatch.setattr(host, "available", lambda: 2e9)
    return trained


@pytest.mark.parametrize("verb", [["recipe"], ["recipe", "--dry-run"], ["lr-find"]], ids=" ".join)
def test_batches_of_one_image_are_refused_where_batch_norm_has_one_value(
    verb: list[str], tmp_path: Path, fastcls: Fastcls
) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(4):
            Image.effect_noise((40, 40), 50 + i).save(tmp_path / "photos" / name / f"{i}.png")
    small = ["--arch", "timm/test_resnet", "--weights", "none", "--size", 32, "--epochs", 1]
    outcome = fastcls(verb[0], "folder", "--path", "photos", *small, "--bs", 1, *verb[1:])
    assert outcome.code == 6 and "on batches of one image (--bs 1)" in outcome.output, outcome.output
    assert "Use --bs 2 or more" in outcome.output


@pytest.mark.parametrize("bs", [3, 8, 64, 100, 400, 700])
def test_auto_batch_searches_up_and_down_and_never_tries_what_a_cpu_has_no_memory_for(
    bs: int, memory_of_100_images: list[int]
) -> None:
    words = "fastcls recipe x --bs=9 --auto-batch"
    request = Request(sources.find("digits-cnn"), {"bs": bs}, options.Options(device="cpu"), command=words)
    settled = auto_batch.settle(request, Screen(quiet=True))
    best = settled.knobs["bs"]
    assert 100 / (1 + 1 / 8) < best <= 100 and settled.command == f"fastcls recipe x --bs {best}"
    assert all(batch <= 100 for batch in memory_of_100_images if batch > bs)
    assert "steps per epoch." in settled.auto_batch["why"]


def test_auto_batch_gives_up_where_two_images_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(self: Any, batch: int) -> auto_batch.Trial:
        return auto_batch.Trial(batch, False, 0, "no room")

    monkeypatch.setattr(auto_batch._Search, "_train", train)
    with pytest.raises(TrainingError, match="Out of memory with a batch size of 2: no room"):
        auto_batch.settle(Request(sources.find("digits-cnn"), {}, options.Options(device="cpu")), Screen(quiet=True))


@pytest.mark.parametrize(
    ("problem", "full"),
    [
        (MemoryError(), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
            True,
        ),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (OSError(errno.ENOMEM, "x"), False),
    ],
)
def test_every_way_to_run_out_of_memory_is_known(problem: Exception, full: bool) -> None:
    assert host.ran_out(problem) is full


def test_out_of_memory_is_told_with_the_values_that_the_run_has() -> None:
    shown = faults.out_of_memory(RuntimeError("CUDA out of memory"), {"bs": 64, "size": 224}, "bf16")
    assert "--bs 32 --accumulate 2" in shown.hint and "--size 168" in shown.hint and "bf16" not in shown.hint
    assert "--bs 2 " in faults.out_of_memory(RuntimeError("out of memory"), {"bs": 3}, "fp32").hint
    for smallest in (1, 2):
        least = faults.out_of_memory(RuntimeError("out of memory"), {"bs": smallest, "size": 224}, "fp32")
        assert "--bs" not in least.hint and "--size 168" in least.hint, "batch norm needs two images"


def test_a_read_only_place_for_a_run_is_refused_before_anything_is_loaded(
    tmp_path: Path, fastcls: Fastcls, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(**_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    refused = fastcls("recipe", "digits-cnn", "--out", tmp_path / "run")
    assert refused.code == 4 and "Read-only file system" in refused.output and "--out" in refused.output
    assert "loading torch" not in refused.output and not (tmp_path / "run").exists()


Usage = namedtuple("Usage", "total used free")


@pytest.mark.faults
def test_a_disk_too_small_for_the_run_is_refused_before_training(
    tmp_path: Path, fastcls: Fastcls, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = shutil.disk_usage
    out = tmp_path / "run"

    def small(path: Any) -> Any:
        return Usage(10**9, 10**9 - 10**6, 10**6) if str(path).startswith(str(out)) else own(path)

    monkeypatch.setattr(shutil, "disk_usage", small)
    refused = fastcls("recipe", "digits-cnn", "--out", out, "--limit", 20)
    assert refused.code == 4 and "The run needs" in refused.output and "has 1 MB free" in refused.output
    assert not list(out.glob("*")) and "epoch" not in refused.output.lower()


@pytest.mark.faults
def test_images_gone_when_the_run_is_evaluated_do_not_cost_its_training(trials: Trials, fastcls: Fastcls) -> None:
    """Decoded images are trained on without their files; the report and the test of ONNX want to see some."""
    images, away = trials.folder / "images that go", trials.folder / "away"
    shutil.copytree(trials.folder / "images", images)
    change = f"here = Path({str(images)!r}); here.exists() and here.rename({str(away)!r})\n    learn.fine_tune("
    recipe, out = edited("goes", ("learn.fine_tune(", change))(trials), trials.folder / "gone"
    broken = fastcls("recipe", recipe, "--path", images, "--out", out, "--epochs", 1)
    assert broken.code == 3 and "cannot be read" in broken.output and f"{images}/" in broken.output
    assert f"resume   fastcls resume {out}" in broken.output and "those of the best epoch so far" in broken.output
    away.rename(images)
    (out / "recipe.py").write_text(recipe.read_text().replace(change, "learn.fine_tune("))
    done = fastcls("resume", out, "--trust")
    assert done.code == 0 and "resumed  after 10 steps" in done.output and (out / "report.html").is_file()


def test_a_full_disk_is_told_wherever_it_strikes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "history.csv").write_text("before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        runs.write_csv(tmp_path / "history.csv", ["epoch"], [[1]])
    assert (tmp_path / "history.csv").read_text() == "before" and len(list(tmp_path.iterdir())) == 1
