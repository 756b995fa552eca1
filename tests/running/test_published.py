"""The recipes of the published projects on their real images: a few a class, one epoch, the whole way to the report."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Fastcls, Outcome, command
from folders import csv_rows

pytestmark = [
    pytest.mark.published,
    pytest.mark.usefixtures("pageless", "brief_probe"),
]  # of whose pages test_report.py has more
SHORT = ["--epochs", 1, "--limit", 12, "--bs", 40]


def trained(outcome: Outcome, run: Path | str, classes: int, exported: bool = True) -> dict[str, Any]:
    """The run's record, after a look at what every run must have."""
    assert outcome.code == 0, outcome.output
    record = json.loads(Path(run, "run.json").read_text())
    metrics = json.loads(Path(run, "metrics.json").read_text())
    assert record["status"] == "done" and record["data"]["classes"] == classes
    assert set(record["data"]["images"]) == {"train", *metrics} == {"train", "valid", "test"}
    assert record["onnx_difference"] < 1e-3 if exported else record["onnx_difference"] is None
    return record


@pytest.mark.parametrize(
    "knobs",
    [
        "--act gelu --norm group --filters 16,32,32 --kernel 5 --opt sgd --lr 0.1 --schedule step",
        "--act silu --norm evonorm-b0 --opt adam --schedule flat-cos --dropout 0",
    ],
)
def test_the_three_layer_cnn_with_every_knob(fastcls: Fastcls, cifar10: Path, knobs: str) -> None:
    trained(fastcls("recipe", "cifar10-cnn", "--path", cifar10, *SHORT, *knobs.split(), "--out", "run"), "run", 10)


@pytest.mark.parametrize("mix", ["--mixup 0.4 --cutout 0.25 --rotate 15", "--cutmix 1 --schedule step"])
def test_the_five_layer_cnn_with_its_augmentations(fastcls: Fastcls, cifar10: Path, mix: str) -> None:
    trained(fastcls("recipe", "cifar10-cnn5", "--path", cifar10, *SHORT, *mix.split(), "--out", "run"), "run", 10)


IMPROVED = "--filters 16,32 --convs 2 --kernel 3 --padding same --norm batch --normalize --flip 0.5 --pad 4"


@pytest.mark.parametrize("knobs", ["", IMPROVED + " --dropout 0.3 --hidden 64,64 --smoothing 0.1"])
def test_the_baseline_on_cifar_100_and_what_improves_it(fastcls: Fastcls, cifar100: Path, knobs: str) -> None:
    words = ["--epochs", 1, "--limit", 6, *knobs.split()]
    record = trained(fastcls("recipe", "cifar100-basenet", "--path", cifar100, *words, "--out", "run"), "run", 100)
    if not knobs:  # conv 3·6·25 + 6, conv 6·16·25 + 16, linear 400·200 + 200, linear 200·100 + 100
        assert record["network"]["parameters"] == 456 + 2416 + 80200 + 20100


def mode(run: Path | str) -> str:
    model = json.loads(Path(run, "model.json").read_text())
    assert "tench" in model["classes"]
    return model["preprocessing"]["mode"]


@pytest.mark.parametrize(
    ("recipe", "channels"), [("imagenette-cnn", "gray"), ("imagenette-cnn", "rgb"), ("imagenette-resnet18", "gray")]
)
def test_imagenette_in_gray_and_in_colours(
    fastcls: Fastcls, imagenette: Path, imagenette_run: Path, recipe: str, channels: str
) -> None:
    words = ["--path", imagenette, *SHORT, "--channels", channels]
    trained(fastcls("recipe", recipe, *words, "--out", "run"), "run", 10)
    assert mode("run") == {"gray": "L", "rgb": "RGB"}[channels] and mode(imagenette_run) == "RGB"


def test_a_network_is_tested_on_larger_images_than_it_began_on(fastcls: Fastcls, imagenette: Path) -> None:
    words = ["--path", imagenette, "--arch", "xresnet18", "--size", 64, "--epochs", 2, "--limit", 12]
    sizes = ["--grow-from", 32, "--valid-size", 80]
    trained(fastcls("recipe", "imagenette-xresnet50", *words, *sizes, "--out", "run"), "run", 10)
    assert json.loads(Path("run/model.json").read_text())["preprocessing"]["size"] == [80, 80]


@pytest.fixture(scope="module")
def imagenette_run(tmp_path_factory: pytest.TempPathFactory, imagenette: Path) -> Path:
    run = tmp_path_factory.mktemp("runs") / "imagenette"
    trained(command("recipe", "imagenette-resnet18", "--path", imagenette, *SHORT, "--out", run), run, 10)
    return run


