"""The CIFAR-10 network and Muon, through a fastai Learner: what each promises to its user."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from fastai.data.all import DataLoaders
from fastai.losses import LabelSmoothingCrossEntropyFlat
from fastai.vision.all import Learner, accuracy
from torch.nn import functional as F

from fastcls.errors import UsageError
from fastcls.models.networks import SpeedNet, speednet, whiten
from fastcls.training.history import quiet
from fastcls.training.optimizers import Muon

WIDTHS = (8, 16, 16)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


def photographs(n: int) -> torch.Tensor:
    """(n, 3, 32, 32): neighbours alike, as in photographs."""
    return F.interpolate(torch.randn(n, 3, 9, 9), 32, mode="bicubic") + 0.1 * torch.randn(n, 3, 32, 32)


def stripes() -> DataLoaders:
    """Two classes that only a filter can tell apart: horizontal and vertical stripes in noise."""
    labels = torch.arange(320) % 2
    wave = torch.sin(torch.arange(16.0) + 6 * torch.rand(320, 1))
    upright = wave[:, None, None, :].expand(-1, 3, 16, 16)
    x = torch.where(labels[:, None, None, None] == 1, upright, upright.mT) + torch.randn(320, 3, 16, 16)
    items = list(zip(x, labels, strict=True))
    return DataLoaders.from_dsets(items[:256], items[256:], bs=32, num_workers=0, device=torch.device("cpu"))


def learner() -> Learner:
    dls = stripes()
    net = speednet(3, 2, WIDTHS)
    whiten(net, dls.one_batch()[0])
    split = lambda model: [list(model.whitening.parameters()), [*model.blocks.parameters(), *model.head.parameters()]]  # noqa: E731
    loss = LabelSmoothingCrossEntropyFlat(eps=0.2)
    return Learner(dls, net, opt_func=Muon, loss_func=loss, splitter=split, lr=0.1, moms=(0.6,) * 3, metrics=accuracy)


@pytest.mark.parametrize("side", [17, 32, 40])
def test_images_of_any_size_become_logits(side: int) -> None:
    net = speednet(1, 7, WIDTHS)
    assert net(torch.randn(4, 1, side, side)).shape == (4, 7)
    assert net.eval()(torch.randn(4, 1, side, side)).shape == (4, 7)


def test_a_prediction_averages_the_views_and_training_does_not() -> None:
    net, x = speednet(3, 5, WIDTHS, views=6), photographs(4)
    torch.testing.assert_close(net(x), net.logits(x))
    net.eval()
    padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
    parts = [(x, 0.5), (padded[..., :32, :32], 0.25), (padded[..., 2:, 2:], 0.25)]
    mean = sum(weight * (net.logits(view) + net.logits(view.flip(3))) / 2 for view, weight in parts)
    torch.testing.assert_close(net(x), mean)
    net.views = 1
    torch.testing.assert_close(net(x), net.logits(x))


def test_a_wrong_number_of_views_is_refused() -> None:
    with pytest.raises(UsageError, match="3 views"):
        speednet(3, 5, views=3)


def test_whitening_leaves_uncorrelated_patches() -> None:
    net, images = speednet(3, 5, WIDTHS), photographs(64)
    whiten(net, images, eps=0)
    outputs = net.whitening(images).transpose(0, 1).flatten(1)
    assert torch.equal(outputs[:12], -outputs[12:])
    torch.testing.assert_close(outputs[:12] @ outputs[:12].T / outputs.shape[1], torch.eye(12), atol=1e-3, rtol=0)


def test_whitening_stays_fixed_and_is_saved() -> None:
    learn = learner()
    fixed = learn.model.whitening.weight.clone()
    with quiet(learn):
        learn.unfreeze()
        learn.fit(1)
    assert torch.equal(learn.model.whitening.weight, fixed)
    assert not any(p.shape == fixed.shape for p in learn.model.parameters())
    state = learn.model.state_dict()
    assert all(type(value) is torch.Tensor for value in state.values())
    other = speednet(3, 2, WIDTHS)
    other.load_state_dict(state)
    x = photographs(3)
    assert torch.equal(other.eval()(x), learn.model.eval()(x))


@pytest.mark.parametrize("shape", [(16, 8, 3, 3), (72, 3, 2, 2)])
def test_muon_takes_the_published_step(shape: tuple[int, ...]) -> None:
    """Jordan et al. 2024: filters held at their norm, moved by Nesterov's momentum with singular values near one."""
    p = torch.nn.Parameter(torch.randn(shape))
    p.grad, before = torch.randn(shape), p.detach().clone()
    average = torch.zeros(shape)
    Muon([p], 0.1).step_filter(p, average, 0.1, 0.6)
    x = (1.6 * p.grad).flatten(1)
    x = x / x.norm()
    for _ in range(3):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    held = before * len(before) ** 0.5 / before.norm()
    assert torch.allclose(p, held - 0.1 * x.view_as(p), atol=1e-3) and torch.equal(average, p.grad)
    values = torch.linalg.svdvals(((held - p) / 0.1).detach().flatten(1))
    assert values.min() > 0.5 and values.max() < 1.5


def test_muon_learns_in_one_cycle() -> None:
    learn = learner()
    with quiet(learn):
        learn.fit_one_cycle(3, 0.1)
        assert learn.validate()[1] > 0.95
    assert learn.opt.hypers[0]["lr"] < 1e-3


def test_frozen_groups_stay_and_state_comes_back() -> None:
    learn = learner()
    bias = learn.model.whitening.bias
    learn.freeze()
    with quiet(learn):
        learn.fit(1)
        assert not bias.any()
        learn.unfreeze()
        learn.fit(1)
    assert bias.any()
    state = learn.opt.state_dict()
    learn.create_opt()
    learn.opt.load_state_dict(state)
    with quiet(learn):
        learn.fit(1)


def exported(net: SpeedNet, file: Path) -> onnxruntime.InferenceSession:
    torch.onnx.export(net, (photographs(2),), file, dynamo=True, dynamic_shapes=({0: "batch"},), verbose=False)
    return onnxruntime.InferenceSession(file)


@pytest.mark.filterwarnings("ignore")
def test_the_exported_network_gives_the_same_logits(tmp_path: Path) -> None:
    net = speednet(3, 10, WIDTHS)
    whiten(net, photographs(16))
    net(photographs(64))  # statistics of the norms
    session = exported(net.eval(), tmp_path / "net.onnx")
    for n in (1, 5):
        x = photographs(n)
        (logits,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        np.testing.assert_allclose(logits, net(x).detach().numpy(), atol=1e-4)
