"""The suggestion for given images: a ladder of networks, what fits, and the probe of a few on the images themselves."""

from __future__ import annotations

import urllib.error
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from conftest import Fastcls
from photographs import photographs
from PIL import Image
from safetensors.torch import save_model

from fastcls.errors import DataError, EnvironmentProblem, UsageError
from fastcls.models import backbones, probes, suggest, zoo
from fastcls.training import probe


@pytest.fixture
def prices(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, int], suggest.Machine]:
    """A machine on which the k-th network of a ladder takes 4^k times `seconds` an image, and k + 1 MB."""

    def of(seconds: float, usable: int = 10**10) -> suggest.Machine:
        def cost(architecture: zoo.Architecture, size: int, tune: str, device: torch.device) -> suggest.Cost:
            rung = suggest.LADDER.index(architecture.name) if architecture.name in suggest.LADDER else 0
            return suggest.Cost(10**6, 10**6, (rung + 1) * 10**6, seconds * 4**rung)

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
    [(370, 10, "probe", 16), (2000, 10, "probe", 32), (2000, 200, "full", 32), (50_000, 5000, "full", 64)],
)
def test_few_images_get_a_probe_and_many_the_whole_network(
    prices: Callable[..., suggest.Machine], count: int, a_class: int, tune: str, batch: int
) -> None:
    found = of(replace(IMAGES, count=count, trained=count, a_class=a_class), prices(1e-3))
    assert (found.tune, found.pick.batch) == (tune, batch)


def test_the_most_accurate_that_fits_is_picked_with_its_neighbours(prices: Callable[..., suggest.Machine]) -> None:
    ladder = suggest.LADDER
    found = of(IMAGES, prices(0.02))  # 32 s, 128 s, 512 s, 2,048 s an epoch
    names = [option and option.architecture.name for option in (found.smaller, found.pick, found.larger)]
    assert names == [ladder[1], ladder[2], ladder[3]]
    why = dict(suggest.reasons(IMAGES, prices(0.02), found))
    assert set(why) == {"arch", "tune", "size", "bs"} and "84.5 %" in why["arch"] and "10 minutes" in why["arch"]
    fast = of(IMAGES, prices(1e-6))
    assert fast.larger is not None and fast.larger.architecture.name == ladder[-1], "there is always a larger one"
    slow = of(IMAGES, prices(10.0))
    assert slow.smaller is None and slow.pick.architecture.name == ladder[0]
    assert "even it needs more than 10 minutes" in dict(suggest.reasons(IMAGES, prices(10.0), slow))["arch"]


def test_the_ladder_rises_in_accuracy_and_has_the_networks_with_a_word() -> None:
    rungs = [zoo.named(name) for name in suggest.LADDER]
    assert [rung.name for rung in rungs] == list(suggest.LADDER)
    accuracies = [rung.top1 or 0 for rung in rungs]
    assert accuracies == sorted(accuracies) and all(rung.input == (224, 224) and rung.weights for rung in rungs)
    assert [name for name in suggest.LADDER if name in zoo.WORDS.values()] == list(zoo.WORDS.values())


@pytest.mark.parametrize("word", zoo.WORDS)
def test_a_word_is_a_network_whose_licence_lets_it_be_used(word: str) -> None:
    library, name, _ = backbones.find(word)
    cfg = timm.get_pretrained_cfg(name)
    assert library == "timm" and "." in name and cfg is not None and cfg.license == "apache-2.0"
    assert backbones.find(f"timm/{name}") == (library, name, None)


def test_a_name_may_end_in_the_tag_of_its_weights() -> None:
    assert zoo.named("timm/convnext_nano.d1h_in1k").name == "timm/convnext_nano.d1h_in1k"
    assert zoo.named("resnet50").library == "torchvision" and zoo.named("convnext_nano").name == "timm/convnext_nano"
    with pytest.raises(UsageError, match="no weights with the tag 'in22k'") as refused:
        zoo.named("convnext_nano.in22k")
    assert "convnext_nano.in12k_ft_in1k" in (refused.value.hint or "")
    with pytest.raises(UsageError, match="did you mean 'convnext_tiny'"):
        zoo.named("convnext_tinny")


def test_memory_bounds_the_batch_and_then_the_network(prices: Callable[..., suggest.Machine]) -> None:
    fixed = 16 * 10**6 + int(suggest.OVERHEAD)
    found = of(IMAGES, prices(1e-6, fixed + 33 * 10**6))
    assert found.pick.architecture.name == suggest.LADDER[3] and found.pick.batch == 8 and not found.larger
    assert found.smaller is not None and found.smaller.batch == 8
    assert "the most that fits" in dict(suggest.reasons(IMAGES, prices(1.0), found))["bs"]
    with pytest.raises(EnvironmentProblem, match="are too little for"):
        of(IMAGES, prices(1e-6, fixed))


