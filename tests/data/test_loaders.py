"""Loaders that are fastai's in full, give fastai's pixels, and the same batches whatever happened before."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.vision.all import (
    CategoryBlock,
    ClassificationInterpretation,
    ColReader,
    DataBlock,
    DataLoaders,
    FlipItem,
    ImageBlock,
    Normalize,
    PILImage,
    PILImageBW,
    RandomErasing,
    RandomResizedCrop,
    Resize,
    Rotate,
    Transform,
    accuracy,
    aug_transforms,
    get_image_files,
    load_learner,
    parent_label,
)
from PIL import Image

from fastcls import data, models, transforms
from fastcls.data.dataloaders import PixelDL, SeededDL
from fastcls.errors import DataError
from fastcls.images import cache
from fastcls.machine import host
from fastcls.models import networks
from fastcls.settings import options
from fastcls.settings.options import Options
from fastcls.training.history import quiet

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty photographs in two classes, upright, lying and square, PNG and JPEG."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(30):
        shape = [(24, 36), (40, 28), (32, 32)][i % 3]
        coarse = rng.integers(0, 256, (*(s // 4 for s in shape), 3), np.uint8)
        file = folder / ("cat", "dog")[i % 2] / f"{i:02d}.{('png', 'jpg')[i % 2]}"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(coarse).resize(shape[::-1]).save(file)
    return folder


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four images of 12 × 12, each of a gray of its own, so that a batch says which images it holds."""
    folder = tmp_path_factory.mktemp("squares")
    for i in range(24):
        file = folder / ("even", "odd")[i % 2] / f"{i:02d}.png"
        file.parent.mkdir(exist_ok=True)
        image = np.full((12, 12, 3), 10 * i, np.uint8)
        image[2:5, 3:7, 0] = 250
        Image.fromarray(image).save(file)
    return folder


def build(folder: Path, bs: int = 4, gray: bool = False, **tfms: Any) -> DataLoaders:
    block = DataBlock(
        blocks=(ImageBlock(PILImageBW) if gray else ImageBlock, CategoryBlock),
        get_items=get_image_files,
        get_y=parent_label,
        splitter=data.stratified(parent_label, 0.34),
        **tfms,
    )
    return data.loaders(block, folder, bs=bs)


def stock(folder: Path, gray: bool = False, **tfms: Any) -> DataLoaders:
    """The same through fastai alone."""
    block = DataBlock(
        blocks=(ImageBlock(PILImageBW) if gray else ImageBlock, CategoryBlock),
        get_items=lambda folder: sorted(get_image_files(folder)),
        get_y=parent_label,
        splitter=data.stratified(parent_label, 0.34),
        **tfms,
    )
    return block.dataloaders(folder, bs=4, num_workers=0)


def pixels(loader: Any) -> torch.Tensor:
    return torch.cat([batch[0].as_subclass(torch.Tensor) for batch in loader])


SIZES: dict[str, Callable[[], Any]] = {
    "crop": lambda: transforms.resize(20),
    "squish": lambda: transforms.resize(20, fit="squish"),
    "pad": lambda: Resize(20, method="pad"),
    "letterbox": lambda: transforms.resize(20, fit="pad"),
    "random crops, squish": lambda: transforms.resize(20, 0.35, "squish"),
    "random resized crop": lambda: transforms.resize(20, 0.35),
}


@pytest.mark.parametrize("gray", [False, True], ids=["rgb", "gray"])
@pytest.mark.parametrize("how", SIZES)
def test_validation_images_are_those_of_fastai_to_the_bit(photos: Path, how: str, gray: bool) -> None:
    ours, theirs = build(photos, gray=gray, item_tfms=SIZES[how]()), stock(photos, gray, item_tfms=SIZES[how]())
    assert isinstance(ours.train, PixelDL) == (how != "pad")
    assert torch.equal(pixels(ours.valid), pixels(theirs.valid))
    assert torch.equal(torch.cat([y for _, y in ours.valid]), torch.cat([y for _, y in theirs.valid]))


