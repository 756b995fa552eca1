"""Architectures, parameter groups, what is trained in each phase, and where weights come from."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fastai.callback.core import Callback
from fastai.losses import LabelSmoothingCrossEntropyFlat
from photographs import loaders, photographs
from PIL import Image
from scipy.stats import entropy
from timm.loss import BinaryCrossEntropy

from fastcls import models
from fastcls.data.pixels import targets
from fastcls.errors import KnobError, UsageError
from fastcls.models import backbones
from fastcls.settings import options
from fastcls.training import losses, optimizers
from fastcls.training.history import quiet

FAMILIES = ["resnet18", "mobilenet_v3_small", "timm/convnext_atto", "timm/test_vit"]
SLOW = [
    "alexnet",
    "vit_b_32",
    "timm/swin_s3_tiny_224",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "googlenet",
    "inception_v3",
    "mnasnet0_5",
]
SLOW += ["regnet_y_400mf", "resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "vgg11_bn", "maxvit_t"]
SLOW += ["timm/vit_tiny_patch16_224", "timm/efficientnet_b0", "timm/resnet26d", "timm/mambaout_femto"]
SLOW += ["timm/vit_small_patch14_dinov2", "timm/eva02_tiny_patch14_224", "timm/tiny_vit_5m_224", "timm/fastvit_t8"]
SLOW += [
    "timm/mobilenetv4_conv_small",
    "timm/levit_128s",
    "timm/regnetx_002",
    "timm/test_nfnet",
    "timm/edgenext_xx_small",
]


@pytest.mark.parametrize("arch", FAMILIES + [pytest.param(name, marks=pytest.mark.slow) for name in SLOW])
@pytest.mark.parametrize("gray", [False, True], ids=["rgb", "gray"])
def test_any_torchvision_or_timm_classifier_gets_a_head_and_groups(photos: Path, arch: str, gray: bool) -> None:
    learn = models.transfer_learner(loaders(photos, 96, gray), arch, weights="none")
    learn.create_opt()
    groups = learn.opt.param_lists
    assert len(groups) >= 2
    members = [id(p) for group in groups for p in group]
    assert len(members) == len(set(members)) == len(list(learn.model.parameters()))
    images = learn.dls.train.one_batch()[0]
    side = 224 if arch == "maxvit_t" else 96  # the one size that it takes, which its loaders then have
    assert images.shape == (4, 1 if gray else 3, side, side) and learn.model(images).shape == (4, 3)


@pytest.mark.parametrize("arch", ["resnet18", "timm/resnet18"])
def test_resnets_have_a_group_a_stage_and_each_phase_trains_what_it_says(photos: Path, arch: str) -> None:
    learn = models.transfer_learner(loaders(photos), arch, weights="none")
    learn.create_opt()
    names = {id(p): name for name, p in learn.model.named_parameters()}
    *body, head = [[names[id(p)] for p in group] for group in learn.opt.param_lists]
    stages = [["conv1", "bn1"], ["layer1"], ["layer2"], ["layer3"], ["layer4"]]
    assert [sorted({n.split(".")[1] for n in group}) for group in body] == [sorted(stage) for stage in stages]
    assert sorted(head) == ["1.1.bias", "1.1.weight"]

    trained: list[set[str]] = []
    rates: list[list[float]] = []

    class Spy(Callback):
        def before_step(self) -> None:
            found = {n for n, p in self.learn.model.named_parameters() if p.grad is not None}
            if not trained or trained[-1] != found:
                trained.append(found)

    class Rates(Callback):
        def before_step(self) -> None:
            rates.append([group["lr"] for group in self.learn.opt.hypers])

    with quiet(learn), learn.added_cbs([Spy(), Rates()]):
        learn.fine_tune(1, 1e-3, freeze_epochs=1)
    norms = {n for n in names.values() if "bn" in n or ".1.weight" in n}
    frozen_phase, whole_phase = trained
    assert whole_phase == set(names.values())
    assert set(head) <= frozen_phase
    modules = dict(learn.model.named_modules())
    body = frozen_phase - set(head)  # fastai goes on training the norm layers of a frozen body
    assert all(isinstance(modules[n.rpartition(".")[0]], torch.nn.BatchNorm2d) for n in body), norms
    whole_rates = rates[-1]
    assert whole_rates == sorted(set(whole_rates)) and len(whole_rates) == 6


def test_weights_of_a_run_fill_the_body_and_leave_the_head_new(photos: Path, tmp_path: Path) -> None:
    from fastcls.models import weights

    first = models.transfer_learner(loaders(photos), "resnet18", weights="none")
    weights.save(first.model, tmp_path / "model.safetensors")
    with options.using(options.Options()) as notes:
        second = models.transfer_learner(
            loaders(photos, gray=False), "resnet18", weights=str(tmp_path / "model.safetensors")
        )
    a, b = first.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(a[n], b[n].cpu()) for n in a if n.startswith("0."))
    assert not torch.equal(a["1.1.weight"], b["1.1.weight"].cpu())
    assert not next(second.model[0].parameters()).requires_grad and "head is new" in notes[0]


def test_a_gray_image_takes_the_mean_of_the_colours_statistics(photos: Path) -> None:
    learn = models.transfer_learner(loaders(photos, gray=True), "resnet18", weights="none")
    batch, _ = learn.dls.one_batch()
    assert batch.shape[1] == 1 and abs(float(batch.mean())) < 2


@pytest.mark.parametrize(
    "name, near", [("resnet5O", "resnet50"), ("vit_b16", "vit_b_16"), ("qqqq", "neither torchvision nor timm")]
)
def test_an_unknown_architecture_is_refused(name: str, near: str) -> None:
    with pytest.raises(UsageError, match=near):
        backbones.find(name)


def test_a_network_is_named_with_its_library_or_without() -> None:
    assert backbones.find("torchvision/resnet18") == backbones.find("resnet18") == ("torchvision", "resnet18", None)


@pytest.mark.parametrize("loss", ["cross-entropy", "label-smoothing", "focal"])
@pytest.mark.parametrize("opt", ["adam", "adamw", "sgd", "radam", "ranger"])
def test_every_loss_and_optimiser_makes_a_step(photos: Path, loss: str, opt: str) -> None:
    dls = loaders(photos)
    function = losses.loss(loss, dls, class_weights=True)
    learn = models.learner(
        dls, torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 3)), loss_func=function,
        opt_func=optimizers.optimizer(opt), stats=models.imagenet_stats,
    )  # fmt: skip
    before = learn.model[1].weight.detach().clone()
    with quiet(learn):
        learn.fit(1, 1e-3)
    assert torch.isfinite(learn.model[1].weight).all() and not torch.equal(before, learn.model[1].weight)


def test_class_weights_are_the_inverse_of_the_shares(photos: Path, tmp_path: Path) -> None:
    for name, n in (("many", 16), ("few", 4)):
        for i in range(n):
            file = tmp_path / name / f"{i}.png"
            file.parent.mkdir(exist_ok=True)
            Image.new("RGB", (32, 32), (i, 0, 0)).save(file)
    weight = losses.loss("cross-entropy", loaders(tmp_path), class_weights=True).func.weight
    few, many = weight.tolist()  # classes in order: 'few', 'many'
    assert few / many == pytest.approx(4, rel=0.35) and few + many == pytest.approx(2)


def test_what_a_loss_can_be_is_measured_with_it(tmp_path: Path) -> None:
    dls = loaders(photographs(tmp_path / "even", 50))
    for i in range(50, 120):
        Image.new("RGB", (32, 32), (i, 0, 0)).save(tmp_path / "even" / "cat" / f"{i}.png")
    uneven = loaders(tmp_path / "even")
    share = (targets(uneven.train_ds) == 0).double().mean().item()
    half, shares = math.log(2), entropy([share, 1 - share])
    for given, function, least, chance in (
        (dls, losses.loss("cross-entropy", dls), 0, half),
        (dls, losses.loss("label-smoothing", dls), entropy([0.95, 0.05]), half),
        (dls, LabelSmoothingCrossEntropyFlat(eps=0.1), entropy([0.95, 0.05]), half),
        (dls, losses.loss("focal", dls), 0, half / 4),
        (dls, BinaryCrossEntropy(smoothing=0), 0, half),
        (uneven, losses.loss("cross-entropy", uneven), 0, shares),
        (uneven, losses.loss("cross-entropy", uneven, class_weights=True), 0, half),
    ):
        bounds = losses.bounds(SimpleNamespace(dls=given, loss_func=function))
        assert bounds["least"] == pytest.approx(least, abs=0.002) and bounds["chance"] == pytest.approx(
            chance, abs=1e-4
        )
    assert losses.bounds(SimpleNamespace(dls=dls, loss_func=torch.nn.TripletMarginLoss())) == {}


def test_unknown_names_of_losses_and_optimisers_are_refused(photos: Path) -> None:
    with pytest.raises(UsageError, match="cross-entropy"):
        losses.loss("hinge", loaders(photos))
    with pytest.raises(UsageError, match="adamw"):
        optimizers.optimizer("lion")


def test_further_keywords_go_to_the_network_and_to_the_learner(photos: Path) -> None:
    given = {"transfer_learner": {"ps": 0.25, "drop_rate": 0.1}, "Learner": {"moms": (0.9, 0.8, 0.9)}}
    with options.using(options.Options(extra=given)):
        learn = models.transfer_learner(loaders(photos), "timm/test_resnet", weights="none")
    assert learn.model[0].drop_rate == 0.1 and learn.model[1][0].p == 0.25 and learn.moms == (0.9, 0.8, 0.9)
    for key, near in (("drop_rat", "drop_rate"), ("num_classes", "")):
        wrong = options.Options(extra={"transfer_learner": {key: 3}})
        with options.using(wrong), pytest.raises(KnobError, match=f"ResNet, does not accept {key}.*{near}"):
            models.transfer_learner(loaders(photos), "timm/test_resnet", weights="none")
