"""Muon, an optimiser that orthogonalises the step of each filter (Jordan et al. 2024), as fastai has its optimisers.

learn = Learner(dls, net, opt_func=muon.Muon, moms=(0.6, 0.6, 0.6))
learn.fit_one_cycle(8, 0.17)
"""

from __future__ import annotations

from typing import Any

import torch
from timm.optim.muon import zeropower_via_newtonschulz

from fastcls.training.optimizers import FusedAdam

COEFFICIENTS = [(3.4445, -4.7750, 2.0315)]  # of the quintic: the steepest at 0 that stays near 1 (Jordan et al. 2024)
STEPS = 3  # of Newton-Schulz iteration


class Muon(FusedAdam):
    """Muon for convolutions, AdamW for the rest, on one schedule. Each convolution must be followed by a norm layer.

    lr: the relative step of a filter; a convolution is kept at a norm of √filters, because its length does not change
    the output of the norm layer. vectors, matrices: AdamW's learning rate for biases and scales, and for linear
    layers, as shares of `lr`. mom: Nesterov momentum for filters and AdamW's first beta; wd: AdamW's weight decay.
    """

    def __init__(
        self,
        params: Any,
        lr: Any,
        mom: float = 0.6,
        sqr_mom: float = 0.95,
        eps: float = 1e-12,  # gradients of biases are tiny
        wd: float = 0.0,
        vectors: float = 0.2,
        matrices: float = 0.002,
    ) -> None:
        super().__init__(params, lr, mom=mom, sqr_mom=sqr_mom, eps=eps, wd=wd)
        self.vectors, self.matrices = vectors, matrices

    def update(self, params: list[torch.Tensor], hyper: dict[str, Any]) -> None:
        filters = [p for p in params if p.ndim > 2]
        for p, average in zip(filters, self.buffers(filters, "grad_avg"), strict=True):
            self.step_filter(p, average, float(hyper["lr"]), float(hyper["mom"]))
        for share, rest in (
            (self.vectors, [p for p in params if p.ndim < 2]),
            (self.matrices, [p for p in params if p.ndim == 2]),
        ):
            if rest:
                super().update(rest, {**hyper, "lr": share * hyper["lr"]})

    @torch.no_grad()
    def step_filter(self, p: torch.Tensor, average: torch.Tensor, lr: float, mom: float) -> None:
        """One convolution's step; `average`, its accumulated gradients, is updated in place."""
        assert p.grad is not None
        average.mul_(mom).add_(p.grad)
        ahead = p.grad.add(average, alpha=mom).flatten(1)
        step = zeropower_via_newtonschulz(ahead, STEPS, COEFFICIENTS, dtype=torch.float32)
        p.mul_(len(p) ** 0.5 / p.norm()).sub_(step.view_as(p), alpha=lr)
