"""The recipes on real photographs, where they are: Oxford-IIIT Pet both ways, and a folder of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Fastcls
from folders import csv_rows

ARCH = ["--arch", "timm/test_resnet"]
SMALL = [*ARCH, "--weights", "none", "--size", "64", "--bs", "16", "--limit", "3", "--epochs", "1"]


@pytest.mark.published
@pytest.mark.usefixtures("pageless", "brief_probe")
@pytest.mark.parametrize("tune", ["full", "head"])
def test_pets_train_both_ways(fastcls: Fastcls, pets: Path, tune: str) -> None:
    outcome = fastcls("recipe", "pets-resnet50", "--path", pets, *SMALL, "--tune", tune, "--out", "run")
    assert outcome.code == 0, outcome.output
    phases = [row["phase"] for row in csv_rows("run/history.csv")]
    assert phases == (
        ["whole network"] if tune == "full" else ["linear probe", "head only"]
    )  # random weights hold nothing to keep
    model = json.loads(Path("run/model.json").read_text())
    assert len(model["classes"]) == 37 and "Abyssinian" in model["classes"] and "yorkshire_terrier" in model["classes"]
    assert (model["trainable"] < model["parameters"] / 10) == (tune == "head")
    record = json.loads(Path("run/run.json").read_text())
    assert record["data"]["images"] == {"train": 111, "valid": 74}
    assert record["onnx_difference"] < 1e-3
    answer = fastcls("predict", "run", pets / "oxford-iiit-pet" / "images", "-o", "all.csv")
    assert answer.code == 0 and len(Path("all.csv").read_text().splitlines()) == 371


@pytest.mark.published
@pytest.mark.usefixtures("unreported", "brief_probe")
def test_the_official_split_of_the_pets(fastcls: Fastcls, pets: Path, tmp_path: Path) -> None:
    """Lists made here, as they are published, without one image; the sample comes without any."""
    root = tmp_path / "oxford-iiit-pet"
    root.mkdir()
    (root / "images").symlink_to(pets / "oxford-iiit-pet" / "images")
    words = ["recipe", "pets-resnet50", "--path", root, *SMALL, "--tune", "head", "--split", "official", "--out", "run"]
    outcome = fastcls(*words)
    assert outcome.code == 3 and "annotations" in outcome.output and "--split random" in outcome.output
    names = sorted(file.stem for file in (root / "images").glob("*.jpg"))
    (root / "annotations").mkdir()
    for list_, part in {"trainval.txt": names[1::2], "test.txt": names[2::2]}.items():
        lines = [f"{name} 1 1 1" for name in part]
        (root / "annotations" / list_).write_text("\n".join(["#Image CLASS-ID SPECIES BREED ID", *lines, ""]))
    outcome = fastcls(*words)
    assert outcome.code == 0 and "neither list of the official split, left out: 1." in outcome.output, outcome.output
    rows = csv_rows("run/splits.csv")
    tested = {Path(row["path"]).stem for row in rows if row["split"] == "test"}
    assert len(tested) == 37 * 3 and tested <= set(names[2::2])
    assert {Path(row["path"]).stem for row in rows if row["split"] != "test"} <= set(names[1::2])
    assert json.loads(Path("run/metrics.json").read_text())["test"]["n"] == len(tested)


@pytest.mark.published
@pytest.mark.usefixtures("unreported", "brief_probe")
def test_a_run_starts_from_the_weights_of_another(fastcls: Fastcls, pets: Path) -> None:
    first = fastcls("recipe", "pets-resnet50", "--path", pets, *SMALL, "--tune", "head", "--out", "first")
    assert first.code == 0, first.output
    words = [*SMALL[:2], "--weights", "first", *SMALL[4:], "--tune", "head", "--out", "second"]
    second = fastcls("recipe", "pets-resnet50", "--path", pets, *words)
    assert second.code == 0 and "the head is new" in second.output
    third = fastcls("recipe", "pets-resnet50", "--path", pets, *words[:-4], "--out", "third")
    phases = [row["phase"] for row in csv_rows("third/history.csv")]
    assert third.code == 0 and phases == ["linear probe", "whole network"]


@pytest.mark.usefixtures("unexported")
@pytest.mark.parametrize(
    "layout",
    [
        "class folders",
        *(pytest.param(name, marks=pytest.mark.published) for name in ("table", "split folders", "names")),
    ],
)
def test_ones_own_photographs_in_any_layout(
    fastcls: Fastcls, pets: Path, layout: str, request: pytest.FixtureRequest
) -> None:
    if layout != "class folders":
        request.getfixturevalue("pageless")
    images = sorted((pets / "oxford-iiit-pet" / "images").glob("*.jpg"))
    breeds = {"Abyssinian", "beagle", "pug"}
    chosen = [(file, file.stem.rpartition("_")[0]) for file in images if file.stem.rpartition("_")[0] in breeds]
    words: list[object] = ["--path", "photos"]
    for index, (file, breed) in enumerate(chosen):
        folder = {"class folders": breed, "split folders": f"{('train', 'val')[index % 5 == 0]}/{breed}"}.get(
            layout, ""
        )
        target = Path("photos", folder, file.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(file)
    if layout == "names":
        words += ["--label-regex", r"^(.+)_\d+\.jpg$"]
    if layout == "table":
        Path("labels.csv").write_text("image,breed\n" + "".join(f"{file.name},{breed}\n" for file, breed in chosen))
        words += ["--labels", "labels.csv"]
    outcome = fastcls("recipe", "folder", *words, *SMALL, "--jitter", "0.3", "--erase", "0.3", "--translate", "0.1",
                      "--loss", "focal", "--opt", "ranger", "--class-weights", "--no-flip", "--out", "run")  # fmt: skip
    assert outcome.code == 0, outcome.output
    model = json.loads(Path("run/model.json").read_text())
    assert model["classes"] == sorted(breeds, key=lambda name: name)
    page = Path("run/report.html").read_text()
    assert layout != "class folders" or ("Abyssinian" in page and "data:image" in page)
