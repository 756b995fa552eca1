"""What a split's figures and a run's report cost: python -m benchmarks.interpretation CIFAR

CIFAR is a folder of train/<class> and test/<class>. Three measurements:
questions  confusion matrix, most confused, classification report and top losses of the test images, by fastcls's
           Interpretation and by fastai's, over the same Learner and loader, in turn; one pass alone for comparison
report     a run with 10,000 evaluated images: its forward pass, and everything after it
growth     everything after the pass, on made-up probabilities of more images and classes
"""

from __future__ import annotations

import argparse
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

BAR = 20.0  # seconds that a report of 10,000 images may take beyond one forward pass
GROWTH = [(10_000, 10), (10_000, 100), (50_000, 100), (25_000, 1000), (50_000, 1000), (100_000, 1000), (50_000, 2000)]
RECIPE = '''"""A short training and a long evaluation."""
from fastai.vision.all import *
from fastcls import data, models, networks

def images(path): return get_image_files(Path(path)/'test') + get_image_files(Path(path)/'train')[::25]

def get_learner(path: str) -> Learner:
    block = DataBlock((ImageBlock, CategoryBlock), get_items=images, get_y=parent_label,
                      splitter=GrandparentSplitter('train', 'test'))
    dls = data.loaders(block, path, bs=64)
    return models.learner(dls, networks.cnn(3, dls.c), metrics=accuracy)

def fit(learn: Learner): learn.fit_one_cycle(1, 1e-2)
'''


def questions(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of all questions, each side in turn, and of one forward pass."""
    import fastai.vision.all as fv

    from fastcls.interpret import Interpretation
    from fastcls.networks import cnn

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
    from fastcls import export
    from fastcls import report as reporting
    from fastcls.cli import app
    from fastcls.interpret import Interpretation
    from fastcls.runner import _Run

    spent: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        import fastcls.predictions

        stack.enter_context(_timed(spent, "finish", _Run, "_finish"))
        stack.enter_context(_timed(spent, "forward pass", Interpretation, "from_learner"))
        stack.enter_context(_timed(spent, "figures and intervals", Interpretation, "figures"))
        stack.enter_context(_timed(spent, "predictions.csv", fastcls.predictions, "write_predictions"))
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

    from fastcls import report as reporting
    from fastcls import runs
    from fastcls.interpret import Interpretation
    from fastcls.predictions import write_predictions

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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar", type=Path, help="a folder of train/<class> and test/<class>")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write every figure to this file")
    arguments = parser.parse_args()

    asked = questions(arguments.cifar, arguments.rounds)
    for name, seconds in asked.items():
        spread = f"{min(seconds):.1f}–{max(seconds):.1f}"
        ratio = statistics.median(a / b for a, b in zip(seconds, asked["fastcls"], strict=True))
        print(f"{name:10s}{statistics.median(seconds):8.1f} s  {spread:>12s}  ratio {ratio:.2f}", flush=True)

    reports = [report(arguments.cifar) for _ in range(arguments.rounds)]
    print(f"\na run of 10,000 evaluated images, n = {arguments.rounds}, bar: {BAR:g} s after the pass")
    for name in reports[0]:
        seconds = [spent[name] for spent in reports]
        print(f"{name:26s}{statistics.median(seconds):8.2f} s  {min(seconds):6.2f}–{max(seconds):.2f}", flush=True)

    print("\nseconds after a pass, made-up probabilities")
    grown = {}
    growth(100, 3)  # imports, fonts
    for images, classes in GROWTH:
        spent = grown[f"{images}x{classes}"] = growth(images, classes)
        steps = ", ".join(f"{name} {seconds:.2f}" for name, seconds in spent.items())
        print(f"{images:8,d} images{classes:6,d} classes{sum(spent.values()):8.2f} s: {steps}", flush=True)
    if arguments.json:
        results = {"questions": asked, "reports": reports, "growth": grown}
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
