"""Mixup and CutMix: fastai's callbacks, their draws a function of (seed, epoch, batch)."""

from __future__ import annotations

import zlib

from fastai.callback import mixup
from fastai.callback.core import Callback

from fastcls import draws, options
from fastcls.errors import UsageError


class _Seeded(Callback):
    """Draws what the fastai callback beside it draws from generators seeded by the step."""

    def before_batch(self) -> None:
        stream = zlib.crc32(type(self).__name__.encode())
        epoch = int(getattr(self.learn.dls.train, "epoch", self.epoch) or 0)
        with draws.seeded(options.current().seed, epoch, int(self.iter or 0), stream):
            super().before_batch()


class MixUp(_Seeded, mixup.MixUp):
    """Every image blended with another of its batch, and their losses too (Zhang et al. 2018)."""


class CutMix(_Seeded, mixup.CutMix):
    """A rectangle of every image from another of its batch, their losses in proportion (Yun et al. 2019)."""


def mix(name: str, alpha: float | None = None) -> list[Callback]:
    """The callback of that name: 'none', 'mixup' (alpha 0.4 if not given) or 'cutmix' (1)."""
    kinds = {"mixup": (MixUp, 0.4), "cutmix": (CutMix, 1.0)}
    if name == "none":
        return []
    if name not in kinds:
        raise UsageError(f"There is no mixing {name!r}.", f"Take none, {', '.join(kinds)}.")
    kind, usual = kinds[name]
    return [kind(usual if alpha is None else alpha)]
