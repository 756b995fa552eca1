"""A run's network as timm publishes its own: config.json, and the weights under timm's names."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import save_for_hf

from fastcls.errors import FastclsError
from fastcls.models import backbones, weights
from fastcls.runfolder import model_files

CROPS = {"crop": "center", "squish": "squash", "pad": "border"}  # our ways of making a rectangle a square, and timm's
BODY, HEAD = "0.", "1.1."  # in our files: Sequential(body, Sequential(Dropout, Linear))


def write(run: Path, folder: Path) -> bool:
    """Write config.json and model.safetensors of a run, as `timm.create_model("local-dir:FOLDER")` loads them.

    False, and nothing written, where the network is not one of timm's, or was built with keywords of its own.
    """
    model = model_files.read(run)
    spec = model.get("preprocessing")
    with contextlib.suppress(FastclsError, *backbones.REFUSALS):
        arch = backbones.find(model["arch"])
        if arch.library != "timm" or not spec or not spec["size"]:
            return False
        pool = {"global_pool": "avgmax"} if model.get("pool") == "avgmax" else {}
        network = _network(arch.name, len(model["classes"]), spec, **pool)
        classifier = network.pretrained_cfg.get("classifier")
        if not isinstance(classifier, str):  # a distilled network has two
            return False
        state = _renamed(model_files.verify(run, model_files.WEIGHTS, model), classifier)
        network.load_state_dict(state)
        body = _network(arch.name, 0, spec, **pool)
        body.load_state_dict({key: value for key, value in state.items() if not key.startswith(f"{classifier}.")})
        if not _same(network, body, state[f"{classifier}.weight"], state[f"{classifier}.bias"], spec):
            return False
        own = {"label_names": model["classes"]}
        save_for_hf(network, str(folder), own, safe_serialization=True, data_config=_data(spec))
        return True
    return False


def _network(name: str, classes: int, spec: dict[str, Any], **pool: Any) -> Any:
    """timm's network, with random weights and a classifier of so many classes; 0 has none."""
    cfg = timm.get_pretrained_cfg(name)
    further: dict[str, Any] = {"img_size": tuple(spec["size"])} if cfg and cfg.fixed_input_size else {}
    return timm.create_model(
        name, num_classes=classes, in_chans=model_files.CHANNELS[spec["mode"]], **further, **pool
    ).eval()


def _renamed(file: Path, classifier: str) -> dict[str, torch.Tensor]:
    """The tensors of a run under timm's names."""
    found = {}
    with weights.opened(file) as handle:
        for name in handle.keys():  # noqa: SIM118
            own = name.removeprefix(BODY) if name.startswith(BODY) else f"{classifier}.{name.removeprefix(HEAD)}"
            found[own] = handle.get_tensor(name)
    return found


@torch.no_grad()
def _same(network: Any, body: Any, weight: torch.Tensor, bias: torch.Tensor, spec: dict[str, Any]) -> bool:
    """Whether timm's network gives what ours does, a body without classifier and then a linear layer."""
    images = torch.rand(1, model_files.CHANNELS[spec["mode"]], *spec["size"])
    return torch.allclose(network(images), body(images) @ weight.T + bias, rtol=1e-3, atol=1e-3)


def _data(spec: dict[str, Any]) -> dict[str, Any]:
    """How images are prepared, in timm's words."""
    channels = model_files.CHANNELS[spec["mode"]]
    found: dict[str, Any] = {
        "input_size": (channels, *spec["size"]),
        "interpolation": spec.get("interpolation") or "bilinear",
        "crop_pct": spec["size"][0] / spec["resize"][0],
        "crop_mode": CROPS[spec["method"]],
    }
    return found | {key: tuple(spec[key]) for key in ("mean", "std") if spec.get(key)}
