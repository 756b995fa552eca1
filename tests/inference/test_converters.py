"""The how-tos of docs/exporting.md for converters of others, where these are installed: the same probabilities."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from conftest import Fastcls

pytestmark = pytest.mark.slow


@pytest.fixture
def network(digits_run: Path, tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """A run's model.onnx, an image that it takes (1, channels, height, width), and its probabilities."""
    file = shutil.copyfile(digits_run / "model.onnx", tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(file)
    images = np.random.default_rng(0).normal(size=(1, *session.get_inputs()[0].shape[1:])).astype(np.float32)
    return file, images, softmax(session.run(None, {"images": images})[0])


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def test_ncnn_gives_the_same_probabilities(network: tuple[Path, np.ndarray, np.ndarray]) -> None:
    ncnn = pytest.importorskip("ncnn", reason="needs ncnn and pnnx")
    package = importlib.util.find_spec("pnnx")
    if package is None or not package.submodule_search_locations:
        pytest.skip("needs pnnx")
    file, images, expected = network
    program = Path(package.submodule_search_locations[0]) / "pnnx"  # what the command of this name starts
    shape = ",".join(map(str, images.shape))
    subprocess.run([program, file.name, f"inputshape=[{shape}]"], cwd=file.parent, check=True, capture_output=True)
    net = ncnn.Net()
    net.load_param(str(file.parent / "model.ncnn.param"))
    net.load_model(str(file.parent / "model.ncnn.bin"))
    extractor = net.create_extractor()
    given = ncnn.Mat(np.ascontiguousarray(images[0]))  # an extractor does not keep it
    extractor.input("in0", given)
    found = softmax(np.array(extractor.extract("out0")[1])[None])
    assert found.argmax() == expected.argmax() and np.abs(found - expected).max() < 1e-2  # its weights are halves


def test_litert_gives_the_same_probabilities(network: tuple[Path, np.ndarray, np.ndarray]) -> None:
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="needs ai-edge-litert")
    program = shutil.which("onnx2tf")  # in an environment of its own, say: it wants older packages
    if program is None:
        pytest.skip("needs onnx2tf")
    file, images, expected = network
    shape = "images:" + ",".join(map(str, images.shape))
    words = [program, "-i", file.name, "-o", "litert", "-ois", shape]
    subprocess.run(words, cwd=file.parent, check=True, capture_output=True, env={"PATH": os.environ["PATH"]})
    interpreter = litert.Interpreter(str(file.parent / "litert/model_float32.tflite"))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images.transpose(0, 2, 3, 1))
    interpreter.invoke()
    found = softmax(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    assert np.abs(found - expected).max() < 1e-4


@pytest.mark.unpickles
def test_core_mls_converter_takes_the_program(digits_run: Path, fastcls: Fastcls) -> None:
    """It converts anywhere; only a Mac runs what it writes."""
    coremltools = pytest.importorskip("coremltools", reason="needs coremltools")
    import torch

    assert fastcls("export", digits_run, "--torch-export", "--trust", "-o", "program").code == 0
    program = torch.export.load("program/model.pt2").run_decompositions({})
    model = coremltools.convert(program, minimum_deployment_target=coremltools.target.iOS17)
    model.save("model.mlpackage")
    description = coremltools.utils.load_spec("model.mlpackage").description
    assert len(description.input) == len(description.output) == 1
