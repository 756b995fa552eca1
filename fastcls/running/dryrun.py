"""Everything short of training: data, network, one batch, shapes, summary, and the time a run would take."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from fastcls.inference import export
from fastcls.machine.screen import Screen, escape
from fastcls.machine.throughput import DTYPES
from fastcls.models import summary
from fastcls.reports.wording import receptive_field, times
from fastcls.running.loading import prepared
from fastcls.settings import durations, options
from fastcls.settings.request import Request
from fastcls.training import history as train

if TYPE_CHECKING:
    from fastai.learner import Learner


def dry_run(request: Request, screen: Screen) -> None:
    """Build the learner, put one batch through it forward and backward, and say what a run would do."""
    with prepared(request) as ready:
        learn = ready.learn
        dls = learn.dls
        phases = train.rehearse(learn, ready.recipe.fit, **request.stage("fit"))
        screen.print(f"[b]{escape(request.source.title)}[/b]")
        counts = f"{len(dls.train_ds):,} to train on, {len(dls.valid_ds):,} to validate with"
        test = getattr(dls, "test_items", None)
        counts += f", {len(test):,} to test with" if test is not None else ""
        screen.print(f"images   {counts}, {len(dls.vocab)} classes", soft_wrap=True)
        seconds, shape = _one_step(learn)
        _summary(learn, screen)
        total, trained = summary.count(learn.model)
        screen.print(f"batch    {tuple(shape)} on {dls.device}, {learn.precision}; logits {(shape[0], dls.c)}")
        trained = phases[0].trained if phases else trained
        screen.print(f"network  {total:,} parameters, {trained:,} of them trained at first")
        _plan(phases, seconds, len(dls.train), len(dls.valid), screen)
        for note in ready.notes:
            screen.print(f"note     {escape(note)}", soft_wrap=True)
        screen.print("Nothing was trained and nothing was written.")


def _one_step(learn: Learner) -> tuple[dict[str, float], torch.Size]:
    """Seconds of a training and a validation batch, loading included, and the batch's shape."""
    started = time.perf_counter()
    batch = learn.dls.train.one_batch()
    loading = time.perf_counter() - started
    *inputs, target = (b.as_subclass(torch.Tensor) for b in batch)
    seconds: dict[str, float] = {}
    half = partial(torch.autocast, learn.dls.device.type, DTYPES[learn.precision])
    for _ in range(2):  # the first is a warm-up
        for mode in ("train", "valid"):
            trains = mode == "train"
            learn.model.train(trains)
            started = time.perf_counter()
            with torch.set_grad_enabled(trains), half(enabled=trains and learn.precision != "fp32"):
                loss = learn.loss_func(learn.model(*inputs), target)
            if trains:
                loss.backward()
                learn.model.zero_grad()
            loss.item()  # waits for the device
            seconds[mode] = time.perf_counter() - started + loading
    return seconds, inputs[0].shape


def _plan(phases: list[train.Phase], seconds: dict[str, float], train_n: int, valid_n: int, screen: Screen) -> None:
    if not phases:
        screen.print("time     cannot be estimated: this recipe's fit does more than call Learner.fit")
        return
    epoch = seconds["train"] * train_n + seconds["valid"] * valid_n
    epochs = sum(phase.epochs for phase in phases)
    steps = " then ".join(f"{phase.epochs} × {phase.label}" for phase in phases)
    screen.print(f"plan     {steps}; {train_n} batches an epoch")
    whole = durations.shown(epoch * epochs)
    screen.print(f"time     about {whole} ({durations.shown(epoch)} an epoch, from one batch)")


def _summary(learn: Learner, screen: Screen) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
    for name in ("layer", "type"):
        table.add_column(name, overflow="fold")
    for name in ("output", "kernel", "stride"):
        table.add_column(name, no_wrap=True)
    for name in ("parameters", "MACs", "receptive field"):
        table.add_column(name, justify="right")
    table.add_column("")
    try:
        rows: list[dict[str, Any]] = summary.summarize(learn.model, export.input_example(learn).shape[1:])
    except RuntimeError as problem:
        options.note(f"no network summary: {problem}")
        return
    for row in rows:
        sizes = [times(row[key], "×") for key in ("output_shape", "kernel", "stride")]
        numbers = [f"{row['parameters']:,}", f"{row['multiply_adds']:,}", receptive_field(row["receptive_field"])]
        state = "frozen" if row["trainable"] is False else ""
        table.add_row(escape(row["layer"]), row["type"], sizes[0].removeprefix("1×"), *sizes[1:], *numbers, state)
    totals = (sum(row[key] for row in rows) for key in ("parameters", "multiply_adds"))
    table.add_row("in all", *[""] * 4, *(f"{total:,}" for total in totals), style="bold")
    screen.print(table)
