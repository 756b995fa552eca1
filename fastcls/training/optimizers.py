"""fastai optimisers whose step is one fused kernel for all parameters, and all optimisers by name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from fastai.optimizer import SGD, Adam, Optimizer, RAdam, ranger
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from fastcls.errors import UsageError
from fastcls.settings import options

COEFFICIENTS = [(3.4445, -4.7750, 2.0315)]  # of Muon's quintic: the steepest at 0 that stays near 1
STEPS = 3  # of its Newton-Schulz iteration
FUSED_ON = {"cpu", "cuda", "mps"}  # devices with torch's fused kernels for both


class Fused(Optimizer):
    """A fastai Optimizer, with its groups, freezing, hyper-parameters and state, that steps all parameters at once.

    Where fastai loops over parameters and their callbacks in Python, `update` gets lists: those of one group that share
    weight decay and step count. It steps as `step_one` would, the fastai optimiser that it stands for.
    """

    def __init__(self, params: Any, **defaults: Any) -> None:
        super().__init__(params, [], **defaults)

    def step(self, closure: Any = None) -> None:
        if closure is not None:
            raise NotImplementedError("fastai optimizers currently do not support closure")
        for group, hyper in zip(self.param_lists, self.hypers, strict=True):
            alike: dict[tuple[bool, Any], list[torch.Tensor]] = defaultdict(list)
            for p in group:
                if p.grad is not None:
                    alike[self.state[p].get("do_wd", True), (p.device, p.dtype)].append(p)
            for (do_wd, _), params in alike.items():
                self.update(params, {**hyper, "wd": hyper["wd"] if do_wd else 0.0})

    def zero_grad(self) -> None:
        """Drop the gradients: the backward pass writes new ones instead of adding to zeros."""
        for group in self.param_lists:
            for p in group:
                p.grad = None

    def update(self, params: list[torch.Tensor], hyper: dict[str, Any]) -> None:
        """Step these parameters; `hyper` are their lr, mom, wd and further hyper-parameters."""
        raise NotImplementedError

    def buffers(self, params: list[torch.Tensor], name: str) -> list[torch.Tensor]:
        """The state tensors of that name, zero at first."""
        for p in params:
            if name not in self.state[p]:
                self.state[p][name] = torch.zeros_like(p)
        return [self.state[p][name] for p in params]


class FusedAdam(Fused):
    """AdamW (Loshchilov and Hutter 2019), or with `decouple_wd` off Adam with L2 (Kingma and Ba 2015)."""

    def __init__(
        self,
        params: Any,
        lr: Any,
        mom: float = 0.9,
        sqr_mom: float = 0.99,
        eps: float = 1e-5,
        wd: float = 0.01,
        decouple_wd: bool = True,
    ) -> None:
        super().__init__(params, lr=lr, mom=mom, sqr_mom=sqr_mom, eps=eps, wd=wd)
        self.decouple_wd = decouple_wd

    def update(self, params: list[torch.Tensor], hyper: dict[str, Any]) -> None:
        averages, squares = self.buffers(params, "grad_avg"), self.buffers(params, "sqr_avg")
        for p in params:
            if "step" not in self.state[p]:
                self.state[p]["step"] = torch.zeros((), device=p.device)
        grads = [p.grad for p in params if p.grad is not None]
        if hyper["wd"] and not self.decouple_wd:
            grads = list(torch._foreach_add(grads, params, alpha=hyper["wd"]))
        with torch.no_grad():
            adamw(
                params,
                grads,
                averages,
                squares,
                [],
                [self.state[p]["step"] for p in params],
                fused=params[0].device.type in FUSED_ON,
                amsgrad=False,
                beta1=float(hyper["mom"]),
                beta2=float(hyper["sqr_mom"]),
                lr=float(hyper["lr"]),
                weight_decay=float(hyper["wd"]) if self.decouple_wd else 0.0,
                eps=float(hyper["eps"]),
                maximize=False,
            )


class FusedSGD(Fused):
    """SGD with momentum; weight decay is decoupled, as fastai's is, or L2 with `decouple_wd` off."""

    def __init__(
        self, params: Any, lr: Any, mom: float = 0.9, wd: float = 0.0, decouple_wd: bool = True, nesterov: bool = False
    ) -> None:
        super().__init__(params, lr=lr, mom=mom, wd=wd)
        self.decouple_wd, self.nesterov = decouple_wd, nesterov

    def update(self, params: list[torch.Tensor], hyper: dict[str, Any]) -> None:
        lr, mom, wd = float(hyper["lr"]), float(hyper["mom"]), float(hyper["wd"])
        with torch.no_grad():
            if wd and self.decouple_wd:
                torch._foreach_mul_(params, 1 - lr * wd)
            sgd(
                params,
                [p.grad for p in params],  # type: ignore[misc]
                list(self.buffers(params, "grad_avg")) if mom else [None] * len(params),  # type: ignore[arg-type]
                fused=params[0].device.type in FUSED_ON,
                weight_decay=0.0 if self.decouple_wd else wd,
                momentum=mom,
                lr=lr,
                dampening=0.0,
                nesterov=self.nesterov,
                maximize=False,
            )


class Muon(FusedAdam):
    """Muon (Jordan et al. 2024) for convolutions, AdamW for the rest, on one schedule: it orthogonalises each step.

    learn = Learner(dls, net, opt_func=training.Muon, moms=(0.6, 0.6, 0.6)); learn.fit_one_cycle(8, 0.17)

    Each convolution must be followed by a norm layer.

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
        from timm.optim.muon import (
            zeropower_via_newtonschulz,
        )  # timm takes a second, and other optimisers need none of it

        assert p.grad is not None
        average.mul_(mom).add_(p.grad)
        ahead = p.grad.add(average, alpha=mom).flatten(1)
        step = zeropower_via_newtonschulz(ahead, STEPS, COEFFICIENTS, dtype=torch.float32)
        p.mul_(len(p) ** 0.5 / p.norm()).sub_(step.view_as(p), alpha=lr)


# name -> (fused, fastai's): the two take the same steps
OPTIMIZERS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "adam": (partial(FusedAdam, decouple_wd=False), partial(Adam, decouple_wd=False)),
    "adamw": (FusedAdam, Adam),  # fastai's default
    "sgd": (partial(FusedSGD, mom=0.9), partial(SGD, mom=0.9)),
    "radam": (RAdam, RAdam),  # rectified Adam (Liu et al. 2020)
    "ranger": (ranger, ranger),  # RAdam with Lookahead
}


def optimizer(name: str = "adamw") -> Callable[..., Any]:
    """The optimiser of this name, for `opt_func`; fused unless the options disable it."""
    if name not in OPTIMIZERS:
        raise UsageError(f"Unknown optimiser {name!r}.", f"Use one of {', '.join(OPTIMIZERS)}.")
    fused, plain = OPTIMIZERS[name]
    return fused if options.current().fused else plain
