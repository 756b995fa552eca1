"""The plain CNNs, the learning rates over a training, late stages, patience: what the recipes of CIFAR are built of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Fastcls
from fastai.vision.all import Learner
from folders import csv_rows
from photographs import loaders
from torch import nn

from fastcls import models, transforms
from fastcls.errors import UsageError
from fastcls.models import networks, stages
from fastcls.training import optimizers, schedules
from fastcls.training.history import quiet


@pytest.mark.parametrize("norm", networks.NORMS)
@pytest.mark.parametrize("act", networks.ACTIVATIONS)
def test_every_norm_and_activation_makes_a_network_that_learns(norm: str, act: str) -> None:
    torch.manual_seed(0)
    model = networks.cnn(3, 4, (8, 16), act=act, norm=norm, side=16, hidden=(32,))
    x, y = torch.randn(32, 3, 16, 16), torch.arange(32) % 4
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(25):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_the_published_networks_have_the_published_shapes() -> None:
    basenet = networks.cnn(3, 100, (6, 16), kernel=5, padding="valid", norm="none", side=32, hidden=(200,))
    shapes = [tuple(p.shape) for p in basenet.parameters() if p.ndim > 1]
    assert shapes == [(6, 3, 5, 5), (16, 6, 5, 5), (200, 400), (100, 200)]
    cnn5 = networks.cnn(3, 10, (64, 64, 128, 128, 256), pools=(2, 4, 5), side=32, hidden=(512,), dropout=0.5)
    assert [p.shape[0] for p in cnn5.parameters() if p.ndim == 4] == [64, 64, 128, 128, 256]
    assert cnn5(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert [m.in_features for m in cnn5.modules() if isinstance(m, nn.Linear)] == [256 * 4 * 4, 512]


def test_pooling_first_changes_nothing_for_relu_without_norm() -> None:
    torch.manual_seed(0)
    first = networks.cnn(3, 5, (8, 8), norm="none", side=16, pool_first=True)
    last = networks.cnn(3, 5, (8, 8), norm="none", side=16, pool_first=False)
    last.load_state_dict(dict(zip(last.state_dict(), first.state_dict().values(), strict=True)))
    x = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(first(x), last(x))


@pytest.mark.parametrize(
    "wrong", [{"norm": "bach"}, {"act": "rleu"}, {"filters": (8,) * 6, "side": 32}, {"padding": "valid", "kernel": 9}]
)
def test_networks_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        networks.cnn(3, 10, **{"filters": (8, 8, 8), "side": 32, **wrong})


@pytest.mark.parametrize(
    ("schedule", "shape"),
    [
        ("flat-cos warmed up", lambda r: r[0] < 0.001 and r.argmax() >= 5 and r[-1] < 0.25 * r.max()),
        ("one-cycle", lambda r: r.argmax() not in (0, len(r) - 1) and r[0] < 0.1 * r.max() > 5 * r[-1]),
        ("flat-cos", lambda r: np.ptp(r[: len(r) * 3 // 4]) == 0 and r[-1] < 0.2 * r[0]),
        ("step", lambda r: sorted(set(np.round(r, 9)), reverse=True) == [0.01, 0.005, 0.0025]),
        ("constant", lambda r: np.ptp(r) == 0),
    ],
)
def test_a_schedule_moves_the_rate_as_its_name_says(photos: Path, schedule: str, shape: Callable) -> None:
    dls = loaders(photos)
    learn = Learner(dls, networks.cnn(3, 3, (4,)), opt_func=optimizers.optimizer(), loss_func=nn.CrossEntropyLoss())
    with learn.no_bar(), learn.no_logging():
        name, _, warm = schedule.partition(" ")
        schedules.fit_schedule(learn, name, 6, 0.01, warmup=0.3 if warm else None)
    rates = np.array(learn.recorder.lrs)
    assert len(rates) == 6 * len(dls.train) and rates.max() == pytest.approx(0.01, rel=0.05) and shape(rates)


def test_an_unknown_schedule_is_refused(photos: Path) -> None:
    with pytest.raises(UsageError, match="Unknown schedule 'cyclic'"):
        schedules.fit_schedule(Learner(loaders(photos), nn.Identity(), loss_func=len), "cyclic", 1, 0.1)


@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v3_small", "timm/convnext_atto"])
def test_any_number_of_late_stages_is_trained(photos: Path, arch: str) -> None:
    learn = models.transfer_learner(loaders(photos), arch, weights="none", splitter=stages.split)
    names = [name for name, _ in stages.stages(learn.model[0])]
    assert len(names) >= 4 and sum(len(p) for _, p in stages.stages(learn.model[0])) == len(
        list(learn.model[0].parameters())
    )
    learn.create_opt()
    for count, what in [(1, names[-1]), (2, "2"), (len(names), "all"), (0, "head")]:
        stages.unfreeze(learn, what)
        conv = [p for name, group in stages.stages(learn.model[0])[len(names) - count :] for p in group]
        frozen = [p for name, group in stages.stages(learn.model[0])[: len(names) - count] for p in group]
        assert all(p.requires_grad for p in conv) and not any(p.requires_grad for p in frozen if p.ndim > 1)
        assert all(p.requires_grad for p in learn.model[1].parameters())
    with pytest.raises(UsageError, match="no such stage"):
        stages.unfreeze(learn, "layer9")


def test_a_stem_from_colours_is_summed_for_gray(photos: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    file = tmp_path / "body.safetensors"
    source = models.transfer_learner(loaders(photos), "resnet18", weights="none")
    from safetensors.torch import save_file

    save_file({k: v.contiguous() for k, v in source.model.state_dict().items()}, file)
    gray = models.transfer_learner(loaders(photos, gray=True), "resnet18", weights=str(file))
    torch.testing.assert_close(gray.model[0].conv1.weight, source.model[0].conv1.weight.sum(1, keepdim=True))
    x = torch.rand(2, 1, 32, 32)  # a gray image as the colour network would see it: the same activations
    for learn in (gray, source):
        learn.model.eval()
    torch.testing.assert_close(gray.model[0](x), source.model[0](x.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)
    assert gray.pretrained and not source.pretrained


@pytest.mark.usefixtures("unreported")
def test_patience_ends_a_training_that_no_longer_improves(fastcls: Fastcls) -> None:
    words = ["--epochs", 12, "--lr", "1e-9", "--filters", "4", "--limit", 10, "--patience", 2, "--out", "run"]
    outcome = fastcls("recipe", "digits-cnn", *words)
    assert outcome.code == 0, outcome.output
    accuracies = [float(row["accuracy"]) for row in csv_rows("run/history.csv")]
    best = max(range(len(accuracies)), key=lambda i: (accuracies[i], -i))
    assert len(accuracies) == best + 3 < 12
    record = json.loads(Path("run/run.json").read_text())
    assert record["status"] == "done" and record["options"]["patience"] == 2


@pytest.mark.published
@pytest.mark.usefixtures("unreported", "brief_probe")
def test_the_birds_in_their_own_layout(fastcls: Fastcls, tmp_path: Path) -> None:
    root = birds(tmp_path / "CUB_200_2011")
    small = ["--arch", "timm/test_resnet", "--weights", "none", "--size", 32, "--bs", 8, "--epochs", 1]
    words = ["--path", root, *small, "--dropout", 0.3, "--wd", 0.1, "--vary", "tune=full,head", "--out", "birds"]
    outcome = fastcls("compare", "birds-resnet50", *words)
    assert outcome.code == 0, outcome.output
    for run in ("baseline", "tune=head"):
        record = json.loads(Path("birds", run, "seed-42", "run.json").read_text())
        assert record["data"]["images"] == {
            "train": 54,
            "valid": 6,
            "test": 60,
        }  # a tenth of the official half held out
    rows = csv_rows("birds/results.csv")
    assert {row["split"] for row in rows} == {"test"} and {row["tune"] for row in rows} == {"full", "head"}
    classes = json.loads(Path("birds/baseline/seed-42/model.json").read_text())["classes"]
    assert len(classes) == 6


def birds(root: Path) -> Path:
    """Caltech-UCSD Birds in small: six species, twenty images each, half of them in the official test split."""
    from PIL import Image

    names = [
        f"{i + 1:03d}.{name}"
        for i, name in enumerate(("Albatross", "Auklet", "Bunting", "Cardinal", "Catbird", "Cowbird"))
    ]
    lines: dict[str, list[str]] = {"images": [], "image_class_labels": [], "train_test_split": []}
    for i in range(120):
        kind = i % 6
        file = root / "images" / names[kind] / f"{names[kind][4:]}_{i:04d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((48, 40), 20 + 20 * kind).convert("RGB").save(file)
        lines["images"].append(f"{i + 1} {names[kind]}/{file.name}")
        lines["image_class_labels"].append(f"{i + 1} {kind + 1}")
        lines["train_test_split"].append(f"{i + 1} {i // 6 % 2}")
    lines["classes"] = [f"{i + 1} {name}" for i, name in enumerate(names)]
    for name, text in lines.items():
        (root / f"{name}.txt").write_text("\n".join(text) + "\n")
    return root


def test_networks_of_a_fixed_input_grow_or_refuse(photos: Path) -> None:
    learn = models.transfer_learner(
        loaders(photos, 64), "timm/vit_tiny_patch16_224", weights="none", cbs=transforms.grow(32)
    )
    with quiet(learn):
        learn.fit(1)
    assert len(learn.recorder.losses) and all(torch.isfinite(torch.tensor(learn.recorder.losses)))
    with pytest.raises(UsageError, match="images of one size"):
        models.transfer_learner(loaders(photos, 64), "timm/mixer_s32_224", weights="none", cbs=transforms.grow(32))
