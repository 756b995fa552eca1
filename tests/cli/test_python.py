"""fastcls in Python: every verb takes values, gives values, and refuses wrong ones as its command does."""

from __future__ import annotations

import inspect
import re
import shutil
from collections.abc import Callable
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from PIL import Image

import fastcls
from fastcls.errors import DataError, FastclsError, KnobError, OutputError, TrainingError, UsageError
from fastcls.settings.options import DECLARED
from fastcls.settings.space import Range


@pytest.mark.usefixtures("unreported")
def test_train_resume_and_report(tmp_path: Path, unreported: None) -> None:
    settings = {"epochs": np.int64(1), "limit": "8", "filters": np.array([4, 8]), "lr": None, "quiet": np.bool_(True)}
    run = fastcls.train("digits-cnn", **settings, out=tmp_path / "run")
    assert run.record["knobs"]["get_learner"]["filters"] == [4, 8] and run.record["status"] == "done"
    longer = fastcls.resume(run, extend_epochs=1, quiet=True)
    assert longer.history["epoch"].tolist() == [1, 2]
    longer.report.unlink()
    assert fastcls.report(longer) == longer.report and longer.report.is_file()
    with pytest.raises(KnobError, match="epochs=0: expected an integer"):
        fastcls.train("digits-cnn", epochs=0)
    with pytest.raises(KnobError, match="pct_start must be a number, not <object"):
        fastcls.train("digits-cnn", extra={"pct_start": object(), "div": "5"})
    with pytest.raises(TrainingError, match="Out of memory while building the network"):
        fastcls.train("digits-cnn", filters=(10**12,), limit=2, quiet=True)
    with pytest.raises(UsageError, match="extend_epochs"):
        fastcls.resume(run, extend_epochs=-1)


@pytest.mark.parametrize(
    ("said", "in_python"),
    [
        ("--epochs 0: expected an integer from 1", "epochs=0: expected an integer from 1"),
        ("--precision fp7: expected auto", "precision='fp7': expected auto"),
        ("--lr -0.1: expected a number", "lr=-0.1: expected a number"),
        ("--sise: no such knob; did you mean '--size'?", "sise: no such knob; did you mean 'size'?"),
        ("Fix them, or leave them out with --skip-bad.", "Fix them, or leave them out with skip_bad."),
        ("Give --no-test, or --bs 4 or 8.", "Give test=False, or bs=4 or 8."),
        ("No --path.\nTry  fastcls recipe folder --path .", "No path.\nTry  fastcls recipe folder --path ."),
        ("a long--dash, a-b and -- alone", "a long--dash, a-b and -- alone"),
        ("--filters [1, 2]: expected text", "filters=[1, 2]: expected text"),
        ("--lr nan, or --wd a b: expected a number", "lr nan, or wd='a b': expected a number"),
        ("-o photos: holds a run. Choose another, -o.", "out='photos': holds a run. Choose another, out."),
        ("--storage s3://a/b: answers nothing", "storage='s3://a/b': answers nothing"),
        ("--device cuda:9: this machine has none", "device='cuda:9': this machine has none"),
        ("--set pct: not a keyword of fit", "extra='pct': not a keyword of fit"),
    ],
)  # fmt: skip
def test_errors_name_keywords_in_python_and_options_in_the_shell(said: str, in_python: str) -> None:
    message, _, hint = said.partition("\n")
    error = UsageError(message, hint)
    assert str(error) == in_python and (error.message, error.hint) == (message, hint)


def test_predict_and_export(digits_run: Path, tmp_path: Path) -> None:
    run = fastcls.Run(digits_run)
    files = [Path(run.record["data"]["root"]) / path for path in run.predictions["path"][:3]]
    found = fastcls.predict(digits_run, files, top_k=2)
    given = {"top_k": np.float32(2).astype(int), "tta": None, "calibrated": "no", "costs": None}
    pd.testing.assert_frame_equal(found, run.predict(pd.Series(map(str, files)), **given))
    exported = fastcls.export(digits_run, "onnx", "safetensors", out=tmp_path / "files")
    assert exported["onnx"].file.is_file() and exported["onnx"].images > 0 and exported["onnx"].difference < 1e-3
    assert exported["safetensors"].file.is_file() and exported["safetensors"].difference is None
    with pytest.raises(OutputError, match="exists already"):
        fastcls.export(digits_run, out=tmp_path / "files")
    with pytest.raises(UsageError, match="did you mean 'onnx'"):
        fastcls.export(digits_run, "onxn", out=tmp_path / "other")


