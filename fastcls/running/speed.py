"""How fast a run was, and how much of the GPU that is."""

from __future__ import annotations

import statistics

from fastai.learner import Learner

from fastcls.inference import export
from fastcls.machine import throughput
from fastcls.training.history import History
from fastcls.transforms import resizing


def of(learn: Learner, history: History, processes: int = 1) -> dict[str, float]:
    """Images a second in training, the median of the last phase's epochs; on GPUs their utilisation too.

    A CPU's peak is no constant: other programs take of it, in one second and not in the next.
    """
    grows = any(isinstance(callback, resizing.Grow) for callback in learn.cbs)  # only the end is of full size
    last = history.rows[-1]
    phase = [last] if grows else [row for row in history.rows if row["phase"] == last["phase"]]
    rate = statistics.median(row["images_per_second"] for row in phase)
    found = {"images_per_second": rate}
    if learn.dls.device.type == "cuda":
        flops = throughput.flops_per_image(learn.model, export.training_example(learn))
        peak = processes * throughput.matmul_peak(learn.dls.device, learn.precision)
        found |= {"flops_per_image": flops, "peak_flops_per_second": round(peak)}
        if rate * flops <= peak:  # or the GPU was busier when the peak was measured
            found["utilisation"] = round(rate * flops / peak, 4)
    return found
