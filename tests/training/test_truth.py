"""What a report says of a network whose faults are known: planted labels, a known place to look, known confidences."""

from __future__ import annotations

import base64
import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import command, python
from folders import csv_rows
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score
from torch import nn

from fastcls.evaluation import calibration, gradcam
from fastcls.runfolder.target import SINGLE

RECIPE = '''"""Digits in train/ and valid/."""
from fastai.vision.all import *
from fastcls import data, models

def get_learner(path: str = ''):
    block = DataBlock(blocks=(ImageBlock(PILImageBW), CategoryBlock), get_items=get_image_files,
                      get_y=parent_label, splitter=GrandparentSplitter())
    dls = data.loaders(block, path, bs=64)
    return models.learner(dls, models.cnn(1, dls.c, (32, 64), convs=2), stats=((0.305,), (0.377,)),
                          metrics=accuracy)

def fit(learn, epochs: int = 8):
    learn.fit_one_cycle(epochs, 1e-2)
'''
WRONG = 20


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory, unexported_module: None) -> tuple[Path, dict[str, str]]:
    """A run on digits of which 20 validation images is in a wrong class's folder, and those images' true classes."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "recipe.py").write_text(RECIPE)
    rng = random.Random(0)
    images, classes = load_digits(return_X_y=True)
    wrong = set(rng.sample([i for i in range(len(classes)) if i % 5 == 0], WRONG))
    truth = {}
    for i, (pixels, klass) in enumerate(zip(images, classes, strict=True)):
        label = rng.choice([k for k in range(10) if k != klass]) if i in wrong else klass
        file = folder / "digits" / ("valid" if i % 5 == 0 else "train") / str(label) / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels.reshape(8, 8) * 15.9).astype(np.uint8)).save(file)
        if i in wrong:
            truth[file.relative_to(folder / "digits").as_posix()] = str(klass)
    outcome = command("recipe", folder / "recipe.py", "--path", folder / "digits", "--out", folder / "run")
    assert outcome.code == 0, outcome.output
    return folder / "run", truth


def test_planted_wrong_labels_head_the_suspects(planted: tuple[Path, dict[str, str]]) -> None:
    """Confident learning lists those that the network is surer of than of its class on average: not every one.

    22 trainings, of 11 seeds in fp32 and in bf16, listed 19 or 20 of the 20 (docs/log.md).
    """
    run, truth = planted
    suspects = csv_rows(run / "suspects.csv")
    found = {row["path"]: row["looks_like"] for row in suspects}
    right = [path for path, klass in truth.items() if found.get(path) == klass]
    predicted = {row["path"]: row["prediction"] for row in csv_rows(run / "predictions.csv")}
    assert sum(predicted[path] == klass for path, klass in truth.items()) >= 19, "of 20, the class that they are"
    assert len(right) >= 18, "of 20, with the class that they are"
    assert len(suspects) - len(right) <= 3
    assert sum(row["path"] in truth for row in suspects[:WRONG]) >= 17
    wrong = [float(row["probability_wrong"]) for row in suspects]
    assert wrong == sorted(wrong, reverse=True) and abs(sum(wrong) - len(right)) < 4
    assert f"{len(suspects)} of 360 labels are in doubt" in (run / "report.html").read_text()


def test_calibrated_confidence_is_the_softened_one(planted: tuple[Path, dict[str, str]]) -> None:
    run, _ = planted
    rows = csv_rows(run / "predictions.csv")
    temperature = json.loads((run / "model.json").read_text())["temperature"]
    figures = json.loads((run / "metrics.json").read_text())["valid"]
    p = np.array([[float(row[f"p:{k}"]) for k in range(10)] for row in rows])
    softened = p ** (1 / temperature)
    softened /= softened.sum(1, keepdims=True)
    labels = np.array([int(row["label"]) for row in rows])
    np.testing.assert_allclose([float(row["calibrated"]) for row in rows], softened.max(1), atol=1e-4)
    loss = -np.log(np.clip(softened[np.arange(len(rows)), labels], calibration.SMALLEST, None)).mean()
    assert figures["loss_calibrated"]["value"] == pytest.approx(loss, rel=0.01)
    assert figures["loss_calibrated"]["value"] < figures["loss"]["value"] - 0.01, "20 labels it cannot know of"
    assert temperature > 1.05
    brier = np.square(p / p.sum(1, keepdims=True) - np.eye(10)[labels]).sum(1).mean()  # of several classes, Brier 1950
    assert figures["brier"]["value"] == pytest.approx(brier, abs=1e-4)
    text = (run / "report.html").read_text()
    assert f"T = {temperature:.2f}" in text and f"{figures['brier_calibrated']['value']:.4f}" in text
    assert "Only a test split can show" in text


def test_average_precision_is_scikit_learns(planted: tuple[Path, dict[str, str]]) -> None:
    run, _ = planted
    rows = csv_rows(run / "predictions.csv")
    page = (run / "report.html").read_text()
    for k in "038":
        expected = average_precision_score([row["label"] == k for row in rows], [float(row[f"p:{k}"]) for row in rows])
        assert f'data-value="{expected:.6f}"' in page


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_temperature_is_found_again(temperature: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 5))
    p = SINGLE.softened(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), 1.0)
    labels = np.array([rng.choice(5, p=row) for row in p])
    believed = SINGLE.softened(p, 1 / temperature)  # what a network says that is so much too sure of itself
    assert calibration.fit_temperature(believed, labels) == pytest.approx(temperature, rel=0.05)
    right = p.argmax(1) == labels
    assert calibration.calibration_error(p.max(1), right) < 0.02
    if temperature != 1:
        assert calibration.calibration_error(believed.max(1), right) > 0.05
    threshold, answered = calibration.threshold_for(0.9, p.max(1), right) or (0.0, 0.0)
    above = p.max(1) >= threshold
    assert right[above].mean() >= 0.9 and above.mean() == pytest.approx(answered) and 0.1 < answered < 1


@pytest.mark.parametrize("accuracy", [0.7, 0.95, 0.99])
def test_so_many_images_that_are_all_right_are_the_least_that_promise_an_accuracy(accuracy: float) -> None:
    least = calibration.fewest(accuracy)
    found = [calibration.threshold_for(accuracy, np.linspace(1, 0.5, n), np.ones(n, bool)) for n in (least - 1, least)]
    assert found[0] is None and found[1] == (0.5, 1.0)


def test_the_network_is_shown_to_look_where_the_answer_is() -> None:
    torch.manual_seed(0)
    side, square = 32, 8
    images = torch.rand(320, 3, side, side) * 0.5
    labels = torch.arange(320) % 2
    at = torch.randint(0, side // square, (320, 2)) * square
    for image, label, (y, x) in zip(images, labels, at.tolist(), strict=True):
        image[:, y : y + square, x : x + square] = torch.tensor([1.0, 0, 0] if label else [0, 0, 1.0])[:, None, None]
    layers = [nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2))
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        loss = nn.functional.cross_entropy(net(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert (net(images).argmax(1) == labels).float().mean() > 0.97
    maps = gradcam.heatmaps(net.eval(), images, labels.tolist())
    assert maps is not None and maps.shape == (320, 8, 8) and maps.min() >= 0 and maps.max() <= 1
    hottest = torch.stack([m.flatten().argmax() for m in maps])
    cell = side // maps.shape[1]
    near = [
        y - cell <= h // 8 * cell < y + square + cell and x - cell <= h % 8 * cell < x + square + cell
        for h, (y, x) in zip(hottest.tolist(), at.tolist(), strict=True)
    ]
    assert sum(near) >= 0.9 * len(near)


def test_a_network_of_several_views_is_shown_its_first() -> None:
    class TwoViews(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU()), nn.Linear(4, 2)

        def look(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.body(x).amax((2, 3)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.look(x) + self.look(x.flip(-1))

    images = torch.zeros(1, 1, 16, 16)
    images[:, :, 4:8, :6] = 1
    net = TwoViews()
    for layer in (net.body[0], net.head):
        nn.init.ones_(layer.weight)
        nn.init.zeros_(layer.bias)
    maps = gradcam.heatmaps(net, images, [0])
    assert maps is not None and maps.shape == (1, 8, 8)
    assert maps[0, :, :4].sum() > 0 == maps[0, :, 4:].sum(), "on the left, where the square is, not mirrored"


def test_heat_maps_are_of_the_images_that_are_shown(planted: tuple[Path, dict[str, str]]) -> None:
    run, truth = planted
    maps = json.loads((run / "heatmaps.json").read_text())["valid"]
    hardest = max(csv_rows(run / "predictions.csv"), key=lambda row: float(row["loss"]))
    assert hardest["path"] in truth and hardest["path"] in maps
    for held in maps.values():
        height, width = held["shape"]
        assert len(base64.b64decode(held["values"])) == height * width


def test_the_gallery_answers(planted: tuple[Path, dict[str, str]], browser: Any) -> None:
    run, _ = planted
    browser.get((run / "report.html").as_uri())
    script = browser.execute_script
    script("document.documentElement.style.scrollBehavior = 'auto'")
    shown = "[...document.querySelectorAll('#gallery > li')].filter(li => li.offsetParent !== null)"
    pairs = f"return {shown}.map(li => [li.dataset.label, li.dataset.prediction])"

    def choose(field: str, value: str) -> list[list[str]]:
        browser.find_element("css selector", f"#{field} option[value='{value}']").click()
        found: list[list[str]] = script(pairs)
        assert browser.find_element("id", "gallery-count").text.split()[0] == str(len(found))
        return found

    assert len(script(pairs)) == 24
    confident, unsure = (choose("gallery-kind", kind) for kind in ("confident", "unsure"))
    assert confident and all(label != prediction for label, prediction in confident)
    assert unsure and all(label == prediction for label, prediction in unsure)
    mistakes = choose("gallery-kind", "mistakes")
    assert len(mistakes) >= 18
    klass = mistakes[0][0]
    assert choose("gallery-class", klass) == [pair for pair in mistakes if klass in pair]

    cell = browser.find_element("css selector", ".cell[role=button]:not([data-label='']) ")
    label, prediction = cell.get_attribute("data-label"), cell.get_attribute("data-prediction")
    script("arguments[0].dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', bubbles: true}))", cell)
    assert script(pairs) and all(pair == [label, prediction] for pair in script(pairs))
    chip = browser.switch_to.active_element
    assert chip.get_attribute("id") == "gallery-pair"
    chip.click()
    assert len(script(pairs)) == len([pair for pair in mistakes if klass in pair])
    wrong = next(c for c in browser.find_elements("css selector", ".cell[role=button]")
                 if c.get_attribute("data-label") != c.get_attribute("data-prediction"))  # fmt: skip
    script("arguments[0].scrollIntoView({block: 'center'})", wrong)
    wrong.click()
    assert (
        script(pairs)
        and all(a != b for a, b in script(pairs))
        and browser.find_element("id", "gallery-pair").is_displayed()
    )
    browser.find_element("id", "gallery-pair").click()

    choose("gallery-class", "")
    choose("gallery-kind", "losses")
    visible = "checkVisibility({opacityProperty: true, visibilityProperty: true})"
    heat = f"return [...document.querySelectorAll('#gallery .heat')].filter(i => i.{visible}).length"
    assert script(heat) == 0
    browser.find_element("id", "heat").click()
    assert script(heat) == 24
    browser.find_element("id", "heat").click()
    assert script(heat) == 0

    pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert pdf.startswith(b"%PDF") and len(pdf) > 100_000
    assert browser.get_log("browser") == []


@pytest.mark.slow
def test_ten_thousand_classes_fit_into_a_page(tmp_path: Path) -> None:
    """100,000 images: under 10 MB of HTML, and under 2 GB of memory, which only a process of its own can show."""

    from fabricated import large_run

    run = large_run(tmp_path / "run", 10_000, 100_000)
    code = "import resource, sys; from pathlib import Path; from fastcls.reports.build import write"
    code += "; write(Path(sys.argv[1])); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    assert int(python("-c", code, run).stdout) < 2_000_000, "kilobytes"
    assert (run / "report.html").stat().st_size < 10_000_000


def test_a_cell_says_how_many_of_its_images_are_shown(
    planted: tuple[Path, dict[str, str]], browser: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(planted[0], run)
    count = "return [...document.querySelectorAll('.cell[data-label]')].map(c => Number(c.dataset.count))"
    assert command("report", run, "--pictures", "all").code == 0
    for shown, all_shown in ((planted[0], False), (run, True)):
        browser.get((shown / "report.html").as_uri())
        counts = browser.execute_script(count)
        most = counts.index(max(counts))
        browser.execute_script(
            f"document.querySelectorAll('.cell[data-label]')[{most}].dispatchEvent(new MouseEvent('click'))"
        )
        text = browser.find_element("id", "gallery-count").text
        assert (text == f"{max(counts)} pictures") == all_shown, text
        assert all_shown or text.endswith(f" of {max(counts)} pictures"), text
    assert command("report", run, "--pictures", "many").code == 2
