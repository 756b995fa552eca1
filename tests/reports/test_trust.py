"""What the report says of confidence holds on new images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from benchmarks import folds
from fastcls.comparison import differences
from fastcls.evaluation import calibration, grouped, labels, metrics, suspects
from fastcls.reports.trust import effects, trust


def macro(targets: np.ndarray, predictions: np.ndarray, classes: int) -> list[tuple[str, float, Any, Any]]:
    """The macro figures with the ends of their intervals."""
    found = metrics.figures(np.eye(classes)[predictions], targets)
    return [(name, *(found[name][key] for key in ("value", "low", "high"))) for name in metrics.MACRO]


@pytest.mark.parametrize("n, goal", [(359, 0.95), (359, 0.99), (1000, 0.99), (5000, 0.95), (10_000, 0.999)])
def test_thresholds_keep_their_promise_on_new_images(n: int, goal: float) -> None:
    """With a perfectly calibrated network, whose true accuracy above a threshold is its mean confidence there."""
    rng = np.random.default_rng(0)
    given = missed = 0
    for _ in range(200):
        confidence = 1 - 0.5 * rng.beta(1, 6, n)
        found = calibration.threshold_for(goal, confidence, rng.random(n) < confidence)
        if found is not None:
            fresh = 1 - 0.5 * rng.beta(1, 6, 20_000)
            given += 1
            missed += fresh[fresh >= found[0]].mean() < goal
    assert missed <= 0.05 * 200
    if (n, goal) == (5000, 0.95):
        assert given == 200, "so many images can show it"
    if (n, goal) == (359, 0.99):
        assert not given, "so few cannot"


def test_thresholds_keep_their_promise_on_new_groups() -> None:
    """Bursts of five whose images are right or wrong together, at the confidence of the first."""
    rng, goal = np.random.default_rng(0), 0.96
    given = missed = plainly = 0
    for _ in range(200):
        confidence = np.repeat(1 - 0.3 * rng.beta(1, 6, 400), 5)
        right, codes = np.repeat(rng.random(400) < confidence[::5], 5), np.repeat(np.arange(400), 5)
        found = calibration.threshold_for(goal, confidence, right, effect=grouped.effect(right.astype(float), codes))
        alone = calibration.threshold_for(goal, confidence, right)
        fresh = 1 - 0.3 * rng.beta(1, 6, 20_000)
        if found is not None:
            given += 1
            missed += fresh[fresh >= found[0]].mean() < goal
        plainly += alone is not None and fresh[fresh >= alone[0]].mean() < goal
    assert missed <= 0.05 * 200 < plainly and given, (missed, plainly, given)


@pytest.mark.parametrize("classes, images, accuracy", [(37, 10, 0.9), (200, 6, 0.8), (5, 8, 0.8)])
def test_intervals_of_macro_figures_cover_the_truth(classes: int, images: int, accuracy: float) -> None:
    rng = np.random.default_rng(1)
    covered, draws = np.zeros(3), 200
    for _ in range(draws):
        targets = np.repeat(np.arange(classes), images)
        other = (targets + rng.integers(1, classes, len(targets))) % classes
        predictions = np.where(rng.random(len(targets)) < accuracy, targets, other)
        found = [(low, high) for _, _, low, high in macro(targets, predictions, classes)]
        covered += [low is not None and low <= accuracy <= high for low, high in found]
    assert (covered / draws > 0.91).all() and (covered / draws < 0.995).all(), covered / draws


def test_the_jackknife_leaves_out_each_image_in_turn() -> None:
    rng = np.random.default_rng(2)
    targets = np.r_[np.repeat([0, 1, 2], [20, 6, 1]), 4]  # a class of one image, one without any
    predictions = np.where(rng.random(len(targets)) < 0.6, targets, rng.integers(0, 5, len(targets)))
    n = len(targets)
    values = {name: value for name, value, _, _ in macro(targets, predictions, 5)}
    others = [
        [value for _, value, _, _ in macro(np.delete(targets, i), np.delete(predictions, i), 5)] for i in range(n)
    ]
    error = np.sqrt((n - 1) / n * np.square(np.array(others) - np.mean(others, 0)).sum(0))
    for i, (name, value, low, high) in enumerate(macro(targets, predictions, 5)):
        assert 0 < low < value < high < 1
        if name != "macro_precision":  # whose centre is another
            logits = [np.log(p / (1 - p)) for p in (low, value, high)]
            assert np.diff(logits) == pytest.approx(metrics.Z * error[i] / (value * (1 - value))), name
    assert values["macro_recall"] < 1


def test_no_interval_is_impossible() -> None:
    probabilities = np.array([[0.999, 0.001]] * 9 + [[0.98, 0.02]])
    found = metrics.figures(probabilities, np.r_[np.zeros(9, int), 1], 2.0)
    for name in ("loss", "brier", "loss_calibrated", "brier_calibrated"):
        assert 0 < found[name]["low"] < found[name]["value"] < found[name]["high"], name
    assert found["brier"]["high"] <= 2


def table(confidence: np.ndarray, right: np.ndarray) -> pd.DataFrame:
    predictions = np.where(right, "a", "b")
    columns = {"label": "a", "prediction": predictions, "confidence": confidence, "calibrated": confidence}
    return pd.DataFrame(columns)


def test_the_direction_is_that_of_confidence_and_accuracy() -> None:
    """Not the temperature's: a few images far off can ask for one that cools what is on average too unsure."""
    rng = np.random.default_rng(0)
    unsure = np.full(2000, 0.7)
    said = trust(table(unsure, rng.random(2000) < 0.9), 1.4, "test")
    assert said is not None and "underconfident" in said.sentences[0]
    sure = trust(table(np.full(2000, 0.95), rng.random(2000) < 0.8), 0.8, "test")
    assert sure is not None and "overconfident" in sure.sentences[0]
    rng = np.random.default_rng(3)
    honest = rng.uniform(0.5, 1, 359)
    fair = trust(table(honest, rng.random(359) < honest), None, "valid")
    assert (
        fair is not None and "no significant difference" in fair.sentences[0] and "within chance" in fair.sentences[1]
    )
    assert calibration.honest_errors(honest)[0] > 0.01, "few images show an error even so"


