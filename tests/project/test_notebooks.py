"""Every notebook is kept without outputs and runs from top to bottom."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_kept_without_outputs(file: Path) -> None:
    for cell in nbformat.read(file, 4).cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None


QUICK = {"03_interpretation"}  # the others take longer than the default tier has
PHOTOGRAPHS = {"04_your_own_folder", "06_kaggle"}  # need real ones
SMALL = {"WEIGHTS": "none", "ARCH": "timm/resnet10t", "SIZE": "32", "EPOCHS": "1", "SEEDS": "2"}


@pytest.mark.filterwarnings("ignore")  # jupyter's own
@pytest.mark.parametrize(
    "file",
    [pytest.param(file, marks=[] if file.stem in QUICK else [pytest.mark.published]) for file in NOTEBOOKS],
    ids=lambda file: file.stem,
)
def test_a_notebook_runs(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    for name, value in SMALL.items():
        monkeypatch.setenv(f"LESSON_{name}", value)
    if file.stem in PHOTOGRAPHS:
        monkeypatch.setenv("LESSON_IMAGENETTE", str(request.getfixturevalue("imagenette")))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    notebook = nbformat.read(file, 4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in shown)
    assert not list(tmp_path.rglob("*.pth")), "the finder's temporary weights are gone"
