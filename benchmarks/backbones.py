"""What pretrained backbones cost: a forward pass and a training step of each, for the choice in docs/networks.md:
python -m benchmarks.backbones

Random weights (the cost does not depend on them), one thread, CPU time of the process, so that a busy machine matters
little. A row is printed as soon as it is measured; names after `--networks` measure others.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.common import arguments, show, spread

# with the tags of the weights that docs/networks.md compares; those that it decides between come first
NETWORKS = [
    "resnet34.a1_in1k",
    "mobilenetv4_conv_medium.e250_r384_in12k_ft_in1k",
    "convnext_nano.in12k_ft_in1k",
    "tiny_vit_11m_224.dist_in22k_ft_in1k",
    "convnext_tiny.in12k_ft_in1k",
    "mobilenetv4_conv_small.e2400_r224_in1k",
    "tf_efficientnet_lite0.in1k",
    "mobilenetv3_large_100.miil_in21k_ft_in1k",
    "hgnetv2_b4.ssld_stage2_ft_in1k",
    "vit_small_patch14_reg4_dinov2.lvd142m",
    "efficientnet_b0.ra4_e3600_r224_in1k",
    "convnext_atto.d2_in1k",
    "tiny_vit_21m_224.dist_in22k_ft_in1k",
    "resnet50.a1_in1k",
    "mobilenetv4_hybrid_medium.e200_r256_in12k_ft_in1k",
    "vit_small_patch16_224.augreg_in21k_ft_in1k",
    "convnext_small.in12k_ft_in1k",
    "caformer_s18.sail_in22k_ft_in1k",
    "swin_tiny_patch4_window7_224.ms_in22k_ft_in1k",
    "mobilenetv2_100.ra_in1k",
    "repvit_m1_1.dist_450e_in1k",
    "efficientvit_b1.r224_in1k",
    "edgenext_small.usi_in1k",
    "fastvit_t8.apple_dist_in1k",
    "hgnetv2_b2.ssld_stage2_ft_in1k",
    "convnext_base.fb_in22k_ft_in1k",
    "vit_base_patch16_siglip_224.webli",
]
SIDE = 224  # pixels: `folder`'s
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def build(name: str, side: int) -> nn.Module:
    """timm's network with 37 classes, as many as the pets; given the side where it has one of its own."""
    import timm

    fixed = (cfg := timm.get_pretrained_cfg(name)) is not None and cfg.fixed_input_size
    sized = {"img_size": side} if fixed and cfg.input_size[1] != side else {}
    return timm.create_model(name, num_classes=37, **sized).to(memory_format=torch.channels_last)


def images(batch: int, side: int) -> torch.Tensor:
    return torch.randn(batch, 3, side, side).contiguous(memory_format=torch.channels_last)


def milliseconds(work: Callable[[], object], batch: int, rounds: int) -> list[float]:
    """CPU milliseconds an image of so many calls, after one that is not counted."""
    work()
    found = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        found.append(1e3 * (time.process_time() - started) / batch)
    return found


def forward(net: nn.Module, batch: int, side: int, precision: str, rounds: int) -> list[float]:
    x = images(batch, side)
    net.eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        return milliseconds(lambda: net(x), batch, rounds)


def training(net: nn.Module, batch: int, side: int, rounds: int) -> list[float]:
    """Forward, backward and AdamW's update of the whole network, in fp32."""
    x, y = images(batch, side), torch.arange(batch)
    net.train()
    optimiser = torch.optim.AdamW(net.parameters(), 1e-5, fused=True)

    def step() -> None:
        F.cross_entropy(net(x), y).backward()
        optimiser.step()
        optimiser.zero_grad()

    return milliseconds(step, batch, rounds)


def measure(name: str, batch: int, rounds: int) -> list[str]:
    import timm

    cfg = timm.get_pretrained_cfg(name)
    own = cfg.input_size[1] if cfg is not None else SIDE
    net = build(name, SIDE)
    row = [name, f"{sum(p.numel() for p in body(net)) / 1e6:.1f}"]
    row += [spread(forward(net, batch, SIDE, precision, rounds)) for precision in PRECISIONS]
    row.append(spread(training(net, batch, SIDE, rounds)))
    if own != SIDE:
        net = build(name, own)
    return [*row, str(own), row[2] if own == SIDE else spread(forward(net, batch // 2, own, "fp32", rounds))]


def body(net: nn.Module) -> list[nn.Parameter]:
    """The parameters of all but the classifier."""
    head = {id(p) for p in net.get_classifier().parameters()}  # type: ignore[operator]
    return [p for p in net.parameters() if id(p) not in head]


COLUMNS = ["network", "M params", "forward fp32", "forward bf16", "step fp32", "own side", "forward fp32, own side"]


def main() -> None:
    options = arguments(__doc__ or "", rounds=3, batch=8, networks=" ".join(NETWORKS))
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows = []
    for name in options.networks.split():
        try:
            rows.append(measure(name, options.batch, options.rounds))
        except Exception as problem:  # one network that a new version breaks does not cost the others
            print(f"{name}: {type(problem).__name__}: {problem}", flush=True)
        else:
            print(" | ".join(rows[-1]), flush=True)
    note = f"CPU ms an image, one thread, batch {options.batch} (half of it at the own side), {SIDE} pixels otherwise; "
    note += "median (least–most). A step is forward, backward and AdamW's update. Parameters are without the head's."
    show("backbones", "Backbones", COLUMNS, rows, options.rounds, note, options.save)


if __name__ == "__main__":
    main()
