"""`fastcls import --trust-pickle`: what fastai and torch keep in pickles becomes weights that a network starts from."""

from __future__ import annotations

import ast
import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, Fastcls
from fastai.vision.all import ImageDataLoaders, Normalize, Resize, resnet18, vision_learner
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from fastcls.models.learners import transfer_learner
from fastcls.settings import options

STATS = ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
READERS = {"cifar", "foreign", "pickles"}  # the modules of ours that may know of pickles


def test_no_other_module_can_read_a_pickle() -> None:
    """No import of what unpickles, no torch.load and no np.load that would."""
    for file in sorted((ROOT / "fastcls").rglob("*.py")) + sorted((ROOT / "recipes").glob("*.py")):
        if file.stem not in READERS:
            found = set(unpicklers(ast.parse(file.read_text())))
            assert not found, f"{file}: {found}"


def unpicklers(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (n for n in names if n.split(".")[0] in ("pickle", "shelve", "marshal", "dill", "joblib"))
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("torch.load", "load_learner", "pd.read_pickle", "torch.hub.load"):
                yield called
            if called == "np.load" and "allow_pickle=True" in ast.unparse(node):
                yield called


@pytest.fixture(scope="module")
def learner(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A fastai Learner of someone else, with files of every kind in its folder."""
    folder = tmp_path_factory.mktemp("theirs")
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir()
        for i in range(6):
            Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / name / f"{i}.png")
    dls = ImageDataLoaders.from_folder(folder, valid_pct=0.4, item_tfms=Resize(32), bs=4, num_workers=0, seed=1)
    dls.add_tfms([Normalize.from_stats(*STATS, cuda=False)], "after_batch")
    learn = vision_learner(dls, resnet18, pretrained=False, normalize=False)
    learn.create_opt()
    learn.export("exported.pkl")
    learn.save("saved")
    state = learn.model.state_dict()
    torch.save(state, folder / "state.pth")
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, folder / "c.ckpt"
    )
    torch.save(learn.model[0].state_dict(), folder / "body.pt", _use_new_zipfile_serialization=False)
    return learn


@pytest.mark.faults
@pytest.mark.unpickles
@pytest.mark.parametrize("name", ["exported.pkl", "models/saved.pth", "state.pth", "c.ckpt", "body.pt"])
def test_pickled_weights_are_those_that_a_network_starts_from(
    fastcls: Fastcls, learner: Any, tmp_path: Path, name: str
) -> None:
    source = learner.path / name
    refused = fastcls("import", source, "-o", "w.safetensors")
    assert refused.code == 2 and "It was not read." in refused.output and "--trust-pickle" in refused.output
    assert ("__builtin__.getattr" in refused.output) == (name == "exported.pkl")
    outcome = fastcls("import", source, "-o", "w.safetensors", "--trust-pickle")
    assert outcome.code == 0 and f"{len(load_file('w.safetensors'))} tensors" in outcome.output
    assert ("fully unpickled" in outcome.output) == (name == "exported.pkl"), "weights alone need no code"
    with safe_open("w.safetensors", framework="pt") as file:
        assert ("classes" in file.metadata()) == (name == "exported.pkl")
        if name == "exported.pkl":
            assert json.loads(file.metadata()["classes"]) == ["cat", "dog"]
    with options.using(options.Options()) as notes:
        dls = ImageDataLoaders.from_folder(learner.path, valid_pct=0.4, item_tfms=Resize(32), bs=4, num_workers=0)
        ours = transfer_learner(dls, "resnet18", weights="w.safetensors")
    assert any("the body starts from w.safetensors" in note for note in notes)
    theirs = list(learner.model[0].state_dict().values())
    assert all(torch.equal(a, b) for a, b in zip(ours.model[0].state_dict().values(), theirs, strict=True))
    (normalize,) = (step for step in ours.dls.train.after_batch.fs if isinstance(step, Normalize))
    if name == "exported.pkl":
        torch.testing.assert_close(normalize.mean.flatten(), torch.tensor(STATS[0]))
    again = fastcls("import", source, "-o", "w.safetensors", "--trust-pickle")
    assert again.code == 4 and "exists already" in again.output


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


@pytest.mark.faults
@pytest.mark.unpickles
def test_only_the_flag_runs_what_is_in_a_pickle(fastcls: Fastcls, tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3), "more": Payload()}, "w.pth")
    Path("raw.pkl").write_bytes(pickle.dumps(Payload()))
    for name in ("w.pth", "raw.pkl"):
        refused = fastcls("import", name)
        assert refused.code == 2 and "It imports posix.system." in refused.output
        weights = fastcls("recipe", "folder", "--path", tmp_path, "--weights", name, "--dry-run")
        assert weights.code != 0 and not Path("executed").exists()
    trusted = fastcls("import", "w.pth", "--trust-pickle")
    assert trusted.code == 0 and "fully unpickled" in trusted.output and Path("executed").exists()
    Path("junk.pth").write_bytes(b"junk" * 100)
    junk = fastcls("import", "junk.pth", "--trust-pickle", "-o", "junk.safetensors")
    assert junk.code == 4 and "not a readable torch.save file" in junk.output
    torch.save([1, 2], "list.pth")
    none = fastcls("import", "list.pth", "--trust-pickle")
    assert none.code == 4 and "contains no weights: it is of the type list" in none.output
    wrong = fastcls("import", "w.pth", "-o", "w.bin")
    assert wrong.code == 2 and ".safetensors" in wrong.output


def _text(word: str) -> bytes:
    return b"\x8c" + bytes([len(word)]) + word.encode()


def _unlike_what_is_last() -> bytes:
    """A pickle that keeps the parts of a name, and puts a harmless name in front of where it takes them."""
    parts = _text("os") + b"q\x000" + _text("system") + b"q\x010" + _text("collections") + b"0" + _text("OrderedDict")
    return b"\x80\x04" + parts + b"0h\x00h\x01\x93" + _text("touch executed") + b"\x85R."


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (_unlike_what_is_last(), "It imports os.system."),
        (b"\x80\x04\x82\x01)R.", "It imports a name that is not written out."),
        (b"\x80\x04\x95\xff\xff\xff\xff\x00\x00\x00\x00", "What it imports could not be read."),
        (b"\x80\x04cos\nsystem\n\x95", "It imports os.system; the rest could not be read."),
        (
            b"\x80\x04B" + (17_000_000).to_bytes(4, "little") + bytes(17_000_000) + b"0cos\nsystem\n)R.",
            "could not be read.",
        ),
        (pickle.dumps({"a": [1, (2, "x"), {3}], "b": b"y" * 300}, 4), "It contains only tensors."),
    ],
    ids=["kept", "extension", "cut", "cut after", "large", "harmless"],
)
def test_what_a_pickle_imports_is_told_truly(fastcls: Fastcls, data: bytes, said: str) -> None:
    Path("w.pkl").write_bytes(data)
    refused = fastcls("import", "w.pkl")
    assert refused.code == 2 and said in " ".join(refused.output.split()), refused.output


def test_what_is_no_pickle_is_not_called_one(fastcls: Fastcls) -> None:
    """And no advice to remove a file that the user needs."""
    Path("w.safetensors").write_bytes(b"weights")
    Path("w.onnx").write_text("not a pickle")
    Path("folder").mkdir()
    for name, code, said in (
        ("w.safetensors", 2, "is a .safetensors file already."),
        ("w.onnx", 4, "is not a pickle"),
        ("folder", 4, "is a folder"),
    ):
        outcome = fastcls("import", name)
        assert outcome.code == code and said in outcome.output and "Remove" not in outcome.output, outcome.output
