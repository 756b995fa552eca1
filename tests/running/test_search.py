"""fastcls search: spaces and their refusals; a study that is pruned, killed, resumed, shared, and its page."""

from __future__ import annotations

import json
import re
import shlex
import signal
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from conftest import Fastcls, command
from folders import csv_rows
from killable import Forks

from fastcls.comparison.study import shown
from fastcls.errors import KnobError
from fastcls.machine.stop import Stopped
from fastcls.runfolder import runs
from fastcls.running import series
from fastcls.settings import sources, space
from fastcls.settings.shell import seconds

Searched = tuple[Path, dict[str, Any], list[Any]]


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("lr=1e-4..1e-2:log", "lr=0.0001..0.01:log"),
        ("bs=16..64:step=16", "bs=16..64:step=16"),
        ("epochs=2..9:int", "epochs=2..9"),
        ("rotate=0..20:int", "rotate=0.0..20.0:step=1.0"),
        ("dropout=0..0.3:step=0.1", "dropout=0.0..0.3:step=0.1"),
        ("bs=32,64,32", "bs=32,64"),
        ("filters=8,16/16,32", "filters=8,16/16,32"),
        ("--wd=0..1", "wd=0.0..1.0"),
    ],
)
def test_a_space_is_read_as_typed(typed: str, shown: str) -> None:
    (dimension,) = space.parse([typed], sources.find("digits-cnn").knobs, {})
    assert str(dimension) == shown
    assert str(space.parse([shown], sources.find("digits-cnn").knobs, {})[0]) == shown


def test_a_space_knows_what_is_in_it() -> None:
    words = ["dropout=0..0.5:step=0.1", "filters=8,16/16,32", "lr=1e-4..1e-2:log"]
    steps, lists, rates = space.parse(words, sources.find("digits-cnn").knobs, {})
    assert 0.3 in steps and 0.35 not in steps and 0.6 not in steps
    assert (8, 16) in lists and (8,) not in lists and lists.value(lists.stored((8, 16))) == (8, 16)
    assert 1e-4 in rates and 0.1 not in rates


def test_everything_wrong_with_a_space_is_said_at_once() -> None:
    wrong = {
        "lr": "not of the form KNOB=VALUE",
        "dropuot=0..1": "did you mean 'dropout'",
        "dropout=0..1": "from 0 to below 1, not '1'",
        "bs=1.5..3": "must be an integer",
        "epochs=5": "needs at least two values",
        "lr=1e-2..1e-4": "write lr=0.0001..0.01",
        "wd=0..1:log": "must start above 0",
        "translate=0..1:step=0.3": "end it at 0.9",
        "rotate=0.5..3:int": "integers",
        "filters=8..16": "cannot have a range",
        "smoothing=0..0.1:lg": "did you mean 'log'",
        "path=a,b": "not comparable",
    }
    recipe = sources.find("digits-cnn")
    with pytest.raises(KnobError) as refused:
        space.parse([*wrong, "lr=1..2"], recipe.knobs, {})
    lines = refused.value.message.splitlines()
    for typed, reason in wrong.items():
        assert any(f"--space {typed}: " in line and reason in line for line in lines), typed
    assert "lr=1..2: lr is given twice" in refused.value.message
    with pytest.raises(KnobError, match=r"wd=0\.1 fixes it"):
        space.parse(["wd=0..1"], recipe.knobs, {"wd": 0.1})
    with pytest.raises(KnobError, match=r"bach.*did you mean 'batch'"):
        space.parse(["norm=batch,bach"], sources.find("cifar10-cnn").knobs, {})


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        (["digits-cnn"], 2, ["--space", "lr=1e-4..1e-2:log"]),
        (["digits-cnn", "--space", "lr=1..2", "--metric", "acuracy", "--time", "2x", "--trials", "0"], 2,
         ["did you mean 'accuracy'", "--time 2x", "--trials 0"]),
        (["digits-cnn", "--space", "lr=1..2", "--epoch", "3"], 2, ["--epoch", "did you mean '--epochs'"]),
        (["digits-nn", "--space", "lr=1..2"], 2, ["digits-cnn"]),
        (["digits-cnn", "--space", "lr=0.01..2", "--dry-run"], 0, ["20 trials", "lr=0.01..2.0", "median"]),
        (["digits-cnn", "--space", "epochs=2..9", "--time", "1h", "--dry-run"], 0, ["3,600 s", "pruner   none"]),
        (["digits-cnn", "--space", "lr=1..2", "--storage", "postgresql://me:secret@host/x", "--dry-run"], 0,
         ["postgresql://me:***@host/x"]),
    ],
)  # fmt: skip
def test_a_search_says_what_it_would_do_or_why_not(
    fastcls: Fastcls, words: list[str], code: int, parts: list[str]
) -> None:
    outcome = fastcls("search", *words)
    assert outcome.code == code and all(part in outcome.output for part in parts), outcome.output
    assert not Path("searches").exists()


