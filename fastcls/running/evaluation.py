"""The end of a run: one pass a split, and every file that is made from it."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from fastai.learner import Learner
from fastai.torch_core import get_model
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from fastcls.data import target
from fastcls.data.dataloaders import turns
from fastcls.data.pixels import targets
from fastcls.evaluation import gradcam, grouped, judging, selection
from fastcls.evaluation.interpret import Interpretation, activation, decoded_pixels, inference_pass
from fastcls.evaluation.metrics import Tally
from fastcls.inference import export
from fastcls.machine import ranks
from fastcls.runfolder import predictions, runs
from fastcls.running import large
from fastcls.settings import options
from fastcls.training import distributed
from fastcls.training.checkpoints import load_weights
from fastcls.training.history import quiet

SHOWN, COLUMNS = 24, 8  # images of a batch in its picture
GAP, LARGE, WIDEST = 2, 96, 1200  # pixels


@dataclass(frozen=True)
class Evaluated:
    """The figures and the answers of each split, and how far ONNX is from the validation split's."""

    figures: dict[str, Any]
    answers: dict[str, Interpretation]
    onnx_difference: float | None


def evaluate(
    learn: Learner,
    out: Path,
    build: Mapping[str, Any],
    relative: Callable[[str], str],
    groups: Mapping[str, str] | None = None,
    leaked: Mapping[str, set[str]] | None = None,
    known: Mapping[str, torch.Tensor] | None = None,
) -> Evaluated:
    """Write metrics.json, predictions.csv or its parts, the network's files and heatmaps.json into a run folder.

    build: how to rebuild the network (recipe name and knobs). relative: a file's name in predictions.csv.
    groups: the group of each such name, where there are groups. leaked: of each split those that training has seen.
    known: the logits of splits that need no pass: this network has just given them.
    """
    passes, tallies = evaluated(learn, relative, out, known or {})
    _save_batch(learn, out / "figures" / "batch.png")
    valid = passes["valid"]
    temperature = valid.temperature()
    thresholds = valid.judge.thresholds(valid.preds.numpy(), valid.targs.numpy())
    for answers in passes.values():
        answers.decide(thresholds)
    with quiet(learn):
        heatmaps = {split: _heatmaps(learn, answers, relative) for split, answers in passes.items()}
    figures = {}
    if tallies and any((leaked or {}).values()):
        options.note("the accuracy without images that training has seen is not computed for this many images.")
    for split, answers in passes.items():
        if split in tallies:
            figures[split] = tallies[split].figures()
            continue
        paths = [relative(path) for path in answers.paths()]
        codes = grouped.codes_of([groups.get(path, "") for path in paths]) if groups else None
        figures[split] = answers.figures(temperature, codes)
        if names := (leaked or {}).get(split):
            clean = np.array([path not in names for path in paths])
            own = answers.preds.numpy(), answers.targs.numpy(), [str(name) for name in answers.vocab]
            figures[split] |= judging.without(answers.judge, clean, *own, answers.thresholds, codes)
    runs.write_json(out / "metrics.json", figures)
    runs.write_json(out / "heatmaps.json", heatmaps)
    classes = [str(name) for name in next(iter(passes.values())).vocab]
    # of all classes, however many: any label may be among an image's, and folds are averaged
    dense = valid.judge.target.several or bool(options.current().fold)
    if not tallies:
        predictions.write(out / predictions.FILE, classes, _predicted(passes, relative, temperature), dense, groups)
    export.save(learn, out, build, temperature, thresholds)
    return Evaluated(figures, passes, export.verify(out, valid.paths(), valid.preds.numpy()))


def evaluated(
    learn: Learner, relative: Callable[[str], str], out: Path | None = None, known: Mapping[str, torch.Tensor] = {}
) -> tuple[dict[str, Interpretation], dict[str, Tally]]:
    """The pass over each split; of several processes each does its share, and rank 0, which has `out`, gets it all.

    Of very many images the predictions are written in parts on the way, and what is given is a sample and the counts.
    """
    loaders = {"valid": learn.dls.valid.new(shuffle=False, drop_last=False)}
    if options.current().test and getattr(learn.dls, "test_items", None) is not None:
        loaders["test"] = learn.dls.test_dl(learn.dls.test_items, with_labels=True)
    if ranks.world() > 1:
        weights = distributed.broadcast(dict(get_model(learn.model).state_dict()))
        load_weights(get_model(learn.model), weights)
    if not large.is_large(learn, loaders):
        return _passes(learn, loaders, known), {}
    passes = _passes(learn, {split: large.sampled(learn, loader, relative) for split, loader in loaders.items()})
    temperature = distributed.broadcast(passes["valid"].temperature() if passes else None)
    if out is not None:
        shutil.rmtree(out / predictions.PARTS, ignore_errors=True)  # of an evaluation that was interrupted
    return passes, {
        split: large.count(learn, split, loader, temperature, relative, out) for split, loader in loaders.items()
    }


