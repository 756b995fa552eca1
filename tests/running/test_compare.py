"""fastcls compare: grids and ablations of a recipe, continued, distinguished; runs that exist, tested."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import Fastcls, command
from folders import csv_rows
from materials import interrupted_at_a_checkpoint

SMALL = ["--epochs", 1, "--limit", 20, "--filters", "8", "--bs", 20]
GRID = ["compare", "digits-cnn", *SMALL, "--vary", "dropout=0,0.3", "--setting", "lr=1e9 dropout=0.1", "--seeds", 2]


pytestmark = pytest.mark.usefixtures("unreported_module")


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory, unreported_module: None) -> tuple[Path, Any]:
    """Two settings that train and one that cannot, for two seeds each."""
    out = tmp_path_factory.mktemp("compare") / "grid"
    return out, command(*GRID, "--out", out)


def records(out: Path) -> list[dict[str, str]]:
    return csv_rows(out / "results.csv")


def test_one_failing_setting_does_not_stop_the_others(grid: tuple[Path, Any]) -> None:
    out, outcome = grid
    assert outcome.code == 6
    assert [row["status"] for row in records(out)].count("done") == 4
    assert outcome.output.count("The loss became") >= 2 and "lr=1000000000.0" in outcome.output
    assert {"compare.html", "table.md", "table.csv", "figures"} <= {file.name for file in out.iterdir()}
    for row in records(out):
        if row["status"] == "done":
            metrics = json.loads((out / row["folder"] / "metrics.json").read_text())
            assert float(row["accuracy"]) == metrics["valid"]["accuracy"]["value"]


def test_a_run_of_a_comparison_is_the_run_that_its_command_makes(grid: tuple[Path, Any], tmp_path: Path) -> None:
    folder = grid[0] / "dropout=0.3" / "seed-43"
    record = json.loads((folder / "run.json").read_text())
    words = shlex.split(record["command"])
    assert words[:3] == ["fastcls", "recipe", "digits-cnn"]
    assert command(*words[1:], "--out", tmp_path / "alone").code == 0
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "alone" / "model.safetensors").read_bytes()


def test_called_again_it_makes_only_what_is_missing(grid: tuple[Path, Any], tmp_path: Path) -> None:
    out = tmp_path / "grid"
    shutil.copytree(grid[0], out)
    kept, cut = out / "dropout=0.0" / "seed-42" / "model.safetensors", out / "dropout=0.3" / "seed-42"
    before = kept.stat().st_mtime_ns
    record = json.loads((cut / "run.json").read_text())
    (cut / "run.json").write_text(json.dumps(record | {"status": "interrupted"}))
    outcome = command(*GRID[:-2], "--out", out, "--vary", "dropout=0.4")
    assert "run 1 of 4" in outcome.output and kept.stat().st_mtime_ns == before
    assert json.loads((cut / "run.json").read_text())["status"] == "done"
    assert (out / "dropout=0.4" / "seed-42" / "metrics.json").is_file()


@pytest.mark.faults
def test_a_moved_comparison_goes_on_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was interrupted knows the folder that it was begun in; those after it are not written there."""
    words = ["compare", "digits-cnn", *SMALL[:1], 2, *SMALL[2:], "--vary", "dropout=0,0.3", "--out", "grid"]
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    after.mkdir()
    monkeypatch.chdir(before)
    with interrupted_at_a_checkpoint():
        assert command(*words).code == 130
    (before / "grid").rename(after / "grid")
    monkeypatch.chdir(after)
    outcome = command(*words)
    assert outcome.code == 0 and "resumed" in outcome.output, outcome.output
    assert [row["status"] for row in records(after / "grid")] == ["done", "done"]
    assert not list(before.iterdir()) and Path.cwd() == after


def test_an_ablation_changes_one_knob_at_a_time(fastcls: Fastcls) -> None:
    words = ["--vary", "norm=none,group", "--vary", "filters=16,32/32,64", "--setting", "opt=sgd lr=0.1"]
    outcome = fastcls("compare", "cifar10-cnn", "--one-at-a-time", *words, "--seeds", 2, "--dry-run")
    assert outcome.code == 0
    folders = [line.split()[-1] for line in outcome.output.splitlines() if "to do" in line]
    settings = ["baseline", "norm=none", "norm=group", "filters=16,32", "filters=32,64", "opt=sgd,lr=0.1"]
    assert folders == [f"{setting}/seed-{seed}" for seed in (42, 43) for setting in settings]
    outcome = fastcls("compare", "cifar10-cnn", *words[:4], "--dry-run")
    assert outcome.output.count("to do") == 4  # the grid alone: its first point is the baseline


