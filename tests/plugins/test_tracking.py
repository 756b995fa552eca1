"""--track: a run that is interrupted, resumed and extended is one run in each tracker, read back by its own reader."""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import Fastcls, command
from folders import csv_rows

from fastcls.errors import OutputError
from fastcls.machine import extras
from fastcls.settings.options import TRACKERS

# libraries that other people warn about in their own ways
pytestmark = pytest.mark.filterwarnings("default")

THERE = [name for name in TRACKERS if not extras.MODULES.get(name) or not extras.missing(name)]
RECIPE = '''"""Digits in two phases, as fine_tune has them, in batches of 8."""
from fastai.vision.all import *
from fastcls import data, datasets, models

def get_learner(bs: int = 8, filters: tuple[int, ...] = (8, 16)):
    block = DataBlock(blocks=(ImageBlock(PILImageBW), CategoryBlock), get_items=get_image_files, get_y=parent_label,
                      splitter=data.stratified(parent_label, 0.2))
    dls = data.loaders(block, datasets.digits(""), bs=bs)
    return models.learner(dls, models.cnn(1, dls.c, filters), metrics=accuracy,
                          splitter=lambda m: L(m[:2], m[2:]).map(params))

def fit(learn, epochs: int = 2):
    learn.fine_tune(epochs, 1e-2, freeze_epochs=1)
'''
STOPPED = 37  # a step inside the second of three epochs, of 30 steps each: it is saved
FAILED = 55  # a later one that is not; those from 37 on are trained again


