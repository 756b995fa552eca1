"""fastcls compare --folds: every image held out once, one run of all folds, intervals that their overlap allows."""

from __future__ import annotations

import copy
import json
import shutil
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Fastcls, Outcome, command
from fastai.data.all import CategoryBlock, DataBlock
from fastai.vision.all import ImageBlock, get_image_files, parent_label
from folders import csv_rows
from PIL import Image
from torch import nn

import fastcls
from fastcls import data
from fastcls.comparison import differences
from fastcls.errors import DataError
from fastcls.evaluation import grouped, metrics
from fastcls.inference import export
from fastcls.runfolder import predictions
from fastcls.settings import options
from fastcls.settings.options import Options
from fastcls.training import probe

pytestmark = pytest.mark.further
SMALL = ["compare", "digits-cnn", "--epochs", 1, "--limit", 20, "--filters", "8", "--bs", 20]
BASE = 0.2  # the dropout of the recipe
FOLDS = [*SMALL, "--vary", "dropout=0.5", "--one-at-a-time", "--folds", 2]


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """Two settings, two folds each."""
    out = tmp_path_factory.mktemp("folds") / "out"
    return out, command(*FOLDS, "--out", out)


def rows(run: Path, probabilities: bool = False) -> pd.DataFrame:
    return predictions.of_run(run, probabilities=probabilities)


def parts(run: Path) -> list[Path]:
    return sorted(run.glob("seed-*/fold-*"))


def test_every_image_is_predicted_by_the_network_that_was_not_trained_on_it(folds: tuple[Path, Outcome]) -> None:
    out, outcome = folds
    assert outcome.code == 0, outcome.output
    whole = rows(out / "baseline", probabilities=True).set_index("path")
    held = [rows(part, probabilities=True).set_index("path") for part in parts(out / "baseline")]
    assert len(held) == 2 and sorted(whole.index) == sorted([*held[0].index, *held[1].index])
    for one in held:
        same = whole.loc[one.index]
        assert (same["prediction"] == one["prediction"]).all() and (same["label"] == one["label"]).all()
        columns = [name for name in one if name.startswith("p:")]
        assert len(columns) == 10 and np.allclose(same[columns], one[columns], atol=1e-5)
    for part, one in zip(parts(out / "baseline"), held, strict=True):
        splits = pd.read_csv(part / "splits.csv").set_index("path")["split"]
        assert (splits[one.index] == "valid").all()
    figures = json.loads((out / "baseline" / "metrics.json").read_text())["valid"]
    assert figures["accuracy"]["value"] == pytest.approx((whole["label"] == whole["prediction"]).mean())
    assert figures["n"] == len(whole) == 400


def test_the_run_of_all_folds_is_a_run_like_any_other(folds: tuple[Path, Outcome]) -> None:
    out = folds[0]
    assert (out / "baseline" / "report.html").is_file() and not list(out.glob("*/seed-*/fold-*/report.html"))
    page = (out / "baseline" / "report.html").read_text()
    assert "2 folds: every image is predicted by networks that were not trained on it" in page
    assert "Over 2 folds the mean accuracy is" in page and "Its learning curves are in its own run" in page
    run = fastcls.Run(out / "baseline")
    assert len(run.predictions) == 400
    assert f"report: {out / 'baseline' / 'report.html'}" in folds[1].output
    assert 'href="baseline/report.html"' in (out / "compare.html").read_text()


def test_settings_are_compared_over_the_same_folds(folds: tuple[Path, Outcome]) -> None:
    out = folds[0]
    table = pd.read_csv(out / "table.csv", keep_default_na=False)
    assert sorted(table["interval_over"]) == ["", "folds"]
    runs = pd.read_csv(out / "results.csv")
    assert sorted(runs["fold"]) == ["1/2", "1/2", "2/2", "2/2"]
    means = runs.groupby("dropout")["accuracy"].agg(list)
    gaps = np.array(means[0.5]) - np.array(means[BASE])
    row = table[table["dropout"].astype(float) == 0.5].iloc[0]
    half = 12.706 * np.sqrt((1 / 2 + 1) * gaps.var(ddof=1))  # as many are held out as are trained on
    assert float(row["difference"]) == pytest.approx(gaps.mean())
    assert float(row["low"]) == pytest.approx(max(-1, gaps.mean() - half), abs=1e-3)
    assert "over the folds" in folds[1].output and "The runs used different images" not in folds[1].output


