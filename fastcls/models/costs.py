"""What training a network takes: bytes counted on torch's meta device, seconds of a step timed on the device."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import nn

from fastcls.models import zoo

OVERHEAD = 0.3e9  # bytes: workspaces and passing buffers, seen in seven networks on a CPU to be 0.1 to 0.3 GB


@dataclass(frozen=True)
class Cost:
    """What training a network takes."""

    parameters: int
    trained: int
    kept: int  # bytes an image that the backward pass needs from the forward pass, in fp32
    seconds: float  # an image: forward, backward, update; in fp32, without loading

    def memory(self, batch: int) -> float:
        """Bytes: weights, gradients and AdamW's two moments, and what each image of the batch keeps."""
        return 4 * self.parameters + 12 * self.trained + batch * self.kept + OVERHEAD


def cost(architecture: zoo.Architecture, size: int, tune: str, device: torch.device) -> Cost:
    """What one image costs in training; 'probe' runs the network forward alone."""
    network = _tuned(zoo.on_meta(architecture), tune)
    parameters = list(network.parameters())
    trained = [p.numel() for p in parameters if p.requires_grad]
    kept = _kept(network, torch.empty(2, 3, size, size, device="meta")) // 2
    return Cost(sum(p.numel() for p in parameters), sum(trained), kept, _seconds(architecture, size, tune, device))


def _tuned(network: nn.Module, tune: str) -> nn.Module:
    return network.requires_grad_(False).eval() if tune == "probe" else network.train()


def _kept(network: nn.Module, batch: torch.Tensor) -> int:
    """Bytes that autograd keeps of a forward pass, weights not counted; every storage counts once."""
    own = {tensor.untyped_storage()._cdata for tensor in (*network.parameters(), *network.buffers())}
    storages = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage  # held, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _output = network(batch)
    return sum(storage.nbytes() for address, storage in storages.items() if address not in own)


def _seconds(architecture: zoo.Architecture, size: int, tune: str, device: torch.device) -> float:
    """Of one image in a step: the faster of two steps, of 4 images on a CPU and 32 on a GPU."""
    network = _tuned(zoo.network(architecture), tune).to(device)
    batch = torch.randn(4 if device.type == "cpu" else 32, 3, size, size, device=device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.0)
    fastest = float("inf")
    for _ in range(2):
        started = time.perf_counter()
        optimiser.zero_grad()
        loss = network(batch).square().mean()
        if loss.requires_grad:
            loss.backward()
            optimiser.step()
        loss.item()  # waits for the device
        fastest = min(fastest, time.perf_counter() - started)
    return fastest / len(batch)