def test_check(tmp_path: Path) -> None:
    for name in "ab":
        for i in range(3):
            file = tmp_path / "photos" / name / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((32, 32), 30 + i).save(file)
    (tmp_path / "photos" / "a" / "broken.png").write_text("no image")
    seen: list[tuple[int, int]] = []
    found = fastcls.check(tmp_path / "photos", progress=lambda done, total: seen.append((done, total)))
    assert found.errors >= 1 and found.page is None and seen[-1] == (7, 7)
    assert found.findings.loc[found.findings["severity"] == "error", "example"].str.contains("broken.png").any()
    assert not list(Path().glob("checks*")), "nothing is written without `out`"
    assert fastcls.check(tmp_path / "photos", out=tmp_path / "page").page == tmp_path / "page" / "check.html"
    with pytest.raises(DataError):
        fastcls.check(tmp_path / "nowhere")


@pytest.mark.usefixtures("unreported")
def test_search(tmp_path: Path, unreported: None) -> None:
    pytest.importorskip("optuna")
    space = {"lr": Range(1e-3, 1e-1, log=True), "filters": [(4,), (4, 8)]}
    settings = {"epochs": 1, "limit": 6, "out": tmp_path / "study", "quiet": True}
    found = fastcls.search("digits-cnn", space, trials=2, **settings)
    assert len(found.trials) == 2 and set(found.best) == set(space) and found.page.is_file()
    assert found.best["filters"] in space["filters"] and 1e-3 <= found.best["lr"] <= 1e-1
    with pytest.raises(KnobError, match="the end of the range must be above its start"):
        fastcls.search("digits-cnn", {"lr": Range(1e-1, 1e-3)}, **settings)
    with pytest.raises(KnobError, match="no such knob"):
        fastcls.search("digits-cnn", {"larning": [1, 2]}, **settings)


def test_a_rate_is_found_and_the_learner_is_not_needed() -> None:
    found = fastcls.lr_find("digits-cnn", steps=40, limit=20, bs=8)
    assert set(found.suggestions) >= {"valley"} and len(found.rates) == len(found.losses)
    with pytest.raises(UsageError, match="at least 20"):
        fastcls.lr_find("digits-cnn", steps=5)


def test_python_does_not_stand_on_the_shell() -> None:
    code = [*(ROOT / "fastcls" / "running").glob("*.py"), ROOT / "fastcls" / "api.py"]
    assert not [file.name for file in code if "fastcls.cli" in file.read_text()]


WRONG: dict[str, Callable[[], Any]] = {  # each made anew, for a generator can be read once
    "None": lambda: None,
    "object": object,
    "function": lambda: print,
    "empty text": str,
    "text": lambda: "nonesuch",
    "NUL": lambda: "a\0b",
    "bytes": lambda: b"nonesuch",
    "path": lambda: Path("nonesuch"),
    "true": lambda: True,
    "float": lambda: 2.5,
    "NaN": lambda: float("nan"),
    "infinite": lambda: float("-inf"),
    "negative": lambda: -1,
    "huge": lambda: 10**400,
    "complex": lambda: 1j,
    "decimal": lambda: Decimal("0.5"),
    "numpy integer": lambda: np.int64(-2),
    "numpy float": lambda: np.float32(-0.5),
    "numpy boolean": lambda: np.bool_(True),
    "array of none": lambda: np.array(-3),
    "array": lambda: np.array([[1.5]]),
    "pd.NA": lambda: pd.NA,
    "pd.NaT": lambda: pd.NaT,
    "series": lambda: pd.Series(["nonesuch"]),
    "table": lambda: pd.DataFrame({"a": [1]}),
    "list": list,
    "tuple of None": lambda: (None,),
    "list of objects": lambda: [object(), ["x"]],
    "generator": lambda: (name for name in ("nonesuch", 3)),
    "set": lambda: {"nonesuch"},
    "range": lambda: range(3),
    "mapping": dict,
    "mapping of objects": lambda: {"lr": object(), 3: pd.NA},
}
UNKNOWN = {"sise": 8}  # a knob that no recipe has: nothing is trained, whatever else is given