@pytest.mark.usefixtures("unreported")
def test_the_transfer_is_one_comparison(fastcls: Fastcls, cifar10: Path, imagenette_run: Path) -> None:
    words = ["--vary", f"weights=none,{imagenette_run}", "--path", cifar10, *SHORT, "--size", 32, "--out", "transfer"]
    outcome = fastcls("compare", "cifar10-resnet18", *words)
    assert outcome.code == 0, outcome.output
    rows = {row["weights"]: row for row in csv_rows("transfer/results.csv")}
    assert set(rows) == {"none", str(imagenette_run)}
    histories = {name: Path("transfer", row["folder"], "history.csv").read_text() for name, row in rows.items()}
    assert "linear probe" in histories[str(imagenette_run)] and "linear probe" not in histories["none"]


@pytest.mark.usefixtures("unreported")
@pytest.mark.parametrize(("unfreeze", "phase"), [("layer4", "last 2 of"), ("head", "head only")])
def test_late_stages_alone(fastcls: Fastcls, cifar10: Path, imagenette_run: Path, unfreeze: str, phase: str) -> None:
    words = ["--path", cifar10, *SHORT, "--size", 32, "--weights", imagenette_run, "--unfreeze", unfreeze]
    outcome = fastcls("recipe", "cifar10-resnet18", *words, "--out", "run")
    record = trained(outcome, "run", 10, exported=False)
    assert phase in Path("run/history.csv").read_text()
    trained_share = record["network"]["trained_parameters"] / record["network"]["parameters"]
    assert {"layer4": 0.7 < trained_share < 0.85, "head": trained_share < 0.1}[unfreeze]


@pytest.mark.usefixtures("unreported")
def test_full_against_head_in_one_line(fastcls: Fastcls, pets: Path, imagenette_run: Path) -> None:
    small = ["--arch", "resnet18", "--size", 64, "--limit", 3, "--epochs", 1, "--bs", 16]
    words = ["--path", pets, *small, "--weights", imagenette_run, "--vary", "tune=full,head", "--out", "tune"]
    outcome = fastcls("compare", "pets-resnet50", *words)
    assert outcome.code == 0, outcome.output
    full, head = sorted(csv_rows("tune/results.csv"), key=lambda row: row["tune"])
    assert int(full["trained_parameters"]) == int(full["parameters"]) > 10 * int(head["trained_parameters"])
    for row in (full, head):
        assert all(float(row[cost]) > 0 for cost in ("train_seconds", "images_per_second", "peak_memory_bytes"))


def test_other_late_architectures_take_part(fastcls: Fastcls, cifar10: Path) -> None:
    words = ["--path", cifar10, *SHORT[:3], 4, "--size", 32, "--weights", "none", "--arch", "squeezenet1_1", "--bs", 20]
    trained(fastcls("recipe", "cifar10-resnet18", *words, "--out", "run"), "run", 10)


@pytest.fixture(scope="session")
def planet(imagenette: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Planet in small, as it is published: mosaics of real photographs, tagged with all their classes."""
    from benchmarks import mosaics

    root = tmp_path_factory.mktemp("planet")
    table = mosaics.make(imagenette, root / "train-jpg", train=90, valid=0)
    rows = [(Path(row["file"]).stem, row["labels"]) for row in csv_rows(table)]
    table.unlink()
    tags = [(name, " ".join(label.replace(" ", "_") for label in labels.split(";"))) for name, labels in rows]
    with (root / "train_v2.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image_name", "tags"), *tags])
    return root


def test_planet_with_several_labels_an_image(fastcls: Fastcls, planet: Path) -> None:
    small = ["--arch", "timm/test_convnext", "--weights", "none", "--size", 64, "--epochs", 1]
    outcome = fastcls("recipe", "planet-resnet50", "--path", planet, *small, "--out", "run")
    assert outcome.code == 0, outcome.output
    record, model = (json.loads(Path("run", name).read_text()) for name in ("run.json", "model.json"))
    assert record["data"]["target"] == "multi-label" and record["data"]["classes"] == 10
    assert record["data"]["images"]["valid"] == pytest.approx(18, abs=3) and "golf_ball" in model["classes"]
    assert {"fbeta_score", "mAP"} <= set(csv_rows("run/history.csv")[0])
    words = ["--id-column", "image_name", "--label-column", "tags", "-o", "submission.csv"]
    assert fastcls("predict", "run", planet / "train-jpg", *words).code == 0
    assert Path("submission.csv").read_text().startswith("image_name,tags\n")


def test_flowers_by_the_official_split(fastcls: Fastcls, flowers: Path) -> None:
    small = ["--arch", "timm/test_convnext", "--weights", "none", "--size", 64, "--epochs", 1]
    record = trained(fastcls("recipe", "flowers-convnext", "--path", flowers, *small, "--out", "run"), "run", 5)
    assert record["data"]["images"] == {"train": 10, "valid": 5, "test": 5}
    assert "pink primrose" in json.loads(Path("run/model.json").read_text())["classes"]
