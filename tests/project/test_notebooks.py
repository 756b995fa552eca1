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
NEITHER = {"01_lr_find", "05_ablation"}  # look at no run's page, and predict with none
SMALL = {"WEIGHTS": "none", "ARCH": "timm/test_resnet", "SIZE": "32", "EPOCHS": "1", "SEEDS": "2"}


BEGIN = f"""
import os, sys
sys.path += [{str(ROOT / "tests")!r}, {str(ROOT / "tests" / "support")!r}]
import conftest, pytest, quicker
quicker.operators_once()
patch = vars(conftest).setdefault("of_notebooks", pytest.MonkeyPatch())
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
    leave_out = "conftest.unreport(patch)" if file.stem in NEITHER else "patch.undo()"
    begin = BEGIN + f"{leave_out}\nos.chdir({str(tmp_path)!r})\nos.environ.update({lesson!r})\n%reset -f"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(begin))
    client = NotebookClient(notebook, km=kernel, timeout=300)
    try:
        client.execute()
    finally:
        client.kc.stop_channels()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in shown)
    assert not list(tmp_path.rglob("*.pth")), "the finder's temporary weights are gone"