@pytest.mark.parametrize("gray", [False, True], ids=["rgb", "gray"])
def test_images_taken_as_they_are_are_those_of_fastai_to_the_bit(squares: Path, gray: bool) -> None:
    ours, theirs = build(squares, gray=gray), stock(squares, gray)
    assert isinstance(ours.train, PixelDL) and torch.equal(pixels(ours.valid), pixels(theirs.valid))


def test_training_images_that_leave_nothing_to_chance_are_those_of_fastai(squares: Path) -> None:
    ours, theirs = build(squares, item_tfms=transforms.resize(8)), stock(squares, item_tfms=Resize(8))
    mine, other = pixels(ours.train), pixels(theirs.train.new(shuffle=False, drop_last=False))
    assert len(mine) == 16 and all(any(torch.equal(image, o) for o in other) for image in mine)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures with as much detail at every scale as photographs have, larger than what is cropped of them."""
    folder = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    h, w = 300, 400
    falling = np.hypot(np.fft.fftfreq(h, 1 / h)[:, None], np.fft.fftfreq(w, 1 / w)).clip(1)
    for i in range(12):
        noise = np.fft.ifft2(np.fft.fft2(rng.normal(size=(3, h, w))) / falling).real.transpose(1, 2, 0)
        file = folder / ("cat", "dog")[i % 2] / f"{i:02d}.bmp"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray((128 + 45 * noise / noise.std()).clip(0, 255).astype(np.uint8)).save(file)
    return folder


def sharpness(images: torch.Tensor) -> float:
    x = images.float()
    laplacian = x[..., 2:, 1:-1] + x[..., :-2, 1:-1] + x[..., 1:-1, 2:] + x[..., 1:-1, :-2] - 4 * x[..., 1:-1, 1:-1]
    return float(laplacian.square().mean(dim=(1, 2, 3)).sqrt().mean())


@pytest.mark.parametrize(
    "sizing",
    [
        lambda: RandomResizedCrop(48, min_scale=0.35),
        lambda: RandomResizedCrop(48, min_scale=0.08),
        lambda: Resize(48),
        lambda: Resize((24, 72)),
    ],
    ids=["min_scale 0.35", "min_scale 0.08", "square", "wide"],
)
def test_training_crops_are_as_sharp_as_fastais(scenes: Path, sizing: Callable[[], Any]) -> None:
    ours, theirs = build(scenes, item_tfms=sizing()).train, stock(scenes, item_tfms=sizing()).train
    assert isinstance(ours, PixelDL)
    random.seed(1)  # of fastai's crops
    drawn = [np.mean([sharpness(pixels(loader)) for _ in range(20)]) for loader in (ours, theirs)]
    assert drawn[0] / drawn[1] == pytest.approx(1, abs=0.03)


@pytest.mark.unpickles
@pytest.mark.filterwarnings("ignore")  # of fastai's own finder and figures
@pytest.mark.parametrize("batch_tfms", [
    transforms.augment,
    lambda: [*aug_transforms(size=20), RandomErasing(), Normalize.from_stats(*models.imagenet_stats)],
], ids=["ours", "fastai's"])  # fmt: skip
def test_everything_that_fastai_expects_of_a_loader_works(photos: Path, batch_tfms: Callable[[], Any]) -> None:
    dls = build(photos, item_tfms=transforms.resize(20, 0.5), batch_tfms=batch_tfms())
    learn = models.learner(dls, networks.cnn(3, 2, (8,)), stats=models.imagenet_stats, metrics=accuracy)
    files = get_image_files(photos)
    with quiet(learn):
        learn.fit_one_cycle(1)
        assert learn.lr_find(show_plot=False, num_it=20).valley > 0
        assert learn.get_preds()[0].shape == (10, 2)
        assert learn.get_preds(dl=dls.test_dl(files))[0].shape == (30, 2)
        labelled = dls.test_dl(files, with_labels=True)
        assert torch.equal(learn.get_preds(dl=labelled)[1], torch.tensor([dls.vocab.o2i[f.parent.name] for f in files]))
        assert torch.equal(
            learn.get_preds(ds_idx=0)[1], torch.tensor([dls.vocab.o2i[f.parent.name] for f in dls.train_ds.items])
        )
        assert learn.tta(n=2)[0].shape == (10, 2)
        assert learn.predict(files[0])[0] in ("cat", "dog")
        assert ClassificationInterpretation.from_learner(learn).confusion_matrix().sum() == 10
    learn.dls.show_batch(max_n=4)
    learn.show_results(max_n=4)
    assert dls.train.new(bs=2).one_batch()[0].shape == (2, 3, 20, 20)
    assert dls.valid.new(shuffle=True, drop_last=True).one_batch()[0].shape == (8, 3, 20, 20)


@pytest.mark.unpickles
@pytest.mark.filterwarnings("ignore")  # of fastai's own pickles
def test_an_exported_learner_predicts_the_same_and_carries_no_pixels(photos: Path, tmp_path: Path) -> None:
    dls = build(photos, item_tfms=transforms.resize(20, 0.5))
    learn = models.learner(dls, networks.cnn(3, 2, (8,)), metrics=accuracy)
    list(dls.train)  # decodes everything
    learn.export(tmp_path / "learner.pkl")
    again = load_learner(tmp_path / "learner.pkl")
    assert not again.dls.train.plan.stored and not again.dls.train.plan.own
    file = get_image_files(photos)[0]
    with quiet(learn), quiet(again):
        assert torch.equal(learn.predict(file)[2], again.predict(file)[2])


def test_a_table_with_a_test_split_works(photos: Path) -> None:
    files = get_image_files(photos)
    splits = ["train", "valid", "test"] * 10
    table = pd.DataFrame({"path": map(str, files), "label": [f.parent.name for f in files], "split": splits})
    block = DataBlock((ImageBlock, CategoryBlock), get_x=ColReader("path"), get_y=ColReader("label"),
                      item_tfms=transforms.resize(16))  # fmt: skip
    dls = data.loaders(block, table, bs=4)
    test = dls.test_dl(dls.test_items, with_labels=True)
    assert pixels(test).shape == (10, 3, 16, 16) and len(torch.cat([y for _, y in test])) == 10


AUGMENTED = {
    "our transforms": dict(
        batch_tfms=[transforms.Crop(2, flip=0.5), *transforms.policy("trivial"), *transforms.augment(erase=0.5)]
    ),
    "random resized crop": dict(item_tfms=transforms.resize(10, 0.3), batch_tfms=[transforms.Flip()]),
    "fastai's own": dict(item_tfms=Resize(10), batch_tfms=aug_transforms(size=8)),
    "fastai's own items": dict(item_tfms=Resize(10, method="pad"), batch_tfms=aug_transforms()),
}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # fastai's images in matplotlib
@pytest.mark.parametrize("name", AUGMENTED)
@pytest.mark.parametrize("cache_gb", [0.0, 1.0], ids=["decoded every epoch", "decoded once"])
def test_batches_depend_on_seed_and_epoch_alone(squares: Path, name: str, cache_gb: float) -> None:
    def epochs(seed: int = 1, workers: int = 0, meddle: bool = False) -> list[torch.Tensor]:
        with options.using(Options(seed=seed, workers=workers, cache_gb=cache_gb)):
            dls = build(squares, **AUGMENTED[name])
            if meddle:
                torch.manual_seed(99)
                dls.one_batch(), dls.show_batch(max_n=2), list(dls.valid), torch.rand(7)
            return [pixels(dls.train) for _ in range(2)]

    first, second = epochs()
    for again in (epochs(), epochs(meddle=True), epochs(workers=2)):
        assert torch.equal(first, again[0]) and torch.equal(second, again[1])
    assert not torch.equal(first, second) and not torch.equal(first, epochs(seed=2)[0])


@pytest.mark.parametrize("how", [how for how in SIZES if how != "pad"])
def test_the_cache_changes_no_batch_in_memory_or_mapped(
    photos: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def both(cache_gb: float) -> list[torch.Tensor]:
        with options.using(Options(seed=3, cache_gb=cache_gb)):
            dls = build(photos, item_tfms=SIZES[how](), batch_tfms=[transforms.Flip()])
            return [pixels(dls.train), pixels(dls.valid)]

    decoded, stored = both(0.0), both(1.0)
    monkeypatch.setattr(host, "available", lambda: 0.0)
    for ours in (stored, both(1.0)):
        assert all(torch.equal(a, b) for a, b in zip(decoded, ours, strict=True))


def test_a_second_training_decodes_nothing(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCLS_DATA", str(tmp_path))

    def both() -> list[torch.Tensor]:
        dls = build(photos, item_tfms=transforms.resize(20, 0.4))
        return [pixels(dls.train), pixels(dls.valid)]

    def never(*_: object) -> None:
        raise AssertionError("an image was decoded again")

    first = both()
    monkeypatch.setattr(cache, "decoded", never)
    assert all(torch.equal(a, b) for a, b in zip(first, both(), strict=True))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # fastai's
@pytest.mark.parametrize("name", ["our transforms", "random resized crop", "fastai's own"])
def test_the_augmentation_of_an_image_does_not_depend_on_the_batch_size(squares: Path, name: str) -> None:
    def in_order(bs: int) -> torch.Tensor:
        return pixels(build(squares, **AUGMENTED[name]).train.new(bs=bs, shuffle=False, drop_last=False))

    four, seven = in_order(4), in_order(7)
    assert len(four) == 16 and torch.allclose(four, seven, atol=1e-6)


@pytest.mark.unpickles
@pytest.mark.filterwarnings("ignore:.*numpy:DeprecationWarning")  # fastai's finder pickles the weights
def test_training_goes_on_with_the_epochs_that_were_trained(squares: Path) -> None:
    def trained(meddle: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        dls = build(squares, batch_tfms=[transforms.Crop(2)])
        learn = models.learner(dls, networks.cnn(3, 2, (4,)), metrics=accuracy)
        with quiet(learn):
            learn.fit(1)
            if meddle:
                list(dls.train)
                learn.lr_find(show_plot=False, num_it=10)
            dls.train.epoch = 7
            seen: list[torch.Tensor] = []
            learn.fit(1, cbs=Watch(seen))
        return seen

    assert all(torch.equal(a, b) for a, b in zip(trained(False), trained(True), strict=True))


def Watch(seen: list[torch.Tensor]) -> Any:
    from fastai.callback.core import Callback

    class Watching(Callback):
        def before_batch(self) -> None:
            if self.training:
                seen.append(self.x.clone())

    return Watching()


def test_a_block_that_is_not_understood_is_left_to_fastai_and_still_reproducible(squares: Path) -> None:
    class Negative(Transform):
        order = 2

        def encodes(self, x: PILImage) -> PILImage:
            return PILImage.create(255 - np.asarray(x))

    dls = build(squares, item_tfms=Negative())
    assert type(dls.train) is SeededDL and dls.plan is None
    assert torch.allclose(pixels(dls.valid), 1 - pixels(stock(squares).valid))


@pytest.mark.parametrize("draw", [random.random, np.random.rand, lambda: float(torch.rand(()))],
                         ids=["python", "numpy", "torch"])  # fmt: skip
def test_random_transforms_of_single_images_are_the_same_whatever_the_workers(
    squares: Path, draw: Callable[[], float]
) -> None:
    class Darker(Transform):
        order, split_idx = 2, 0

        def encodes(self, x: PILImage) -> PILImage:
            return PILImage.create((np.asarray(x) * draw()).astype(np.uint8))

    def epochs(seed: int, workers: int) -> list[torch.Tensor]:
        with options.using(Options(seed=seed, workers=workers)):
            train = build(squares, item_tfms=Darker()).train.new(shuffle=False)
            return [pixels(train) for _ in range(2)]

    alone, with_workers = epochs(1, 0), epochs(1, 2)
    assert all(torch.equal(a, b) for a, b in zip(alone, with_workers, strict=True))
    assert not torch.equal(*alone) and not torch.equal(alone[0], epochs(2, 0)[0])


def test_a_transform_of_training_images_alone_is_not_left_out(squares: Path) -> None:
    dls = build(squares, item_tfms=FlipItem(p=1.0))
    plain = pixels(build(squares).train.new(shuffle=False))
    assert torch.equal(pixels(dls.train.new(shuffle=False)), plain.flip(3)) and not torch.equal(plain, plain.flip(3))


def test_a_batch_transform_without_an_equivalent_is_named_once(squares: Path) -> None:
    class Own(Rotate):
        pass

    with options.using(Options()) as notes:
        build(squares, batch_tfms=[Own(), *aug_transforms()])
    assert [note for note in notes if "Own" in note] == notes


def test_images_resampled_in_fastais_other_ways_are_fastais(photos: Path) -> None:
    bicubic = dict(resamples=(Image.Resampling.BICUBIC, Image.Resampling.NEAREST))
    ours, theirs = (make(photos, item_tfms=Resize(20, **bicubic)) for make in (build, stock))
    assert torch.equal(pixels(ours.valid), pixels(theirs.valid))
    assert not torch.equal(pixels(ours.valid), pixels(build(photos, item_tfms=Resize(20)).valid))


def test_images_of_several_sizes_without_a_resize_are_refused_with_the_way_out(photos: Path) -> None:
    with pytest.raises(DataError, match="have different sizes") as caught:
        list(build(photos).train)
    assert "resize" in caught.value.hint


def test_the_last_partial_batch_is_dropped_in_training_only(squares: Path) -> None:
    dls = build(squares, bs=5)
    assert [len(y) for _, y in dls.train] == [5, 5, 5] and len(dls.train) == 3
    assert [len(y) for _, y in dls.valid] == [8] and len(dls.valid) == 1
    whole, valid = dls.train.new(drop_last=False), dls.valid.new(bs=3)
    assert [len(y) for _, y in whole] == [5, 5, 5, 1] and len(whole) == 4
    assert [len(y) for _, y in valid] == [3, 3, 2] and len(valid) == 3


def test_no_room_for_the_cache_is_said_and_costs_nothing_but_time(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTCLS_DATA", str(tmp_path))
    with options.using(Options(cache_gb=1e-9)) as notes:
        dls = build(squares)
        assert pixels(dls.train).shape[0] == 16
    assert any("--cache-gb" in note for note in notes)


def test_a_cache_folder_that_cannot_be_written_is_said_and_costs_nothing_but_time(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("FASTCLS_DATA", str(tmp_path / "a file"))  # no folder for anyone, not even for root
    with options.using(Options()) as notes:
        assert pixels(build(squares).train).shape[0] == 16
    assert any("decoded every epoch" in note and str(tmp_path / "a file") in note for note in notes)


def test_a_file_that_is_gone_is_named(squares: Path) -> None:
    files = [*map(str, get_image_files(squares)), str(squares / "gone.png")]
    splits = (["train", "train", "valid"] * 9)[:25]
    table = pd.DataFrame({"path": files, "label": [*"ab" * 12, "a"], "split": splits})
    for cache_gb in (0.0, 1.0):
        block = DataBlock((ImageBlock, CategoryBlock), get_x=ColReader("path"), get_y=ColReader("label"))
        with options.using(Options(cache_gb=cache_gb)), pytest.raises(DataError, match=r"gone\.png"):
            list(data.loaders(block, table, bs=4).train)


@pytest.mark.filterwarnings("ignore")  # fastai's own, of its figures and progress bars
def test_test_time_augmentation_crops_validation_images_at_random(photos: Path) -> None:
    dls = build(photos, item_tfms=transforms.resize(20, 0.3))
    learn = models.learner(dls, networks.cnn(3, 2, (8,)), metrics=accuracy)
    with quiet(learn):
        plain, _ = learn.get_preds()
        augmented, _ = learn.tta(n=2, beta=0)
        again, _ = learn.get_preds()
    assert not torch.allclose(plain, augmented) and torch.equal(plain, again)