def test_times_and_storages_are_read() -> None:
    assert [seconds(text) for text in ("2h", "1h30m", "90s", "1.5m")] == [7200, 5400, 90, 90]
    assert not any(seconds(text) for text in ("", "2", "2x", "h", "-1h"))
    assert shown("mysql://me:pa@ss:word@host/db") == "mysql://me:***@host/db"
    assert shown("sqlite:///a:b@c.db") == "sqlite:///a:b@c.db" and shown("redis://host") == "redis://host"


@pytest.mark.published
@pytest.mark.parametrize(
    ("storage", "code", "part"),
    [
        ("sqlite:///no/such/folder/study.db", 4, "cannot be reached: "),
        ("postgres//host", 2, "a file, study.journal"),
        ("oracle+nothing://me:secret@host/x", 2, "not a storage that Optuna supports"),
    ],
)
def test_a_storage_that_cannot_be_used_is_said(fastcls: Fastcls, storage: str, code: int, part: str) -> None:
    pytest.importorskip("optuna")
    outcome = fastcls("search", "digits-cnn", "--space", "lr=0.01..2:log", "--storage", storage)
    assert outcome.code == code and part in outcome.output and "secret" not in outcome.output, outcome.output


RECIPE = '''"""Digits, every fifth one for the test split; killed after its second epoch where a file says so."""
import os, signal
from fastai.vision.all import *
from fastcls import data, datasets, models

class Kill(Callback):
    order = 1000
    def after_epoch(self):
        if self.epoch == 1 and (file := Path(os.environ.get('KILL', '/nowhere'))).is_file() and file.unlink() is None:
            os.kill(os.getpid(), signal.SIGKILL)

def get_learner(filters: tuple[int, ...] = (16,), dropout: float = 0.1):
    files = get_image_files(datasets.digits()).sorted()
    block = DataBlock(blocks=(ImageBlock(PILImageBW), CategoryBlock), get_y=parent_label,
                      splitter=data.stratified(parent_label, valid_pct=0.3))
    dls = data.loaders(block, [f for i, f in enumerate(files) if i % 5], bs=32, test=files[::5])
    return models.learner(dls, models.cnn(1, dls.c, filters, convs=2, dropout=dropout), metrics=accuracy)

def fit(learn, epochs: int = 3, lr: float = 0.001):
    learn.fit_one_cycle(epochs, lr, cbs=Kill())
'''
SPACE = ["--space", "lr=0.001,0.01,1e-6,1e30", "--space", "dropout=0..0.5", "--seed", 8]  # whose draws have them all
TRIALS = 5


@pytest.fixture(scope="module")
def searched(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """A search killed in its first trial, continued, then joined by another machine: the killed run's record, what
    the later calls said.
    """
    pytest.importorskip("optuna")
    home = tmp_path_factory.mktemp("search")
    (home / "own.py").write_text(RECIPE)
    words = ["search", home / "own.py", *SPACE, "--limit", 60, "--prune-after-trials", 1]
    first = [*words, "--out", home / "here", "--name", "s", "--trials", TRIALS]
    (home / "kill").touch()
    child, _ = forks.start(first, home / "killed.txt", env={"KILL": str(home / "kill")}, whole=True)
    assert forks.wait(child).code == -signal.SIGKILL, (home / "killed.txt").read_text()
    cut = json.loads((home / "here" / "trial-0000" / "run.json").read_text())
    again = command(*first)
    url = f"sqlite:///{home / 'here' / 'study.db'}"
    there = command(*words, "--storage", url, "--out", home / "there", "--name", "s", "--trials", TRIALS + 1)
    return home, cut, [again, there, command(*first)]


def test_a_database_lies_in_a_folder_of_any_name(tmp_path: Path) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    folder = tmp_path / "is it%20 a bird? #1 é"
    folder.mkdir()
    engine = sqlalchemy.create_engine(runs.sqlite_url(folder / "study.db"))
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("create table t (a int)"))
    engine.dispose()
    assert list(folder.iterdir()) == [folder / "study.db"] and list(tmp_path.iterdir()) == [folder]


def trials(out: Path) -> list[dict[str, str]]:
    return csv_rows(out / "search.csv")


@pytest.mark.published
def test_a_killed_search_goes_on_where_it_was(searched: Searched) -> None:
    home, cut, (again, there, last) = searched
    assert cut["status"] == "running"
    assert again.code == 0, again.output
    record = json.loads((home / "here" / "trial-0000" / "run.json").read_text())
    assert record["status"] == "done" and len(record["resumed"]) == 1 and "resumed  after" in again.output
    rows = trials(home / "here")
    assert [row["trial"] for row in rows] == [str(number) for number in range(TRIALS + 1)]
    assert "loading torch" in again.output and "loading torch" not in last.output
    assert there.code == 0 and f"trial {TRIALS} ({TRIALS + 1} of {TRIALS + 1})" in there.output
    assert [row["folder"] for row in trials(home / "there")] == [""] * TRIALS + [f"trial-{TRIALS:04d}"]
    assert [row["folder"] for row in rows] == [f"trial-{number:04d}" for number in range(TRIALS)] + [""]


