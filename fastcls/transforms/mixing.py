"""Mixup and CutMix: fastai's callbacks, their draws a function of (seed, epoch, batch)."""

from __future__ import annotations

import zlib

from fastai.callback import mixup
from fastai.callback.core import Callback

from fastcls.errors import UsageError
from fastcls.machine import ranks
from fastcls.settings import options
from fastcls.transforms import draws


class _Seeded(Callback):
    """Draws what the fastai callback beside it draws from generators seeded by the step."""

    def before_batch(self) -> None:
        stream = zlib.crc32(type(self).__name__.encode())
        epoch = int(getattr(self.learn.dls.train, "epoch", self.epoch) or 0)
        with draws.seeded(options.current().seed, epoch, int(self.iter or 0), stream, *ranks.stream()):
            super().before_batch()


class MixUp(_Seeded, mixup.MixUp):
    """Every image blended with another of its batch, and their losses too (Zhang et al. 2018)."""


class CutMix(_Seeded, mixup.CutMix):
    """A rectangle of every image from another of its batch, their losses in proportion (Yun et al. 2019)."""


def mix(mixup: float = 0.0, cutmix: float = 0.0) -> list[Callback]:
    """The callbacks of mixup or CutMix with this alpha of the Beta distribution of shares; none for 0.

    0.2 to 0.4 is usual for mixup, 1 for CutMix. Only one of the two can be used.
    """
    if mixup < 0 or cutmix < 0 or (mixup and cutmix):
        raise UsageError(
            f"mixup {mixup:g} and cutmix {cutmix:g} exclude each other."
            if mixup and cutmix
            else "alpha must not be negative.",
            "Use one of them, with an alpha above 0: 0.4 for mixup or 1 for cutmix.",
        )
    return [MixUp(mixup)] if mixup else [CutMix(cutmix)] if cutmix else []
