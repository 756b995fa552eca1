"""The pass over splits of more images than a table should have: figures counted on the way, predictions in parts.

Each process streams its batches into a part of its own. What needs probabilities afterwards (the temperature, heat
maps, the comparison with ONNX) gets those of the images that `parts.chosen` names, which the report shows too.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.learner import Learner

from fastcls.data import splitting, target
from fastcls.data.dataloaders import turns
from fastcls.data.pixels import files
from fastcls.evaluation import metrics
from fastcls.evaluation.interpret import activation, recorder_kept
from fastcls.machine import extras, ranks
from fastcls.runfolder import parts, predictions
from fastcls.runfolder.target import SINGLE
from fastcls.settings import options
from fastcls.training import distributed
from fastcls.training.history import quiet


def is_large(learn: Learner, loaders: Mapping[str, Any]) -> bool:
    """Whether the splits are evaluated so: above predictions.MANY images or MOST probabilities, one class and no group.

    Without pyarrow they are not, nor is a fold, whose images are averaged with those of others.
    """
    count = sum(loader.n for loader in loaders.values())
    simple = not (target.of(learn.dls).several or getattr(learn.dls, "groups", None) or options.current().fold)
    many = count > predictions.MANY or count * len(learn.dls.vocab) > predictions.MOST
    return many and simple and extras.there("pyarrow")


def sampled(learn: Learner, loader: Any, relative: Callable[[str], str]) -> Any:
    """A loader of the images that the report shows."""
    paths = files(loader.dataset)
    rows = parts.chosen([relative(path) for path in paths])
    return learn.dls.test_dl(splitting.picked(loader.items, rows.tolist()), with_labels=True)


class Each(Callback):
    """Hands every batch's outputs and targets on."""

    def __init__(self, found: Callable[[torch.Tensor, torch.Tensor], None]) -> None:
        self.found = found

    def after_batch(self) -> None:
        self.found(self.pred, self.yb[0])


def count(
    learn: Learner, split: str, loader: Any, temperature: float, relative: Callable[[str], str], out: Path | None
) -> metrics.Tally:
    """The figures of this process's share of a split; on rank 0, which has `out`, of all, with all parts in there."""
    vocab = [str(name) for name in learn.dls.vocab]
    tally, act = metrics.Tally(len(vocab), temperature), activation(learn.loss_func)
    paths, rows = files(loader.dataset), turns(np.arange(loader.n), loader.bs, ranks.here())
    done = 0
    with contextlib.ExitStack() as stack:
        home = out / predictions.PARTS if out else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        part = home / f"{split}-{ranks.rank():05d}.parquet"
        with predictions.writing_part(part, split, vocab) as add:

            def take(outputs: torch.Tensor, targets: torch.Tensor) -> None:
                nonlocal done
                p, labels = act(outputs).float().cpu().numpy(), targets.long().cpu().numpy()
                own = rows[done : done + len(p)]
                tally.add(p, labels)
                softened = SINGLE.softened(p, temperature)
                numbers = np.stack([p.max(1), softened.max(1), metrics.cross_entropy(p, labels)])
                add([relative(paths[i]) for i in own], labels, p.argmax(1), numbers, p)
                done += len(p)

            if len(rows):
                _stream(learn, loader, take)
        if ranks.world() > 1:
            distributed.collect(part, home)
    return _together(tally)


def _stream(learn: Learner, loader: Any, take: Callable[[torch.Tensor, torch.Tensor], None]) -> None:
    watched, learn.metrics = learn.metrics, []  # which would keep every output
    loader.turns = ranks.here()
    try:
        with quiet(learn), recorder_kept(learn), learn.validation_context(cbs=[Each(take)]):
            learn._do_epoch_validate(dl=loader)
    finally:
        learn.metrics, loader.turns = watched, ranks.Place()


def _together(tally: metrics.Tally) -> metrics.Tally:
    """Rank 0: what all have counted."""
    if ranks.world() == 1:
        return tally
    numbers = torch.tensor([tally.n, tally.top5, *tally.moments.ravel(), *tally.bins.ravel()], dtype=torch.float64)
    held = zip(distributed.gather(numbers), distributed.gather(torch.from_numpy(tally.pairs.copy())), strict=True)
    total = metrics.Tally(tally.classes, tally.temperature)
    for values, pairs in held:
        one = metrics.Tally(tally.classes, tally.temperature)
        n, top5, *rest = values.tolist()
        one.n, one.top5, one.pairs = int(n), int(top5), pairs.numpy()
        one.moments = np.array(rest[: one.moments.size]).reshape(one.moments.shape)
        one.bins = np.array(rest[one.moments.size :]).reshape(one.bins.shape)
        total.merge(one)
    return total
