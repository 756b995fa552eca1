"""The figures of a split, and the one pass that they all come from."""

from __future__ import annotations

import json
import time

import matplotlib
import numpy as np
import pytest
import torch
from fastai.learner import Learner
from sklearn import metrics as sk

from fastcls import recipe
from fastcls.evaluation import metrics, plots
from fastcls.evaluation.interpret import Interpretation
from fastcls.training.history import quiet


def random_split(n: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), targets] += 1.5
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(1, keepdims=True), targets


@pytest.mark.parametrize("n, classes", [(400, 2), (500, 7), (50, 12)])
def test_figures_are_scikit_learns(n: int, classes: int) -> None:
    p, t = random_split(n, classes)
    found = metrics.figures(p, t)
    predictions = p.argmax(1)
    present = sorted(set(t))
    expected = {
        "accuracy": sk.accuracy_score(t, predictions),
        "loss": sk.log_loss(t, p, labels=range(classes)),
        "macro_precision": sk.precision_score(t, predictions, labels=present, average="macro", zero_division=0),
        "macro_recall": sk.recall_score(t, predictions, labels=present, average="macro", zero_division=0),
        "macro_f1": sk.f1_score(t, predictions, labels=present, average="macro", zero_division=0),
    }
    if classes > 5:
        expected["top5"] = sk.top_k_accuracy_score(t, p, k=5, labels=range(classes))
    for name, value in expected.items():
        assert found[name]["value"] == pytest.approx(value), name
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"], name
        assert found[name]["n"] == n
    assert ("top5" in found) == (classes > 5)
    np.testing.assert_array_equal(
        metrics.confusion(t, predictions, classes), sk.confusion_matrix(t, predictions, labels=range(classes))
    )
    json.dumps(found)


def test_a_calibrated_network_has_a_small_calibration_error_and_a_boastful_one_a_large() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 20_000)
    honest = np.stack([confidence, 1 - confidence], 1)
    targets = (rng.random(20_000) > confidence).astype(int)
    assert metrics.figures(honest, targets)["ece"]["value"] < 0.02
    boastful = np.where(honest > 0.5, 0.999, 0.001)
    assert metrics.figures(boastful, targets)["ece"]["value"] > 0.2


def test_figures_of_ten_thousand_classes_take_seconds() -> None:
    """The resamples of the intervals cost images + classes each, not classes²."""
    p, t = random_split(400, 10_000)
    started = time.process_time()
    assert metrics.figures(p, t)["macro_f1"]["low"] is not None
    assert time.process_time() - started < 10


@pytest.fixture(scope="module")
def learn() -> Learner:
    from fastcls.machine import devices
    from fastcls.settings import options

    with options.using(options.Options(limit=40, precision="fp32")):
        devices.seed_everything(0)
        learn = recipe("digits-cnn").get_learner(filters=(16, 32))
        with quiet(learn):
            learn.fit_one_cycle(2, 1e-2)
    return learn


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fastai's own plots
def test_one_pass_answers_everything(learn: Learner, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    matplotlib.use("agg")
    with quiet(learn):
        interpretation = Interpretation.from_learner(learn)
    preds, targs = learn.get_preds()
    torch.testing.assert_close(interpretation.preds, preds)
    expected = torch.nn.functional.nll_loss(
        preds.clamp_min(torch.finfo(torch.float32).tiny).log(), targs.long(), reduction="none"
    )
    torch.testing.assert_close(interpretation.losses.as_subclass(torch.Tensor), expected.as_subclass(torch.Tensor))

    def ran_again(*args: object) -> None:
        raise AssertionError("the network was run again")

    monkeypatch.setattr(learn.model, "forward", ran_again)
    matrix = interpretation.confusion_matrix()
    assert matrix.sum() == len(preds)
    confused = interpretation.most_confused()
    assert sum(count for *_, count in confused) == matrix.sum() - matrix.trace()
    assert [count for *_, count in confused] == sorted((count for *_, count in confused), reverse=True)
    losses, order = interpretation.top_losses(3)
    assert losses[0] == interpretation.losses.max() and len(order) == 3
    interpretation.plot_top_losses(4)
    interpretation.plot_confusion_matrix()
    interpretation.print_classification_report()
    assert "macro avg" in capsys.readouterr().out
    matplotlib.pyplot.close("all")


@pytest.mark.parametrize("loss", [torch.nn.CrossEntropyLoss(), torch.nn.functional.cross_entropy])
def test_losses_of_torch_have_probabilities_too(learn: Learner, loss: object, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = learn.get_preds()
    monkeypatch.setattr(learn, "loss_func", loss)
    torch.testing.assert_close(Interpretation.from_learner(learn).preds, expected)


@pytest.mark.filterwarnings("ignore:.*[Gg]lyph", "ignore:.*natively")  # letters that no font here has
def test_plots_are_drawn_on_the_axes_given_and_names_are_no_markup(learn: Learner) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    interpretation = Interpretation.from_learner(learn)
    interpretation.vocab = ["$x_1^2$", r"\frac{", "قطة", "樹獺", "a" * 200, "_b_", "$", "<i>", "new\nline", "{0}"]
    figure = Figure(figsize=(9, 9))
    canvas, axes = FigureCanvasAgg(figure), figure.subplots(3, 3)
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    interpretation.plot_confusion_matrix(ax=axes[0, 0])
    interpretation.plot_confusion_matrix(ax=axes[0, 1], normalize=True, plot_txt=False)
    interpretation.plot_reliability(1.5, ax=axes[0, 2])
    interpretation.plot_top_losses(3, heat=True, axs=axes[1])
    interpretation.plot_suspects(3, axs=axes[2])
    canvas.draw()
    assert plt.get_fignums() == before, "pyplot knows nothing of it"
    assert axes[0, 0].get_xticklabels()[0].get_text() == "$x_1^2$"
    hardest = list(map(int, interpretation.top_losses(1)[1]))
    assert plots.text(interpretation.vocab[int(interpretation.targs[hardest[0]])]) in axes[1, 0].get_title()
    assert len(axes[1, 0].images) == 2, "a picture and its heat"


def test_suspects_contradict_their_labels(learn: Learner) -> None:
    interpretation = Interpretation.from_learner(learn)
    table = interpretation.suspects()
    for one in table.itertuples():
        assert one.probability_of_other > one.probability_of_label and one.label != one.looks_like
        assert one.file == interpretation.paths()[one.row]
