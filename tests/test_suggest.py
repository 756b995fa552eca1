"""The suggestion for given images: a ladder of networks, what fits, and the probe of a few on the images themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import Outcome
from test_zoo import photographs

from fastcls.architectures import costs, suggest, zoo
from fastcls.errors import DataError, EnvironmentProblem

Fastcls = Callable[..., Outcome]


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
