"""Architectures and their figures, the suggestion for given images, and other families wherever ResNets work."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT, Outcome
from PIL import Image

from fastcls.architectures import costs, suggest, zoo
from fastcls.errors import DataError, EnvironmentProblem, UsageError
from fastcls.files import download

Fastcls = Callable[..., Outcome]
PUBLISHED = ["resnet50", "vgg16_bn", "mobilenet_v3_large", "densenet121", "convnext_tiny", "vit_b_16", "swin_v2_t"]
PUBLISHED += ["efficientnet_b3", "regnet_y_400mf"]  # the last computes with numbers while it is built


def photographs(folder: Path, a_class: int, side: int = 40) -> Path:
    for name in ("cat", "dog"):
        for i in range(a_class):
            file = folder / name / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (side + 8, side), (i % 256, 0, 0)).save(file)
    return folder


# ------------------------------------------------------------------ the list


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_computed_agrees_with_what_torchvision_publishes(name: str) -> None:
    (published,) = [a for a in zoo.catalogue() if a.name == name]
    network = zoo.on_meta(published)
    assert sum(p.numel() for p in network.parameters()) == published.parameters
    assert zoo.gmacs(network, published.input) == pytest.approx(published.gmacs, rel=2e-3, abs=1e-3)


def test_every_name_is_one_that_recipes_take() -> None:
    from fastcls import models

    every = zoo.catalogue()
    assert len(every) > 1000 and len({a.name for a in every}) == len(every)
    assert all(models.find_arch(a.name)[0] == a.library for a in every)


def test_networks_of_both_libraries_have_the_same_figures() -> None:
    every = zoo.figured(zoo.catalogue(), ["timm/resnet18", "timm/vgg11"], lambda done: None)
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
    with (tmp_path / "all.csv").open() as every, (tmp_path / "some.csv").open() as some:
        rows, chosen = list(csv.DictReader(every)), list(csv.DictReader(some))
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
    every = fastcls("models", "timm/test_*", "--figures").output
    assert "still to be computed" not in every and " –        – " not in every


def test_a_list_that_is_kept_needs_no_torch(tmp_path: Path) -> None:
    zoo.catalogue()
    program = "import sys; from fastcls.cli import main\ntry: main()\nexcept SystemExit: pass\n"
    program += "assert not {'torch', 'timm', 'numpy'} & set(sys.modules)"
    env = {"PYTHONPATH": str(ROOT), "FASTCLS_DATA": os.environ["FASTCLS_DATA"]}
    for words in (["models", "alexnet"], ["models", "--sort", "gmacs"], ["models", "--help"]):
        subprocess.run([sys.executable, "-c", program, *words], cwd=tmp_path, env=env, check=True, capture_output=True)


def test_a_list_that_is_damaged_or_of_other_versions_is_made_again() -> None:
    before = zoo.catalogue()
    file = download.cache_dir() / "architectures.json"
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
    assert costs._kept(network, batch) == 4 * 2 * (3 + 8) * 16, "the image, and the ReLU's output; no weights"
    assert costs._kept(network.requires_grad_(False), batch) == 0


def test_training_a_head_takes_less_than_training_all() -> None:
    resnet = next(a for a in zoo.catalogue() if a.name == "resnet18")
    full, head = (costs.cost(resnet, 64, tune, torch.device("cpu")) for tune in ("full", "head"))
    assert full.parameters == full.trained == head.parameters == resnet.parameters
    assert head.trained < 0.05 * full.trained and head.memory(8) < full.memory(8) < full.memory(16)
    large = costs.cost(resnet, 128, "full", torch.device("cpu"))
    assert large.kept == pytest.approx(4 * full.kept, rel=0.02)
    assert large.seconds > 0 and full.seconds > 0


# ------------------------------------------------------------------ the suggestion


@pytest.fixture
def prices(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, int], suggest.Machine]:
    """A machine on which the k-th network of a ladder takes 4^k times `seconds` an image, and k + 1 MB."""

    def of(seconds: float, usable: int = 10**10) -> suggest.Machine:
        def cost(architecture: zoo.Architecture, size: int, tune: str, device: torch.device) -> costs.Cost:
            rung = suggest.LADDERS[tune].index(architecture.name)
            return costs.Cost(10**6, 10**6, (rung + 1) * 10**6, seconds * 4**rung)

        monkeypatch.setattr(suggest, "cost", cost)
        return suggest.Machine(torch.device("cpu"), "a processor", 2 * usable, usable)

    return of


IMAGES = suggest.Images("photos", "class folders", 2000, 1600, 10, 200, 300, 400, 200, ("folder", "--path", "photos"))


def of(images: suggest.Images, machine: suggest.Machine) -> suggest.Suggestion:
    return suggest.suggest(images, machine, lambda name: None)


@pytest.mark.parametrize("short, side", [(8, 128), (130, 128), (160, 160), (200, 192), (224, 224), (3000, 224)])
def test_the_size_follows_the_images_within_bounds(short: int, side: int) -> None:
    assert suggest.side(short) == side


@pytest.mark.parametrize(
    "count, a_class, tune, batch",
    [(370, 10, "head", 16), (2000, 10, "head", 32), (2000, 200, "full", 32), (50_000, 5000, "full", 64)],
)
def test_few_images_train_a_head_and_many_the_whole_network(
    prices: Callable[..., suggest.Machine], count: int, a_class: int, tune: str, batch: int
) -> None:
    found = of(replace(IMAGES, count=count, trained=count, a_class=a_class), prices(1e-3))
    assert (found.tune, found.pick.batch) == (tune, batch)


def test_the_most_accurate_that_fits_is_picked_with_its_neighbours(prices: Callable[..., suggest.Machine]) -> None:
    ladder = suggest.LADDERS["full"]
    found = of(IMAGES, prices(0.02))  # 32 s, 128 s, 512 s, 2,048 s an epoch
    names = [option and option.architecture.name for option in (found.smaller, found.pick, found.larger)]
    assert names == [ladder[1], ladder[2], ladder[3]]
    why = dict(suggest.reasons(IMAGES, prices(0.02), found))
    assert set(why) == {"arch", "tune", "size", "bs"} and "80.9 %" in why["arch"] and "10 minutes" in why["arch"]
    fast = of(IMAGES, prices(1e-6))
    assert fast.larger is not None and fast.larger.architecture.name == ladder[-1], "there is always a larger one"
    slow = of(IMAGES, prices(10.0))
    assert slow.smaller is None and slow.pick.architecture.name == ladder[0]
    assert "even it takes more than 10 minutes" in dict(suggest.reasons(IMAGES, prices(10.0), slow))["arch"]


@pytest.mark.parametrize("tune", suggest.LADDERS)
def test_a_ladder_rises_in_accuracy(tune: str) -> None:
    known = {a.name: a for a in zoo.catalogue()}
    rungs = [known[name].top1 or 0 for name in suggest.LADDERS[tune]]
    assert rungs == sorted(rungs) and all(known[name].input == (224, 224) for name in suggest.LADDERS[tune])


def test_memory_bounds_the_batch_and_then_the_network(prices: Callable[..., suggest.Machine]) -> None:
    fixed = 16 * 10**6 + int(costs.OVERHEAD)
    found = of(IMAGES, prices(1e-6, fixed + 33 * 10**6))
    assert found.pick.architecture.name == suggest.LADDERS["full"][3] and found.pick.batch == 8 and not found.larger
    assert found.smaller is not None and found.smaller.batch == 8
    assert "the most that fits" in dict(suggest.reasons(IMAGES, prices(1.0), found))["bs"]
    with pytest.raises(EnvironmentProblem, match="do not hold"):
        of(IMAGES, prices(1e-6, fixed))


def test_a_folder_of_photographs_gets_a_command_that_its_recipe_takes(fastcls: Fastcls, tmp_path: Path) -> None:
    photographs(tmp_path / "my photos", 12)
    outcome = fastcls("models", "--suggest", "my photos")
    assert outcome.code == 0, outcome.output
    assert "24 images of 2 classes, 12 a class" in outcome.output and "short side 40, long side 48" in outcome.output
    (line,) = [line for line in outcome.output.splitlines() if line.startswith("fastcls recipe")]
    assert line.startswith("fastcls recipe folder --path 'my photos' --arch ") and line.endswith("--bs 16 --tune head")
    for word in ("pick", "larger", "arch", "tune", "size", "bs", "weights"):
        assert f"\n{word}" in outcome.output or word == "weights", word
    assert "ImageNet weights" in outcome.output


def test_a_run_tells_its_images(digits_run: Path, tmp_path: Path) -> None:
    images = suggest.look(str(digits_run))
    assert images.classes == 10 and images.short == images.long == 8 and 0 < images.trained < images.count
    assert images.command[:2] == ("folder", "--path") and Path(images.command[2]).is_dir()


@pytest.mark.parametrize(
    "target, code, message",
    [
        ("photso", 3, "did you mean 'photos'?"),
        ("empty", 3, "holds no files"),
        ("broken", 3, "None of the images"),
        ("file.txt", 3, "is a file"),
    ],
)
def test_what_is_no_folder_of_images_is_refused(
    fastcls: Fastcls, tmp_path: Path, target: str, code: int, message: str
) -> None:
    photographs(tmp_path / "photos", 2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("no image")
    for name in ("a", "b"):
        (tmp_path / "broken" / name).mkdir(parents=True)
        for i in range(2):
            (tmp_path / "broken" / name / f"{i}.jpg").write_text("no image")
    outcome = fastcls("models", "--suggest", target)
    assert outcome.code == code and message in outcome.output, outcome.output
    assert fastcls("models", "vgg", "--suggest", "photos").code == 2


def test_a_few_broken_images_do_not_matter(tmp_path: Path) -> None:
    (photographs(tmp_path, 3) / "cat" / "1.png").write_text("no image")
    images = suggest.look(str(tmp_path))
    assert images.count == 6 and images.sampled == 5
    with pytest.raises(DataError, match="no such folder"):
        suggest.look(str(tmp_path / "gone"))


# ------------------------------------------------------------------ VGGs


@pytest.mark.parametrize(
    "arch, groups, gray",
    [  # five stages and the head; VGGs have two hidden linear layers between, of 120 million weights
        ("squeezenet1_1", 5, False),
        ("mobilenet_v3_small", 7, True),
        pytest.param("vgg11_bn", 8, True, marks=pytest.mark.slow),
        pytest.param("vgg16", 8, False, marks=pytest.mark.slow),
    ],
)
def test_any_family_is_frozen_tuned_and_exported(tmp_path: Path, arch: str, groups: int, gray: bool) -> None:
    import numpy as np
    from test_models import loaders

    from fastcls import models
    from fastcls.exporting import export
    from fastcls.fit.train import quiet
    from fastcls.predict import Predictor
    from fastcls.settings import options

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


def test_a_recipe_takes_a_vgg(fastcls: Fastcls, tmp_path: Path) -> None:
    photographs(tmp_path / "photos", 6)
    words = ["--arch", "vgg16", "--weights", "none", "--size", "64", "--bs", "4", "--dry-run"]
    outcome = fastcls("recipe", "folder", "--path", "photos", *words)
    assert outcome.code == 0 and "logits (4, 2)" in outcome.output, outcome.output
