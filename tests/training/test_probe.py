"""The linear probe: a head that is the logistic regression of frozen features, an epoch of its own in every file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Outcome, command, unreport
from folders import csv_rows
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from fastcls import lr_find, recipe
from fastcls.evaluation.interpret import Interpretation
from fastcls.training import probe

RECIPE = '''"""Digits: a network of random features, a linear head."""
from fastai.vision.all import *
from fastcls import data, datasets, models, transforms

def get_learner(path: str = '', classes: int = 10, weighted: bool = False, flip: bool = False):
    files = [file for file in get_image_files(datasets.digits(path)) if int(parent_label(file)) < classes]
    block = DataBlock(blocks=(ImageBlock(PILImageBW), CategoryBlock), get_y=parent_label,
                      splitter=data.stratified(parent_label, 0.2), item_tfms=transforms.resize(8),
                      batch_tfms=transforms.augment(flip=flip, rotate=5.))
    dls = data.loaders(block, files, bs=32, test=files[::7])
    body = nn.Sequential(nn.Conv2d(1, 64, 5, 2, 2), nn.ReLU(), nn.BatchNorm2d(64), nn.AdaptiveAvgPool2d(2),
                         nn.Flatten())
    head = nn.Sequential(nn.Dropout(0.5), nn.Linear(256, dls.c))
    weight = torch.arange(1., 1 + dls.c) if weighted else None
    return models.learner(dls, nn.Sequential(body, head), stats=((0.305,), (0.377,)), metrics=accuracy,
                          splitter=default_split, loss_func=CrossEntropyLossFlat(weight=weight))

def fit(learn, tune: str = 'full', epochs: int = 2, lr: float = 1e-4):
    models.fit_head(learn)
    if tune == 'full': learn.fit_one_cycle(epochs, lr)
'''


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("probe") / "probed.py"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def run(file: Path) -> tuple[Path, Outcome]:
    """A run that solves the head, then trains."""
    folder = file.parent / "run"
    outcome = command("recipe", file, "--limit", 40, "--out", folder)
    assert outcome.code == 0, outcome.output
    return folder, outcome


def test_the_probe_is_epoch_0_in_every_file(run: tuple[Path, Outcome]) -> None:
    folder, outcome = run
    history = csv_rows(folder / "history.csv")
    assert [(row["phase"], row["epoch"]) for row in history] == [
        ("linear probe", "0"),
        ("whole network", "1"),
        ("whole network", "2"),
    ]
    assert float(history[0]["accuracy"]) > 0.85 and float(history[0]["train_loss"]) < 0.5 and history[0]["step"] == "0"
    assert "linear probe         0" in outcome.output
    baseline = csv_rows(folder / "probe.csv")
    predictions = csv_rows(folder / "predictions.csv")
    assert [(row["split"], row["path"], row["label"]) for row in baseline] == [
        (row["split"], row["path"], row["label"]) for row in predictions
    ]
    right = np.mean([row["label"] == row["prediction"] for row in baseline if row["split"] == "valid"])
    assert right == pytest.approx(float(history[0]["accuracy"]), abs=1e-6)
    page = (folder / "report.html").read_text()
    tested = np.mean([row["label"] == row["prediction"] for row in baseline if row["split"] == "test"])
    assert "The linear probe." in page and f"reaches {100 * tested:.1f}" in page and "diamond at epoch 0" in page


def test_the_probe_alone_is_a_whole_run(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it was validated with is its evaluation, to the last bit what a further pass gives; a network that changed
    afterwards is evaluated by a pass."""
    words = ["recipe", file, "--limit", 20, "--tune", "probe", "--out"]
    folder, passed = file.parent / "alone", file.parent / "passed"
    passes: list[str] = []
    whole = Interpretation.from_learner.__func__
    monkeypatch.setattr(
        Interpretation, "from_learner", classmethod(lambda cls, *a, **k: passes.append("") or whole(cls, *a, **k))
    )
    outcome = command(*words, folder)
    assert outcome.code == 0 and not passes, outcome.output
    assert "weights are those of the linear probe" in outcome.output
    assert json.loads((folder / "run.json").read_text())["best_epoch"] == 0
    assert "Linear probe" in (folder / "report.html").read_text()
    assert command("predict", folder, folder / "figures", "--out", folder / "answers.csv").code == 0

    count = iter(range(99))
    monkeypatch.setattr(probe, "digest", lambda *networks: str(next(count)))
    unreport(monkeypatch)
    assert command(*words, passed).code == 0 and len(passes) == 2
    for name in ("predictions.csv", "metrics.json", "heatmaps.json"):
        assert (folder / name).read_bytes() == (passed / name).read_bytes()


