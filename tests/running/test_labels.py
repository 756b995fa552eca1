"""Several labels an image, from the table to the answer: one small run, and every file and command after it."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import Fastcls, Outcome, command
from folders import csv_rows
from PIL import Image
from sklearn import metrics as sk

from fastcls import Run
from fastcls.datasets import label_sets
from fastcls.evaluation import labels
from fastcls.runfolder.target import MULTI

pytestmark = pytest.mark.further

NAMES = ["blue", "green", "red"]
RECIPE = '''"""Squares: which colours are there."""
from typing import Literal
from fastai.vision.all import *
from fastcls import data, datasets, models, training, transforms

def get_learner(path: str, labels: str = 'labels.csv', mixup: float = 0., cutmix: float = 0., balanced: bool = False,
                loss: str = 'cross-entropy', class_weights: bool = False):
    table = datasets.folder(path, labels=labels)
    block = DataBlock((ImageBlock, data.label_block(table)), get_x=ColReader('path'), get_y=ColReader('label'),
                      item_tfms=transforms.resize(16), batch_tfms=transforms.augment(jitter=0))
    dls = data.loaders(block, table, bs=16, balanced=balanced)
    return models.learner(dls, models.cnn(3, dls.c, (16, 32)), stats=((0.2,) * 3, (0.3,) * 3),
                          metrics=training.metrics(dls), loss_func=training.loss(loss, dls, class_weights),
                          cbs=transforms.mix(mixup, cutmix))

def fit(learn, epochs: int = 4, lr: float = 1e-2):
    models.fit_head(learn, freeze_statistics=False)
    learn.fit_one_cycle(epochs, lr)
'''


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """180 pictures of up to three coloured squares on noise, with splits; an image may have none."""
    folder, rng = tmp_path_factory.mktemp("labels") / "squares", np.random.default_rng(0)
    folder.mkdir()
    table = []
    for number in range(180):
        own = [name for name in NAMES if rng.random() < 0.4]
        picture = rng.integers(0, 90, (16, 16, 3))
        for name in own:
            top, left = rng.integers(0, 11, 2)
            picture[top : top + 5, left : left + 5, 2 - NAMES.index(name)] = 230
        Image.fromarray(picture.astype(np.uint8)).save(folder / f"{number}.png")
        split = "train" if number < 100 else "valid" if number < 140 else "test"
        table.append((f"{number}.png", ";".join(own), split, "AB"[number % 2]))
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "tags", "split", "site"), *table])
    (folder.parent / "squares.py").write_text(RECIPE)
    return folder


def trained(squares: Path, name: str, *words: object) -> Outcome:
    recipe = squares.parent / "squares.py"
    return command("recipe", recipe, "--path", squares, "--out", squares.parent / name, *words)


@pytest.fixture(scope="module")
def run(squares: Path) -> Path:
    outcome = trained(squares, "run")
    assert outcome.code == 0, outcome.output
    assert "several labels per image, separated by ';'" in outcome.output and "test     mAP" in outcome.output
    assert "in 3 labels" in outcome.output
    return squares.parent / "run"


# ------------------------------------------------------------------ figures


@pytest.mark.parametrize("n, names", [(200, 6), (7, 3), (60, 12)])
def test_figures_are_scikit_learns(n: int, names: int) -> None:
    rng = np.random.default_rng(n)
    truth = rng.random((n, names)) < rng.uniform(0.02, 0.6, names)
    truth[0] = False
    p = np.round(rng.random((n, names)) * 0.6 + 0.4 * truth * rng.random((n, names)), 2)  # with ties
    at = labels.best_thresholds(p, truth)
    called = [f"l{k}" for k in range(names)]
    found = labels.figures(p, truth, called, at, 1.3)
    y, d = truth.astype(int), (p >= at).astype(int)
    present = np.flatnonzero(y.any(0))
    vary = np.flatnonzero(y.any(0) & ~y.all(0))
    expected = {
        "mAP": sk.average_precision_score(y[:, present], p[:, present]),
        "macro_roc_auc": sk.roc_auc_score(y[:, vary], p[:, vary]),
        "subset_accuracy": sk.accuracy_score(y, d),
        "hamming_loss": sk.hamming_loss(y, d),
        "lrap": sk.label_ranking_average_precision_score(y, p),
        "coverage_error": sk.coverage_error(y, p),
        "ranking_loss": sk.label_ranking_loss(y, p),
        "samples_f2": sk.fbeta_score(y, d, beta=2, average="samples", zero_division=0),
        "loss": np.mean([sk.log_loss(y[:, k], p[:, k], labels=[0, 1]) for k in range(names)]),
        "brier": np.mean([sk.brier_score_loss(y[:, k], p[:, k]) for k in range(names)]),
    }
    scores = {"precision": sk.precision_score, "recall": sk.recall_score, "f1": sk.f1_score}
    for name, score in scores.items():
        expected[f"macro_{name}"] = score(y, d, average="macro", labels=present, zero_division=0)
        expected[f"micro_{name}"] = score(y, d, average="micro", zero_division=0)
        expected[f"samples_{name}"] = score(y, d, average="samples", zero_division=0)
        for k in present:
            expected[f"{name}:{called[k]}"] = score(y[:, k], d[:, k], zero_division=0)
    for k in vary:
        expected[f"average_precision:{called[k]}"] = sk.average_precision_score(y[:, k], p[:, k])
        expected[f"roc_auc:{called[k]}"] = sk.roc_auc_score(y[:, k], p[:, k])
    for name, value in expected.items():
        assert found[name]["value"] == pytest.approx(value, abs=1e-9), name
    for name, one in found.items():
        if name != "n" and one["low"] is not None:
            assert one["low"] <= one["value"] <= one["high"], name


def test_intervals_of_map_hold_what_they_promise() -> None:
    """Of 60 samples of a network whose mAP is known, about 95 % have an interval that contains it."""
    rng = np.random.default_rng(0)

    def sample(n: int) -> tuple[np.ndarray, np.ndarray]:
        truth = rng.random((n, 4)) < 0.3
        return 1 / (1 + np.exp(-rng.normal(2.0 * truth - 1, 1))), truth

    known = labels.mean_average_precision(*sample(40_000))
    inside = 0
    for _ in range(60):
        p, truth = sample(100)
        found = labels.figures(p, truth, list("abcd"), np.full(4, 0.5))["mAP"]
        inside += found["low"] <= known <= found["high"]
    assert inside >= 52


def test_thresholds_have_the_best_f1_and_rare_labels_share_one() -> None:
    rng = np.random.default_rng(1)
    truth = rng.random((120, 3)) < [0.3, 0.2, 0.01]
    p = np.clip(rng.random((120, 3)) * 0.4 + 0.3 * truth, 0, 1)
    found = labels.best_thresholds(p, truth)
    for k in (0, 1):
        best = max(sk.f1_score(truth[:, k], p[:, k] >= at) for at in np.unique(p[:, k]))
        assert sk.f1_score(truth[:, k], p[:, k] >= found[k]) == pytest.approx(best)
    together = max(sk.f1_score(truth.ravel(), p.ravel() >= at) for at in np.unique(p))
    assert sk.f1_score(truth.ravel(), p.ravel() >= found[2]) == pytest.approx(together)


# ------------------------------------------------------------------ data


def test_splits_have_each_label_in_proportion_and_are_a_function_of_labels_and_seed() -> None:
    rng = np.random.default_rng(2)
    sets = [tuple(name for name, p in zip("abcdef", (0.02, 0.05, 0.1, 0.2, 0.4, 0.5), strict=True) if rng.random() < p)
            for _ in range(1000)]  # fmt: skip
    held = label_sets.hold_out(sets, 0.2, 7)
    assert held == label_sets.hold_out(sets, 0.2, 7) != label_sets.hold_out(sets, 0.2, 8)
    assert len(held) == pytest.approx(200, abs=10)
    for name in "abcdef":
        own = [i for i, labels in enumerate(sets) if name in labels]
        assert len(set(own) & set(held)) == pytest.approx(0.2 * len(own), abs=1.5)


def test_the_same_file_in_several_class_folders_has_all_their_labels(squares: Path, fastcls: Fastcls) -> None:
    files = sorted(squares.glob("?.png"))
    for number, file in enumerate(files):
        for name in (("a",), ("b",), ("a", "b"))[number % 3]:
            (Path("tree") / name).mkdir(parents=True, exist_ok=True)
            (Path("tree") / name / file.name).write_bytes(file.read_bytes())
    assert "3 files of 10 under several classes: several labels" in fastcls("check", "tree").output
    alone = fastcls("check", "tree", "--multi-label", "no")
    assert alone.code == 3 and "One image under two labels" in alone.output


def test_a_check_says_what_is_odd_of_several_labels(fastcls: Fastcls) -> None:
    Path("photos").mkdir()
    lines = ["file,labels"]
    for number in range(24):
        colour = np.random.default_rng(number).integers(0, 255, (16, 16, 3), np.uint8)
        Image.fromarray(colour).save(f"photos/{number}.png")
        own = ["sky", *(["sun", "heat"] if number % 3 else []), *(["bird"] if number % 2 else [])]
        lines.append(f"{number}.png,{';'.join(own)}")
    Path("photos/labels.csv").write_text("\n".join([*lines, ""]))
    outcome = fastcls("check", "photos", "--labels", "labels.csv", "--multi-label", "yes", "-o", "page")
    assert outcome.code == 0, outcome.output
    shown = " ".join(outcome.output.split())
    assert "24 images in 4 labels" in shown and "Labels that never vary" in shown and "'sky'" in shown
    assert "Labels that always occur together" in shown and "'heat' and 'sun' (16 images)" in shown
    found = json.loads(Path("page/check.json").read_text())
    assert found["classes"] == 4 and {"together", "never-vary", "never-part"} <= {f["kind"] for f in found["findings"]}


# ------------------------------------------------------------------ a run


def test_a_run_says_what_kind_of_target_it_has(run: Path) -> None:
    record, model = (json.loads((run / name).read_text()) for name in ("run.json", "model.json"))
    assert record["data"]["target"] == model["target"] == "multi-label" and model["classes"] == NAMES
    assert len(model["thresholds"]) == 3 and model["temperature"] > 0
    assert "test mAP" in repr(Run(run)) and "mAP" in Run(run)._repr_html_()
    history = csv_rows(run / "history.csv")
    assert history[0]["phase"] == "linear probe" and {"mAP", "f1"} <= set(history[0])
    assert float(history[-1]["mAP"]) > 0.8, history


def test_predictions_are_those_of_the_thresholds_and_metrics_follow_from_them(run: Path) -> None:
    at = np.array(json.loads((run / "model.json").read_text())["thresholds"])
    table = [row for row in csv_rows(run / "predictions.csv") if row["split"] == "test"]
    p = np.array([[float(row[f"p:{name}"]) for name in NAMES] for row in table])
    assert [row["prediction"] for row in table] == ["|".join(np.array(NAMES)[one >= at]) for one in p]
    truth = np.array([[name in MULTI.names(row["label"]) for name in NAMES] for row in table])
    metrics = json.loads((run / "metrics.json").read_text())["test"]
    assert metrics["n"] == 40
    assert metrics["mAP"]["value"] == pytest.approx(sk.average_precision_score(truth, p), abs=1e-4)
    assert metrics["macro_f1"]["value"] == pytest.approx(sk.f1_score(truth, p >= at, average="macro"), abs=1e-4)
    assert metrics["f1:red"]["value"] == pytest.approx(sk.f1_score(truth[:, 2], p[:, 2] >= at[2]), abs=1e-4)


def test_the_probe_is_logistic_regression_one_against_the_rest() -> None:
    import torch
    from sklearn.linear_model import LogisticRegression

    from fastcls.training import probe

    rng = np.random.default_rng(3)
    x = rng.normal(size=(300, 12)).astype(np.float32)
    y = (x[:, :4] + rng.normal(size=(300, 4)) > 0.5).astype(np.float32)
    found = probe.solve(torch.from_numpy(x), torch.from_numpy(y), 4, 1)
    centred = x - x.mean(0)
    scale = np.sqrt(np.square(centred).mean())
    ours = x @ found.weight.numpy().T + found.bias.numpy()
    for k in range(4):
        model = LogisticRegression(C=1 / (found.decay * 300), max_iter=1000, tol=1e-8).fit(centred / scale, y[:, k])
        theirs = model.decision_function(centred / scale)
        assert np.corrcoef(ours[:, k], theirs)[0, 1] > 0.9999


@pytest.mark.usefixtures("unreported")
@pytest.mark.parametrize(
    "words",
    [
        ("--mixup", "0.4", "--loss", "asymmetric"),
        ("--cutmix", "1", "--loss", "focal", "--class-weights"),
        ("--balanced", "--loss", "label-smoothing", "--class-weights", "--best-by", "f2_samples", "--keep", "last"),
    ],
)
def test_losses_weights_and_mixing_take_several_labels(squares: Path, words: tuple[str, ...]) -> None:
    name = "".join(words).replace("--", "-")
    outcome = trained(squares, name, "--epochs", "1", "--no-test", "--precision", "fp32", *words)
    assert outcome.code == 0, outcome.output
    if "--balanced" in words:
        assert "drawn by the rarest of their labels" in outcome.output
        assert "f2_samples" in csv_rows(squares.parent / name / "history.csv")[0]


def test_the_report_speaks_of_labels(run: Path) -> None:
    page = (run / "report.html").read_text(encoding="utf-8")
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    for words in ("mAP", "All labels right", "Per label", "Calibration of 3 labels",
                  "Thresholds of 3 labels", "Tuned on 40 valid images, evaluated on 40 test images", "3 labels",
                  "Predicted instead when missed", "heat of", "site"):  # fmt: skip
        assert words in text, words
    assert "Missed and predicted instead" in page
    assert "None" not in text and "nan" not in text.split()


# ------------------------------------------------------------------ afterwards


def test_predict_names_all_labels_above_their_thresholds(run: Path, squares: Path, fastcls: Fastcls) -> None:
    assert fastcls("predict", run, squares, "-o", "all.csv", "--probabilities", "--top-k", "2").code == 0
    evaluated = {row["path"]: row for row in csv_rows(run / "predictions.csv")}
    answers = {Path(row["path"]).name: row for row in csv_rows("all.csv")}
    for path, row in evaluated.items():
        assert answers[path]["prediction"] == row["prediction"]
        assert float(answers[path]["p:red"]) == pytest.approx(float(row["p:red"]), abs=1e-3)
    assert {"top1", "p1", "top2"} <= set(csv_rows("all.csv")[0])
    assert fastcls("predict", run, squares, "--threshold", "0.9", "-o", "sure.csv").code == 0
    for row in csv_rows("sure.csv"):
        own = answers[Path(row["path"]).name]
        assert row["prediction"] == "|".join(name for name in NAMES if float(own[f"p:{name}"]) >= 0.9)
    fastcls("predict", run, squares, "-o", "calibrated.csv", "--calibrated")
    assert [r["prediction"] for r in csv_rows("calibrated.csv")] == [r["prediction"] for r in csv_rows("all.csv")]


def test_a_submission_separates_labels_by_spaces(run: Path, squares: Path, fastcls: Fastcls) -> None:
    outcome = fastcls("predict", run, squares, "-o", "s.csv", "--id-column", "image_name", "--label-column", "tags")
    assert outcome.code == 0, outcome.output
    plain = {Path(r["path"]).stem: r["prediction"] for r in _predicted(run, squares, fastcls)}
    assert {r["image_name"]: r["tags"].replace(" ", "|") for r in csv_rows("s.csv")} == plain
    assert any(" " in row["tags"] for row in csv_rows("s.csv"))


def _predicted(run: Path, squares: Path, fastcls: Fastcls) -> list[dict[str, str]]:
    assert fastcls("predict", run, squares, "-o", "plain.csv").code == 0
    return csv_rows("plain.csv")


@pytest.mark.parametrize("flag", ["--coverage=0.9", "--precision=0.9", "--recall=0.9", "--unknown=0.05"])
def test_decisions_for_one_class_say_that_they_do_not_apply(
    run: Path, squares: Path, fastcls: Fastcls, flag: str
) -> None:
    outcome = fastcls("predict", run, squares / "0.png", flag)
    assert outcome.code == 2 and "needs one class per image" in outcome.output, outcome.output


def test_new_images_are_evaluated_beside_the_runs_own(run: Path, squares: Path, fastcls: Fastcls) -> None:
    Path("new").mkdir()
    lines = ["file,tags"]
    for row in csv_rows(squares / "labels.csv")[100:160]:
        shutil.copy(squares / row["file"], Path("new") / row["file"])
        lines.append(f"{row['file']},{row['tags']}{';violet' if row['file'] == '120.png' and row['tags'] else ''}")
    Path("new/tags.csv").write_text("\n".join([*lines, ""]))
    outcome = fastcls("evaluate", run, "new", "--labels", "tags.csv", "-o", "later")
    assert outcome.code == 0, outcome.output
    table = {row["path"]: row for row in csv_rows("later/predictions.csv")}
    for row in csv_rows(run / "predictions.csv"):
        if row["path"] in table:
            assert [table[row["path"]][name] for name in ("label", "prediction")] == [row["label"], row["prediction"]]
    figures = json.loads(Path("later/metrics.json").read_text())["new"]
    assert figures["n"] == 60 and "f1:red" in figures
    page = Path("later/report.html").read_text()
    assert "mAP on the 60 new images" in page and "labels that the network does not know" in page.lower()


@pytest.mark.usefixtures("unreported")
def test_two_runs_are_compared_by_images_with_all_labels_right(run: Path, squares: Path, fastcls: Fastcls) -> None:
    weak = squares.parent / "weak"
    if not weak.exists():
        assert trained(squares, "weak", "--epochs", 1, "--lr", 1e-6).code == 0
    outcome = fastcls("compare", weak, run, "-o", "both")
    assert (
        outcome.code == 0
        and "mAP on test" in outcome.output
        and "all labels right" in Path("both/table.md").read_text()
    )
    (first,) = [row for row in csv_rows("both/results.csv") if row["folder"].endswith("run")]
    expected = json.loads((run / "metrics.json").read_text())["test"]
    assert float(first["mAP"]) == pytest.approx(expected["mAP"]["value"])
    assert float(first["accuracy"]) == pytest.approx(expected["subset_accuracy"]["value"])
    assert " mAP" in fastcls("runs", "--folder", squares.parent.parent).output


@pytest.mark.faults
@pytest.mark.usefixtures("unreported")
def test_an_interrupted_run_is_resumed_to_the_bit(
    squares: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastcls.training.history import History

    whole, out = trained(squares, "whole", "--precision", "fp32"), squares.parent / "stopped"
    assert whole.code == 0
    after = History.after_epoch

    def stop(self: History) -> None:
        after(self)
        if self.trained == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(History, "after_epoch", stop)
        assert trained(squares, "stopped", "--precision", "fp32").code == 130
    assert command("resume", out, "--trust").code == 0
    for name in ("model.safetensors", "predictions.csv", "metrics.json"):
        assert (out / name).read_bytes() == (squares.parent / "whole" / name).read_bytes(), name


def test_an_exported_network_has_its_sigmoid(run: Path, squares: Path, fastcls: Fastcls) -> None:
    import onnxruntime

    assert fastcls("export", run, "--onnx", "-o", ".").code == 0
    (file,) = Path().glob("*.onnx")
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    row = csv_rows(run / "predictions.csv")[0]
    pixels = np.asarray(Image.open(squares / row["path"]))[None]
    found = session.run(None, {session.get_inputs()[0].name: pixels})[0][0]
    assert found == pytest.approx([float(row[f"p:{name}"]) for name in NAMES], abs=1e-3)
    known = session.get_modelmeta().custom_metadata_map
    assert fastcls("export", run, "--int8", "-o", ".").code == 0  # judged by images with all labels right
    cost = json.loads(Path("model-int8.json").read_text())
    right = [row["label"] == row["prediction"] for row in csv_rows(run / "predictions.csv") if row["split"] == "valid"]
    assert (cost["n"], cost["before"]) == (len(right), sum(right))
    assert known["target"] == "multi-label" and len(json.loads(known["thresholds"])) == 3


def test_the_page_of_serve_names_all_labels(run: Path, squares: Path) -> None:
    from fastcls.cli import serve
    from fastcls.plugins.serve.site import Site

    calibrated, explainer = serve._explainer(run)
    site = Site(run, explainer, calibrated=calibrated)
    row = next(row for row in csv_rows(run / "predictions.csv") if row["prediction"].count("|") == 1)
    answer = site.answer((squares / row["path"]).read_bytes())
    assert f"<bdi>{row['prediction'].replace('|', ', ')}</bdi>" in answer and "share the rest" not in answer
    assert "3 labels" in site.page()


@pytest.mark.published
def test_a_search_maximises_map_and_says_so_where_accuracy_is_asked_for(squares: Path, fastcls: Fastcls) -> None:
    recipe = squares.parent / "squares.py"
    words = ("search", recipe, "--path", squares, "--space", "lr=1e-3..1e-2:log", "--epochs", "1", "--trials", "1")
    refused = fastcls(*words, "-o", "accuracy")
    assert refused.code == 3 and "Use --metric mAP" in refused.output, refused.output
    outcome = fastcls(*words, "--metric", "mAP", "-o", "ranked")
    assert outcome.code == 0 and "mAP on valid" in outcome.output, outcome.output


@pytest.mark.published
def test_trackers_and_a_saved_learner_have_several_labels(squares: Path, fastcls: Fastcls) -> None:
    outcome = trained(squares, "tracked", "--epochs", "1", "--track", "csv,tensorboard")
    assert outcome.code == 0 and "failed" not in outcome.output, outcome.output
    from fastcls import recipe, save

    learn = recipe(str(squares.parent / "squares.py")).get_learner(path=str(squares))
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    saved = save(learn, "saved", quiet=True)
    assert "f1:red" in saved.metrics.reset_index().astype(str).to_string()


def test_suggestions_have_no_probe_of_several_labels(squares: Path, fastcls: Fastcls) -> None:
    outcome = fastcls("models", "--suggest", squares, "--labels", "labels.csv", "--probe", "resnet18")
    assert outcome.code == 2 and "needs one class per image" in outcome.output, outcome.output


# ------------------------------------------------------------------ other blocks


@pytest.mark.parametrize(
    "block", ["RegressionBlock", "MaskBlock", "PointBlock", "BBoxBlock", "BBoxLblBlock", "ImageBlock"]
)
def test_other_targets_are_refused_by_name(squares: Path, fastcls: Fastcls, block: str) -> None:
    text = RECIPE.replace("data.label_block(table)", block)
    Path("other.py").write_text(text)
    outcome = fastcls("recipe", "./other.py", "--path", squares)
    assert outcome.code == 2 and f"{block} as its target" in outcome.output, outcome.output
    assert "MultiCategoryBlock" in outcome.output and not Path("runs").exists()