def test_only_what_scaling_improved_is_bold() -> None:
    entries = {"ece": 0.05, "brier": 0.2, "loss": 0.5, "ece_calibrated": 0.06, "brier_calibrated": 0.19}
    rows = effects({"test": {**entries, "loss_calibrated": 0.5}}, ["test"])
    assert [less for _, _, less in rows["test"]] == [False, True, False]


def labelled(n: int, classes: int, strength: float, wrong: float, seed: int = 0) -> tuple[np.ndarray, ...]:
    """(n, classes) probabilities of a network that is too sure of itself, labels, and which of these are wrong."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, n)
    logits = 2 * (rng.normal(size=(n, classes)) + strength * np.eye(classes)[true])
    p = np.exp(logits - logits.max(1, keepdims=True))
    bad = rng.random(n) < wrong
    labels = np.where(bad, (true + rng.integers(1, classes, n)) % classes, true)
    return p / p.sum(1, keepdims=True), labels, bad


@pytest.mark.parametrize("strength", [1.5, 2.5, 4.0], ids=["64 %", "90 %", "99 % right"])
@pytest.mark.parametrize("wrong", [0.0, 0.06])
def test_doubts_are_as_often_wrong_labels_as_is_said(strength: float, wrong: float) -> None:
    """A weak network contradicts many labels; that is its own fault, and not the labels'."""
    p, labels, bad = labelled(1500, 6, strength, wrong)
    rows, classes = np.nonzero(p > 1e-6)
    own = p[np.arange(len(p)), labels]
    found, noise = suspects.suspects(labels, rows, classes, p[rows, classes], own, 6)
    assert noise.shown == (wrong > 0) and noise.share == pytest.approx(wrong, abs=0.025)
    for among in (found, found[:20]):
        said, true = sum(one.wrong for one in among), sum(bad[one.row] for one in among)
        assert said == pytest.approx(true, abs=4 + 0.3 * true)
    if wrong:
        assert np.mean([bad[one.row] for one in found[:10]]) >= (0.7 if strength > 2 else 0.4)


def test_noise_is_found_from_the_likely_classes_alone() -> None:
    p, labels, _ = labelled(1500, 40, 4.0, 0.05)
    own = p[np.arange(len(p)), labels]
    top = np.argsort(-p, 1)[:, :5]
    rows = np.repeat(np.arange(len(p)), 5)
    all_rows, all_classes = np.nonzero(p > 0)
    few, _ = suspects.noise(own, rows, p[rows, top.ravel()], 40)
    whole, _ = suspects.noise(own, all_rows, p[all_rows, all_classes], 40)
    assert few.share == pytest.approx(whole.share, abs=0.01)


# ---------------------------------------------------------------------------- intervals over groups


def drawn(rng: np.random.Generator, groups: int, alike: float, classes: int = 3) -> tuple[np.ndarray, ...]:
    """Probabilities, targets and groups of 1 to 6 images each; alike: how much those of a group share their luck."""
    sizes = rng.integers(1, 7, groups)
    codes = np.repeat(np.arange(groups), sizes)
    luck = rng.normal(0, np.sqrt(alike), groups)[codes] + rng.normal(0, np.sqrt(1 - alike), len(codes))
    targets = rng.integers(0, classes, len(codes))
    own = 1 / (1 + np.exp(-(1.0 + 1.5 * luck)))
    p = np.repeat(((1 - own) / (classes - 1))[:, None], classes, axis=1)
    wrong = (targets + 1 + rng.integers(0, classes - 1, len(codes))) % classes
    share = rng.uniform(0.5, 0.9, len(codes))
    rest = 1 - own
    p[np.arange(len(codes)), wrong] = rest * share
    if classes == 3:
        p[np.arange(len(codes)), 3 - targets - wrong] = rest * (1 - share)
    p[np.arange(len(codes)), targets] = own
    return p, targets, codes


