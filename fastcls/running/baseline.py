"""What the linear probe predicts for every evaluated image, kept as the baseline that training has to beat."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from fastai.learner import Learner
from fastai.torch_core import get_model

from fastcls.data import target
from fastcls.data.pixels import files, targets
from fastcls.evaluation import judging
from fastcls.machine import ranks
from fastcls.runfolder import predictions, runs
from fastcls.settings import options
from fastcls.training import probe
from fastcls.training.history import History, Stateless


class KeepBaseline(Stateless):
    """Writes probe.csv after the epoch of the linear probe: split, path, label and prediction of an image a row.

    relative: a file's name in predictions.csv, which the report pairs these rows with.
    """

    order = History.order + 1

    def __init__(self, file: Path, relative: Callable[[str], str]) -> None:
        self.file, self.relative = file, relative
        self.seen: list[torch.Tensor] = []  # what the epoch's validation has just computed
        self.logits: dict[str, torch.Tensor] = {}  # of each split
        self.weights = ""  # a checksum of those that gave them

    def before_train(self) -> None:
        self.logits = {}

    def before_validate(self) -> None:
        self.seen = []

    def after_batch(self) -> None:
        # of several processes each has a part of the images
        if not self.training and ranks.world() == 1 and hasattr(self.learn, "solve_head"):
            self.seen.append(self.pred.detach().float().cpu())

    def after_epoch(self) -> None:
        if ranks.first() and self.learn.history.rows[-1]["phase"] == runs.PROBE:
            predictions.write_baseline(self.file, self._rows())
            self.weights = probe.digest(get_model(self.learn.model))
        self.seen = []

    def known(self, learn: Learner) -> dict[str, torch.Tensor]:
        """The logits of each split, where the network is still the one that gave them, as a pass would."""
        return self.logits if self.logits and probe.digest(get_model(learn.model)) == self.weights else {}

    def _rows(self) -> Iterator[list[str]]:
        dls = self.dls
        loaders = {"valid": dls.valid.new(shuffle=False, drop_last=False)}
        if options.current().test and getattr(dls, "test_items", None) is not None:
            loaders["test"] = dls.test_dl(dls.test_items, with_labels=True)
        vocab = [str(name) for name in dls.vocab]
        for split, dl in loaders.items():
            judge = judging.of(target.of(dls))
            truth, self.logits[split] = targets(dl.dataset).numpy(), self._logits(split, dl)
            decided = judge.decide(judge.target.probabilities(self.logits[split].numpy()))
            for names in zip(files(dl.dataset), judge.texts(truth, vocab), judge.texts(decided, vocab), strict=True):
                yield [split, self.relative(names[0]), *names[1:]]

    @torch.no_grad()
    def _logits(self, split: str, dl: Any) -> torch.Tensor:
        if split == "valid" and self.seen:
            return torch.cat(self.seen)
        network = get_model(self.learn.model).eval()
        return torch.cat([network(batch[0].as_subclass(torch.Tensor)).float() for batch in dl]).cpu()
