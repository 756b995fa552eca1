"""fastcls in Python: a run and a comparison as objects that show themselves; recipes run by keyword."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import ROOT, command, python

from fastcls import Run, compare, recipe
from fastcls import api as notebook
from fastcls.errors import KnobError, OutputError, UsageError
from fastcls.running import grid, runner
from fastcls.settings.request import Request

HOSTILE = "<img src=x onerror=alert(1)>"


def pictures(html: str) -> list[bytes]:
    return [base64.b64decode(found) for found in re.findall(r'src="data:image/png;base64,([^"]+)"', html)]


def test_a_run_is_its_files_as_tables(digits_run: Path) -> None:
    run = Run(digits_run)
    metrics = json.loads((digits_run / "metrics.json").read_text())["valid"]
    assert run.metrics.loc[("valid", "accuracy"), "value"] == metrics["accuracy"]["value"]
    assert run.metrics.loc[("valid", "accuracy"), "n"] == metrics["n"] == len(run.predictions)
    assert run.history["epoch"].tolist() == [1, 2, 3]
    right = (run.predictions["label"] == run.predictions["prediction"]).mean()
    assert right == pytest.approx(metrics["accuracy"]["value"])
    assert len(run.suspects) == len(pd.read_csv(digits_run / "suspects.csv"))
    assert run.report.is_file() and os.fspath(run) == str(digits_run)
    assert "done" in repr(run) and f"{metrics['accuracy']['value']:.4f}" in repr(run)


def test_a_run_shows_its_figures_and_curves_and_escapes_names(digits_run: Path, tmp_path: Path) -> None:
    shutil.copytree(digits_run, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    record |= {"recipe": HOSTILE, "notes": [HOSTILE]}
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    html = Run(tmp_path / "run")._repr_html_()
    accuracy = Run(digits_run).metrics.loc[("valid", "accuracy"), "value"]
    assert f"{accuracy * 100:.1f}" in html and "Macro F1" in html
    drawn = pictures(html)
    assert len(drawn) == 3 and all(picture.startswith(b"\x89PNG") for picture in drawn)
    assert "<img src=x" not in html and html.count("&lt;img src=x") == 2
    assert not re.search(r"<(script|style|link)|https?://", html), "it stands alone, and notebooks remove styles"


def test_a_run_that_did_not_end_shows_what_it_left(digits_run: Path, tmp_path: Path) -> None:
    (tmp_path / "cut").mkdir()
    record = json.loads((digits_run / "run.json").read_text())
    (tmp_path / "cut" / "run.json").write_text(json.dumps(record | {"status": "interrupted", "reason": "Ctrl-C"}))
    run = Run(tmp_path / "cut")
    assert "was interrupted: Ctrl-C" in run._repr_html_() and "interrupted" in repr(run)
    assert len(run.metrics) == len(run.history) == 0
    with pytest.raises(OutputError, match=r"predictions\.csv"):
        _ = run.predictions
    with pytest.raises(OutputError, match="no run"):
        Run("such")


def test_a_run_labels_images_as_the_command_does(digits_run: Path, tmp_path: Path) -> None:
    run = Run(digits_run)
    known = run.predictions[:5]
    files = [Path(run.record["data"]["root"]) / path for path in known["path"]]
    answers = run.predict(files, top_k=2, calibrated=True, tta=True)
    words = ["predict", run.path, *files, "-o", tmp_path / "out.csv", "--top-k", 2, "--calibrated", "--tta"]
    assert command(*words).code == 0
    written = pd.read_csv(tmp_path / "out.csv", dtype={"prediction": str})
    assert (
        answers["path"].tolist() == list(map(str, files))
        and answers["prediction"].tolist() == written["prediction"].tolist()
    )
    assert answers["confidence"].tolist() == pytest.approx(written["confidence"].tolist(), abs=1e-5)
    assert run.predict(files[0])["prediction"].tolist() == known["prediction"].tolist()[:1]


def test_runs_compared_show_a_table_and_figures(digits_run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(digits_run, other)
    record = json.loads((other / "run.json").read_text())
    record["knobs"]["get_learner"]["path"] = HOSTILE
    (other / "run.json").write_text(json.dumps(record))
    found = compare(Run(digits_run), other, out=tmp_path / "out")
    assert found.table["accuracy"].tolist() == [Run(other).metrics.loc[("valid", "accuracy"), "value"]] * 2
    assert found.results["seed"].tolist() == [3, 3] and len(found.runs) == 2 and found.page.is_file()
    html = found._repr_html_()
    assert "exact McNemar test" in html and "accuracy on valid" in html and len(pictures(html)) == 2
    assert "<img src=x" not in html and "&lt;img src=x" in html
    with pytest.raises(UsageError, match="at least two runs"):
        compare(other)
    with pytest.raises(UsageError, match="need a recipe"):
        compare(digits_run, other, epochs=3)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would have been trained: the requests and plans that reach the machinery."""
    seen: list[Any] = []
    monkeypatch.setattr(runner, "run", lambda request, screen, watchers=(): seen.append(request) or Path())
    monkeypatch.setattr(grid, "run_all", lambda plan, screen, after_each, quiet: seen.append(plan) or [])
    monkeypatch.setattr(notebook, "Run", lambda path: path)
    monkeypatch.chdir(ROOT)
    return seen


