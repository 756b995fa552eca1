"""--auto-batch: the largest batch that trains in the memory there is.

A size is tried as a run would train it: the recipe builds its learner with bs=N, and its own `fit` is called, each call
of `Learner.fit` in it cut to a few batches. From the recipe's size on it is doubled or halved; then the eighths
between the largest power that fits and the next are tried. On a CPU, where a process that takes too much is killed
without a word, a size is tried only if the sizes before it say that it fits.
"""

from __future__ import annotations

import contextlib
import gc
import shlex
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from fastai.callback.core import Callback, CancelFitException, CancelTrainException, CancelValidException
from fastai.learner import Learner

from fastcls.datasets.walk import count
from fastcls.errors import TrainingError, UsageError
from fastcls.machine import devices, host
from fastcls.machine.screen import Screen, escape
from fastcls.running.loading import prepared
from fastcls.settings import options
from fastcls.settings.request import Request
from fastcls.training.history import quiet
from fastcls.transforms import resizing

STEPS = 3  # updates of a trial: from the second on the optimiser's state is there
LEAST = 2  # images: batch norm learns nothing from one
FINER = 8  # steps from one power of two to the next
FEW = 10  # batches an epoch, below which a note says so
GPU_SHARE = 0.9  # of the free memory: fragments take the rest
RAM_SHARE = 0.5  # of the available memory: decoded images may take a quarter of it, and others live there too


@dataclass(frozen=True)
class Trial:
    """A batch size, whether it trained, the most bytes it was seen to take, and why it did not fit."""

    batch: int
    fits: bool
    bytes: float
    why: str = ""


def settle(request: Request, screen: Screen) -> Request:
    """The request with the largest `bs` that fits, in its knobs and in its command.

    UsageError where the recipe has no such knob, TrainingError where not even two images fit.
    """
    knob = next((knob for knob in request.source.stage("get_learner") if knob.name == "bs"), None)
    if knob is None or knob.kind != "int":
        raise UsageError(
            f"--auto-batch: {request.source.name} has no integer knob `bs` in get_learner.",
            "Omit it, or add the parameter  bs: int = 64  to get_learner and pass it to data.loaders.",
        )
    start = int(request.stage("get_learner")["bs"])
    with options.using(request.options):
        search = _Search(request, start, screen)
        best, because = search.run()
    why = f"--auto-batch chose a batch size of {best.batch}, starting from {start}: {because}"
    if (steps := -(-search.images // best.batch)) < FEW:
        why += f" That is only {count(steps, 'step')} per epoch."
    found = {"batch": best.batch, "start": start, "why": why, "tried": [asdict(trial) for trial in search.tried]}
    screen.print(f"batch    {escape(why)}", soft_wrap=True)
    # with the size in place of the search, so that the command makes the same run elsewhere
    words = [word for word in request.words_without("--bs") if word != "--auto-batch"]
    command = shlex.join([*words, "--bs", str(best.batch)]) if words else ""
    return replace(request, knobs={**request.knobs, "bs": best.batch}, command=command, auto_batch=found)


class _Search:
    """Trials of one request, and what they say of other sizes."""

    def __init__(self, request: Request, start: int, screen: Screen) -> None:
        self.request, self.start, self.screen = request, start, screen
        self.tried: list[Trial] = []
        self.images = 0  # to train on, once a learner was built
        self.device = devices.device()
        self.on_gpu = self.device.type == "cuda"
        host.give_back()
        self.before = host.resident()
        # bytes that training may take
        self.room = GPU_SHARE * torch.cuda.mem_get_info(self.device)[0] if self.on_gpu else RAM_SHARE * host.available()

    def run(self) -> tuple[Trial, str]:
        """The largest that fits, and why no larger one does."""
        best, above = self._try(self.start), None
        self.start = best.batch  # no more than there are images
        while not best.fits:
            if best.batch <= LEAST:
                raise TrainingError(f"Out of memory with a batch size of {LEAST}: {best.why}", "Use smaller images.")
            best, above = self._try(max(best.batch // 2, LEAST)), best
        while best.batch < self.images and above is None:
            found = self._try(min(2 * best.batch, self.images))
            best, above = (found, None) if found.fits else (best, found)
        step = max(best.batch // FINER, 1)
        while above is not None and above.batch - best.batch > step:  # halfway, in whole steps
            found = self._try(best.batch + max((above.batch - best.batch) // step // 2, 1) * step)
            best, above = (found, above) if found.fits else (best, found)
        if above is None:
            return best, "there are no more training images."
        return best, f"{above.batch} does not fit: {above.why}"

    def _try(self, batch: int) -> Trial:
        largest = max((trial for trial in self.tried if trial.fits), key=lambda trial: trial.batch, default=None)
        # in proportion to the largest size that fitted: more than it can be
        expected = 0.0 if largest is None else largest.bytes * batch / largest.batch
        if not self.on_gpu and expected > self.room:
            found = Trial(batch, False, expected, self._compared(expected))
        else:
            found = self._train(batch)
        self.tried.append(found)
        self.screen.print(f"trying   batch size {found.batch}: {'fits' if found.fits else escape(found.why)}")
        return found

    def _compared(self, needed: float) -> str:
        return f"it would need {needed / 1e9:.2f} GB of memory, and {self.room / 1e9:.2f} GB are available."

    def _train(self, batch: int) -> Trial:
        request = replace(self.request, knobs={**self.request.knobs, "bs": batch})
        host.forget_peak()
        problem = ""
        try:
            with prepared(request) as ready:
                learn = ready.learn
                self.images, batch = len(learn.dls.train_ds), learn.dls.train.bs
                self._fit(learn, partial(ready.recipe.fit, learn, **request.stage("fit")))
                del learn, ready
        except Exception as raised:
            if not host.ran_out(raised):
                raise
            problem = str(raised).splitlines()[0] or type(raised).__name__
            traceback.clear_frames(raised.__traceback__)  # they hold the network
        if self.on_gpu:
            taken = float(torch.cuda.max_memory_reserved(self.device))
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            taken = max(host.resident("VmHWM") - self.before, 0.0)
        gc.collect()
        host.give_back()
        if self.on_gpu:
            torch.cuda.empty_cache()
        fits = not problem and taken <= self.room
        return Trial(batch, fits, taken, problem or ("" if fits else self._compared(taken)))

    def _fit(self, learn: Learner, fit: Callable[[], object]) -> None:
        """A recipe's `fit`, a few batches a phase: of whole images, decoded when they are asked for.

        On a GPU they are decoded as in a run, which may keep them there.
        """
        growing = learn.cbs.filter(lambda callback: isinstance(callback, resizing.Grow))
        plan = None if self.on_gpu else getattr(learn.dls, "plan", None)
        unprepared = contextlib.nullcontext() if plan is None else plan.unprepared()
        with quiet(learn), learn.removed_cbs(growing), learn.added_cbs([_Short()]), unprepared:
            fit()


class _Short(Callback):
    """Ends every fit after a few batches, and every validation after one."""

    order = 1000

    def before_fit(self) -> None:
        self.left = STEPS * options.current().accumulate

    def before_train(self) -> None:
        if hasattr(self.learn, "solve_head"):  # no step of it needs more memory than one of training
            raise CancelTrainException

    def after_batch(self) -> None:
        if not self.training:
            raise CancelValidException
        self.left -= 1
        if self.left <= 0:
            raise CancelTrainException

    def after_epoch(self) -> None:
        if self.left <= 0:
            raise CancelFitException
