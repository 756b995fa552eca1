"""`fastcls export`: what other programs get, compared with the Learner, and what is refused."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Fastcls, without_sums
from folders import csv_rows, images_of

from fastcls.images import preprocessing
from fastcls.images.decode import decode
from fastcls.inference import pipeline


def own_answers(run: Path, spec: dict[str, Any], count: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Images as an exported file's metadata says to prepare them, and the Learner's probabilities of them."""
    root = images_of(run)
    rows = csv_rows(run / "predictions.csv")[:count]
    images = np.stack([preprocessing.load(root / row["path"], spec) for row in rows])
    return images, np.array([[float(row[f"p:{i}"]) for i in range(10)] for row in rows])


def shares(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_onnx_takes_pixels_and_gives_the_probabilities_of_predict(fastcls: Fastcls, digits_run: Path) -> None:
    import onnxruntime

    outcome = fastcls("export", digits_run, "-o", "out")
    assert outcome.code == 0 and "out/model.onnx: probabilities on 32 images within" in outcome.output
    session = onnxruntime.InferenceSession("out/model.onnx", providers=["CPUExecutionProvider"])
    shown = session.get_modelmeta().custom_metadata_map
    assert json.loads(shown["classes"]) == [str(i) for i in range(10)] and "uint8" in shown["input"]
    root = images_of(digits_run)
    rows = csv_rows(digits_run / "predictions.csv")[:7]
    expected = np.array([[float(row[f"p:{i}"]) for i in range(10)] for row in rows])
    images = np.stack([decode(root / row["path"], "L") for row in rows])
    for batch in (1, 2, 7):
        probabilities, calibrated = session.run(["probabilities", "calibrated"], {"images": images[:batch]})
        np.testing.assert_allclose(probabilities, expected[:batch], atol=1e-4)
        powers = expected[:batch] ** (1 / float(shown["temperature"]))
        np.testing.assert_allclose(calibrated, powers / powers.sum(1, keepdims=True), atol=1e-3)


@pytest.mark.parametrize("method", ["crop", "squish", "pad", ""])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_graph_prepares_images_as_we_do(method: str, interpolation: str) -> None:
    """Of any size and shape, in colours and gray, with every padding: to the bit."""
    import onnxruntime
    from onnx import helper, parser

    rng = np.random.default_rng(0)
    shapes = [(8, 8)] if not method else [(7, 9), (64, 64), (40, 56), (301, 200), (90, 333), (333, 90), (1, 50)]
    for mode, pad in itertools.product(("RGB", "L"), ("reflection", "border", "zeros") if method == "pad" else ("",)):
        channels = {"RGB": 3, "L": 1}[mode]
        spec = {"mode": mode, "method": method, "interpolation": interpolation, "pad_mode": pad}
        spec |= {"resize": [40, 56], "size": [32, 48], "mean": [0.4] * channels, "std": [0.2] * channels}
        network = parser.parse_model(
            '<ir_version: 9, opset_import: ["": 18]>'
            f"g (float[n, {channels}, y, x] images) => (float[n, c] logits) {{ logits = Flatten (images) }}"
        )
        model = pipeline.whole(network, spec, 1.0)
        model.graph.output.append(helper.make_tensor_value_info("prepared", 1, None))
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        for height, width in shapes:
            pixels = rng.integers(0, 256, (height, width, 3)[: 2 + (channels == 3)], dtype=np.uint8)
            expected = preprocessing.normalise(preprocessing.prepare(pixels, spec)[None], spec)
            (found,) = session.run(["prepared"], {"images": pixels[None]})
            np.testing.assert_array_equal(found, expected, f"{spec} {pixels.shape}")


def test_fewer_bits_say_what_they_cost(fastcls: Fastcls, digits_run: Path) -> None:
    import onnxruntime

    outcome = fastcls("export", digits_run, "--int8", "--fp16", "-o", "out")
    assert outcome.code == 0, outcome.output
    whole = (digits_run / "model.onnx").stat().st_size
    valid = [row for row in csv_rows(digits_run / "splits.csv") if row["split"] == "valid"]
    root = images_of(digits_run)
    images = np.stack([decode(root / row["path"], "L") for row in valid])
    truth = np.array([int(row["label"]) for row in valid])
    for kind, line in zip(("int8", "fp16"), outcome.output.splitlines(), strict=True):
        cost = json.loads(Path(f"out/model-{kind}.json").read_text())
        session = onnxruntime.InferenceSession(f"out/model-{kind}.onnx", providers=["CPUExecutionProvider"])
        (probabilities,) = session.run(["probabilities"], {"images": images})
        assert cost["n"] == len(valid) and abs(cost["after"] - (probabilities.argmax(1) == truth).sum()) <= 1
        assert cost["before"] - cost["only_before"] == cost["after"] - cost["only_after"]
        assert cost["low"] <= cost["difference"] <= cost["high"] and cost["bytes_after"] < whole == cost["bytes_before"]
        assert f"{cost['after'] / cost['n']:.1%} of {len(valid)} valid images right" in line
    shutil.copytree(digits_run, "moved")
    record = json.loads(Path("moved/run.json").read_text())
    record["data"]["root"] = "nowhere"
    Path("moved/run.json").write_text(json.dumps(record))
    outcome = fastcls("export", "moved", "--int8")
    assert outcome.code == 4 and "no training image" in outcome.output and not Path("moved/export").exists()
    outcome = fastcls("export", "moved", "--fp16")
    assert outcome.code == 0 and "not verified" in outcome.output


def test_safetensors_are_the_weights_with_their_classes(fastcls: Fastcls, digits_run: Path) -> None:
    from safetensors import safe_open

    assert fastcls("export", digits_run, "--safetensors", "-o", "out").code == 0
    assert [file.name for file in Path("out").iterdir()] == ["model.safetensors"]
    with (
        safe_open("out/model.safetensors", framework="np") as file,
        safe_open(digits_run / "model.safetensors", framework="np") as own,
    ):
        assert json.loads(file.metadata()["classes"]) == [str(i) for i in range(10)]
        assert sorted(file.keys()) == sorted(own.keys())
        for name in file.keys():  # noqa: SIM118
            np.testing.assert_array_equal(file.get_tensor(name), own.get_tensor(name))


def test_openvino_runs_the_same_network(fastcls: Fastcls, digits_run: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="needs openvino")
    outcome = fastcls("export", digits_run, "--openvino", "-o", "out")
    assert outcome.code == 0 and "out/model.xml: probabilities on 32 images" in outcome.output
    assert sorted(file.name for file in Path("out").iterdir()) == ["model.bin", "model.xml"]
    model = openvino.Core().read_model("out/model.xml")
    spec = json.loads(model.get_rt_info(["fastcls", "preprocessing"]).astype(str))
    images, expected = own_answers(digits_run, spec)
    network = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(shares(network(images)[0]), expected, atol=1e-4)


@pytest.mark.unpickles
def test_a_torch_export_program_needs_trust_and_nothing_of_ours(fastcls: Fastcls, digits_run: Path) -> None:
    import torch

    refused = fastcls("export", digits_run, "--torch-export", "-o", "out")
    assert refused.code == 2 and "recipe.py" in refused.output and "--trust" in refused.output
    assert not Path("out").exists()
    outcome = fastcls("export", digits_run, "--torch-export", "--trust", "-o", "out")
    assert outcome.code == 0 and "out/model.pt2: probabilities on 32 images" in outcome.output
    extra = {"metadata.json": ""}
    program = torch.export.load("out/model.pt2", extra_files=extra)
    shown = json.loads(extra["metadata.json"])
    images, expected = own_answers(digits_run, json.loads(shown["preprocessing"]))
    for batch in (1, 7):
        logits = program.module()(torch.from_numpy(images[:batch])).detach().numpy()
        np.testing.assert_allclose(shares(logits), expected[:batch], atol=1e-4)


def test_what_is_there_is_never_written_over(fastcls: Fastcls, digits_run: Path) -> None:
    shutil.copytree(digits_run, "run")
    before = Path("run/model.onnx").read_bytes()
    outcome = fastcls("export", "run", "-o", "run")
    assert outcome.code == 4 and "run/model.onnx exists already" in outcome.output
    assert Path("run/model.onnx").read_bytes() == before
    assert fastcls("export", "run").code == 0 and Path("run/export/model.onnx").is_file()
    again = fastcls("export", "run", "--safetensors", "--onnx")
    assert again.code == 4 and "run/export/model.onnx exists already" in again.output
    assert not Path("run/export/model.safetensors").exists(), "nothing is begun that cannot be finished"
    Path("file").write_text("mine")
    outcome = fastcls("export", "run", "-o", "file")
    assert outcome.code == 4 and "-o file: this folder cannot be created" in outcome.output


@pytest.mark.parametrize("flag", ["--onnx", "--openvino"])
def test_a_network_that_answers_otherwise_is_not_kept(fastcls: Fastcls, digits_run: Path, flag: str) -> None:
    import onnx

    if flag == "--openvino":
        pytest.importorskip("openvino", reason="needs openvino")
    shutil.copytree(digits_run, "run")
    model = onnx.load("run/model.onnx")
    for weights in model.graph.initializer:
        if len(weights.dims) == 4 and weights.data_type == onnx.TensorProto.FLOAT:
            weights.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weights) * 1.1, weights.name))
    onnx.save(model, "run/model.onnx")
    without_sums(Path("run"))
    outcome = fastcls("export", "run", flag, "-o", "out")
    assert outcome.code == 4 and "was not written: its probabilities differ from the Learner's by" in outcome.output
    assert not Path("out").exists()


