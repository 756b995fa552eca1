"""A run folder of a Learner that was trained without a recipe: in a notebook, by stock fastai."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from fastai.data.all import (
    Categorize,
    Datasets,
    EncodedMultiCategorize,
    OneHotEncode,
    TensorCategory,
    TensorMultiCategory,
)
from fastai.learner import Learner
from fastai.torch_core import no_random
from fastai.vision.core import PILBase, PILMask

from fastcls.audit.check_record import precheck
from fastcls.data import target
from fastcls.data.pixels import files
from fastcls.errors import Diverged, UsageError
from fastcls.evaluation.interpret import activation
from fastcls.images import check
from fastcls.machine.screen import Screen
from fastcls.models import summary
from fastcls.reports import build
from fastcls.runfolder import runs, splits
from fastcls.running import record
from fastcls.running.evaluation import evaluate
from fastcls.running.messages import Messages
from fastcls.settings import options
from fastcls.training import losses
from fastcls.training.history import as_number
from fastcls.training.step import input_example

LOST = (
    "The Learner's recorder has no epochs: `get_preds`, `predict`, `validate`, `show_results` and `lr_find` clear it. "
    "Save right after training to keep the curves."
)
LAST = "The history covers only the last call of `fit`, which is all that fastai's recorder keeps."


def save(learn: Learner, out: Path, screen: Screen) -> Path:
    """Evaluate a trained Learner and write its run folder; gives the folder.

    The Learner stays as it is: weights, recorder and the state of random generators. UsageError where a report on it
    could not be true, Diverged where its answers are not finite; then nothing is left behind.
    """
    with no_random(reproducible=False):
        _refuse(learn)
        runs.check_writable(out, "")
        existed = out.exists()
        with options.using(options.current()) as notes, runs.locked(out):
            runs.check_writable(out, "")  # another may have written, and ended, before the lock
            try:
                with runs.whole(out):
                    _write(learn, out, screen, notes)
            finally:
                if existed:
                    out.mkdir(exist_ok=True)
    return out


def _write(learn: Learner, out: Path, screen: Screen, notes: list[str]) -> None:
    history = _history(learn)
    notes.append(LAST if history else LOST)
    images = record.Images(learn)
    about = record.of_a_learner(learn, images.root, notes)
    about["data"] = images.describe()
    splits.write(out, images.rows)
    splits.write_slices(out, images.rows, images.slices)
    header = list(history[0]) if history else ["phase", "epoch", "step", "lr", "train_loss", "valid_loss"]
    runs.write_csv(out / "history.csv", header, [list(row.values()) for row in history])
    runs.write_json(out / "run.json", about)
    messages = Messages(notes, out, screen, about)
    messages.opening("evaluated in fp32")
    notes += precheck(out)
    found = evaluate(learn, out, {}, images.relative)
    parameters, trainable = summary.count(learn.model)
    about |= {
        "status": "done",
        "network": {"parameters": parameters, "trained_parameters": trainable},
        "loss": losses.bounds(learn),
        "onnx_difference": found.onnx_difference,
        "weights": "The weights are those that the Learner had when it was saved.",
    }
    runs.write_json(out / "run.json", about)
    build.write(out)
    messages.closing(found.figures, found.answers)
    messages.next()
    screen.write_log(out / "log.txt")


def _history(learn: Learner) -> list[dict[str, Any]]:
    """A row an epoch that the recorder still has."""
    recorder: Any = getattr(learn, "recorder", None)
    names = [name for name in getattr(recorder, "metric_names", [])[1:] if name != "time"]
    values, rates = getattr(recorder, "values", []), getattr(recorder, "lrs", [])
    if not rates or any(len(row) != len(names) for row in values):
        return []
    return [
        {
            "phase": "last fit",
            "epoch": epoch,
            "step": int(step),
            "lr": rates[int(step) - 1],
            **{name: as_number(value) for name, value in zip(names, row, strict=True)},
        }
        for epoch, (row, step) in enumerate(zip(values, recorder.iters, strict=False), 1)
    ]


def _refuse(learn: Any) -> None:
    """UsageError where files, labels, splits or probabilities are not what a run folder records."""
    if not isinstance(learn, Learner):
        raise UsageError(f"{type(learn).__name__} is not a fastai Learner.", "fastcls.save(learn, 'folder')")
    needs = "It needs the loaders of a DataBlock, images from files, and one class or several labels per image."
    datasets = [loader.dataset for loader in getattr(learn.dls, "loaders", [])]
    if not all(isinstance(dataset, Datasets) and len(dataset.tls) == 2 for dataset in datasets):
        kind = type(datasets[0]).__name__ if datasets else "nothing"
        raise UsageError(f"Its DataLoaders read {kind}, so the file and label of each image are unknown.", needs)
    if len(datasets) < 2 or len(datasets[1]) == 0 or len(datasets[0]) == 0:
        raise UsageError(
            "The Learner has no validation images (load_learner keeps none), so it cannot be evaluated.",
            "Give its DataLoaders a validation split, for example valid_pct=0.2.",
        )
    if not Path(first := files(datasets[1])[0]).is_file():
        raise UsageError(f"Its images are not read from files: the first is {first[:100]!r}.", needs)
    check.refuse_broken([first], decode=True)
    image, label = datasets[1][0]
    if not isinstance(image, PILBase) or isinstance(image, PILMask):
        raise UsageError(f"Its items start with {type(image).__name__}, not with images.", needs)
    kinds = [type(tfm) for tfm in datasets[1].tls[1].tfms.fs]
    one = type(label) is TensorCategory and kinds[-1] is Categorize and not label.ndim
    if not (one or (type(label) is TensorMultiCategory and OneHotEncode in kinds) or EncodedMultiCategorize in kinds):
        raise UsageError(f"Its labels are {type(label).__name__}, not one class or several labels per image.", needs)
    _refuse_answers(learn)


def _refuse_answers(learn: Learner) -> None:
    """UsageError where the network has no probability for each class, Diverged where these are not finite."""
    learn.model.eval()
    with torch.no_grad():
        answer = learn.model(input_example(learn))
    classes = len(learn.dls.vocab)
    shape = tuple(getattr(answer, "shape", ()))
    if shape != (1, classes):
        what = f"{shape or type(answer).__name__} for an image"
        raise UsageError(f"The network returns {what} instead of {(1, classes)}, one logit per class.")
    kind = target.of(learn.dls)
    probabilities = activation(learn.loss_func, kind)(answer.float())
    if not torch.isfinite(probabilities).all():
        raise Diverged("The network's outputs are NaN or infinite: its training diverged.")
    if not kind.several and abs(float(probabilities.sum()) - 1) > 1e-3:
        what = (
            f"{type(learn.loss_func).__name__} gives probabilities that sum to {float(probabilities.sum()):.3g}, not 1"
        )
        raise UsageError(
            f"The loss function {what}.", "Use a loss for one class per image, such as CrossEntropyLossFlat."
        )
