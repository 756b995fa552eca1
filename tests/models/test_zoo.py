"""Architectures and their figures, the suggestion for given images, and other families wherever ResNets work."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import Fastcls, python
from folders import csv_rows
from photographs import photographs

from fastcls.datasets import downloads
from fastcls.errors import UsageError
from fastcls.models import backbones, suggest, zoo

pytestmark = pytest.mark.further

PUBLISHED = ["resnet50", "vgg16_bn", "mobilenet_v3_large", "densenet121", "convnext_tiny", "vit_b_16", "swin_v2_t"]
PUBLISHED += ["efficientnet_b3", "regnet_y_400mf"]  # the last computes with numbers while it is built


# ------------------------------------------------------------------ the list


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_computed_agrees_with_what_torchvision_publishes(name: str) -> None:
    (published,) = [a for a in zoo.catalogue() if a.name == name]
    network = zoo.on_meta(published)
    assert sum(p.numel() for p in network.parameters()) == published.parameters
    assert zoo.gmacs(network, published.input) == pytest.approx(published.gmacs, rel=2e-3, abs=1e-3)


def test_every_name_is_one_that_recipes_take() -> None:

    every = zoo.catalogue()
    assert len(every) > 1000 and len({a.name for a in every}) == len(every)
    assert all(backbones.find(a.name)[0] == a.library for a in every)


def test_networks_of_both_libraries_have_the_same_figures() -> None:
    every = zoo.figured(zoo.catalogue(), ["timm/resnet18", "timm/vgg11"])
    known = {a.name: a for a in every}
    for name in ("resnet18", "vgg11"):
        ours, theirs = known[f"timm/{name}"], known[name]
        assert ours.parameters == theirs.parameters and ours.gmacs == pytest.approx(theirs.gmacs, rel=1e-3)
    assert {a.name: a for a in zoo.catalogue()}["timm/vgg11"] == known["timm/vgg11"], "it is kept"


@pytest.mark.parametrize(
    "pattern, some", [("vgg", "vgg16"), ("resnet*", "timm/resnet26d"), ("timm/VGG1?", "timm/vgg11"), ("vgg11", "vgg11")]
)
def test_patterns_are_globs_or_parts_of_names(pattern: str, some: str) -> None:
    names = [a.name for a in zoo.matching(pattern, zoo.catalogue())]
    assert some in names and "alexnet" not in names


def test_an_unknown_pattern_offers_the_nearest_name(fastcls: Fastcls) -> None:
    outcome = fastcls("models", "resnet5O")
    assert outcome.code == 2 and "resnet5O: no torchvision or timm" in outcome.output
    assert "did you mean 'resnet50'?" in outcome.output
    with pytest.raises(UsageError):
        zoo.matching("resnet9*9", zoo.catalogue())


def test_models_lists_torchvision_and_says_how_to_see_timm(fastcls: Fastcls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    outcome = fastcls("models")
    lines = outcome.output.splitlines()
    (row,) = [line.split() for line in lines if line.startswith("resnet50 ")]
    assert row == ["resnet50", "25.6", "4.09", "224", "yes", "80.9"]
    assert outcome.code == 0 and "fastcls models 'timm/*'" in outcome.output
    assert not any(line.startswith("timm/") for line in lines) and max(map(len, lines)) <= 80


def test_rows_are_sorted_and_chosen_and_written(fastcls: Fastcls, tmp_path: Path) -> None:
    accurate = fastcls("models", "--sort", "accuracy").output.splitlines()[2:]
    assert accurate[0].startswith("vit_h_14") and accurate.index(
        next(line for line in accurate if line.startswith("vgg16 "))
    ) > accurate.index(next(line for line in accurate if line.startswith("resnet50 ")))
    assert fastcls("models", "timm/lcnet_*", "-o", "all.csv").code == 0
    assert fastcls("models", "timm/lcnet_*", "--weights", "--sort", "gmacs", "-o", "some.csv").code == 0
    rows, chosen = csv_rows("all.csv"), csv_rows("some.csv")
    assert {row["weights"] for row in rows} == {"yes", "no"} and {row["weights"] for row in chosen} == {"yes"}
    macs = [float(row["gmacs"]) for row in chosen]
    assert macs == sorted(macs) and {row["library"] for row in chosen} == {"timm"}
    assert fastcls("models", "-o", "nowhere/all.csv").code == 4 and fastcls("models", "--sort", "size").code == 2
    assert fastcls("models", "--labels", "x.csv").code == 2


def test_many_networks_are_listed_at_once_and_their_figures_computed_by_and_by(
    fastcls: Fastcls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastcls.cli.models.AT_ONCE", 2)
    first = fastcls("models", "timm/test_*").output
    missing = [line for line in first.splitlines() if line.startswith("timm/") and " –        – " in line]
    assert missing and f"\n{len(missing)} figures are still to be computed" in first
    second = fastcls("models", "timm/test_*").output
    assert f"\n{len(missing) - 2} figures are still to be computed" in second


def test_a_list_that_is_kept_needs_no_torch(tmp_path: Path) -> None:
    zoo.catalogue()
    program = "import sys; from fastcls.cli import main\ntry: main()\nexcept SystemExit: pass\n"
    program += "assert not {'torch', 'timm', 'numpy'} & set(sys.modules)"
    for words in (["models", "alexnet"], ["models", "--sort", "gmacs"], ["models", "--help"]):
        python("-c", program, *words, cwd=tmp_path, check=True)


def test_a_list_that_is_damaged_or_of_other_versions_is_made_again() -> None:
    before = zoo.catalogue()
    file = downloads.cache_dir() / "architectures.json"
    for text in ("{", '{"versions": {}}', file.read_text().replace('"timm": "', '"timm": "0')):
        file.write_text(text)
        assert not zoo.is_kept()
        assert [a.name for a in zoo.catalogue()] == [a.name for a in before] and zoo.is_kept()


# ------------------------------------------------------------------ what training takes


def test_the_bytes_that_training_keeps_are_counted() -> None:
    with torch.device("meta"):
        layers = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 16, 5)
        network = torch.nn.Sequential(*layers)
        batch = torch.empty(2, 3, 4, 4)
    assert suggest._kept(network, batch) == 4 * 2 * (3 + 8) * 16, "the image, and the ReLU's output; no weights"
    assert suggest._kept(network.requires_grad_(False), batch) == 0


def test_a_probe_takes_less_than_training_all() -> None:
    resnet = next(a for a in zoo.catalogue() if a.name == "resnet18")
    full, probe = (suggest.cost(resnet, 64, tune, torch.device("cpu")) for tune in ("full", "probe"))
    assert full.parameters == full.trained == probe.parameters == resnet.parameters
    assert probe.trained == 0 and probe.memory(8) < full.memory(8) < full.memory(16)
    large = suggest.cost(resnet, 128, "full", torch.device("cpu"))
    assert large.kept == pytest.approx(4 * full.kept, rel=0.02)
    assert large.seconds > 0 and full.seconds > 0


# ------------------------------------------------------------------ VGGs


@pytest.mark.parametrize(
    "arch, groups, gray",
    [  # five stages and the head; VGGs have two hidden linear layers between, of 120 million weights
        ("squeezenet1_1", 5, False),
        ("timm/test_efficientnet", 8, True),
        pytest.param("mobilenet_v3_small", 7, True, marks=pytest.mark.slow),
        pytest.param("vgg11_bn", 8, True, marks=pytest.mark.slow),
        pytest.param("vgg16", 8, False, marks=pytest.mark.slow),
    ],
)
def test_any_family_is_frozen_tuned_and_exported(tmp_path: Path, arch: str, groups: int, gray: bool) -> None:
    import numpy as np
    from photographs import loaders

    from fastcls import models
    from fastcls.inference import export
    from fastcls.inference.predictor import Predictor
    from fastcls.settings import options
    from fastcls.training.history import quiet

    dls = loaders(photographs(tmp_path / "photos", 6), gray=gray)
    with options.using(options.Options(precision="fp32")):
        learn = models.transfer_learner(dls, arch, weights="none")
    learn.freeze()
    norms = {id(p) for m in learn.model.modules() if isinstance(m, torch.nn.BatchNorm2d) for p in m.parameters()}
    body, head = learn.model[0], learn.model[1]
    assert not any(p.requires_grad for p in body.parameters() if id(p) not in norms)
    assert all(p.requires_grad for p in head.parameters())
    before = {name: p.detach().clone() for name, p in learn.model.named_parameters()}
    with quiet(learn):
        learn.fine_tune(1, 1e-3, freeze_epochs=1)
    rates = [group["lr"] for group in learn.opt.hypers]
    assert len(rates) == groups and rates == sorted(rates) and rates[0] < rates[-1]
    assert not any(torch.equal(p, before[name]) for name, p in learn.model.named_parameters() if p.ndim > 1)

    run = tmp_path / "run"
    export.save(learn, run, {"recipe": "folder", "knobs": {}})
    paths = sorted(map(str, (tmp_path / "photos").rglob("*.png")))[:4]
    dl = learn.dls.test_dl([Path(path) for path in paths])
    with quiet(learn):
        probabilities = learn.get_preds(dl=dl)[0].numpy()
    assert np.abs(Predictor(run).probabilities(paths) - probabilities).max() < 1e-3
