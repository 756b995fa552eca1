"""The package as a user gets it: a wheel that runs a recipe far from the checkout, and a bare checkout that runs."""

from __future__ import annotations

import tomllib
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, python

from fastcls.machine import extras
from fastcls.settings import sources


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    done = python("-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


def test_the_wheel_holds_recipes_and_page_and_no_global_package_of_recipes(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"fastcls/recipes/{name}.py" for name in sources.available()} <= set(names)
    assert {"fastcls/py.typed", "fastcls/reports/template.html.j2", "fastcls/reports/script.js"} <= set(names)
    assert {name.split("/")[0] for name in names if "dist-info" not in name} == {"fastcls"}
    assert wheel.stat().st_size < 1_000_000


@pytest.mark.further
def test_an_installed_wheel_runs_a_recipe_elsewhere(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)  # what pip does with a pure wheel; its needs are installed already
    words = ["-m", "fastcls", "recipe", "digits-cnn", "--epochs", 1, "--limit", 10, "--filters", 8]
    done = python(*words, cwd=tmp_path, env={"PYTHONPATH": str(site), "HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower(), done.stderr
    (run,) = (tmp_path / "runs" / "digits-cnn").iterdir()
    assert (run / "report.html").stat().st_size > 10_000
    assert not list(tmp_path.rglob("*onnxruntime.db"))  # what its telemetry keeps until it is sent


def test_the_package_without_training_needs_the_same_otherwise() -> None:
    whole, light = (
        tomllib.loads(file.read_text())["project"]
        for file in (ROOT / "pyproject.toml", ROOT / "scripts" / "predict-only" / "pyproject.toml")
    )
    left_out = {line for line in whole["dependencies"] if line.startswith(extras.TRAINING)}
    own, of_whole = light["optional-dependencies"], whole["optional-dependencies"]
    report = own.pop("report")
    assert sorted(light["dependencies"] + report) == sorted({*whole["dependencies"]} - left_out)
    assert len(left_out) == len(extras.TRAINING)
    assert {*own.pop("serve")} == {*of_whole["serve"], next(line for line in report if line.startswith("pandas"))}
    assert light["name"] == extras.LIGHT and light["scripts"] == whole["scripts"]
    assert own.items() <= of_whole.items()


def test_dependency_groups_are_the_extras_of_their_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups, extra = project["dependency-groups"], project["project"]["optional-dependencies"]
    included = {name: [line for line in lines if isinstance(line, str)] for name, lines in groups.items()}
    for line in (line for line in groups["dev"] if isinstance(line, dict)):
        included["dev"] += included[line["include-group"]]
    assert {name: sorted(lines) for name, lines in included.items()} == {
        name: sorted(extra[name]) for name in ("test", "docs", "dev")
    }


def test_a_bare_checkout_runs(tmp_path: Path) -> None:
    done = python("-m", "fastcls", "recipes", cwd=tmp_path)
    assert done.returncode == 0 and "pets-resnet50" in done.stdout
    assert python("-m", "fastcls", "--version", cwd=tmp_path).stdout.startswith("fastcls 0.")
