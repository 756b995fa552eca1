"""How fast a run was, and how much of the device that is."""

from __future__ import annotations

from fastai.learner import Learner

from fastcls import resizing
from fastcls.exporting import export
from fastcls.fit.train import History
from fastcls.machine import throughput


def of(learn: Learner, history: History, processes: int = 1) -> dict[str, float]:
    """Images a second of the fastest epoch, and how much of the devices' measured peak that is, one a process."""
    grows = any(isinstance(callback, resizing.Grow) for callback in learn.cbs)  # only the end is of full size
    rate = max(row["images_per_second"] for row in history.rows[-1 if grows else 0 :])
    flops = throughput.flops_per_image(learn.model, export.training_example(learn))
    peak = processes * throughput.matmul_peak(learn.dls.device, learn.precision)
    return {
        "images_per_second": rate,
        "flops_per_image": flops,
        "peak_flops_per_second": round(peak),
        "utilisation": round(rate * flops / peak, 4),
    }
