"""What each augmentation does to a batch, and how its random numbers are drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from fastai.callback.progress import ProgressCallback  # noqa: F401  which brings `no_bar`
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.vision.core import PILImage, TensorImage
from torch import nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from fastcls import transforms
from fastcls.data.cropping import RandomCrop
from fastcls.transforms import draws, resizing


def key(n: int, epoch: int = 0, seed: int = 1) -> draws.Key:
    return draws.Key(seed, epoch, np.arange(n))


def apply(tfm: object, x: torch.Tensor, epoch: int = 0) -> torch.Tensor:
    with draws.of(key(len(x), epoch)):
        return tfm(TensorImage(x.clone()), split_idx=0).as_subclass(torch.Tensor)  # type: ignore[operator]


@pytest.mark.parametrize("mode", ["reflection", "zeros"])
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_crop_shifts_by_up_to_the_padding(mode: str, kind: torch.dtype) -> None:
    x = torch.randint(1, 255, (200, 3, 9, 11)).to(kind)
    numpy_mode = {"reflection": "reflect", "zeros": "constant"}[mode]
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode=numpy_mode)
    seen = set()
    for image, cropped in zip(padded, apply(transforms.Crop(2, pad_mode=mode), x).numpy(), strict=True):
        found = [(i, j) for i in range(5) for j in range(5) if (image[:, i : i + 9, j : j + 11] == cropped).all()]
        assert found
        seen.update(found)
    assert len(seen) == 25


@pytest.mark.parametrize("side", [1, 5])
def test_a_crop_that_shifts_by_more_than_the_image_mirrors_it_again(side: int) -> None:
    x = torch.randint(1, 255, (40, 3, side, side), dtype=torch.uint8)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (17, 17), (17, 17)), mode="reflect")
    for image, cropped in zip(padded, apply(transforms.Crop(17), x).numpy(), strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(image, cropped.shape)
        assert (windows == cropped).all((-1, -2, -3)).any()


def test_flips_are_half_of_the_images_and_alternate_over_epochs_if_asked() -> None:
    x = torch.arange(6.0).repeat(400, 1, 2, 1)
    flipped = [apply(transforms.Flip(), x, epoch)[:, 0, 0, 0] == 5 for epoch in range(2)]
    assert 0.4 < flipped[0].float().mean() < 0.6 and not torch.equal(*flipped)
    for tfm in (transforms.Flip(alternate=True), transforms.Crop(0, flip=0.5, alternate=True)):
        sides = [apply(tfm, x, epoch)[:, 0, 0, 0] == 5 for epoch in range(3)]
        assert torch.equal(sides[0], ~sides[1]) and torch.equal(sides[0], sides[2])


def test_affine_of_nothing_is_the_identity() -> None:
    x = torch.rand(3, 3, 8, 12)
    assert torch.allclose(apply(transforms.Affine(0, 0, 1, 0, p=1), x), x, atol=1e-4)


def centres(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How far (right, down) of the image's centre each one's brightness lies, in pixels."""
    h, w = images.shape[2:]
    mass = images.sum((1, 2, 3))
    x = (images.sum((1, 2)) * (torch.arange(w) - (w - 1) / 2)).sum(1) / mass
    y = (images.sum((1, 3)) * (torch.arange(h) - (h - 1) / 2)).sum(1) / mass
    return x, y


def marker(n: int, h: int = 41, w: int = 81, right: int = 12, down: int = 0) -> torch.Tensor:
    """n black images with a bright spot of 3 × 3 pixels."""
    x = torch.zeros(n, 1, h, w)
    row, column = h // 2 + down, w // 2 + right
    x[:, :, row - 1 : row + 2, column - 1 : column + 2] = 1
    return x


def test_a_rotation_turns_about_the_centre_and_keeps_distances_in_images_that_are_not_square() -> None:
    x, y = centres(apply(transforms.Affine(rotate=90, p=1, pad_mode="zeros"), marker(200)))
    drawn = torch.from_numpy(draws.table(key(200), 11, "Affine")[:, 0])
    assert (torch.hypot(x, y) - 12).abs().max() < 0.5
    assert (torch.rad2deg(torch.atan2(y, x)) - 90 * (2 * drawn - 1)).abs().max() < 3  # a spot has a width


