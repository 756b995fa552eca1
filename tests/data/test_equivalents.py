"""fastai's own batch transforms, run by equivalents: its pixels, its distributions, and as they are where not known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from fastai.data.all import IntToFloatTensor, Normalize, Pipeline, Transform
from fastai.torch_core import TensorCategory, TensorImage, set_seed
from fastai.vision import augment
from fastai.vision.augment import (
    AffineCoordTfm,
    Brightness,
    Contrast,
    DeterministicFlip,
    Dihedral,
    Flip,
    Hue,
    RandomErasing,
    Rotate,
    Saturation,
    Warp,
    Zoom,
    aug_transforms,
    setup_aug_tfms,
)
from scipy import stats

from fastcls.transforms import draws, equivalents, geometry
from fastcls.transforms.equivalents import BatchTransforms, steps, unknown

N = 40
KEY = draws.Key(1, 2, np.arange(N))


def run(tfms: list[Any], x: torch.Tensor, key: draws.Key = KEY, split_idx: int = 0) -> torch.Tensor:
    """What a loader makes of a batch."""
    pipeline = Pipeline([IntToFloatTensor(), *tfms])
    pipeline.split_idx = split_idx
    made, _ = BatchTransforms(pipeline)((TensorImage(x.clone()), TensorCategory(torch.zeros(len(x)))), key)
    assert type(made) is TensorImage
    return made.as_subclass(torch.Tensor)


def fastais(tfms: list[Any], x: torch.Tensor, split_idx: int = 0) -> torch.Tensor:
    pipeline = Pipeline([IntToFloatTensor(), *tfms])
    pipeline.split_idx = split_idx
    return pipeline((TensorImage(x.clone()), TensorCategory(torch.zeros(len(x)))))[0].as_subclass(torch.Tensor)


def picture(n: int, shape: tuple[int, ...] = (3, 20, 28)) -> torch.Tensor:
    torch.manual_seed(5)
    coarse = torch.rand(1, shape[0], 5, 5)
    x = torch.nn.functional.interpolate(coarse, shape[1:], mode="bicubic").clamp(0, 1).mul(255).to(torch.uint8)
    return x.expand(n, -1, -1, -1).contiguous(memory_format=torch.channels_last)


# fastai's functions by what they are called with, and what fastai draws with them: (n, several) parameters
def of_matrix(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, **how: function(x, **how)[:, :2].flatten(1)


def of_warp(x: torch.Tensor, **how: Any) -> torch.Tensor:
    f = augment._WarpCoord(**how)
    f.before_call(x)
    return f.targ_pts.flatten(1)


def of_change(kind: Any) -> Callable[..., Any]:
    def change(x: torch.Tensor, **how: Any) -> torch.Tensor:
        f = kind(**how)
        f.before_call(x)
        return f.change[:, None]

    return change


def by_us_warp(u: np.ndarray, **how: Any) -> np.ndarray:
    """Where the corners go: what takes them there is the inverse of the matrix."""
    corners = np.array([[-1, -1, 1], [-1, 1, 1], [1, -1, 1], [1, 1, 1]]).T
    ends = np.linalg.inv(geometry.warp(u, **how)) @ corners
    return (ends[:, :2] / ends[:, 2:]).transpose(0, 2, 1).reshape(len(u), 8)


def by_us_matrix(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    return lambda u, **how: function(u, **how)[:, :2].reshape(len(u), 6)


def by_us_change(kind: Any) -> Callable[..., np.ndarray]:
    def change(u: np.ndarray, **how: Any) -> np.ndarray:
        return equivalents.change_of(kind(**how), len(u), "s")[:, None]

    return change


DISTRIBUTIONS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "flip": (of_matrix(augment.flip_mat), by_us_matrix(geometry.flip), {"p": 0.3}),
    "dihedral": (of_matrix(augment.dihedral_mat), by_us_matrix(geometry.dihedral), {"p": 0.8}),
    "rotate": (of_matrix(augment.rotate_mat), by_us_matrix(geometry.rotate), {"max_deg": 25, "p": 0.7}),
    "zoom": (of_matrix(augment.zoom_mat), by_us_matrix(geometry.zoom), {"min_zoom": 0.7, "max_zoom": 1.6, "p": 0.6}),
    "warp": (of_warp, by_us_warp, {"magnitude": 0.3, "p": 0.7}),
    "brightness": (of_change(augment._BrightnessLogit), by_us_change(augment._BrightnessLogit), {"max_lighting": 0.4}),
    "contrast": (of_change(augment._ContrastLogit), by_us_change(augment._ContrastLogit), {"p": 0.5}),
    "saturation": (of_change(augment._SaturationLogit), by_us_change(augment._SaturationLogit), {"max_lighting": 0.6}),
    "hue": (of_change(augment._Hue), by_us_change(augment._Hue), {"max_hue": 0.3, "p": 0.9}),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_parameters_have_fastais_distributions(name: str) -> None:
    """Every parameter, and every product of two, by the Kolmogorov–Smirnov test on 20,000 draws of each side."""
    theirs, ours, how = DISTRIBUTIONS[name]
    set_seed(0)
    expected = np.asarray(theirs(torch.zeros(20_000, 3, 2, 2), **how))
    with draws.of(draws.Key(7, 0, np.arange(20_000))):
        found = ours(geometry.numbers(20_000, "s"), **how)
    for i in range(expected.shape[1]):
        for j in range(i, expected.shape[1]):
            a, b = (np.round(v[:, i] * v[:, j] if j > i else v[:, i], 5) for v in (expected, found))
            assert stats.ks_2samp(a, b).statistic < 0.02, (i, j)  # 1.95 / sqrt(10,000) is passed once in a thousand


def test_what_is_drawn_for_a_batch_is_the_same_for_all_its_images_and_another_for_the_next() -> None:
    x, seen = picture(3), []
    for start in range(0, 120, 3):
        made = run(aug_transforms(batch=True), x, draws.Key(1, 0, np.arange(start, start + 3)))
        assert torch.allclose(made[0], made[1]) and torch.allclose(made[0], made[2])
        seen.append(made[0])
    assert len({tuple(image.flatten().tolist()) for image in seen}) > 35


def test_whole_pipelines_give_fastais_distribution_of_pixels() -> None:
    x = picture(4000, (3, 10, 14))
    set_seed(3)
    tfms = lambda: aug_transforms(flip_vert=True, max_rotate=40, max_warp=0.3, xtra_tfms=[Saturation(0.5), Hue(0.2)])  # noqa: E731
    normalize = Normalize.from_stats([0.4, 0.5, 0.6], [0.2, 0.3, 0.2], cuda=False)
    theirs = fastais([*tfms(), normalize], x)
    ours = run([*tfms(), normalize], x, draws.Key(3, 0, np.arange(4000)))
    places = [(c, i, j) for c in range(3) for i in (0, 4, 9) for j in (0, 7, 13)]
    for a, b in [(theirs[:, c, i, j], ours[:, c, i, j]) for c, i, j in places] + [
        (theirs.std((1, 2, 3)), ours.std((1, 2, 3)))
    ]:
        assert stats.ks_2samp(a.numpy(), b.numpy()).statistic < 0.0437  # once in a thousand


def drawn(kind: Any, u: np.ndarray) -> dict[str, list[float]]:
    """What the transforms below draw of these numbers, as fastai's `draw`, which it takes as a list."""
    u0, u1, u2, u3 = u.astype(np.float64).T
    if kind is Flip:
        return {"draw": (u1 < 0.5).astype(float).tolist()}
    if kind is Dihedral:
        return {"draw": np.where(u1 < 0.5, np.floor(8 * u0), 0.0).tolist()}
    if kind is Rotate:
        return {"draw": np.where(u1 < 0.6, -30 + 60 * u0, 0.0).tolist()}
    if kind is Zoom:
        scale = np.where(u1 < 0.8, 0.5 + 1.5 * u0, 1.0).tolist()
        return {"draw": scale, "draw_x": u2.tolist(), "draw_y": u3.tolist()}
    x, y = (np.where(chosen < 0.7, -0.2 + 0.4 * u, 0.0).tolist() for u, chosen in ((u0, u1), (u2, u3)))
    return {"draw_x": x, "draw_y": y}