def _passes(
    learn: Learner, loaders: Mapping[str, Any], known: Mapping[str, torch.Tensor] = {}
) -> dict[str, Interpretation]:
    if ranks.world() == 1:
        found = {}
        act = activation(learn.loss_func, target.of(learn.dls))
        for split, loader in loaders.items():
            if split in known:
                preds = torch.as_tensor(act(known[split])).float()
                found[split] = Interpretation(learn, loader, preds, targets(loader.dataset).long())
                continue
            with quiet(learn):
                found[split] = Interpretation.from_learner(learn, dl=loader)
        return found
    gathered = {split: _together(learn, loader) for split, loader in loaders.items()}
    return {split: Interpretation(learn, loaders[split], *parts) for split, parts in gathered.items() if parts}


def _together(learn: Learner, loader: Any) -> list[torch.Tensor]:
    """Probabilities and targets of all processes in the order of the split; of the others than rank 0 nothing."""
    every = [turns(np.arange(loader.n), loader.bs, replace(ranks.here(), rank=rank)) for rank in range(ranks.world())]
    own: Sequence[torch.Tensor] = torch.empty(0), torch.empty(0, dtype=torch.int64)
    if len(every[ranks.rank()]):
        loader.turns = ranks.here()
        with quiet(learn):
            own = inference_pass(learn, loader, reorder=False)
        loader.turns = ranks.Place()
    gathered = [distributed.gather(tensor) for tensor in own]
    if not ranks.first():
        return []
    found = []
    for parts in gathered:
        found.append(parts[0].new_empty(loader.n, *parts[0].shape[1:]))  # rank 0 has the first batch
        for rows, part in zip(every, parts, strict=True):
            if len(rows):
                found[-1][rows] = part
    return found


def _predicted(
    passes: Mapping[str, Interpretation], relative: Callable[[str], str], temperature: float
) -> Iterator[tuple[list[str], list[float], np.ndarray]]:
    for split, found in passes.items():
        vocab = [str(name) for name in found.vocab]
        labels = found.judge.texts(found.targs.numpy(), vocab)
        images = ((split, relative(path), label) for path, label in zip(found.paths(), labels, strict=True))
        p, losses = found.preds.numpy(), found.losses.numpy()
        yield from judging.answers(found.judge, vocab, images, p, losses, found.thresholds, temperature)


def _save_batch(learn: Learner, file: Path) -> None:
    """Some images of a training batch as the network saw them, augmented and cropped, side by side."""
    pixels = torch.from_numpy(decoded_pixels(learn.dls.train, learn.dls.train.one_batch())[:SHOWN]).movedim(3, 1)
    factor = max(1, LARGE // max(pixels.shape[2:]))  # tiny images are enlarged, their pixels kept square
    pixels = pixels.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    sheet = to_pil_image(make_grid(pixels, nrow=COLUMNS, padding=GAP, pad_value=255))
    sheet.thumbnail((WIDEST, WIDEST))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    runs.atomic_write(file, buffer.getvalue())


def _heatmaps(learn: Learner, answers: Interpretation, relative: Callable[[str], str]) -> dict[str, dict[str, Any]]:
    """Grad-CAM for the images that a report shows: path -> shape and base64 of bytes, 255 where it is hottest."""
    vocab = [str(name) for name in answers.vocab]
    table = pd.DataFrame(
        {
            "label": answers.judge.texts(answers.targs.numpy(), vocab),
            "prediction": answers.judge.texts(answers.decoded.numpy(), vocab),
            "confidence": answers.judge.confidence(answers.preds.numpy(), answers.decoded.numpy()),
            "loss": answers.losses.numpy(),
        }
    )
    rows = selection.explained(table).index.tolist()
    if not rows:
        return {}
    inputs, shown = answers[rows][0], answers.explained(rows)
    device = learn.dls.device
    try:
        maps = gradcam.heatmaps(learn.model, inputs.as_subclass(torch.Tensor).to(device), shown)
    except (RuntimeError, torch.OutOfMemoryError) as problem:  # the run is worth keeping all the same
        options.note(f"{runs.NO_HEAT} {str(problem).splitlines()[0]}")
        return {}
    if maps is None:
        options.note(f"{runs.NO_HEAT} this network has no feature maps to draw it from.")
        return {}
    paths = answers.paths()
    levels = (maps * 255).round().to(torch.uint8).numpy()
    return {
        relative(paths[row]): {
            "shape": list(level.shape),
            "values": base64.b64encode(level.tobytes()).decode("ascii"),
            "class": vocab[index],
        }
        for row, level, index in zip(rows, levels, shown, strict=True)
    }
