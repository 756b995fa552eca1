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


PUBLISHED = {"02_cnn_notes"}  # a published project's, and slow


@pytest.mark.filterwarnings("ignore")  # jupyter's own
@pytest.mark.parametrize(
    "file",
    [pytest.param(file, marks=[pytest.mark.published] * (file.stem in PUBLISHED)) for file in NOTEBOOKS],
    ids=lambda file: file.stem,
)
def test_a_notebook_runs(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    notebook = nbformat.read(file, 4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in shown)
    assert not list(tmp_path.rglob("*.pth")), "the finder's temporary weights are gone"