def test_a_folder_of_photographs_gets_a_command_that_its_recipe_takes(
    fastcls: Fastcls, tmp_path: Path, prices: Callable[..., suggest.Machine]
) -> None:
    prices(1e-3)
    photographs(tmp_path / "my photos", 12)
    outcome = fastcls("models", "--suggest", "my photos")
    assert outcome.code == 0, outcome.output
    assert "24 images of 2 classes, 12 per class" in outcome.output and "short side 40, long side 48" in outcome.output
    (line,) = [line for line in outcome.output.splitlines() if line.startswith("fastcls recipe")]
    assert line.startswith("fastcls recipe folder --path 'my photos' --arch ") and line.endswith("--bs 16 --tune probe")
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
        ("empty", 3, "contains no files"),
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


# ------------------------------------------------------------------ the probe


def two_kinds(folder: Path, a_class: int) -> Path:
    """Images of two classes that any features tell apart: stripes one way and the other."""
    for name in ("across", "upright"):
        for i in range(a_class):
            stripes = np.zeros((48, 48), np.uint8)
            stripes[i % 3 :: 6] = stripes[1 + i % 3 :: 6] = 200 + i % 50
            file = folder / name / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(stripes if name == "across" else stripes.T).convert("RGB").save(file)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a small network, random, under timm's own names."""
    file = tmp_path_factory.mktemp("weights") / "random.safetensors"
    torch.manual_seed(0)
    save_model(timm.create_model("test_efficientnet"), str(file))
    return file


def test_networks_are_probed_on_the_images_and_the_best_is_proposed(
    fastcls: Fastcls,
    tmp_path: Path,
    weights: Path,
    prices: Callable[..., suggest.Machine],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prices(1e-3)
    two_kinds(tmp_path / "photos", 15)

    def offline(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", offline)
    outcome = fastcls("models", "--suggest", "photos", "--probe", f"timm/test_efficientnet={weights},small")
    assert outcome.code == 0, outcome.output
    (line,) = [line for line in outcome.output.splitlines() if line.startswith("timm/test_efficientnet ")]
    assert float(line.split()[1]) > 80 and "30 images of 2 classes" in outcome.output
    assert "mobilenetv3_large_100.miil_in21k_ft_in1k was not probed: The ImageNet weights" in outcome.output
    (line,) = [line for line in outcome.output.splitlines() if line.startswith("fastcls recipe")]
    assert f"--arch timm/test_efficientnet --weights {weights} --size 128" in line


def test_the_sample_is_even_over_the_classes_and_without_test_images() -> None:
    files = [(f"{name}{i}.png", name, "test" if i % 2 else "train") for name in "abc" for i in range(200)]
    files += [("d.png", "d", "train"), *((f"e{i}.png", "e", "valid") for i in range(3))]
    images = probes.sample(files)
    assert images.label.value_counts().to_dict() == {"a": 30, "b": 30, "c": 30, "e": 3}
    assert set(images.path) <= {path for path, _, split in files if split != "test"}
    with pytest.raises(DataError, match="fewer than two classes"):
        probes.sample(files[:200])


def test_the_probe_is_held_out() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(120) % 4
    noise = torch.randn(120, 300, generator=generator)
    found = probe.solve(noise, y, 4, views=1)
    assert found.held_out == 120 and found.right < 54, (
        "features that know nothing of the classes do not come out as perfect"
    )
    known = noise + 3 * torch.nn.functional.one_hot(y, 4).float().repeat_interleave(75, 1)
    assert probe.solve(known, y, 4, views=1).right > 114


@pytest.mark.parametrize(
    "probe, message",
    [
        ("convnext_nanno", "did you mean"),
        ("small=nowhere.safetensors", "no such file"),
        ("small=photos/cat/0.png", "only .safetensors files are read"),
        ("", "need --suggest"),
    ],
)
def test_a_probe_that_cannot_be_is_refused_before_anything_is_timed(
    fastcls: Fastcls, tmp_path: Path, probe: str, message: str
) -> None:
    photographs(tmp_path / "photos", 2)
    words = ["--suggest", "photos", "--probe", probe] if probe else ["--probe", "suggested"]
    outcome = fastcls("models", *words)
    assert outcome.code in (2, 4, 5) and message in outcome.output and "timing" not in outcome.output, outcome.output