@dataclass
class Tracked:
    """The run, what its four commands printed, its steps, and a home folder that should have stayed empty."""

    run: Path
    outputs: list[str]
    home: Path
    looks: list[tuple[bool, int]]  # after each batch: whether it was to be shown, and torch's operations for it

    @property
    def history(self) -> list[dict[str, str]]:
        return csv_rows(self.run / "history.csv")

    @property
    def steps(self) -> list[int]:
        """Which steps are shown: every twentieth of an epoch and its last."""
        ends = [int(row["step"]) for row in self.history]
        begins = [0, *ends[:-1]]
        return [step for b, e in zip(begins, ends, strict=True) for step in (*range(b + 20, e, 20), e)]

    def wanted(self, tracker: str) -> None:
        if tracker not in THERE:
            pytest.skip(f"needs the extra {tracker}")


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory, data_cache: None) -> Iterator[Tracked]:
    folder = tmp_path_factory.mktemp("tracked")
    (folder / "mine.py").write_text(RECIPE)
    run = folder / "run"
    from torch.utils._python_dispatch import TorchDispatchMode

    from fastcls.plugins.tracking.tracker import Watching
    from fastcls.training.history import History

    looks: list[tuple[bool, int]] = []
    after_batch, called = History.after_batch, Watching.__call__
    planned = {STOPPED: "stopped", FAILED: "failed"}

    class Counting(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.count += 1
            return function(*args, **(kwargs or {}))

    def counted(self: Watching, event_name: str) -> Any:
        if event_name != "after_batch" or not self.training:
            return called(self, event_name)
        due = self.due
        with Counting() as operations:
            called(self, event_name)
        looks.append((due, operations.count))

    def break_once(self: History) -> None:
        after_batch(self)
        if self.training and (what := planned.pop(self.step, None)) == "stopped":
            os.kill(os.getpid(), signal.SIGTERM)
        elif self.training and what == "failed":
            raise OutputError("no room")

    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_"))]:
            patch.delenv(name)
        (folder / "home").mkdir()
        patch.setenv("HOME", str(folder / "home"))
        patch.setenv("NETRC", str(folder / "home" / "none"))
        patch.setenv("WANDB_PROJECT", "digits of mine")
        patch.setattr(History, "after_batch", break_once)
        patch.setattr(Watching, "__call__", counted)
        words = ["recipe", folder / "mine.py", "--limit", 24, "--out", run, "--seed", 5, "--no-fused"]
        outcomes = [command(*words, "--track", ",".join(THERE))]
        more = [[], [], ["--extend-epochs", 1]]
        outcomes += [command("resume", run, "--trust", *words) for words in more]
        assert [outcome.code for outcome in outcomes] == [143, 4, 0, 0], outcomes[-1].output[-3000:]
        yield Tracked(run, [outcome.output for outcome in outcomes], folder / "home", looks)


def test_an_unknown_tracker_is_refused_before_anything_is_imported(fastcls: Fastcls) -> None:
    outcome = fastcls("recipe", "digits-cnn", "--track", "csv,tensorbord", "--out", "run")
    assert outcome.code == 2 and not Path("run").exists()
    assert "--track tensorbord: expected csv, tensorboard, wandb, mlflow; did you mean 'tensorboard'?" in outcome.output


def test_a_missing_library_is_answered_with_the_command_that_installs_it(
    fastcls: Fastcls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    outcome = fastcls("recipe", "digits-cnn", "--track", "csv,wandb,mlflow", "--out", "run")
    assert outcome.code == 5 and not Path("run").exists()
    assert "--track wandb,mlflow needs wandb and mlflow, which are not installed." in outcome.output
    assert "pip install 'wandb>=" in outcome.output and "'mlflow>=" in outcome.output


def test_a_run_whose_tracker_is_gone_is_not_resumed_without_it(
    fastcls: Fastcls, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("run").mkdir()
    Path("run/run.json").write_text('{"recipe": "digits-cnn", "status": "interrupted", "options": {"track": "mlflow"}}')
    monkeypatch.setitem(sys.modules, "mlflow", None)
    outcome = fastcls("resume", "run")
    assert outcome.code == 5 and "pip install 'mlflow>=" in outcome.output


@pytest.mark.published
def test_one_run_is_told_of_in_its_folder_and_on_the_terminal(tracked: Tracked) -> None:
    record = json.loads((tracked.run / "run.json").read_text())
    assert set(record["tracking"]) == set(THERE) and record["status"] == "done"
    assert not [note for note in record["notes"] if "--track" in note]
    for output in tracked.outputs[2:]:
        assert output.count("tracked  ") == len(THERE)
    strays = [file for file in tracked.home.rglob("*") if any(name in str(file).lower() for name in THERE)]
    assert not strays


@pytest.mark.published
def test_between_told_steps_nothing_is_asked_of_the_device(tracked: Tracked) -> None:
    assert sum(count > 0 for due, count in tracked.looks if due) >= len(tracked.steps) * len(THERE)
    between = [count for due, count in tracked.looks if not due]
    assert len(between) > 100 and not any(between)


@pytest.mark.published
def test_csv_has_every_told_step_once(tracked: Tracked) -> None:
    rows = csv_rows(tracked.run / "tracking" / "steps.csv")
    assert [int(row["step"]) for row in rows] == tracked.steps
    assert list(rows[0]) == ["step", "epoch", "train_loss", "lr_0", "lr_1", "images_per_second"]
    by_step = {row["step"]: row for row in rows}
    for row in tracked.history:
        shown = by_step[row["step"]]
        assert float(shown["epoch"]) == float(row["epoch"])
        assert float(shown["train_loss"]) == pytest.approx(float(row["train_loss"]))


@pytest.mark.published
def test_tensorboard_files_hold_one_run(tracked: Tracked) -> None:
    tracked.wanted("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tracked.run / "tracking" / "tensorboard"), size_guidance={"images": 0})
    board.Reload()
    tags = board.Tags()
    assert [event.step for event in board.Scalars("train_loss")] == tracked.steps
    assert {"lr_0", "lr_1", "wd_0", "images_per_second", "valid_loss", "accuracy"} <= set(tags["scalars"])
    shown = {event.step: event.value for event in board.Scalars("accuracy")}
    assert shown == {int(row["step"]): pytest.approx(float(row["accuracy"]), abs=1e-6) for row in tracked.history}
    metrics = json.loads((tracked.run / "metrics.json").read_text())
    last = board.Scalars("final/valid/accuracy")[-1]
    assert last.step == tracked.steps[-1] and last.value == pytest.approx(metrics["valid"]["accuracy"]["value"])
    assert {"batch", "confusion-matrix", "top-losses", "reliability"} <= set(tags["images"])
    shown = board.Images("batch")[-1]
    assert shown.encoded_image_string.startswith(b"\x89PNG") and shown.width > 100
    texts = {tag: board.Tensors(tag)[-1].tensor_proto.string_val[0].decode() for tag in tags["tensors"]}
    assert "Conv2d" in texts["network/text_summary"] and "| bs | 8 |" in texts["settings/text_summary"]


@pytest.mark.published
def test_wandb_offline_files_hold_one_run(tracked: Tracked) -> None:
    tracked.wanted("wandb")
    sessions = sorted((tracked.run / "tracking" / "wandb").glob("offline-run-*/run-*.wandb"), key=os.path.getmtime)
    kept = json.loads((tracked.run / "run.json").read_text())["tracking"]["wandb"]
    assert len(sessions) == 4 and all(file.stem == f"run-{kept['id']}" for file in sessions)
    records = [record for file in sessions for record in wandb_records(file)]
    (run, *_) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    config = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in run.config.update}
    assert run.project == "digits of mine" and list(run.tags) == ["mine"]
    assert config["recipe"] == "mine" and config["bs"] == 8 and config["filters"] == "8, 16"
    rows = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]
    assert [row["_step"] for row in rows if "train_loss" in row] == tracked.steps
    epochs = [row for row in rows if "valid_loss" in row]
    assert [row["accuracy"] for row in epochs] == [float(row["accuracy"]) for row in tracked.history]
    assert [row["epoch"] for row in epochs] == [1, 2, 3, 4]
    shown = {"report/path", "confusion-matrix/path", "batch/path", "top-losses/path"}
    assert {"lr_0", "lr_1", "images_per_second"} | shown <= set(epochs[-1])
    kept_files = {
        record.artifact.type: {entry.path for entry in record.artifact.manifest.contents}
        for record in records
        if record.WhichOneof("record_type") == "artifact"
    }
    assert kept_files["model"] == {"model.safetensors", "model.onnx", "model.json"}
    assert {"report.html", "metrics.json", "predictions.csv"} <= kept_files["report"]
    assert [record.exit.exit_code for record in records if record.WhichOneof("record_type") == "exit"] == [1, 1, 0, 0]
    pictures = list((tracked.run / "tracking" / "wandb").glob("offline-run-*/files/media/images/top-losses_*.png"))
    assert len(pictures) == 2
    assert "not logged in" in tracked.outputs[0] and "wandb sync" in tracked.outputs[2]


def wandb_records(file: Path) -> Iterator[Any]:
    """The records of a .wandb file: LevelDB's log format, blocks of 32 KiB, behind a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data = file.read_bytes()
    assert data.startswith(b":W&B")
    at, parts = 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


@pytest.mark.published
def test_mlflow_store_holds_one_run(tracked: Tracked) -> None:
    tracked.wanted("mlflow")
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tracked.run / 'tracking' / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("fastcls")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.data.tags["recipe"] == "mine"
    assert run.data.params["bs"] == "8" and run.data.params["options.seed"] == "5"
    metrics = json.loads((tracked.run / "metrics.json").read_text())
    assert run.data.metrics["final_valid_accuracy"] == pytest.approx(metrics["valid"]["accuracy"]["value"])
    shown = {name: client.get_metric_history(run.info.run_id, name) for name in ("train_loss", "accuracy", "lr_1")}
    assert [metric.step for metric in shown["train_loss"]] == tracked.steps == [m.step for m in shown["lr_1"]]
    assert [metric.value for metric in shown["accuracy"]] == [float(row["accuracy"]) for row in tracked.history]
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"report.html", "predictions.csv", "metrics.json", "top_losses.json", "model", "figures"} <= files
    model = {file.path for file in client.list_artifacts(run.info.run_id, "model")}
    assert model == {f"model/{name}" for name in ("model.safetensors", "model.onnx", "model.json", "summary.txt")}
    figures = {file.path for file in client.list_artifacts(run.info.run_id, "figures")}
    assert {"figures/batch.png", "figures/confusion-matrix.png", "figures/top-losses.png"} <= figures
    (summary,) = (tracked.run / "tracking" / "mlflow" / "artifacts").glob("*/artifacts/model/summary.txt")
    assert "Conv2d" in summary.read_text() and "Linear" in summary.read_text()


@pytest.mark.published
def test_a_tracker_that_fails_ends_alone(fastcls: Fastcls, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if "mlflow" not in THERE:
        pytest.skip("needs the extra mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    from fastcls.plugins.tracking.csv import Csv

    def broken(self: Csv, step: int, values: object) -> None:
        raise OSError("no room\nfor steps")

    monkeypatch.setattr(Csv, "step", broken)
    outcome = fastcls("recipe", "digits-cnn", "--epochs", 1, "--limit", 30, "--filters", 8, "--out", "run",
                      "--track", "mlflow,csv")  # fmt: skip
    assert outcome.code == 0, outcome.output
    assert "note     --track: MLflow failed" in outcome.output and "secret" not in outcome.output
    assert "note     --track: csv failed (for steps). The run continues without it." in outcome.output
    assert "tracked  " not in outcome.output and (tmp_path / "run" / "report.html").is_file()


@pytest.mark.published
def test_a_run_folder_cannot_name_other_modules(tmp_path: Path) -> None:
    from fastcls.plugins.tracking.trackers import Tracking

    assert list(Tracking("trackers,.tracker,csv,../csv", tmp_path, {}).trackers) == ["csv"]