def test_a_shear_slants_and_a_zoom_magnifies_by_what_they_say() -> None:
    x, y = centres(apply(transforms.Affine(rotate=0, shear=30, p=1, pad_mode="zeros"), marker(200, right=0, down=12)))
    assert y.sub(12).abs().max() < 0.3
    assert x.abs().max() == pytest.approx(12 * math.tan(math.radians(30)), abs=0.6) and x.min() < -5 and x.max() > 5
    plain = marker(200, right=0)
    grown = apply(transforms.Affine(rotate=0, zoom=1.5, p=1, pad_mode="zeros"), plain).sum((1, 2, 3)) / 9
    assert grown.min() > 0.95 and grown.max() == pytest.approx(1.5**2, abs=0.15)


def test_as_many_images_are_moved_as_the_probability_says() -> None:
    x = torch.rand(400, 1, 9, 9)
    for tfm in (transforms.Affine(rotate=20, p=0.3), transforms.ColorJitter(0.3, p=0.1)):
        touched = (apply(tfm, x) - x).abs().amax((1, 2, 3)) > 1e-3
        expected = 0.3 if isinstance(tfm, transforms.Affine) else 1 - 0.9**2  # saturation has no hold on gray
        assert touched.float().mean() == pytest.approx(expected, abs=0.07)


def test_a_translation_moves_no_further_than_it_may() -> None:
    x, y = centres(apply(transforms.Affine(rotate=0, translate=0.1, p=1, pad_mode="zeros"), marker(300, right=0)))
    for moved, side in ((x, 81), (y, 41)):
        assert 0.085 * side < moved.abs().max() <= 0.1 * side + 0.1 and abs(moved.mean()) < 0.02 * side


@pytest.mark.parametrize("channels", [3, 1], ids=["rgb", "gray"])
def test_color_jitter_is_torchvisions_brightness_contrast_and_saturation(channels: int) -> None:
    x = torch.rand(20, channels, 6, 6)  # each is clamped before the next
    jitter = transforms.ColorJitter(0.6, p=0.7)
    u = draws.table(key(20), 6, "ColorJitter")
    factors = 1 + 0.6 * (2 * u[:, :3] - 1) * (u[:, 3:] < 0.7)
    for image, out, (b, c, s) in zip(x, apply(jitter, x), factors.tolist(), strict=True):
        expected = tv.adjust_saturation(tv.adjust_contrast(tv.adjust_brightness(image, b), c), s)
        assert torch.allclose(out, expected, atol=1e-5)


def test_erase_and_cutout_cover_what_they_promise() -> None:
    x = torch.zeros(400, 3, 40, 40)
    share = (apply(transforms.Erase(p=0.5), x)[:, 0] != 0).float().mean((1, 2))
    assert 0.4 < (share > 0).float().mean() < 0.6 and share.max() <= 0.36
    tenth = (apply(transforms.Erase(p=1, area=(0.1, 0.1)), x) != 0).float().mean((2, 3))
    assert (tenth == tenth[:, :1]).all(), "all channels of a rectangle"
    assert (tenth - 0.1).abs().max() < 0.02, "wholly inside"
    cut = (apply(transforms.Cutout(0.5), torch.ones_like(x))[:, 0] == 0).float().mean((1, 2))
    assert cut.max() == pytest.approx(0.25, abs=0.03) and cut.min() > 0.05


def test_erase_covers_what_torchvisions_does_and_as_often_at_the_edges() -> None:
    ours = (apply(transforms.Erase(p=1), torch.zeros(4000, 1, 64, 64))[:, 0] != 0).float()
    torch.manual_seed(0)
    erase = v2.RandomErasing(p=1.0, scale=(0.02, 0.33), ratio=(0.3, 3.3))
    theirs = torch.stack([(erase(torch.ones(1, 64, 64))[0] == 0).float() for _ in range(1000)])
    assert ours.mean() == pytest.approx(float(theirs.mean()), abs=0.01)
    assert ours[:, :, 0].mean() == pytest.approx(float(theirs[:, :, 0].mean()), abs=0.01)


