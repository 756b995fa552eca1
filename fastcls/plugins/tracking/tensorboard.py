"""TensorBoard: fastai's callback, on the step of the whole run."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
from fastai.callback.tensorboard import TensorBoardCallback
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from fastcls.plugins.tracking.tracker import Ending, Tracker, Watching, knobs, settings
from fastcls.reports.wording import markdown


class Board(Watching, TensorBoardCallback):
    """fastai's own begins at step 1 with every call of `fit` and tells validation batches as if they were trained."""

    def __init__(self, tracker: TensorBoard) -> None:
        TensorBoardCallback.__init__(self, log_dir=tracker.folder, trace_model=False, log_preds=False)
        Watching.__init__(self, tracker)

    def _setup_writer(self) -> None:
        self.writer = self.tracker.open(self.history.step)

    def after_batch(self) -> None:
        if self.due:
            super().after_batch()
            self.writer.add_scalar("images_per_second", self.rate, self.train_iter)

    def after_epoch(self) -> None:
        super().after_epoch()
        row = self.history.rows[-1]
        for name in ("epoch", "trained_parameters"):
            self.writer.add_scalar(name, row[name], self.train_iter)
        self.writer.flush()

    def after_fit(self) -> None:
        """Nothing: the next call of `fit` writes on."""


class TensorBoard(Tracker):
    """Scalars while it trains; at the end pictures, the network, settings as hyper-parameters."""

    title = "TensorBoard"
    writer: SummaryWriter | None = None

    def start(self, record: Mapping[str, Any]) -> None:
        self.folder = self.folder / "tensorboard"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.record = record
        self.kept = {"folder": "tracking/tensorboard"}

    def callback(self) -> Board:
        return Board(self)

    def open(self, step: int) -> SummaryWriter:
        """The run's writer; what an interrupted run logged of steps after `step`, its readers then drop."""
        if self.writer is None:
            self.writer = SummaryWriter(str(self.folder), purge_step=step + 1 if step else None)
            self.writer.add_text("settings", _table(settings(self.record)), step)
        return self.writer

    def finish(self, ending: Ending) -> None:
        step = ending.step
        writer = self.open(step)
        figures = {f"final/{name}": value for name, value in ending.figures().items()}
        for name, value in figures.items():
            writer.add_scalar(name, value, step)
        for name, file in ending.images.items():
            with Image.open(file) as image:
                writer.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")
        writer.add_text("network", textwrap.indent(ending.network, "    "), step)
        writer.add_text("files", _table({file.name: file.resolve() for file in [*ending.records, *ending.model]}), step)
        chosen = {"recipe": self.record["recipe"], "seed": self.record["seed"], **knobs(self.record)}
        values = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in chosen.items()}
        writer.add_hparams(values, figures, run_name=".", global_step=step)
        writer.close()

    def stop(self, status: str) -> None:
        if self.writer is not None:
            self.writer.close()

    def advice(self) -> str:
        return f"tensorboard --logdir {shlex.quote(str(self.folder))}"


def _table(values: Mapping[str, Any]) -> str:
    """Markdown, as TensorBoard shows text."""
    return markdown(["", ""], ([name, str(value)] for name, value in values.items()))