def test_predict_answers_with_the_mean_of_the_folds(folds: tuple[Path, Outcome], tmp_path: Path) -> None:
    out, photos = folds[0], tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for i in range(5):
        Image.fromarray(rng.integers(0, 255, (8, 8), np.uint8)).save(photos / f"{i}.png")
    found = []
    for run in (out / "baseline", *parts(out / "baseline")):
        table = tmp_path / "table.csv"
        outcome = command("predict", run, photos, "-o", table, "--probabilities")
        assert outcome.code == 0, outcome.output
        answers = pd.read_csv(table)
        found.append(answers[[name for name in answers if name.startswith("p:")]].to_numpy())
        table.unlink()
    assert found[0].shape == (5, 10) and np.allclose(found[0], (found[1] + found[2]) / 2, atol=1e-5)
    refused = command("predict", out / "baseline", photos, "--coverage", 0.9)
    assert refused.code == 2 and "predicts with the mean of several networks" in refused.output
    refused = command("export", out / "baseline", "-o", tmp_path / "page")
    assert refused.code != 0 and "fold-1" in refused.output and "Traceback" not in refused.output


def test_what_every_fold_would_end_with_is_said_once_and_leaves_nothing(fastcls: Fastcls, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(8):
            Image.new("L", (8, 8), number).save(tmp_path / "photos" / name / f"{name}{number % 2}_{number}.png")
    words = ["compare", "folder", "--path", tmp_path / "photos", "--weights", "none", "--img-size", 32, "-o", "out"]
    for more, code, says in (
        (["--folds", 0], 2, "--folds 0: expected"),
        (["--folds", 1], 2, "--folds 1: expected"),
        (["--folds", 3, "--group", r"(\w+\d)_"], 3, "3 folds need 3 groups"),
        (["--folds", 3, "--group", "label"], 2, "besides path, label and split"),
        (["--folds", 3, "--group", "(cat"], 2, "to match the character itself"),
    ):
        done = fastcls(*words, *more)
        assert done.code == code and done.output.count(says) == 1, done.output
        assert not Path("out").exists() or not list(Path("out").iterdir())


def test_members_of_a_run_are_inside_of_it(folds: tuple[Path, Outcome], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(folds[0] / "baseline", run)
    model = json.loads((run / "model.json").read_text())
    (run / "model.json").write_text(json.dumps({**model, "members": ["../elsewhere"]}))
    refused = command("predict", run, run)
    assert refused.code != 0 and "not inside it" in refused.output and "Traceback" not in refused.output


def test_called_again_it_makes_the_missing_fold_alone(folds: tuple[Path, Outcome], tmp_path: Path) -> None:
    out = tmp_path / "again"
    shutil.copytree(folds[0], out)
    shutil.rmtree(out / "baseline" / "seed-42" / "fold-2")
    written = (out / "dropout=0.5" / "report.html").stat().st_mtime_ns
    outcome = command(*FOLDS, "--out", out)
    assert outcome.code == 0 and "4 runs, 3 done" in outcome.output
    assert (out / "dropout=0.5" / "report.html").stat().st_mtime_ns == written
    before, now = (rows(place / "baseline")[["path", "prediction"]] for place in (folds[0], out))
    assert before.equals(now)
    refused = command(*SMALL, "--vary", "dropout=0.5", "--one-at-a-time", "--folds", 3, "--out", out)
    assert refused.code == 4 and "a different number of folds" in refused.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--folds", 1], "expected an integer from 2"),
        (["--folds", 5, "--seeds", 2], "--repeats 2"),
        (["--repeats", 2], "Add --folds"),
        (["--folds", 5, "--fold", "1/5"], "and no --fold"),
        (["--fold", "6/5"], "expected K/N"),
    ],
)
def test_what_folds_do_not_take_is_said(words: list[Any], said: str, tmp_path: Path) -> None:
    refused = command("compare", "digits-cnn", *words, "--out", tmp_path / "out")
    assert refused.code == 2 and said in refused.output and not (tmp_path / "out").exists()


def photographs(root: Path, sizes: dict[str, int], each: int = 3) -> Path:
    """Of each class so many patients with `each` images."""
    rng = np.random.default_rng(0)
    for label, patients in sizes.items():
        (root / label).mkdir(parents=True)
        for patient in range(patients):
            for i in range(each):
                pixels = rng.integers(0, 255, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(root / label / f"{label}{patient:02d}_{i}.png")
    return root


def splits_of(root: Path, fold: str, seed: int = 42) -> tuple[set[str], set[str], dict[str, str]]:
    """Names of training and of validation images, and their groups."""
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=get_image_files,
        get_y=parent_label,
        splitter=data.stratified(parent_label, 0.2, group=r"(\w+\d\d)_"),
    )
    with options.using(Options(fold=fold, seed=seed, workers=0)):
        dls = data.loaders(block, root, bs=4)
    names = tuple({Path(path).name for path in dls_.items} for dls_ in (dls.train_ds, dls.valid_ds))
    return names[0], names[1], dls.groups


