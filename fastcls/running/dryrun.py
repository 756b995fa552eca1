"""Everything short of training: data, network, one batch, shapes, summary, and the time a run would take."""

from __future__ import annotations

import contextlib
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from fastcls.machine.screen import Screen, escape
from fastcls.models import summary
from fastcls.reports.wording import receptive_field, times
from fastcls.running.faults import batches_of_one
from fastcls.running.loading import prepared
from fastcls.settings import options, shell
from fastcls.settings.request import Request
from fastcls.training import history as train
from fastcls.training.epochs import seconds_of_epoch
from fastcls.training.step import input_example

if TYPE_CHECKING:
    from fastai.learner import Learner

FURTHER = (
    "stride",
    "kernel",
    "receptive field",
    "output",
)  # columns that a narrow terminal does without, in this order


def dry_run(request: Request, screen: Screen) -> None:
    """Build the learner, put one batch through it forward and backward, and say what a run would do."""
    with prepared(request) as ready:
        learn = ready.learn
        dls = learn.dls
        phases = train.rehearse(learn, ready.recipe.fit, **request.stage("fit"))
        screen.print(f"[b]{escape(request.source.title)}[/b]")
        counts = f"{len(dls.train_ds):,} train, {len(dls.valid_ds):,} valid"
        test = getattr(dls, "test_items", None)
        counts += f", {len(test):,} test" if test is not None else ""
        screen.print(f"images   {counts}, {len(dls.vocab)} classes", soft_wrap=True)
        shape = learn.dls.train.one_batch()[0].shape
        _summary(learn, screen)
        total, trained = summary.count(learn.model)
        screen.print(f"batch    {tuple(shape)} on {dls.device}, {learn.precision}; logits {(shape[0], dls.c)}")
        trained = phases[0].trained if phases else trained
        screen.print(f"network  {total:,} parameters, {trained:,} of them trained in the first phase")
        with batches_of_one(request.stage("get_learner") | request.stage("fit")):
            _plan(learn, phases, screen)
        for note in ready.notes:
            screen.print(f"note     {escape(note)}", soft_wrap=True)
        screen.print("Dry run: nothing was trained or written.")


def _plan(learn: Learner, phases: list[train.Phase], screen: Screen) -> None:
    with learn.dls.plan.unprepared() if getattr(learn.dls, "plan", None) else contextlib.nullcontext():
        epoch = seconds_of_epoch(learn, steps=2)  # the first is a warm-up
    if not phases:
        screen.print("time     cannot be estimated: this recipe's fit does more than call Learner.fit")
        return
    epochs = sum(phase.epochs for phase in phases)
    steps = " then ".join(f"{phase.epochs} × {phase.label}" for phase in phases)
    screen.print(f"plan     {steps}; {len(learn.dls.train)} batches per epoch")
    whole = shell.lasting(epoch * epochs)
    screen.print(f"time     about {whole} ({shell.lasting(epoch)} per epoch, estimated from one batch)")


def _summary(learn: Learner, screen: Screen) -> None:
    from rich.table import Table

    try:
        rows: list[dict[str, Any]] = summary.summarize(learn.model, input_example(learn).shape[1:])
    except RuntimeError as problem:
        options.note(f"no network summary: {problem}")
        return
    columns = {
        "layer": [row["layer"] for row in rows] + ["in all"],
        "type": [row["type"] for row in rows],
        "output": [times(row["output_shape"], "×").removeprefix("1×") for row in rows],
        "kernel": [times(row["kernel"], "×") for row in rows],
        "stride": [times(row["stride"], "×") for row in rows],
        "parameters": _figures(rows, "parameters"),
        "MACs": _figures(rows, "multiply_adds"),
        "receptive field": [receptive_field(row["receptive_field"]) for row in rows],
        "": ["frozen" if row["trainable"] is False else "" for row in rows],
    }
    widths = {name: max(map(len, [name, *cells])) for name, cells in columns.items()}
    for name in FURTHER:
        if screen.live and sum(widths.values()) + len(widths) > screen.console.width:
            del columns[name], widths[name]
    table = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
    for name in columns:
        right = name in ("parameters", "MACs", "receptive field")
        table.add_column(name, no_wrap=True, min_width=widths[name], justify="right" if right else "left")
    for cells in zip_longest(*columns.values(), fillvalue=""):
        table.add_row(*map(escape, cells), style="bold" if cells[0] == "in all" else None)
    # where there is still no room, lines go on below rather than lose figures
    screen.print(table, width=sum(widths.values()) + len(widths), crop=False)


def _figures(rows: list[dict[str, Any]], key: str) -> list[str]:
    """A column of numbers with their sum below."""
    return [f"{number:,}" for number in [*(row[key] for row in rows), sum(row[key] for row in rows)]]
