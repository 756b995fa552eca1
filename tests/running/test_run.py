"""A run from the command to its folder: what every verb, and every user, relies on finding there."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import Fastcls
from folders import csv_rows, images_of
from PIL import Image

from fastcls.settings.sources import find

FILES = {
    *("run.json", "recipe.py", "history.csv", "metrics.json", "predictions.csv", "splits.csv"),
    *("model.safetensors", "model.json", "model.onnx", "report.html", "log.txt", "figures"),
    *("heatmaps.json", "suspects.csv", "check.json", "checkpoints"),
}


def sha(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_run_folder_is_complete_and_holds_nothing_else(digits_run: Path) -> None:
    assert {p.name for p in digits_run.iterdir()} == FILES | {"terminal.txt"}


def test_of_a_finished_run_the_last_checkpoint_is_kept(digits_run: Path) -> None:
    (kept,) = (digits_run / "checkpoints").iterdir()
    assert {file.name for file in kept.iterdir()} == {"state.json", "state.safetensors", "best.safetensors", "MANIFEST"}


def test_nothing_in_a_run_folder_is_a_pickle(digits_run: Path) -> None:
    for file in digits_run.rglob("*"):
        if file.is_file():
            head = file.read_bytes()[:4]
            assert head[:2] != b"\x80\x04" and head[:2] != b"\x80\x02" and head != b"PK\x03\x04", file


def test_run_json_records_what_ran(digits_run: Path) -> None:
    record = json.loads((digits_run / "run.json").read_text())
    assert (record["recipe"], record["status"], record["seed"]) == ("digits-cnn", "done", 3)
    assert record["knobs"]["get_learner"]["filters"] == [16, 32] and record["knobs"]["fit"]["epochs"] == 3
    assert record["options"]["limit"] == 60 and record["options"]["precision"] in ("fp32", "bf16")
    assert {"python", "fastcls", "fastai", "torch", "torchvision"} <= set(record["versions"])
    assert record["device"]["type"] in ("cpu", "cuda", "mps") and record["device"]["threads"] >= 1
    assert len(record["data"]["fingerprint"]) == 64 and record["wall_seconds"] > 0
    assert record["data"]["images"] == {"train": 600, "valid": 359}
    assert record["onnx_difference"] < 1e-4
    assert (digits_run / "recipe.py").read_text() == find("digits-cnn").source


def test_history_has_a_row_an_epoch(digits_run: Path) -> None:
    history = csv_rows(digits_run / "history.csv")
    assert [row["epoch"] for row in history] == ["1", "2", "3"]
    assert {
        "phase",
        "step",
        "lr",
        "train_loss",
        "valid_loss",
        "accuracy",
        "seconds",
        "images_per_second",
        "trained_parameters",
    } == set(history[0]) - {"epoch"}
    assert float(history[-1]["train_loss"]) < float(history[0]["train_loss"])
    assert history[0]["phase"] == "whole network" and float(history[0]["images_per_second"]) > 0


def test_predictions_metrics_and_splits_tell_one_story(digits_run: Path) -> None:
    predictions = csv_rows(digits_run / "predictions.csv")
    figures = json.loads((digits_run / "metrics.json").read_text())["valid"]
    right = [row["label"] == row["prediction"] for row in predictions]
    assert figures["n"] == len(predictions)
    assert figures["accuracy"]["value"] == pytest.approx(np.mean(right))
    assert figures["accuracy"]["low"] < figures["accuracy"]["value"] <= figures["accuracy"]["high"]
    assert figures["loss"]["value"] == pytest.approx(np.mean([float(row["loss"]) for row in predictions]), rel=1e-4)
    for row in predictions[:20]:
        classes = {name[2:]: float(p) for name, p in row.items() if name.startswith("p:")}
        assert sum(classes.values()) == pytest.approx(1, abs=1e-4)
        assert max(classes, key=classes.__getitem__) == row["prediction"]
        assert float(row["loss"]) == pytest.approx(-np.log(classes[row["label"]]), rel=1e-2, abs=1e-4)
    splits = csv_rows(digits_run / "splits.csv")
    valid = {row["path"]: row["label"] for row in splits if row["split"] == "valid"}
    assert valid == {row["path"]: row["label"] for row in predictions}
    assert not set(valid) & {row["path"] for row in splits if row["split"] == "train"}
    root = images_of(digits_run)
    assert all((root / path).is_file() and Path(path).parent.name == label for path, label in valid.items())


def test_the_split_is_stratified(digits_run: Path) -> None:
    counts = Counter(row["label"] for row in csv_rows(digits_run / "splits.csv") if row["split"] == "valid")
    assert len(counts) == 10 and max(counts.values()) - min(counts.values()) <= 3


def test_model_json_says_how_to_use_the_weights(digits_run: Path) -> None:
    model = json.loads((digits_run / "model.json").read_text())
    assert model["classes"] == [str(digit) for digit in range(10)]
    assert model["preprocessing"]["mode"] == "L" and len(model["preprocessing"]["mean"]) == 1
    assert model["build"]["recipe"] == "digits-cnn" and model["build"]["knobs"]["filters"] == [16, 32]
    assert sum(row["parameters"] for row in model["summary"]) == model["parameters"]
    assert model["summary"][0]["type"] == "Conv2d" and model["summary"][0]["kernel"] == [3, 3]


def test_the_terminal_tells_the_story_and_the_log_keeps_it(digits_run: Path) -> None:
    shown = (digits_run / "terminal.txt").read_text()
    assert "accuracy" in shown and "95 %" in shown and f"fastcls predict {digits_run}" in shown
    assert len(re.findall(r"^whole network +\d", shown, re.M)) == 3
    log = (digits_run / "log.txt").read_text()
    assert "\x1b" not in log and shown.splitlines()[-1] in log


@pytest.mark.usefixtures("unreported")
def test_one_seed_gives_one_result_and_another_seed_another(fastcls: Fastcls) -> None:
    words = ["recipe", "digits-cnn", "--epochs", "1", "--limit", "20", "--filters", "8"]
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert fastcls(*words, "--seed", seed, "--out", out).code == 0
    assert sha(Path("a/model.safetensors")) == sha(Path("b/model.safetensors"))
    assert sha(Path("a/model.safetensors")) != sha(Path("c/model.safetensors"))
    assert sha(Path("a/splits.csv")) == sha(Path("b/splits.csv")) != sha(Path("c/splits.csv"))


@pytest.mark.usefixtures("unreported")
def test_keep_last_ends_with_the_last_epoch(fastcls: Fastcls) -> None:
    words = ["recipe", "digits-cnn", "--epochs", "3", "--limit", "20", "--filters", "8", "--lr", "0.3"]
    for keep in ("best", "last"):
        assert fastcls(*words, "--keep", keep, "--out", keep).code == 0
    best, last = (json.loads(Path(keep, "run.json").read_text()) for keep in ("best", "last"))
    history = [float(row["accuracy"]) for row in csv_rows("best/history.csv")]
    assert last["best_epoch"] == 3 and "last epoch" in last["weights"]
    assert history[best["best_epoch"] - 1] == max(history)
    value = json.loads(Path("best/metrics.json").read_text())["valid"]["accuracy"]["value"]
    assert value == pytest.approx(max(history), abs=1e-4)


@pytest.mark.usefixtures("pageless")
def test_a_bf16_run_with_further_keywords_of_fastai_is_evaluated_in_full_precision(fastcls: Fastcls) -> None:
    words = ["recipe", "digits-cnn", "--epochs", "1", "--limit", "20", "--filters", "8", "--out", "r"]
    words += ["--set", "div=1", "--set", "div_final=1", "--set", "moms=(0.5,0.5,0.5)"]
    outcome = fastcls(*words, "--precision", "bf16", "--smoothing", "0")
    assert outcome.code == 0, outcome.output
    record = json.loads(Path("r/run.json").read_text())
    assert record["options"]["precision"] == "bf16" and record["onnx_difference"] < 1e-4
    (epoch,), final = csv_rows("r/history.csv"), json.loads(Path("r/metrics.json").read_text())["valid"]
    for of_epoch, name in (("accuracy", "accuracy"), ("valid_loss", "loss")):  # the same weights, so the same figure
        assert float(epoch[of_epoch]) == pytest.approx(final[name]["value"], abs=1e-5)
    assert float(epoch["lr"]) == pytest.approx(0.01)  # a cycle that never leaves lr


def test_a_dry_run_trains_and_writes_nothing(fastcls: Fastcls) -> None:
    outcome = fastcls("recipe", "digits-cnn", "--dry-run", "--epochs", "7")
    assert outcome.code == 0
    for part in ("(64, 1, 8, 8)", "7 × whole network", "Conv2d", "time     about", "nothing was trained"):
        assert part in outcome.output
    assert not list(Path().iterdir())


def test_a_recipe_of_ones_own_is_the_same_code(fastcls: Fastcls) -> None:
    copied = fastcls("recipe", "digits-cnn", "--copy", "my own.py")
    assert copied.code == 0 and "fastcls recipe './my own.py'" in copied.output
    assert "def get_learner" in fastcls("recipe", "./my own.py", "--show").output
    outcome = fastcls("recipe", "./my own.py", "--epochs", "1", "--limit", "20", "--filters", "8")
    assert outcome.code == 0, outcome.output
    (run,) = Path("runs/my own").iterdir()
    assert {p.name for p in run.iterdir()} == FILES
    (next_command,) = [line[9:] for line in outcome.output.splitlines() if line.startswith("next ")]
    assert shlex.split(next_command)[:3] == ["fastcls", "predict", str(run)]
    assert fastcls("recipe", "digits-cnn", "--copy", "my own.py").code == 4
    Path("recipes").mkdir()
    into = fastcls("recipe", "digits-cnn", "--copy", "recipes")
    assert into.code == 0 and Path("recipes/digits-cnn.py").is_file() and not Path("recipes.py").exists(), into.output
    listed = fastcls("runs").output
    assert f"own/{run.name}" in listed
    assert "done" in listed


@pytest.mark.usefixtures("pageless")
def test_a_network_that_cannot_be_exported_is_said_so_and_predicted_only_with_trust(fastcls: Fastcls) -> None:
    source = find("digits-cnn").source.replace(
        "    net = models.cnn(1, dls.c, filters, convs=2, dropout=dropout)",
        "    net = nn.Sequential(models.cnn(1, dls.c, filters, convs=2, dropout=dropout), Odd())",
    )
    odd = """class Odd(nn.Module):
    def forward(self, x): return -x if float(x.detach().sum()) > 1e6 else x

