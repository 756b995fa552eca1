"""The table of layers: receptive fields against published and measured ones, sums against torchvision's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from conftest import Fastcls
from torch import nn
from torch.nn import functional
from torchvision.models import get_model, get_model_weights

from fastcls.models import networks
from fastcls.models.receptive import WHOLE, ReceptiveFields
from fastcls.models.summary import count, summarize

pytestmark = pytest.mark.further

Seen = tuple[int, int] | str | None


def seen(network: nn.Module, shape: tuple[int, int, int] = (3, 64, 64), layer: str = "") -> Seen:
    """What a unit of the output of `layer` sees, according to ReceptiveFields."""
    found: list[Seen] = []
    image = torch.zeros(1, *shape)
    hook = network.get_submodule(layer).register_forward_hook(lambda *call: found.append(fields.of(call[-1])))
    with torch.no_grad(), ReceptiveFields(image) as fields:
        network.eval()(image)
    hook.remove()
    return found[-1]


def measured(network: nn.Module, shape: tuple[int, int, int], layer: str = "") -> tuple[int, int]:
    """The extent of the gradient of a unit in the middle of `layer`, as to the pixels of a large image.

    Without cancellation: weights are positive, norms and activations do nothing, a maximum becomes a mean.
    """
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d) and child.dilation == 1:
                pool = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, ceil_mode=child.ceil_mode)
                setattr(module, name, pool)
            elif isinstance(child, (nn.BatchNorm2d, nn.LayerNorm, nn.ReLU, nn.ReLU6)):
                setattr(module, name, nn.Identity())
    outputs: list[torch.Tensor] = []
    network = network.double().eval()
    for parameter in network.parameters():
        nn.init.constant_(parameter, 1 / max(1, parameter[0].numel()))
        parameter.requires_grad_(False)
    image = torch.ones(1, *shape, dtype=torch.double, requires_grad=True)

    class Enough(Exception):
        pass

    def stop(*call: Any) -> None:
        outputs.append(call[-1])
        raise Enough

    network.get_submodule(layer).register_forward_hook(stop)
    with pytest.raises(Enough):
        network(image)
    *_, height, width = outputs[-1].shape
    outputs[-1][0, :, height // 2, width // 2].sum().backward()
    assert image.grad is not None
    rows, columns = (image.grad[0].sum((0, d)).nonzero().flatten() for d in (2, 1))
    return int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1


def built(name: str) -> nn.Module:
    """A torchvision network with any weights at all: they do not matter, and take long to draw."""
    with torch.device("meta"):
        network = get_model(name, weights=None, **({"init_weights": False} if name == "googlenet" else {}))
    return network.to_empty(device="cpu")


@pytest.mark.parametrize(
    "name, layer, pixels",
    [  # Araujo, Norris and Sim 2019 publish those of AlexNet and VGG-16
        ("alexnet", "features", 195),
        ("vgg16", "features", 212),
        ("resnet18", "layer4", 435),
        ("resnet50", "layer4", 427),  # with the stride in the 3 × 3 convolution; 483 with it in the first 1 × 1
        ("efficientnet_b0", "features.0", 3),
        ("efficientnet_b0", "features.1", WHOLE),  # squeeze and excite
    ],
)
def test_well_known_networks(name: str, layer: str, pixels: int | str) -> None:
    network = built(name)
    assert seen(network, (3, 224, 224), layer) == (pixels if isinstance(pixels, str) else (pixels, pixels))
    assert seen(network) == WHOLE


def test_the_field_does_not_depend_on_the_size_of_the_image() -> None:
    assert (
        seen(built("resnet18"), (3, 32, 32), "layer4") == seen(built("resnet18"), (3, 96, 64), "layer4") == (435, 435)
    )


@pytest.mark.parametrize(
    "name, layer, side",
    [
        ("resnet18", "layer2", 130),
        ("googlenet", "inception3a", 180),
        ("densenet121", "features.transition1", 140),
        ("squeezenet1_1", "features.7", 160),
        ("shufflenet_v2_x0_5", "stage3", 400),
        ("mobilenet_v2", "features.8", 240),
        ("convnext_tiny", "features.1", 120),
    ],
)
def test_the_field_is_that_of_the_gradient(name: str, layer: str, side: int) -> None:
    assert seen(built(name), (3, side, side), layer) == measured(built(name), (3, side, side), layer)


class Paths(nn.Module):
    """Two paths, joined by a function."""

    def __init__(self, one: nn.Module, two: nn.Module, join: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.one, self.two, self.join = one, two, join

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.join(self.one(x), self.two(x))


def conv(kernel: int | tuple[int, int], **kwargs: object) -> nn.Conv2d:
    return nn.Conv2d(4, 4, kernel, **kwargs)


def linear_channels_last(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return functional.linear(a.permute(0, 2, 3, 1), torch.ones(4, 4).to(a)).permute(0, 3, 1, 2) + b


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "dilated": lambda: nn.Sequential(conv(3), conv(3, dilation=2), conv(3, dilation=4, padding=4)),
    "oblong": lambda: nn.Sequential(conv((1, 7), padding="same"), conv((3, 1), stride=(2, 1)), nn.MaxPool2d((2, 3))),
    "other ends stick out": lambda: Paths(
        nn.Sequential(nn.ZeroPad2d((2, 1, 1, 2)), conv(4)), conv(3, padding=1), torch.add
    ),
    "joined": lambda: Paths(
        conv(1), nn.Sequential(conv(5, padding=2), conv(3, padding=1)), lambda a, b: torch.cat([a, b], 1)
    ),
    "shortcut": lambda: Paths(
        conv(1, stride=2), nn.Sequential(conv(3, stride=2, padding=1), conv(3, padding=1)), torch.add
    ),
    "half the channels": lambda: Paths(nn.Identity(), conv(5, padding=2), lambda a, b: a[:, :2] + b[:, 2:]),
    "shifted": lambda: Paths(nn.Identity(), conv(3, padding=1), lambda a, b: a[:, :, 2:] + b[:, :, :-2]),
    "phases": lambda: Paths(nn.Identity(), conv(3, padding=1), lambda a, b: a[..., ::2, ::2] + b[..., 1::2, 1::2]),
    "channels last": lambda: Paths(conv(7, padding=3), nn.Identity(), linear_channels_last),
    "tokens": lambda: nn.Sequential(conv(5, stride=2), nn.Flatten(2), nn.Unflatten(2, (30, 30)), conv(3)),
    "blocks": lambda: nn.Sequential(
        conv(3, padding=1), nn.Unflatten(3, (8, 8)), nn.Unflatten(2, (4, 16)), nn.Flatten(4), nn.Flatten(2, 3), conv(3)
    ),
    "padded": lambda: nn.Sequential(nn.ReflectionPad2d(2), conv(5), nn.ZeroPad2d((1, 0, 2, 1)), nn.AvgPool2d(3, 2)),
    "adaptive": lambda: nn.Sequential(conv(3, padding=1), nn.AdaptiveAvgPool2d(16), conv(3)),
    "in place": lambda: Paths(conv(3, padding=1), conv(5, padding=2), lambda a, b: a.clone().add_(b)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_small_networks_of_every_kind(name: str) -> None:
    assert seen(NETWORKS[name](), (4, 64, 64)) == measured(NETWORKS[name](), (4, 64, 64))


@pytest.mark.parametrize(
    "network, pixels",
    [
        (nn.Sequential(conv(3), nn.AdaptiveAvgPool2d(1), conv(1)), WHOLE),
        (nn.Sequential(conv(3), nn.AvgPool2d(14)), WHOLE),
        (nn.Sequential(conv(3), nn.Flatten()), (3, 3)),
        (nn.Sequential(conv(3), nn.Flatten(), nn.Linear(4 * 14 * 14, 2)), WHOLE),
        (nn.Sequential(nn.MaxPool2d(3), nn.Flatten(), nn.Linear(4 * 5 * 5, 2)), (15, 15)),  # the last row is left out
        (Paths(nn.AdaptiveMaxPool2d(1), conv(3, padding=1), torch.mul), WHOLE),  # squeeze and excite
        (Paths(nn.AdaptiveAvgPool2d((1, None)), nn.Identity(), torch.mul), (16, 1)),
        (nn.GroupNorm(2, 4), (1, 1)),  # statistics do not count
        (nn.Sequential(conv(3), nn.AdaptiveAvgPool2d(4)), (6, 6)),  # irregular windows, all of 4
        (nn.Sequential(conv(3), nn.AdaptiveAvgPool2d(5)), None),  # windows of several sizes
        (nn.Upsample(scale_factor=2), (1, 1)),
        (nn.Upsample(scale_factor=2, mode="bilinear"), None),
        (nn.ConvTranspose2d(4, 4, 2, 2), None),
        (nn.Sequential(nn.Upsample(scale_factor=2), nn.AdaptiveAvgPool2d(1)), WHOLE),
        (Paths(nn.Upsample(scale_factor=2), nn.Identity(), lambda a, _: a[:, :, 0].mean((1, 2))), (1, 16)),
    ],
)  # fmt: skip
def test_what_sees_everything_and_what_cannot_be_known(network: nn.Module, pixels: Seen) -> None:
    assert seen(network, (4, 16, 16)) == pixels


@pytest.mark.parametrize(
    "act", ["relu6", "hardswish", "mish", "silu", "gelu", "leaky_relu", "prelu", "elu", "hard_mish"]
)
@pytest.mark.parametrize("inplace", [False, True])
def test_activations_see_no_further(act: str, inplace: bool) -> None:
    assert seen(nn.Sequential(conv(3), timm.layers.create_act_layer(act, inplace=inplace)), (4, 8, 8)) == (3, 3)


@pytest.mark.parametrize("norm", networks.NORMS)
@pytest.mark.parametrize("act", networks.ACTIVATIONS)
def test_our_own_networks(norm: str, act: str) -> None:
    rows = summarize(networks.cnn(3, 10, (8, 16), norm=norm, act=act, convs=2), (3, 16, 16))
    assert [row["receptive_field"] for row in rows if row["kernel"]] == [[3, 3], [5, 5], [6, 6], [10, 10], [14, 14]]
    assert rows[-1]["receptive_field"] == WHOLE


def test_attention_sees_everything() -> None:
    rows = summarize(timm.create_model("vit_tiny_patch16_224", depth=1), (3, 224, 224))
    fields = {row["layer"]: row["receptive_field"] for row in rows}
    assert fields["patch_embed.proj"] == [16, 16] and fields["head"] == WHOLE
    assert fields["blocks.0.attn.proj"] == fields["blocks.0.mlp.fc2"] == WHOLE


@pytest.mark.parametrize(
    "name", ["alexnet", "resnet18", "mobilenet_v3_small", "googlenet", "convnext_tiny", "vit_b_32"]
)
def test_the_sums_are_those_that_torchvision_publishes(name: str) -> None:
    network = built(name)
    rows = summarize(network, (3, 224, 224))
    published = get_model_weights(name)["IMAGENET1K_V1"].meta["_ops"]  # in 1e9, three digits
    assert sum(row["multiply_adds"] for row in rows) / 1e9 == pytest.approx(published, abs=6e-4)
    assert sum(row["parameters"] for row in rows) == count(network)[0]


def test_a_row_a_layer_in_the_order_of_the_computation() -> None:
    network = networks.cnn(1, 10, (8, 16), side=8, kernel=5).train()
    network[0].weight.requires_grad_(False)
    network[2].eval()
    rows = summarize(network, (1, 8, 8))
    assert network.training and not network[2].training  # as they were
    assert [row["type"] for row in rows] == [type(layer).__name__ for layer in network]
    assert rows[0] == {
        "layer": "0", "type": "Conv2d", "output_shape": [1, 8, 8, 8], "kernel": [5, 5], "stride": [1, 1],
        "parameters": 200, "multiply_adds": 64 * 200, "receptive_field": [5, 5], "trainable": False,
    }  # fmt: skip
    assert [row["receptive_field"] for row in rows if row["kernel"]] == [[5, 5], [6, 6], [14, 14], [16, 16]]
    assert rows[-1]["receptive_field"] == WHOLE and rows[-1]["trainable"]


def test_a_layer_used_twice_has_two_rows_and_its_parameters_once() -> None:
    shared = conv(3, padding=1)
    rows = summarize(nn.Sequential(shared, nn.ReLU(), shared), (4, 8, 8))
    assert [row["parameters"] for row in rows] == [148, 0, 0]
    assert [row["receptive_field"] for row in rows] == [[3, 3], [3, 3], [5, 5]]
    assert rows[0]["multiply_adds"] == rows[2]["multiply_adds"] == 4 * 4 * 9 * 64


def test_images_that_a_network_does_not_take_are_refused() -> None:
    with pytest.raises(RuntimeError, match="does not accept images"):
        summarize(conv(3), (3, 8, 8))


def test_the_table_is_in_the_run_folder_and_its_report(digits_run: Path) -> None:
    rows = json.loads((digits_run / "model.json").read_text())["summary"]
    assert [row["receptive_field"] for row in rows if row["kernel"]] == [[3, 3], [5, 5], [6, 6], [10, 10], [14, 14]]
    page = (digits_run / "report.html").read_text()
    for cell in ("MACs", "Receptive field", "<td>3 × 3</td><td>1 × 1</td>", ">14</td>", ">whole image</td>"):
        assert cell in page


def test_a_dry_run_shows_the_table(fastcls: Fastcls) -> None:
    lines = fastcls("recipe", "digits-cnn", "--dry-run", "--limit", "20").output.splitlines()
    conv, linear = (next(line.split() for line in lines if kind in line) for kind in ("Conv2d", "Linear"))
    assert " ".join(conv) == "0 Conv2d 32×8×8 3×3 1×1 288 18,432 3"
    assert " ".join(linear) == "23 Linear 10 1,290 1,280 whole image"
    assert any(line.split() == ["in", "all", "288,170", "2,379,008"] for line in lines)


def test_a_narrow_terminal_costs_columns_never_figures(fastcls: Fastcls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("FORCE_COLOR", "1")  # as if it were a terminal
    output = re.sub(r"\x1b\[[\d;]*m", "", fastcls("recipe", "digits-cnn", "--dry-run", "--limit", "20").output)
    lines = [line.split() for line in output.splitlines()]
    assert any(line[:2] == ["0", "Conv2d"] and {"288", "18,432"} <= set(line) for line in lines)
    assert any(line[1:2] == ["AdaptiveAvgPool2d"] for line in lines)
    assert all(len(line) <= 60 for line in output.splitlines() if "Conv2d" in line)


def test_a_parameter_that_is_an_input_is_no_obstacle() -> None:
    sizes = {"img_size": 32, "embed_dim": 24, "depth": 1, "num_heads": 2}
    network = timm.create_model("vit_base_patch16_siglip_256", **sizes)  # it pools by attention of a learned query
    network.patch_embed.requires_grad_(False)
    rows = summarize(network, (3, 32, 32))
    assert sum(row["parameters"] for row in rows) == count(network)[0]
    trained = {row["layer"]: row["trainable"] for row in rows}
    assert not trained["patch_embed.proj"] and trained["attn_pool.q"] and network.pos_embed.requires_grad
