"""What a split's figures and a run's report cost: python -m benchmarks.interpretation

Three measurements on CIFAR-10:
questions  confusion matrix, most confused, classification report and top losses of the test images, by fastcls's
           Interpretation and by fastai's, over the same Learner and loader, in turn; one pass alone for comparison
report     a run with 10,000 evaluated images: its forward pass, and everything after it
growth     everything after the pass, on made-up probabilities of more images and classes
"""

from __future__ import annotations

import contextlib
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.common import arguments, images_folder, show, spread

BAR = 20.0  # seconds that a report of 10,000 images may take beyond one forward pass
GROWTH = [(10_000, 10), (10_000, 100), (50_000, 100), (25_000, 1000), (50_000, 1000), (100_000, 1000), (50_000, 2000)]
RECIPE = '''"""A short training and a long evaluation."""
from fastai.vision.all import *
from fastcls import data, models

def images(path): return get_image_files(Path(path)/'test') + get_image_files(Path(path)/'train')[::25]

def get_learner(path: str) -> Learner:
    block = DataBlock((ImageBlock, CategoryBlock), get_items=images, get_y=parent_label,
                      splitter=GrandparentSplitter('train', 'test'))
    dls = data.loaders(block, path, bs=64)
    return models.learner(dls, models.cnn(3, dls.c), metrics=accuracy)

def fit(learn: Learner): learn.fit_one_cycle(1, 1e-2)
'''


def questions(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of all questions, each side in turn, and of one forward pass."""
    import fastai.vision.all as fv

    from fastcls.evaluation.interpret import Interpretation
    from fastcls.models.networks import cnn

    dls = fv.ImageDataLoaders.from_folder(folder, train="train", valid="test")
    learn = fv.Learner(dls, cnn(3, dls.c), loss_func=fv.CrossEntropyLossFlat())

    def ask(kind: Any) -> Callable[[], None]:
        def answers() -> None:
            interpretation = kind.from_learner(learn)
            interpretation.confusion_matrix()
            interpretation.most_confused()
            interpretation.print_classification_report()
            interpretation.top_losses(9)

        return answers

    sides = {"fastcls": ask(Interpretation), "fastai": ask(fv.ClassificationInterpretation), "pass": learn.get_preds}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            with learn.no_bar(), learn.no_logging(), contextlib.redirect_stdout(io.StringIO()):
                seconds[name].append(_seconds(side))
    return seconds


def report(folder: Path) -> dict[str, float]:
    """Seconds of one run's forward pass, of each step after it, and of all of them."""
    from fastcls.cli.verbs import app
    from fastcls.evaluation.interpret import Interpretation
    from fastcls.inference import export
    from fastcls.reports import build as reporting
    from fastcls.running.runner import _Run

    spent: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        import fastcls.running.predictions

        stack.enter_context(_timed(spent, "finish", _Run, "_finish"))
        stack.enter_context(_timed(spent, "forward pass", Interpretation, "from_learner"))
        stack.enter_context(_timed(spent, "figures and intervals", Interpretation, "figures"))
        stack.enter_context(_timed(spent, "predictions.csv", fastcls.running.predictions, "write_predictions"))
        stack.enter_context(_timed(spent, "export", export, "save"))
        stack.enter_context(_timed(spent, "check of the export", export, "verify"))
        stack.enter_context(_timed(spent, "report.html and figures", reporting, "write"))
        recipe, out = Path(scratch, "evaluated.py"), Path(scratch, "run")
        recipe.write_text(RECIPE, encoding="utf-8")
        words = ["recipe", str(recipe), "--path", str(folder.resolve()), "--out", str(out), "--device", "cpu"]
        with contextlib.redirect_stdout(io.StringIO()):
            app(words, prog_name="fastcls", standalone_mode=False)
        assert json.loads((out / "metrics.json").read_text(encoding="utf-8"))["valid"]["n"] == 10_000
    spent["after the pass"] = spent.pop("finish") - spent["forward pass"]
    return spent


@contextlib.contextmanager
def _timed(spent: dict[str, float], label: str, owner: Any, name: str) -> Iterator[None]:
    function = getattr(owner, name)

    def call(*arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            spent[label] = spent.get(label, 0.0) + time.perf_counter() - started

    method = isinstance(owner, type) and not hasattr(function, "__self__")
    with mock.patch.object(owner, name, call if method else staticmethod(call) if isinstance(owner, type) else call):
        yield


def growth(images: int, classes: int) -> dict[str, float]:
    """Seconds of the steps after a pass that gave these many made-up probabilities."""
    import torch

    from fastcls.evaluation.interpret import Interpretation
    from fastcls.reports import build as reporting
    from fastcls.runfolder import runs
    from fastcls.running.predictions import write_predictions

    rng = np.random.default_rng(0)
    targets = rng.integers(0, classes, images)
    logits = rng.normal(size=(images, classes)).astype(np.float32)
    logits[np.arange(images), targets] += 3
    vocab = [f"class {i}" for i in range(classes)]
    loader: Any = SimpleNamespace(items=[f"{i}.jpg" for i in range(images)], vocab=[vocab])
    learn: Any = SimpleNamespace()
    made = Interpretation(learn, loader, torch.from_numpy(logits).softmax(1), torch.from_numpy(targets))
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(io.StringIO()):
        out = Path(scratch)
        runs.write_json(out / "run.json", {"data": {"root": scratch}, "status": "done"})
        runs.write_json(out / "model.json", {"classes": vocab})
        return {
            "figures": _seconds(lambda: runs.write_json(out / "metrics.json", {"valid": made.figures()})),
            "confusions": _seconds(lambda: (made.confusion_matrix(), made.most_confused(), made.top_losses(9))),
            "classification report": _seconds(made.print_classification_report),
            "predictions.csv": _seconds(lambda: write_predictions(out / "predictions.csv", {"valid": made}, str)),
            "report.html": _seconds(lambda: reporting.write(out)),
        }


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> None:
    options = arguments(__doc__ or "", rounds=3)
    cifar = images_folder("cifar10")
    asked = questions(cifar, options.rounds)
    titles = {
        "fastcls": "all answers, fastcls: one pass",
        "fastai": "all answers, fastai: a pass each",
        "pass": "a pass alone, fastai",
    }
    rows = []
    for name, seconds in asked.items():
        ratio = statistics.median(a / b for a, b in zip(seconds, asked["fastcls"], strict=True))
        rows.append([titles.get(name, name), spread(seconds), f"{ratio:.2f}"])
    reports = [report(cifar) for _ in range(options.rounds)]
    rows += [[f"a run: {name}", spread([spent[name] for spent in reports], "{:.2f}"), ""] for name in reports[0]]
    note = f"10,000 test images of CIFAR-10, five questions. Bar: at most {BAR:g} s after the pass."
    show("interpretation", "Interpretation", ["", "seconds", "ratio"], rows, options.rounds, note, options.save)
    growth(100, 3)  # imports, fonts
    grown = [(images, classes, growth(images, classes)) for images, classes in GROWTH]
    columns = ["images", "classes", *(f"{name}, s" for name in grown[0][2])]
    rows = [[f"{n:,}", f"{k:,}", *(f"{seconds:.2f}" for seconds in spent.values())] for n, k, spent in grown]
    title = "After the pass, as images and classes grow"
    show("interpretation-growth", title, columns, rows, 1, "Synthetic probabilities.", options.save)


if __name__ == "__main__":
    main()