def test_a_recipe_run_by_keyword_is_the_run_of_its_command(asked: list[Any], tmp_path: Path) -> None:
    given = {"epochs": 3, "filters": (8, 16), "lr": 2e-3, "limit": 20, "keep": "last", "seed": 1, "extra": {"div": 5}}
    recipe("digits-cnn").run(**given, out=tmp_path / "run")
    (one,) = asked
    words = "--epochs 3 --filters 8,16 --lr 0.002 --limit 20 --keep last --seed 1 --set div=5"
    assert command("recipe", "digits-cnn", *words.split(), "--out", tmp_path / "run").code == 0
    by_command: Request = asked[1]
    same = ("knobs", "options", "out")
    assert [getattr(one, name) for name in same] == [getattr(by_command, name) for name in same]
    assert one.extra == {"div": 5} and by_command.extra == {"div": "5"}, "text is read as Python when it is used"
    assert one.command.startswith("fastcls recipe digits-cnn --filters 8,16 --epochs 3")
    html = recipe("digits-cnn")._repr_html_()
    assert "smoothing" in html and "label smoothing" in html and "99.61" in html


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ({"epochss": 3, "lr": "fast"}, ["epochss: ", "'epochs'", "lr='fast'"]),
        (
            {"limit": "many", "fused": 1},
            ["limit='many': expected an integer, 1 or more", "fused=1: expected true or false"],
        ),
        ({"keep": "first"}, ["last"]),
        ({"limit": 0}, ["limit=0: "]),
    ],
)
def test_wrong_settings_are_named_together(asked: list[Any], given: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(KnobError) as shown:
        recipe("digits-cnn").run(**given)
    assert not asked and all(part in str(shown.value) for part in parts), shown.value


def test_a_comparison_by_keyword_plans_what_the_command_does(asked: list[Any], tmp_path: Path) -> None:
    vary = {"dropout": 0, "filters": [(8,), (8, 16)]}
    found = compare(
        "digits-cnn",
        vary=vary,
        settings=[{"rotate": 0, "lr": 0.1}],
        one_at_a_time=True,
        seeds=2,
        epochs=1,
        out=tmp_path / "c",
    )
    (plan,) = asked
    names = ["baseline", "dropout=0.0", "filters=8", "filters=8,16", "rotate=0.0,lr=0.1"]
    folders = [f"{name}/seed-{seed}" for seed in (42, 43) for name in names]
    assert [cell.folder.relative_to(tmp_path / "c").as_posix() for cell in plan.cells] == folders
    outcome = command(*shlex.split(found.found.command)[1:], "--dry-run")
    assert [line.split()[-1] for line in outcome.output.splitlines() if "to do" in line] == folders
    with pytest.raises(KnobError, match="dropuot"):
        compare("digits-cnn", vary={"dropuot": [0, 1]})
    with pytest.raises(UsageError, match="seeds=0"):
        compare("digits-cnn", seeds=0)


@pytest.mark.published
def test_a_run_is_opened_and_shown_without_torch(digits_run: Path) -> None:
    program = f"""
import sys
from fastcls import Run, compare
run = Run({str(digits_run)!r})
assert run._repr_html_() and len(run.history) == 3 and len(run.predict(run.path / "figures")) > 0
assert not {{"torch", "fastai"}} & set(sys.modules)
"""
    done = python("-c", program)
    assert done.returncode == 0, done.stderr
