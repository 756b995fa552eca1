"""Which run `last` is: the newest that is done, wherever it was written, and every verb says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import Fastcls
from folders import images_of

from fastcls import Run
from fastcls.runfolder import register


def written(run: Path, to: str, **record: object) -> Path:
    """A copy of a run, as if it had been trained here now."""
    folder = Path(to).absolute()
    shutil.copytree(run, folder)
    file = folder / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | record))
    register.add(folder)
    return folder


def an_image(run: Path) -> Path:
    return next(images_of(run).rglob("*.png"))


@pytest.mark.usefixtures("unreported")
def test_last_is_the_newest_wherever_it_was_written_but_none_of_a_series(fastcls: Fastcls, digits_run: Path) -> None:
    assert fastcls("predict", "last", digits_run).code == 4, "there is none yet"
    tiny = ["digits-cnn", "--epochs", 1, "--limit", 10, "--filters", "8"]
    assert fastcls("recipe", *tiny, "--out", "first").code == 0
    assert Run("last").path == Path("first").absolute() == Run("digits-cnn").path
    second = written(digits_run, "second")
    assert fastcls("compare", *tiny, "--vary", "lr=0.01,0.02", "--out", "compared").code == 0
    assert Run("last").path == second
    written(digits_run, "runs/digits-cnn/20200101-000000-aaaa")
    assert str(Run("last").path) == "runs/digits-cnn/20200101-000000-aaaa"
    shutil.rmtree("runs")
    answered = fastcls("predict", "last", an_image(second))
    assert answered.code == 0 and f"run      {second}\n" in answered.output
    assert "run      " not in fastcls("predict", "second", an_image(second)).output, "nothing to say of what was named"


def test_runs_below_a_folder_are_listed_at_any_depth(fastcls: Fastcls, digits_run: Path, tmp_path: Path) -> None:
    """Of a run written with --out, one in a deeper folder, and the folder of a run itself."""
    for place in ("mine/first", "mine/of/may/second", "runs/digits-cnn/third"):
        shutil.copytree(digits_run, place)
    assert not json.loads(fastcls("runs", "--folder", "elsewhere", "--json").stdout)
    listed = {row["run"] for row in json.loads(fastcls("runs", "--folder", "mine", "--json").stdout)}
    assert listed == {str(tmp_path / "mine/first"), str(tmp_path / "mine/of/may/second")}
    every = {row["run"] for row in json.loads(fastcls("runs", "--folder", ".", "--json").stdout)}
    assert every == {*listed, "digits-cnn/third"}
    (itself,) = json.loads(fastcls("runs", "--folder", "mine/first", "--json").stdout)
    assert itself["run"] == str(tmp_path / "mine/first")


def test_a_failed_run_is_last_only_for_resume(fastcls: Fastcls, digits_run: Path) -> None:
    good = written(digits_run, "good")
    failed = written(digits_run, "bad", status="failed", reason="The loss became nan in epoch 1.")
    (failed / "metrics.json").unlink()
    for words in (["predict", "last", an_image(good)], ["report", "last"], ["export", "last"]):
        outcome = fastcls(*words)
        assert f"run      {good}\n" in outcome.output, outcome.output
    assert Run("last").path == failed
    listed = fastcls("runs").output
    assert "became nan" in listed and "good" in listed
    image = an_image(good)
    shutil.rmtree(good)
    refused = fastcls("predict", "last", image)
    assert refused.code == 4 and "No run is finished" in refused.output and "fastcls resume" in refused.output


def test_a_state_folder_that_cannot_be_written_costs_nothing_else(
    fastcls: Fastcls, monkeypatch, digits_run: Path
) -> None:
    Path("file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(Path("file").absolute()))
    written(digits_run, "runs/digits-cnn/20200101-000000-aaaa")
    assert str(Run("last").path) == "runs/digits-cnn/20200101-000000-aaaa"


def test_a_history_without_a_row_is_compared(fastcls: Fastcls, digits_run: Path) -> None:
    for name in ("one", "two"):
        file = written(digits_run, name) / "history.csv"
        file.write_text(file.read_text().splitlines()[0] + "\n")
    assert fastcls("compare", "one", "two").code == 0