@pytest.mark.usefixtures("unreported")
def test_training_that_spoils_the_network_leaves_the_probe(file: Path) -> None:
    folder = file.parent / "spoiled"
    outcome = command("recipe", file, "--limit", 20, "--lr", "1.0", "--epochs", 1, "--out", folder)
    assert outcome.code == 0, outcome.output
    assert "weights are those of the linear probe, before training" in outcome.output
    before, after = (
        [(r["path"], r["prediction"]) for r in csv_rows(folder / name)] for name in ("probe.csv", "predictions.csv")
    )
    assert before == after


@pytest.mark.parametrize("knobs", [{"classes": 4}, {"classes": 4, "weighted": True}, {"classes": 2}])
def test_the_head_is_the_logistic_regression_of_its_features(file: Path, knobs: dict[str, Any]) -> None:
    """By scikit-learn, whose solution is no better; nothing else of the network changes."""
    learn = recipe(str(file)).get_learner(**knobs)
    body, head = learn.model
    before = {name: value.clone() for name, value in body.state_dict().items()}
    with learn.no_bar(), learn.no_logging():
        probe.fit_head(learn, views=1)
    assert all(torch.equal(value, before[name]) for name, value in body.state_dict().items())
    x = (
        torch.cat([body.eval()(images) for (images,) in learn.dls.test_dl(learn.dls.train_ds.items)])
        .detach()
        .as_subclass(torch.Tensor)
    )
    y = torch.tensor([int(label) for _, label in learn.dls.train_ds])
    weight = probe.class_weights(learn)
    solution = probe.solve(x, y, learn.dls.c, 1, weight)
    assert torch.allclose(solution.weight, head[1].weight, atol=1e-5)

    centre, scale = x.mean(0), (x - x.mean(0)).square().mean().sqrt()
    each = (torch.ones(len(y)) if weight is None else weight[y]).double()

    def objective(w: torch.Tensor, b: torch.Tensor) -> float:
        losses = F.cross_entropy(((x - centre) / scale).double() @ w.T + b, y, reduction="none")
        return float((losses * each).sum() / each.sum() + solution.decay / 2 * w.square().sum())

    theirs = LogisticRegression(C=1 / (solution.decay * float(each.sum())), max_iter=2000, tol=1e-8)
    theirs.fit(((x - centre) / scale).double().numpy(), y.numpy(), each.numpy())
    w, b = torch.from_numpy(theirs.coef_), torch.from_numpy(theirs.intercept_)
    if learn.dls.c == 2:  # scikit-learn has the difference of two rows, half the weight of each
        return
    ours = probe._minimise((x - centre) / scale, y, learn.dls.c, solution.decay, weight, None)
    assert objective(ours[0].double(), ours[1].double()) <= objective(w, b) + 1e-3
    same = (x @ solution.weight.T + solution.bias).argmax(1).numpy() == theirs.classes_[
        theirs.decision_function(((x - centre) / scale).numpy()).argmax(1)
    ]
    assert same.mean() > 0.995


def test_a_network_without_a_linear_layer_at_its_end_is_refused(file: Path) -> None:
    other = file.with_name("pooled.py")
    text = RECIPE.replace("nn.Linear(256, dls.c)", "nn.Identity()").replace(
        "nn.Conv2d(1, 64, 5, 2, 2)", "nn.Conv2d(1, 10, 3)"
    )
    other.write_text(text)
    outcome = command("recipe", other, "--limit", 10, "--out", file.parent / "refused")
    assert outcome.code == 2 and "does not end in a linear layer of 10 outputs" in outcome.output