def calls(run: Path, photos: Path) -> dict[Callable[..., Any], dict[str, Any]]:
    """Every public function, and arguments with which it fails or ends in moments."""
    nowhere = {"run": "nonesuch"}
    return {
        fastcls.Run: {"name": run},
        fastcls.Run(run).predict: {"paths": photos},
        fastcls.check: {"path": photos},
        fastcls.compare: {"targets": "digits-cnn", **UNKNOWN},
        fastcls.evaluate: {"run": run, "path": photos},
        fastcls.export: {"run": run, "kinds": "safetensors"},
        fastcls.lr_find: {"name": "digits-cnn", **UNKNOWN},
        fastcls.predict: {"run": run, "paths": photos},
        fastcls.push: {**nowhere, "repository": "me/mine"},
        fastcls.recipe: {"name": "nonesuch"},
        fastcls.report: {**nowhere},
        fastcls.resume: {**nowhere},
        fastcls.save: {"learn": object(), "folder": "mine"},
        fastcls.search: {"name": "digits-cnn", "space": {"lr": [0.1, 0.2]}, **UNKNOWN},
        fastcls.train: {"name": "digits-cnn", **UNKNOWN},
        fastcls.recipe("digits-cnn").run: UNKNOWN,
    }


def test_a_wrong_value_of_any_argument_is_refused_by_name(
    digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every public function × every argument × every wrong value: an answer, or an error of ours, and no other.

    The options of every run, which several functions check by the same code, have every value in `train`.
    """
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.effect_noise((8, 8), 30).save(tmp_path / "photos" / name / "0.png")
    shutil.copytree(digits_run, tmp_path / "run")
    every = calls(tmp_path / "run", tmp_path / "photos")
    assert {function.__name__ for function in every} >= set(fastcls.__all__) - {"__version__"}
    tried, wrong = 0, []
    for function, given in every.items():
        settings = {**dict.fromkeys(DECLARED), "time": "", "extra": None, "epochs": 1, "lr": 0.1, "filters": (4,)}
        parameters = inspect.signature(function).parameters
        names = [name for name, one in parameters.items() if one.kind is not one.VAR_KEYWORD]
        names += list(settings) if given.keys() & UNKNOWN else []
        for name, (kind, value) in product(names, WRONG.items()):
            if kind != "object" and name not in parameters and function is not fastcls.train:
                continue
            words = {**given, name: value()}
            places = [words.pop(name) for name in ("run", "targets", "kinds") if name in words]  # by their order
            tried += 1
            try:
                function(*places, **words)
            except FastclsError as error:
                text = str(error)
            except Exception as error:
                text = f"{type(error).__name__}: {error}"
                wrong.append(f"{function.__name__}({name}={kind}): {text}")
            else:
                text = ""
            if kind == "object" and name != "learn" and not re.search(rf"\b{name}=.*: expected ", text):
                wrong.append(f"{function.__name__}({name}={kind}) is not refused by name: {text}")
    assert tried > 2000 and not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ["lr", "filters", "limit", "keep", "nonesuch"])
def test_wrong_values_inside_a_space_or_a_grid_are_refused(name: str) -> None:
    wrong = {"sise": 8}  # so that nothing is trained where the others are right
    for kind, value in WRONG.items():
        ends = {"low": 1, "high": 2, "log": False, "step": None}
        spaces = [value(), [value(), value()], *(Range(**{**ends, end: value()}) for end in ends)]
        grids = [{"vary": {name: value(), **wrong}}, {"vary": {name: [value(), 3], **wrong}}]
        grids += [{"settings": [{name: value(), **wrong}]}]
        tries = [(fastcls.search, {"space": {name: space}, "metric": "nonesuch"}) for space in spaces]
        for function, words in [*tries, *((fastcls.compare, words) for words in grids)]:
            try:
                function("digits-cnn", **words)
            except KnobError:
                continue
            except Exception as error:
                raise AssertionError((function.__name__, kind, words)) from error
            raise AssertionError((function.__name__, kind, words))