def get_learner"""
    Path("odd.py").write_text(source.replace("def get_learner", odd, 1))
    outcome = fastcls("recipe", "./odd.py", "--epochs", "1", "--limit", "20", "--filters", "8", "--out", "r")
    assert outcome.code == 0 and "no model.onnx" in outcome.output, outcome.output
    assert not Path("r/model.onnx").exists()
    image = next(path for path in images_of(Path("r")).rglob("*.png"))
    refused = fastcls("predict", "r", image)
    assert refused.code == 4 and "--trust" in refused.output
    trusted = fastcls("predict", "r", image, "--trust", "-o", "out.csv")
    assert trusted.code == 0, trusted.output
    assert csv_rows("out.csv")[0]["prediction"] in map(str, range(10))


@pytest.mark.faults
def test_damaged_images_do_not_leave_temporary_files(fastcls: Fastcls) -> None:
    for name in ("cat", "dog"):
        for i in range(4):
            file = Path(f"photos/{name}/{i}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (9, 9), (i, 0, 0)).save(file)
    before = {p: p.read_bytes() for p in Path("photos").rglob("*.png")}
    words = ["--arch", "resnet18", "--weights", "none", "--size", "32", "--epochs", "1", "--bs", "2"]
    assert fastcls("recipe", "folder", "--path", "photos", *words, "--out", "r").code == 0
    assert {p: p.read_bytes() for p in Path("photos").rglob("*") if p.is_file()} == before
