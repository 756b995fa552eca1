"""What every verb takes: -q, -v."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from conftest import Fastcls

import fastcls as package
from fastcls import Run


@pytest.mark.usefixtures("unreported")
def test_quiet_leaves_results_and_errors(fastcls: Fastcls, digits_run: Path) -> None:
    Path("runs/digits-cnn").mkdir(parents=True)
    Path("runs/digits-cnn/20990101-000000-aaaa").symlink_to(digits_run)
    image = next(Path(Run(digits_run).record["data"]["root"], "3").glob("*.png"))
    loud, silent = (fastcls("predict", "digits-cnn", image, *words) for words in ([], ["-q"]))
    assert loud.output.splitlines()[0].startswith("run      runs/digits-cnn/") and loud.stdout == silent.output
    words = ["recipe", "digits-cnn", "--epochs", 1, "--limit", 20, "--filters", 4]
    outcome = fastcls(*words, "-q", "--out", "mine")
    assert outcome.code == 0 and outcome.output == "mine\n"
    assert "accuracy" in Path("mine/log.txt").read_text()
    outcome = fastcls(*words, "--quiet", "--out", "mine")
    assert outcome.code == 4 and outcome.output.startswith("error: ")


def test_verbose_adds_details_and_where_an_error_comes_from(fastcls: Fastcls) -> None:
    loud, usual = (fastcls("check", "nowhere", *words) for words in (["-v"], []))
    assert loud.code == usual.code != 0
    assert "Traceback" in loud.output and loud.output.endswith(usual.output) and "Traceback" not in usual.output
    outcome = fastcls("recipe", "digits-cnn", "--limit", 20, "--dry-run", "--verbose")
    assert outcome.code == 0 and "images are read in batches" in outcome.output
    assert fastcls("runs", "-v", "-q").code == 2


@pytest.mark.usefixtures("unreported")
def test_python_is_silenced_by_the_logger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    logger = logging.getLogger("fastcls")
    settings = {"epochs": 1, "limit": 20, "filters": (4,)}
    package.train("digits-cnn", out="loud", **settings)
    assert "accuracy" in capfd.readouterr().out
    try:
        logger.setLevel("ERROR")
        package.train("digits-cnn", out="silent", **settings)
    finally:
        logger.setLevel("INFO")
    assert capfd.readouterr() == ("", "")