def test_options_are_varied_as_knobs_are(fastcls: Fastcls, monkeypatch: pytest.MonkeyPatch) -> None:
    """The epochs are chosen by pay or by time, and every run's command says so."""
    monkeypatch.setattr("fastcls.training.epochs.seconds_of_epoch", lambda *_: 0.3)  # on this machine at this moment
    words = ["--vary", "epochs=auto", "--vary", "time=1s", "--setting", "accumulate=2 keep=last"]
    outcome = fastcls("compare", "digits-cnn", *SMALL, "--one-at-a-time", *words, "--out", "options")
    assert outcome.code == 0, outcome.output
    runs = {row["folder"].partition("/")[0]: Path("options", row["folder"]) for row in records(Path("options"))}
    assert set(runs) == {"baseline", "epochs=auto", "time=1s", "accumulate=2,keep=last"}
    found = {name: json.loads((run / "run.json").read_text()) for name, run in runs.items()}
    both = found["accumulate=2,keep=last"]
    assert both["options"]["accumulate"] == 2 and "--keep last" in both["command"]
    assert found["baseline"]["options"]["accumulate"] == 1 and "--epochs auto" in found["epochs=auto"]["command"]
    assert "--time 1s" in found["time=1s"]["command"] and "--epochs" not in found["time=1s"]["command"]
    epochs = {name: len((run / "history.csv").read_text().splitlines()) - 1 for name, run in runs.items()}
    assert epochs["baseline"] == 1 < epochs["epochs=auto"] and epochs["time=1s"] > 1


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        (["digits-cnn", "--vary", "dropuot=0,1"], 2, ["no such knob", "dropout"]),
        (["digits-cnn", "--vary", "dropout"], 2, ["KNOB=VALUE"]),
        (["digits-cnn", "--vary", "epochs=two", "--setting", "lr=x"], 2, ["epochs", "'two'", "lr", "'x'"]),
        (["cifar10-cnn", "--vary", "norm=bach"], 2, ["norm must be", "batch"]),
        (["digits-cnn", "--vary", "accumulate=0"], 2, ["an integer, 1 or more", "options: limit"]),
        (["digits-cnn", "--vary", "time=x,5m"], 2, ["time must be hours", "'x'"]),
        (["digits-cnn", "--setting", "time=5m epochs=3"], 2, ["the time chooses the epochs"]),
        (["digits-cnn", "--setting", "opt='sgd"], 2, ["no closing quotation"]),
        (["digits-cnn", "--setting", "lr=0.1 lr=0.2", "--setting", ""], 2, ["lr is given twice", "no knob given"]),
        (["digits-cnn", "--seeds", "0"], 2, ["--seeds 0"]),
        (["digits-nn"], 2, ["digits-cnn"]),
        ([], 2, []),
        (["none", "such"], 4, ["no run"]),
    ],
)
def test_what_cannot_be_compared_is_said(fastcls: Fastcls, words: list[str], code: int, parts: list[str]) -> None:
    outcome = fastcls("compare", *words)
    assert outcome.code == code and all(part in outcome.output for part in parts), outcome.output
    assert not Path("comparisons").exists()


def test_other_settings_do_not_join_a_comparison(grid: tuple[Path, Any], fastcls: Fastcls) -> None:
    words = [*SMALL[:2], "--limit", 21, *SMALL[4:]]
    outcome = fastcls("compare", "digits-cnn", *words, "--vary", "dropout=0,0.3", "--out", grid[0])
    assert outcome.code == 4 and "different common settings" in outcome.output and "--out" in outcome.output


def test_two_runs_are_tested_on_the_same_images(grid: tuple[Path, Any], fastcls: Fastcls) -> None:
    runs = [grid[0] / name / "seed-42" for name in ("dropout=0.0", "dropout=0.3")]
    outcome = fastcls("compare", *runs, "--out", "pair")
    assert outcome.code == 0 and "exact McNemar test" in outcome.output
    first, second = ([row for row in csv_rows(run / "predictions.csv") if row["split"] == "valid"] for run in runs)
    answers = [[row["label"] == row["prediction"] for row in rows] for rows in (first, second)]
    alone = sum(a and not b for a, b in zip(*answers, strict=True))
    assert f"On the same {len(first)} images the first run alone is right on {alone:,}" in outcome.output
    assert "McNemar" in Path("pair/compare.html").read_text()
    assert [row["dropout"] for row in records(Path("pair"))] == ["0.0", "0.3"]


def test_a_comparison_is_drawn_again_from_its_folder(grid: tuple[Path, Any], fastcls: Fastcls) -> None:
    outcome = fastcls("compare", grid[0])
    assert outcome.code == 0 and "dropout=0.3" in outcome.output
    page = next(Path("comparisons").glob("*/compare.html"))
    assert len(records(page.parent)) == 4


def test_an_unfinished_run_is_refused(grid: tuple[Path, Any], fastcls: Fastcls, tmp_path: Path) -> None:
    shutil.copytree(grid[0] / "dropout=0.0" / "seed-42", tmp_path / "cut")
    record = json.loads((tmp_path / "cut" / "run.json").read_text())
    (tmp_path / "cut" / "run.json").write_text(json.dumps(record | {"status": "interrupted"}))
    outcome = fastcls("compare", tmp_path / "cut", grid[0] / "dropout=0.3" / "seed-42")
    assert outcome.code == 4 and "interrupted" in outcome.output


def test_runs_of_other_classes_are_refused(grid: tuple[Path, Any], fastcls: Fastcls, tmp_path: Path) -> None:
    shutil.copytree(grid[0] / "dropout=0.0" / "seed-42", tmp_path / "other")
    model = json.loads((tmp_path / "other" / "model.json").read_text())
    (tmp_path / "other" / "model.json").write_text(json.dumps(model | {"classes": ["cat", "dog"]}))
    outcome = fastcls("compare", grid[0] / "dropout=0.3" / "seed-42", tmp_path / "other")
    assert outcome.code == 4 and "has different classes" in outcome.output