def test_images_that_are_gone_are_said_to_be(fastcls: Fastcls, digits_run: Path) -> None:
    shutil.copytree(digits_run, "run")
    record = json.loads(Path("run/run.json").read_text())
    record["data"]["root"] = "/nowhere"
    Path("run/run.json").write_text(json.dumps(record))
    outcome = fastcls("export", "run", "-o", "out")
    assert outcome.code == 0 and "not verified, because no image of predictions.csv can be read" in outcome.output


def test_a_run_that_cannot_be_exported_says_why(
    fastcls: Fastcls, digits_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(digits_run, "run")
    without_sums(Path("run"))
    Path("run/model.onnx").write_bytes(b"no network")
    outcome = fastcls("export", "run", "-o", "out")
    assert outcome.code == 4 and "not a readable ONNX model" in outcome.output
    Path("run/model.onnx").unlink()
    outcome = fastcls("export", "run", "-o", "out")
    assert outcome.code == 4 and "has no model.onnx" in outcome.output and "--safetensors" in outcome.output
    Path("run/model.safetensors").write_bytes(b"no weights")
    outcome = fastcls("export", "run", "--safetensors", "-o", "out")
    assert outcome.code == 4 and "is not a readable .safetensors file" in outcome.output
    Path("run/predictions.csv").write_text("path,p:cat\nx.png,0.5\n")
    outcome = fastcls("export", "run", "--torch-export", "--trust", "-o", "out")
    assert outcome.code == 4 and "predictions.csv cannot be read" in outcome.output
    assert not Path("out").exists(), "a failed export leaves no empty folder"