HOW: dict[Any, dict[str, Any]] = {
    Flip: {},
    Dihedral: {},
    Rotate: {"max_deg": 30, "p": 0.6},
    Zoom: {"min_zoom": 0.5, "max_zoom": 2, "p": 0.8},
    Warp: {"p": 0.7},
}
OUTPUTS: list[dict[str, Any]] = [
    {},
    {"pad_mode": "zeros", "align_corners": False},
    {"pad_mode": "border", "size": (30, 24)},
    {"size": 8},  # less than half: fastai averages first
    {"mode": "nearest", "align_corners": False},
]


@pytest.mark.parametrize("channels", [3, 1], ids=["rgb", "gray"])
@pytest.mark.parametrize("output", OUTPUTS, ids=str)
@pytest.mark.parametrize(
    "kinds", [*([kind] for kind in HOW), list(HOW)], ids=lambda kinds: "+".join(k.__name__ for k in kinds)
)
def test_with_the_same_parameters_the_pixels_are_fastais(
    kinds: list[Any], output: dict[str, Any], channels: int
) -> None:
    x = picture(N, (channels, 20, 28))
    with draws.of(KEY):
        affine = [kind for kind in kinds if kind is not Warp]
        place = {kind: i for i, kind in enumerate([*affine, *(kind for kind in kinds if kind is Warp)])}
        given = {kind: drawn(kind, geometry.numbers(N, f"1 {place[kind]}")) for kind in kinds}
    ours = run(setup_aug_tfms([kind(**HOW[kind], **output) for kind in kinds]), x)
    theirs = fastais(setup_aug_tfms([kind(**HOW[kind] | {"p": 1.0}, **given[kind], **output) for kind in kinds]), x)
    assert not torch.allclose(theirs, fastais([], x)[:1].mean(), atol=0.01)
    differ = (ours - theirs).abs()
    if output.get("mode") == "nearest":  # where rounding decides which pixel is the nearest
        assert differ.gt(1e-5).float().mean() < 0.02
    else:
        assert differ.max() < 1e-5


