"""Every notebook runs from top to bottom; scripts/check looks that it is kept without outputs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from jupyter_client.manager import KernelManager, start_new_kernel
from nbclient import NotebookClient

NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
PHOTOGRAPHS = {"04_your_own_folder", "06_kaggle"}  # need real ones
SMALL = {"WEIGHTS": "none", "ARCH": "timm/resnet10t", "SIZE": "32", "EPOCHS": "1", "SEEDS": "2"}


BEGIN = f"""
import os, sys
sys.path.append({str(ROOT / "tests" / "support")!r})
import quicker
quicker.operators_once()
"""


@pytest.fixture(scope="module")
def kernel() -> Iterator[KernelManager]:
    """One for all, so that what they import is imported once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        manager, client = start_new_kernel()
    client.stop_channels()
    yield manager
    manager.shutdown_kernel(now=True)


@pytest.mark.published
@pytest.mark.filterwarnings("ignore")  # jupyter's own
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs(file: Path, tmp_path: Path, kernel: KernelManager, request: pytest.FixtureRequest) -> None:
    lesson = {f"LESSON_{name}": value for name, value in SMALL.items()}
    if file.stem in PHOTOGRAPHS:
        lesson["LESSON_IMAGENETTE"] = str(request.getfixturevalue("imagenette"))
    notebook = nbformat.read(file, 4)
    begin = BEGIN + f"os.chdir({str(tmp_path)!r})\nos.environ.update({lesson!r})\n%reset -f"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(begin))
    client = NotebookClient(notebook, km=kernel, timeout=300)
    try:
        client.execute()
    finally:
        client.kc.stop_channels()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in shown)
    assert not list(tmp_path.rglob("*.pth")), "the finder's temporary weights are gone"