@pytest.mark.published
def test_trials_are_pruned_and_fail_and_do_not_stop_the_others(searched: Searched) -> None:
    home, _, (again, *_) = searched
    rows = trials(home / "here")
    assert [row["state"] for row in rows[:TRIALS]] == ["done", "failed", "pruned", "pruned", "done"], rows
    for row in rows[:TRIALS]:
        folder = home / "here" / row["folder"]
        record = json.loads((folder / "run.json").read_text())
        assert record["status"] == row["state"] and not (folder / "checkpoints").exists()
        if row["state"] == "done":
            metrics = json.loads((folder / "metrics.json").read_text())
            assert float(row["accuracy"]) == metrics["valid"]["accuracy"]["value"]
            assert "test" not in metrics  # which no trial reads
        elif row["state"] == "pruned":
            assert "worse than the median" in record["reason"] and (folder / "report.html").is_file()
        else:
            assert "The loss became" in row["reason"] and row["reason"] in again.output


@pytest.mark.published
def test_the_best_trials_command_makes_its_run_and_reads_the_test_split(searched: Searched, tmp_path: Path) -> None:
    home, _, (again, *_) = searched
    found = json.loads((home / "here" / "search.json").read_text())
    best = found["best"]
    assert best["value"] == max(float(row["accuracy"]) for row in trials(home / "here") if row["state"] == "done")
    assert sum(found["importances"].values()) == pytest.approx(1)
    words = shlex.split(next(line for line in again.output.splitlines() if line.startswith("best     "))[9:])
    assert command(*words[1:], "--out", tmp_path / "best").code == 0
    folder = home / "here" / f"trial-{json.loads((home / 'here' / 'search.json').read_text())['best']['trial']:04d}"
    if folder.is_dir():
        assert (folder / "model.safetensors").read_bytes() == (tmp_path / "best" / "model.safetensors").read_bytes()
    assert set(json.loads((tmp_path / "best" / "metrics.json").read_text())) == {"valid", "test"}


@pytest.mark.published
def test_other_settings_do_not_join_a_study(searched: Searched, fastcls: Fastcls) -> None:
    home = searched[0]
    url = ["--storage", f"sqlite:///{home / 'here' / 'study.db'}", "--name", "s"]
    words = ["search", home / "own.py", *SPACE]
    for changed, out, reason in (
        (["--limit", 61], ["--out", home / "here", "--name", "s"], "different common settings"),
        (["--limit", 60, "--metric", "loss"], ["--out", "new", *url], "a different metric"),
        (["--limit", 60, "--space", "epochs=2..5"], ["--out", "new", *url], "a different search space"),
        (["--limit", 60], ["--out", home / "here", *url], "a different storage"),
    ):
        outcome = fastcls(*words, *changed, *out)
        assert outcome.code == 4 and reason in outcome.output, outcome.output


@pytest.mark.published
def test_the_page_shows_the_search_in_a_browser(searched: Searched, browser: Any) -> None:
    home, _, _ = searched
    browser.get((home / "here" / "search.html").as_uri())
    body = browser.find_element("css selector", "body").text
    assert f"{TRIALS + 1} trials" in body and "its value is optimistic" in body and "The loss became" in body
    names = {title.text for title in browser.find_elements("css selector", "#trials thead button")}
    assert {"Trial", "Accuracy", "State", "lr", "dropout", "Epochs", "Time"} == names
    assert len(browser.find_elements("css selector", "#trials tbody tr")) == TRIALS + 1
    links = browser.find_elements("css selector", "#trials tbody a")
    here = trials(home / "here")[:TRIALS]
    assert len(links) == sum(row["state"] != "failed" for row in here)
    for link in links:
        assert Path(unquote(re.sub("^file://", "", link.get_attribute("href")))).is_file()
    figures = [svg.get_attribute("aria-label") for svg in browser.find_elements("css selector", "figure svg")]
    assert any("on valid by trial" in label for label in figures) and any("Importance" in label for label in figures)
    for width in (1280, 400):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == 400}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]


@pytest.mark.published
def test_a_signal_leaves_a_page_and_says_how_to_go_on(fastcls: Fastcls, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna")

    def stopped(*args: Any, **kwargs: Any) -> None:
        raise Stopped(signal.SIGINT)

    monkeypatch.setattr(series, "make", stopped)
    outcome = fastcls("search", "digits-cnn", "--space", "lr=0.001..0.1:log", "--out", "s", "--storage", "s.journal")
    assert outcome.code == 130 and "the same command continues" in outcome.output
    assert "No trial has finished yet." in Path("s/search.html").read_text()
    again = fastcls("search", "digits-cnn", "--space", "lr=0.001..0.1:log", "--out", "s", "--storage", "s.journal")
    assert (
        again.code == 130 and "trial 0 (1 of 20)  lr=0.01" in again.output
    )  # the same trial, the recipe's own settings
    assert [row["state"] for row in trials(Path("s"))] == ["running"]
