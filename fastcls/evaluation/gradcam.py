"""Where in an image a network sees its answer: Grad-CAM (Selvaraju et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

BATCH = 16
SMALL = 32  # maps of up to this side may be as large as the image; larger ones that are, attention between tokens
EARLY = 0.25  # of the modules called: feature maps that end there are a patch embedding's, no network's last


def heatmaps(model: nn.Module, images: torch.Tensor, classes: Sequence[int]) -> torch.Tensor | None:
    """What speaks for a class in each image: images (n, c, H, W) to maps (n, h, w) on the CPU, each 0 to 1 at most.

    h × w is the size of the network's last feature maps, rarely above 16. None for a network without any, as a vision
    transformer. The model is left in the mode it was in, without gradients.
    """
    training, required = model.training, [p.requires_grad for p in model.parameters()]
    model.eval()
    try:
        found = []
        for start in range(0, len(images), BATCH):
            maps = _heatmaps(model, images[start : start + BATCH], classes[start : start + BATCH])
            if maps is None:
                return None
            found.append(maps)
        return torch.cat(found)
    finally:
        model.train(training)
        for parameter, wanted in zip(model.parameters(), required, strict=True):
            parameter.requires_grad_(wanted)


def _heatmaps(model: nn.Module, images: torch.Tensor, classes: Sequence[int]) -> torch.Tensor | None:
    outputs: list[torch.Tensor | None] = []

    used: list[nn.Module] = []  # layers with weights, in the order of their calls

    def keep(module: nn.Module, inputs: object, output: object) -> None:
        if next(module.parameters(recurse=False), None) is not None:
            used.append(module)
        if len(used) == len(set(used)):  # a layer that is used again sees another view: mirrored, say, and averaged
            outputs.append(output if isinstance(output, torch.Tensor) else None)

    hooks: list[RemovableHandle] = [module.register_forward_hook(keep) for module in model.modules()]
    try:
        for parameter in model.parameters():
            parameter.requires_grad_(False)  # the gradients of the maps are all that is wanted
        with torch.enable_grad():
            answers = model(images.detach().clone().requires_grad_(True))
            last = _last_maps(outputs, images.shape[2:])
            if last is None:
                return None
            picked = torch.as_tensor(classes, device=answers.device)
            score = answers.gather(1, picked[:, None]).sum()
            (gradients,) = torch.autograd.grad(score, last, allow_unused=True)
    finally:
        for hook in hooks:
            hook.remove()
    if gradients is None:
        return None
    maps, gradients = (_channels_first(tensor.detach().float()) for tensor in (last, gradients))
    weights = gradients.mean((2, 3), keepdim=True)  # equation 1 there
    heat = torch.relu((weights * maps).sum(1))  # equation 2
    highest = heat.amax((1, 2), keepdim=True)
    return (heat / highest.clamp_min(1e-30)).cpu()


def _last_maps(outputs: Sequence[torch.Tensor | None], image: torch.Size) -> torch.Tensor | None:
    """The last output that is a smaller image, if it lies deep enough to be the network's and not its first layer's."""
    for i in range(len(outputs) - 1, int(len(outputs) * EARLY) - 1, -1):
        output = outputs[i]
        if output is not None and output.ndim == 4 and output.requires_grad:
            height, width = _channels_first(output).shape[2:]
            if 1 < height <= max(SMALL, image[0] // 2) and round(height * image[1] / image[0]) == width:
                return output
    return None


def _channels_first(maps: torch.Tensor) -> torch.Tensor:
    """(n, h, w, c), as Swin's, to (n, c, h, w); images are taken to be square, as they nearly always are."""
    last = maps.shape[1] == maps.shape[2] != maps.shape[3]
    return maps.permute(0, 3, 1, 2) if last else maps