@pytest.mark.parametrize("kind", [Brightness, Contrast, Saturation, Hue])
def test_lighting_with_the_same_changes_is_fastais(kind: Any) -> None:
    x = picture(N)
    x[:, :, :4], x[:, :, 4:8] = 0, 255  # the ends of the logits too
    with draws.of(KEY):
        change = equivalents.change_of(kind().fs[0], N, "1 0").tolist()
    assert (run([kind()], x) - fastais([kind(p=1.0, draw=change)], x)).abs().max() < 1e-5


@pytest.mark.parametrize("tfms", [
    lambda: [Flip()], lambda: aug_transforms(size=12), lambda: aug_transforms(size=12, min_scale=0.5),
    lambda: [AffineCoordTfm(size=(9, 31), align_corners=False), RandomErasing(p=1.0)],
], ids=["flip", "size", "min_scale", "affine"])  # fmt: skip
def test_validation_images_are_fastais(tfms: Callable[[], list[Any]]) -> None:
    x, normalize = picture(4), Normalize.from_stats([0.4, 0.5, 0.6], [0.2, 0.3, 0.2], cuda=False)
    ours, theirs = (side([*tfms(), normalize], x, split_idx=1) for side in (run, fastais))
    assert ours.shape == theirs.shape and (ours - theirs).abs().max() < 3e-5  # of numbers divided by 0.2


def test_random_crops_of_a_batch_and_erasing_are_fastais_under_the_batchs_seed() -> None:
    x = picture(N)
    made = run([*aug_transforms(size=12, min_scale=0.3), RandomErasing(p=1.0, sh=0.2)], x)
    assert made.shape == (N, 3, 12, 12)
    assert torch.equal(made, run([*aug_transforms(size=12, min_scale=0.3), RandomErasing(p=1.0, sh=0.2)], x))
    other = run(
        [*aug_transforms(size=12, min_scale=0.3), RandomErasing(p=1.0, sh=0.2)], x, draws.Key(1, 3, KEY.indices)
    )
    assert not torch.allclose(made, other, atol=0.1)


def test_flips_and_normalisation_cost_no_resampling() -> None:
    tfms = Pipeline([IntToFloatTensor(), Flip(), Flip(p=0.2), Normalize.from_stats([0.4], [0.2], cuda=False)]).fs
    assert [type(step.run).__name__ for step in steps(tfms, 0)] == ["ToFloat"]
    assert [type(step.run).__name__ for step in steps(tfms, 1)] == ["ToFloat"]


def test_what_is_not_understood_runs_as_it_is_and_draws_by_the_batch() -> None:
    class Own(Rotate):
        pass

    class Noise(Transform):
        order = 50

        def encodes(self, x: TensorImage) -> TensorImage:
            return x + torch.rand_like(x)

    odd = [Own(), Rotate(draw=lambda x: x.new_zeros(x.size(0))), Warp(draw_x=[0.1] * N), DeterministicFlip(), Noise()]
    assert unknown(odd) == ["DeterministicFlip", "Noise", "Own", "Rotate", "Warp"]
    assert unknown([*aug_transforms(), Rotate(draw=10), Saturation(), Hue(), RandomErasing(), Normalize()]) == []
    x, normalize = picture(N), Normalize.from_stats([0.4, 0.5, 0.6], [0.2, 0.3, 0.2], cuda=False)
    before = torch.get_rng_state()
    first, again = (run([Noise(), normalize], x) for _ in range(2))
    assert torch.equal(first, again) and torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first, run([Noise(), normalize], x, draws.Key(1, 3, KEY.indices)))
    moved = run([Own(90, p=1.0), Flip(), normalize], x)
    assert moved.shape == x.shape and len({tuple(image.flatten().tolist()) for image in moved}) > 30