def test_folds_part_no_group_and_hold_out_every_image_once(tmp_path: Path) -> None:
    root = photographs(tmp_path / "photos", {"cat": 10, "dog": 7})
    held: list[str] = []
    for k in range(1, 6):
        train, valid, groups = splits_of(root, f"{k}/5")
        assert len(train) + len(valid) == 51 and not train & valid
        assert not {name[:5] for name in train} & {name[:5] for name in valid}, "a group on both sides"
        assert {name[:3] for name in valid} == {"cat", "dog"} and len(set(groups.values())) == 17
        held += valid
    assert len(held) == len(set(held)) == 51
    assert splits_of(root, "1/5")[1] == splits_of(root, "1/5")[1] != splits_of(root, "1/5", seed=7)[1]


def test_more_folds_than_groups_of_a_class_are_refused_with_counts(tmp_path: Path) -> None:
    root = photographs(tmp_path / "photos", {"cat": 10, "owl": 3})
    said = r"5 folds need 5 groups of every class.*owl \(3 groups\)"
    with pytest.raises(DataError, match=said) as problem:
        splits_of(root, "1/5")
    assert "Use 3 folds" in problem.value.hint


def test_folds_share_the_features_of_a_frozen_network(tmp_path: Path, unreported: None) -> None:
    """And come out the same whichever is made first."""
    root = photographs(tmp_path / "photos", {"cat": 6, "dog": 6})
    words = ["compare", "folder", "--path", root, "--arch", "timm/test_resnet", "--weights", "none", "--size", 32]
    words += ["--tune", "probe", "--folds", 2, "--device", "cpu", "--precision", "fp32", "--out", tmp_path / "out"]
    outcome = command(*words)
    assert outcome.code == 0, outcome.output
    first = tmp_path / "out" / "baseline" / "seed-42" / "fold-2" / "model.safetensors"
    weights = first.read_bytes()
    shutil.rmtree(first.parent)
    assert command(*words).code == 0
    assert first.read_bytes() == weights
    assert len(csv_rows(tmp_path / "out" / "baseline" / "probe.csv")) == 36


def test_folds_of_a_frozen_network_export_what_each_alone_would(tmp_path: Path) -> None:
    networks = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))]
    networks += [copy.deepcopy(networks[0]) for _ in range(3)]
    for network in networks[1:]:
        nn.init.normal_(network[-1].weight)
        nn.init.normal_(network[-1].bias)
    nn.init.normal_(networks[3][0].weight)  # not frozen
    made = []
    for sharing in (nullcontext(), probe.sharing({})):
        with sharing:
            for i, network in enumerate(networks):
                assert not export._export_onnx(network, torch.zeros(1, 3, 8, 8), tmp_path / f"{i}.onnx")
        made.append([(tmp_path / f"{i}.onnx").read_bytes() for i in range(4)])
    assert made[0] == made[1] and len(set(made[0])) == 4


def test_intervals_over_folds_are_over_images_unless_groups_or_folds_differ_by_more() -> None:
    right = pd.Series(np.tile([1, 1, 1, 0], 25), [str(i) for i in range(100)])

    def interval(parts: list[pd.Series]) -> tuple[float, float]:
        runs = [differences.Run(i // 5, float(part.mean()), partial(pd.Series.copy, part), f"{i % 5 + 1}/5", 0.25)
                for i, part in enumerate(parts)]  # fmt: skip
        found = differences.of_folds(runs)
        assert found is not None
        return found

    alike = [right[k * 20 : (k + 1) * 20] for k in range(5)]
    assert interval(alike) == pytest.approx(metrics.wilson(75, 100))
    assert interval([*alike, *alike]) == pytest.approx(metrics.wilson(75, 100)), "a repeat has no further images"
    ordered = right.sort_values()
    apart = interval([ordered[k * 20 : (k + 1) * 20] for k in range(5)])
    assert apart[0] < 0.5 and apart[1] > 0.9
    for part in alike:
        part.attrs["group"] = {path: str(int(path) // 4) for path in part.index}
    assert interval(alike) == pytest.approx(grouped.proportion(right.to_numpy(), np.arange(100) // 4))
    assert differences.of_folds([differences.Run(0, 0.5, partial(pd.Series.copy, right))]) is None