@pytest.mark.faults
@pytest.mark.parametrize(("groups", "alike"), [(40, 0.8), (160, 0.8), (160, 0.0), (0, 0.0)])
def test_nominal_intervals_contain_the_truth(groups: int, alike: float) -> None:
    """Of 95 % intervals 93 to 97 % do, plain (no groups) and over groups."""
    rng, rounds = np.random.default_rng(groups + int(alike * 10)), 600
    names = ("accuracy", "loss", "brier", "macro_f1", "macro_recall")
    big = drawn(rng, 200_000, alike)
    truth = metrics.figures(big[0], big[1])
    held = dict.fromkeys(names, 0)
    for _ in range(rounds):
        p, targets, codes = drawn(rng, groups or 200, alike)
        found = metrics.figures(p, targets)
        if groups:
            grouped.widen(found, p, targets, None, codes)
            assert found["accuracy"]["groups"] == groups
        for name in names:
            held[name] += found[name]["low"] <= truth[name]["value"] <= found[name]["high"]
    shares = {name: count / rounds for name, count in held.items()}
    assert all(0.93 <= share <= 0.97 for share in shares.values()), shares


@pytest.mark.faults
def test_nominal_intervals_of_a_difference_contain_the_truth() -> None:
    rng, rounds, held, plain = np.random.default_rng(5), 600, 0, 0
    for _ in range(rounds):
        codes = np.repeat(np.arange(60), rng.integers(1, 7, 60))
        shared = rng.normal(0, 1, (2, 60))[:, codes]
        right = (shared + rng.normal(0, 0.5, shared.shape)) > np.array([[-0.5], [-0.7]])
        tables = [
            pd.DataFrame({"path": np.arange(len(codes)).astype(str), "label": "a", "prediction": np.where(r, "a", "b"),
                          "group": codes.astype(str)})
            for r in right
        ]  # fmt: skip
        truth = scipy.stats.norm.cdf(0.7 / np.sqrt(1.25)) - scipy.stats.norm.cdf(0.5 / np.sqrt(1.25))
        for drop in (False, True):
            test = differences.paired(*(table.drop(columns="group") if drop else table for table in tables))
            _, low, high = differences.images_interval(test)
            held += not drop and low <= truth <= high
            plain += drop and low <= truth <= high
    assert 0.93 <= held / rounds <= 0.97 and plain / rounds < 0.9, (held / rounds, plain / rounds)


@pytest.mark.faults
def test_nominal_intervals_of_folds_contain_the_truth() -> None:
    """Of all cases together; of a difference over folds, which conclusions are drawn from, at least so often."""
    rng = np.random.default_rng(6)
    shares = [
        folds.covered(folds.Problem(rng, features, classes, spread, 0.6), n, *plan, 60)
        for n, features, classes, spread in folds.CASES
        for plan in folds.PLANS
    ]
    over_folds, over_images, difference, images = np.mean(shares, axis=0)
    assert all(0.93 <= share <= 0.97 for share in (over_folds, over_images, images)) and difference >= 0.95, shares
    assert min(share[0] for share in shares) > 0.85, shares  # least where 0.1 % of 150 images are wrong


def test_images_of_a_group_count_as_few_and_single_ones_as_they_are() -> None:
    p, targets, codes = drawn(np.random.default_rng(0), 50, 0.9)
    alone, over = metrics.figures(p, targets, 1.0), metrics.figures(p, targets, 1.0)
    grouped.widen(over, p, targets, 1.0, codes)
    for name in ("accuracy", "loss", "brier", "macro_f1", "loss_calibrated"):
        assert over[name]["high"] - over[name]["low"] > alone[name]["high"] - alone[name]["low"]
        assert over[name]["value"] == alone[name]["value"] and over[name]["groups"] == 50
    truth = targets[:, None] == np.arange(p.shape[1])
    alone, over = (
        labels.figures(p, truth, "abcdefgh"[: p.shape[1]], np.full(p.shape[1], 0.5), 1.0, of) for of in (None, codes)
    )
    for name in ("mAP", "macro_f1", "micro_recall", "subset_accuracy", "loss", "hamming_loss", "recall:a", "f1:a"):
        assert over[name]["high"] - over[name]["low"] > alone[name]["high"] - alone[name]["low"], name
        assert over[name]["value"] == alone[name]["value"] and over[name]["groups"] == 50
    usual, most = calibration.honest_errors(p.max(1))
    assert calibration.honest_errors(p.max(1), 4.0) == pytest.approx((2 * usual, 2 * most))
    assert grouped.codes_of(["", "", ""]) is None and len(set(grouped.codes_of(["a", "", "a", ""]))) == 3
    assert grouped.proportion(np.ones(30), np.repeat(np.arange(10), 3))[0] == pytest.approx(0.66, abs=0.01)