def test_samples_are_even_over_the_classes() -> None:
    labels = np.repeat([0, 1, 2], [1000, 100, 5])
    rows = probe.sample(labels, 50)
    assert len(rows) == 50 and (np.diff(rows) > 0).all()
    assert np.bincount(labels[rows]).tolist() == [23, 22, 5] or np.bincount(labels[rows]).tolist() == [22, 23, 5]
    assert probe.sample(labels, 5000).tolist() == list(range(1105))


@pytest.mark.parametrize("counts", [[1, 1, 1], [1, 30, 30], [2, 2, 2]])
def test_classes_of_one_or_two_images_are_solved(counts: list[int]) -> None:
    y = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.one_hot(y, 3).float() + 0.1 * torch.rand(len(y), 3, generator=generator)
    solution = probe.solve(x, y, 4, 1)  # a fourth class without any
    assert ((x @ solution.weight.T + solution.bias).argmax(1) == y).all()


def test_dead_and_constant_features_do_no_harm() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(200) % 2
    x = torch.zeros(200, 5)
    x[:, 1] = 7.0
    x[:, 2] = y + 0.1 * torch.rand(200, generator=generator)
    solution = probe.solve(x, y, 2, 1)
    assert pd.notna(solution.loss) and ((x @ solution.weight.T + solution.bias).argmax(1) == y).all()


def test_what_the_probe_changes_is_what_is_counted(run: tuple[Path, Outcome], file: Path) -> None:
    history = csv_rows(run[0] / "history.csv")
    assert history[0]["trained_parameters"] == str(256 * 10 + 10), "the linear layer, batch norm's weights left out"
    assert int(history[1]["trained_parameters"]) > 256 * 10 + 10
    planned = command("recipe", file, "--limit", 20, "--dry-run", "--tune", "probe")
    assert planned.code == 0 and "2,570 of them trained" in planned.output, planned.output


@pytest.mark.parametrize("frozen", [True, False])
def test_later_fits_keep_the_statistics_that_the_head_was_solved_on(file: Path, frozen: bool) -> None:
    learn = recipe(str(file)).get_learner(classes=2)
    norm = learn.model[0][2]
    with learn.no_bar(), learn.no_logging():
        for _ in range(2):
            probe.fit_head(learn, views=1, freeze_statistics=frozen)
        before = norm.running_mean.clone()
        learn.fit(1, 1e-5)
    assert torch.equal(norm.running_mean, before) is frozen
    assert len(learn.cbs.filter(lambda cb: isinstance(cb, probe.FreezeStatistics))) == int(frozen)


def test_the_finder_starts_where_training_does(file: Path, tmp_path: Path) -> None:
    """From the solved head: a random one starts at a loss of log 10 and suggests its own rates."""
    found = lr_find(str(file), tune="full", limit=20, steps=20)
    assert found.losses[0] < 1.8
    outcome = command("lr-find", file, "--limit", 20, "--tune", "probe", "--out", tmp_path / "curve.png")
    assert outcome.code == 6 and "nothing is trained at a learning rate" in outcome.output, outcome.output
    assert not list(tmp_path.iterdir())


def test_out_of_fold_answers_know_nothing_of_an_images_own_label() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(200, 400)).astype(np.float32))
    y = torch.from_numpy(rng.integers(0, 2, 200))
    p = probe.out_of_fold(x, y, 2)
    assert p.shape == (200, 2) and np.allclose(p.sum(1), 1, atol=1e-5)
    assert 0.3 < (p.argmax(1) == y.numpy()).mean() < 0.7, "in sample, 400 features separate 200 images"
    copied = torch.cat([x, x]), torch.cat([y, y])
    assert (probe.out_of_fold(*copied, 2).argmax(1) == copied[1].numpy()).mean() > 0.7, "by the other copy's label"
    p = probe.out_of_fold(*copied, 2, [str(i % 200) for i in range(400)])
    assert 0.3 < (p.argmax(1) == copied[1].numpy()).mean() < 0.7
    x[:, 0] += 10 * y
    assert (probe.out_of_fold(x, y, 2).argmax(1) == y.numpy()).mean() > 0.95, "in the order of the images"
