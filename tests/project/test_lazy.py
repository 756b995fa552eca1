"""Imports put off until they are used: nothing of them is loaded before, everything of them works then."""

from __future__ import annotations

import importlib
import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import python

from fastcls import lazy

PARTS = ("slowly", "slowly.deep", "slowly.by_name")


@pytest.fixture(autouse=True)
def slowly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package `slowly` with parts, put off; `missing` is put off too, but not installed."""
    package = tmp_path / "slowly"
    package.mkdir()
    (package / "__init__.py").write_text("__version__ = '1.2'\ndef answer(): return 42\n")
    (package / "deep.py").write_text("from slowly import answer\nnumber = 7\n")
    (package / "by_name.py").write_text("def double(x): return 2 * x\ndef treble(x): return 3 * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("FASTCLS_LAZY_IMPORTS", raising=False)
    monkeypatch.setattr(lazy, "PUT_OFF", {**dict.fromkeys(PARTS, ()), "slowly.by_name": ("double",), "missing": ()})
    yield
    for name in PARTS:
        sys.modules.pop(name, None)


def test_a_module_loads_when_an_attribute_is_asked_for_and_not_before() -> None:
    with lazy.imports():
        import slowly
        import slowly.deep as deep

        assert importlib.util.find_spec("slowly") and not hasattr(slowly, "__file__")
    assert not set(PARTS) & set(sys.modules)
    assert deep.number == 7 and slowly.answer() == 42 and slowly.__version__ == "1.2"
    assert type(sys.modules["slowly"]) is type(os) and slowly.answer is sys.modules["slowly"].answer
    assert "answer" in dir(slowly) and pickle.loads(pickle.dumps(slowly.answer)) is slowly.answer
    with pytest.raises(AttributeError, match="nothing"):
        _ = slowly.nothing


def test_a_function_that_is_imported_by_name_loads_its_module_when_it_is_called() -> None:
    with lazy.imports():
        from slowly.by_name import double
    assert not set(PARTS) & set(sys.modules)
    assert double(4) == 8 and "slowly.by_name" in sys.modules


def test_whatever_else_is_imported_inside_the_block_is_the_real_thing() -> None:
    with lazy.imports():
        from slowly import answer
        from slowly.by_name import treble

        assert answer.__module__ == "slowly" and treble(2) == 6
        assert {"slowly", "slowly.by_name"} <= set(sys.modules)
    import slowly

    assert slowly.answer is answer


def test_a_module_that_is_loaded_already_stays_and_a_missing_one_is_missed() -> None:
    import slowly as loaded

    with lazy.imports():
        import slowly

        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("missing")
    assert slowly is loaded


def test_an_environment_variable_switches_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCLS_LAZY_IMPORTS", "0")
    with lazy.imports():
        import slowly
    assert slowly is sys.modules["slowly"] and not isinstance(slowly, lazy.StandIn)


FASTAI = """
import sys
from fastcls import lazy
from fastcls.running.loading import import_fastai

import_fastai()
import fastcls.models.learners
early = {*lazy.PUT_OFF, "torch._dynamo"} & set(sys.modules)
assert not early, early

import pickle
import torch
from fastai.vision.all import *
from fastai.vision import learner

learner.create_timm_model("resnet18", 2, pretrained=False)
from timm.models import resnet  # as a recipe would
assert fastcls.models.backbones.timm.models.resnet is resnet
assert learner.timm.create_model is sys.modules["timm"].create_model

assert [len(part) for part in TrainTestSplitter(0.5, stratify=[0, 0, 1, 1])(range(4))] == [2, 2]
right = tensor([0, 1, 1])
assert F1Score()(right, right) == 1 and SpearmanCorrCoef()(right * 1.0, right * 1.0) == 1
import sklearn.metrics
assert type(sklearn.metrics) is type(sys) and sklearn.metrics.f1_score
assert ndimage.zoom(np.ones((2, 2)), 2).shape == (4, 4) and pickle.loads(pickle.dumps(ndimage.zoom)) is ndimage.zoom

def whether_torchvision_compiles(x):
    return x + sys.modules["torchvision.ops.roi_align"].is_compile_supported(x.device.type)

assert torch.compile(whether_torchvision_compiles, backend="eager", fullgraph=True)(torch.zeros(1)) == 1
torch.onnx.export(nn.Linear(2, 2), (torch.zeros(1, 2),), dynamo=True, verbose=False)
class Zoomed:
    def __len__(self): return 4
    def __getitem__(self, i): return tensor(ndimage.zoom(np.full((2, 2), i * 1.0), 2))

assert [len(batch) for batch in torch.utils.data.DataLoader(Zoomed(), 2, num_workers=1)] == [2, 2]
"""


@pytest.mark.published
def test_fastai_loads_none_of_them_and_works_with_all_of_them(tmp_path: Path) -> None:
    env = {"TORCHINDUCTOR_COMPILE_THREADS": "1"}  # else torch starts a process a core, each of which imports it
    done = python("-c", FASTAI, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
