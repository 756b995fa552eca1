"""Predictions from a run folder: the Learner's own, without torch, for every image that was named."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Outcome, command
from fastai.vision.all import (
    CategoryBlock,
    DataBlock,
    DisplayedTransform,
    ImageBlock,
    RandomResizedCrop,
    Resize,
    TensorImage,
    get_image_files,
)
from fastai.vision.all import parent_label as label
from fastai.vision.core import PILImageBW
from PIL import Image

from fastcls import data, models, preprocessing, runs, transforms
from fastcls.describe import describe_preprocessing

Fastcls = Callable[..., Outcome]


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def digits(run: Path) -> Path:
    return Path(json.loads((run / "run.json").read_text())["data"]["root"])


def test_predictions_are_the_learners_own(fastcls: Fastcls, digits_run: Path) -> None:
    """The probabilities of predictions.csv, which the Learner gave, come back from the exported network."""
    kept = {row["path"]: row for row in csv.DictReader((digits_run / "predictions.csv").open())}
    files = [digits(digits_run) / path for path in kept]
    assert fastcls("predict", digits_run, *files, "-o", "out.csv", "--probabilities").code == 0
    answers = rows(Path("out.csv").read_text())
    assert [Path(answer["path"]) for answer in answers] == files
    for answer, row in zip(answers, kept.values(), strict=True):
        assert answer["prediction"] == row["prediction"] and answer["error"] == ""
        for name in range(10):
            assert float(answer[f"p:{name}"]) == pytest.approx(float(row[f"p:{name}"]), abs=1e-4)


def test_a_folder_a_recipe_name_and_standard_output(fastcls: Fastcls, digits_run: Path) -> None:
    folder = digits(digits_run) / "7"
    outcome = command("predict", digits_run, folder)
    answers = rows(outcome.output)
    assert len(answers) == len(list(folder.glob("*.png"))) and outcome.code == 0
    Path("runs/digits-cnn").mkdir(parents=True)
    Path("runs/digits-cnn/20990101-000000-aaaa").symlink_to(digits_run)
    listed = "".join(f"{file}\n" for file in sorted(folder.glob("*.png"))[:3])
    assert rows(command("predict", "digits-cnn", folder).output) == answers
    assert rows(command("predict", "last", "-", stdin=listed).output) == answers[:3]


def test_predict_imports_neither_torch_nor_fastai(digits_run: Path) -> None:
    image = next((digits(digits_run) / "3").glob("*.png"))
    program = (
        "import sys\nfrom fastcls.cli import app\n"
        f"try: app(['predict', {str(digits_run)!r}, {str(image)!r}], prog_name='fastcls')\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'fastai', 'timm', 'pickle5'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert rows(done.stdout)[0]["prediction"] in map(str, range(10))


def test_a_damaged_model_file_is_refused(fastcls: Fastcls, digits_run: Path) -> None:
    import shutil

    shutil.copytree(digits_run, "broken")
    Path("broken/model.onnx").write_bytes(b"not a model")
    image = next((digits(digits_run) / "3").glob("*.png"))
    outcome = fastcls("predict", "broken", image)
    assert outcome.code == 4 and "not a readable ONNX model" in outcome.output
    Path("broken/model.json").write_text("{")
    outcome = fastcls("predict", "broken", image)
    assert outcome.code == 4 and "model.json cannot be read" in outcome.output


TRANSFORMS = {
    "crop": transforms.resize(48),
    "squish": transforms.resize(48, method="squish"),
    "pad by reflection": transforms.resize(48, method="pad"),
    "pad with zeros": Resize(48, method="pad", pad_mode="zeros"),
    "pad with the border": Resize(48, method="pad", pad_mode="border"),
    "random resized crop": RandomResizedCrop(48, min_scale=0.4),
    "not square": Resize((40, 56)),
}


@pytest.mark.parametrize("gray", [False, True], ids=["rgb", "gray"])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_preprocessing_without_torch_is_fastais(tmp_path: Path, name: str, gray: bool) -> None:
    rng = np.random.default_rng(0)
    for klass in "ab":
        (tmp_path / klass).mkdir()
        for i, shape in enumerate([(60, 90, 3), (91, 57, 3), (48, 48, 3), (30, 200, 3)]):
            Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)).save(tmp_path / klass / f"{i}.png")
    block = DataBlock(
        blocks=(ImageBlock(PILImageBW) if gray else ImageBlock, CategoryBlock),
        get_items=get_image_files,
        get_y=label,
        splitter=data.stratified(label, 0.5),
        item_tfms=TRANSFORMS[name],
        batch_tfms=transforms.augment(gray=gray, translate=0.1, erase=0.2, warp=0.1),
    )
    dls = data.loaders(block, tmp_path, bs=2)
    models.normalize(dls, models.imagenet_stats)
    spec = json.loads(json.dumps(describe_preprocessing(dls)))
    files = list(dls.valid_ds.items)
    ours = np.stack([preprocessing.load(file, spec) for file in files])
    (theirs,) = dls.test_dl(files, bs=len(files)).one_batch()
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)


class Invert(DisplayedTransform):
    def encodes(self, x: TensorImage):
        return 1 - x


def test_transforms_that_cannot_be_described_are_named(tmp_path: Path, digits_run: Path) -> None:
    block = DataBlock(blocks=(ImageBlock, CategoryBlock), get_items=get_image_files, get_y=label, batch_tfms=[Invert()])
    dls = data.loaders(block, digits(digits_run))
    with pytest.raises(ValueError, match="Invert"):
        describe_preprocessing(dls)


def test_run_json_from_a_newer_fastcls_is_refused(tmp_path: Path) -> None:
    from fastcls.errors import OutputError

    runs.write_json(tmp_path / "run.json", {"format": 99})
    with pytest.raises(OutputError, match="newer fastcls"):
        runs.read_json(tmp_path / "run.json")