def test_zooms_shifts_and_their_places_are_drawn_apart() -> None:
    u = torch.from_numpy(draws.table(key(5000), 11, "Affine"))
    shifted = transforms.Affine(rotate=0, translate=0.1, p=1).matrices(u, 1.0)[:, :, 2]
    zoomed = transforms.Affine(rotate=0, zoom=1.5, p=1).matrices(u, 1.0)
    places = zoomed[:, :, 2] / (1 - zoomed[:, :1, 0])
    together = np.corrcoef(torch.cat([shifted, places, zoomed[:, :1, 0]], 1).T.numpy())
    assert np.abs(together - np.eye(5)).max() < 0.06


def test_a_crop_that_never_fits_is_the_centre() -> None:
    crop = RandomCrop((20, 20), 0.9, ratio=(0.9, 1.1))
    top, left, h, w = crop.boxes(key(50), np.full(50, 10), np.full(50, 100)).T
    assert set(h) == {10} and set(w) == {11} and set(top) == {0} and set(left) == {44}


@pytest.mark.parametrize("scale", [None, 0.2])
def test_random_crops_stay_inside_and_cover_their_range(scale: float | None) -> None:
    crop = RandomCrop((20, 20), scale)
    n = 2000
    boxes = crop.boxes(key(n), np.full(n, 30), np.full(n, 50))
    top, left, h, w = boxes.T
    assert (top >= 0).all() and (left >= 0).all() and (top + h <= 30).all() and (left + w <= 50).all()
    if scale is None:
        assert (h == 30).all() and (w == 30).all() and left.min() == 0 and left.max() == 20
    else:
        area, ratio = h * w / 1500, w / h
        assert area.min() == pytest.approx(0.2, abs=0.03) and area.max() > 0.75
        assert ratio.min() < 0.8 and ratio.max() > 1.28 and ratio.min() > 0.7 and ratio.max() < 1.42


def test_the_numbers_are_uniform_and_those_of_neighbours_and_streams_unrelated() -> None:
    u = draws.table(key(20_000), 4, "a")
    assert abs(u.mean() - 0.5) < 0.01 and abs(u.var() - 1 / 12) < 0.002 and u.min() >= 0 and u.max() < 1
    assert abs(np.corrcoef(u[:-1, 0], u[1:, 0])[0, 1]) < 0.03
    assert abs(np.corrcoef(u[:, 0], u[:, 1])[0, 1]) < 0.03
    for other in (draws.table(key(20_000), 4, "b"), draws.table(key(20_000, 1), 4, "a")):
        assert abs(np.corrcoef(u[:, 0], other[:, 0])[0, 1]) < 0.03


def test_every_augmentation_leaves_validation_images_alone() -> None:
    x = TensorImage(torch.rand(4, 3, 8, 8))
    for tfm in [transforms.Crop(2, flip=0.5), *transforms.augment(erase=1.0, p=1), transforms.Cutout()]:
        assert torch.equal(tfm(x.clone(), split_idx=1), x) and not torch.equal(apply(tfm, x), x)


def test_validation_images_may_be_larger_than_those_in_training() -> None:
    tfm, image = transforms.resize(48, min_scale=0.4, valid_size=60), PILImage.create(np.zeros((90, 70, 3), np.uint8))
    assert tfm(image, split_idx=0).size == (48, 48) and tfm(image, split_idx=1).size == (60, 60)


def test_training_images_grow_while_validation_images_do_not() -> None:
    seen: dict[bool, list[int]] = {True: [], False: []}

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen[self.training].append(x.shape[2])
            return self.linear(x.mean((2, 3)))

    items = [(torch.rand(3, 128, 160), i % 2) for i in range(6)]
    dls = DataLoaders(*(DataLoader(items, bs=2) for _ in range(2)))
    with Learner(dls, Net(), loss_func=nn.CrossEntropyLoss(), cbs=resizing.grow(64)).no_bar() as learn:
        learn.fit(3)
    assert seen[True] == [64, 64, 64, 96, 96, 96, 128, 128, 128] and set(seen[False]) == {128}
