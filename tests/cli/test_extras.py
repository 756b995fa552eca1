"""What is optional and not installed is answered by the command that installs it, never by a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Fastcls

from fastcls.machine import extras

DIGITS = ["recipe", "digits-cnn", "--out", "out"]
CASES = [  # the extra, the module that is not there, who asks for it (RUN: a run), what the message begins with
    ("tensorboard", "tensorboard", [*DIGITS, "--track", "csv,tensorboard"], "--track tensorboard needs tensorboard"),
    ("wandb", "wandb", [*DIGITS, "--track", "wandb"], "--track wandb needs wandb"),
    ("mlflow", "mlflow", [*DIGITS, "--track", "mlflow"], "--track mlflow needs mlflow"),
    ("search", "optuna", ["search", "digits-cnn", "--space", "lr=0.01..2:log"], "fastcls search needs optuna"),
    ("serve", "starlette", ["serve", "RUN"], "fastcls serve needs starlette"),
    ("serve", "uvicorn", ["serve", "RUN"], "fastcls serve needs uvicorn"),
    ("serve", "python_multipart", ["serve", "RUN"], "fastcls serve needs python_multipart"),
    ("distributed", "accelerate", [*DIGITS, "--processes", "2"], "Training with several processes needs accelerate"),
    ("parquet", "pyarrow", ["predict", "RUN", "RUN/figures", "-o", "out.parquet"], "-o out.parquet needs pyarrow"),
    ("shards", "pyarrow", ["pack", "RUN", "packed"], "fastcls pack needs pyarrow"),
    ("openvino", "openvino", ["export", "RUN", "--openvino", "-o", "out"], "--openvino needs openvino"),
    ("hub", "huggingface_hub", ["push", "RUN", "me/pets"], "fastcls push needs huggingface_hub"),
    ("datasets", "datasets", ["check", "hf://datasets/me/pets"], "--path hf://datasets/me/pets needs datasets"),
]


@pytest.mark.parametrize(("extra", "module", "words", "said"), CASES, ids=[case[1] for case in CASES])
def test_what_is_not_installed_is_answered_with_the_command_that_installs_it(
    extra: str,
    module: str,
    words: list[str],
    said: str,
    fastcls: Fastcls,
    digits_run: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.startswith("fastcls.plugins.serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    outcome = fastcls(*(word.replace("RUN", str(digits_run)) for word in words))
    assert outcome.code == 5, outcome.output
    assert f"error: {said}, which is not installed.\nInstall it:  pip install " in outcome.output
    command = outcome.output.partition("Install it:  ")[2].splitlines()[0]
    package = module.replace("_", "-")
    assert f"{package}>=" in command and "fastcls" not in command, "no index has a package of our name that is ours"
    assert list(Path().iterdir()) == [], "nothing was begun"


def test_every_extra_of_the_package_is_known_with_all_that_it_installs() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    assert [extra for extra in extras.MODULES if f"\n{extra} = [" not in project] == []
    asked = {extra: modules for extra, modules in extras.MODULES.items() if extra != "heic"}  # a file asks, no verb
    assert {case[0] for case in CASES} == set(asked)
    assert {case[1] for case in CASES} == {module for modules in asked.values() for module in modules}


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (ModuleNotFoundError("No module named 'sklearn'", name="sklearn.metrics"), "scikit-learn cannot be imported"),
        (ModuleNotFoundError("No module named 'filelock'", name="filelock"), "filelock is not installed"),
    ],
    ids=["damaged", "gone"],
)
def test_a_package_that_broke_is_named_with_the_command_that_mends_it(
    problem: ImportError, said: str, fastcls: Fastcls, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastcls.settings import sources

    def broken() -> None:
        raise problem

    monkeypatch.setattr(sources, "available", broken)
    if "not installed" in said:
        monkeypatch.setitem(sys.modules, "filelock", None)
    outcome = fastcls("recipes")
    assert outcome.code == 5 and said in outcome.output and "pip install" in outcome.output
    problem.name = "no_package_of_ours"
    with pytest.raises(ImportError):
        fastcls("recipes")


def test_the_checks_of_the_project_say_what_installs_their_tools() -> None:
    done = subprocess.run(
        ["/bin/bash", ROOT / "scripts" / "check"], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert done.returncode == 5 and "pip install -e '.[dev]'" in done.stderr
