"""Learners as fastai's users have them: their predictions are those of `fastcls predict`, and any becomes a run."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import command
from materials import picture
from PIL import Image
from torch import nn

import fastcls
from fastcls import Run, recipe
from fastcls.data.describe import describe_preprocessing
from fastcls.errors import DataError, Diverged, FastclsError, OutputError, UsageError
from fastcls.inference import export
from fastcls.inference.predictor import Predictor
from fastcls.running.loading import import_fastai

import_fastai()
from fastai.vision import all as fv  # noqa: E402
from fastai.vision.all import DataBlock, ImageBlock, ImageDataLoaders, Learner, Resize, TransformBlock, accuracy  # noqa: E402

CLASSES = ("church", "horn", "pump")
WRITTEN = "check.json heatmaps.json history.csv log.txt metrics.json model.json model.onnx model.safetensors "
WRITTEN += "predictions.csv report.html run.json splits.csv suspects.csv figures"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for hue, name in enumerate(CLASSES):
        for number in range(10):
            picture(folder / name / f"{name}_{number}.jpg", hue, rng, side=40)
    return folder


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files whose pixels can be read in more than one way."""
    folder = tmp_path_factory.mktemp("odd")
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 255, (30, 50, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    files = {name: folder / name for name in ("turned.jpg", "gray.jpg", "clear.png", "deep.png", "palette.gif")}
    Image.fromarray(pixels[..., :3]).save(files["turned.jpg"], exif=exif)
    Image.fromarray(pixels[..., 0]).save(files["gray.jpg"])
    Image.fromarray(pixels).save(files["clear.png"])
    Image.fromarray(rng.integers(0, 65535, (30, 50), dtype=np.uint16)).save(files["deep.png"])
    Image.fromarray(pixels[..., :3]).convert("P").save(files["palette.gif"])
    return files


def net(channels: int = 3, out: int = len(CLASSES)) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(channels, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(8, out))


def stock(photos: Path, *item_tfms: Any, **kwargs: Any) -> Learner:
    """A Learner on loaders of fastai's own, a fifth held out."""
    tfms = list(item_tfms) or [Resize(32)]
    dls = ImageDataLoaders.from_folder(photos, valid_pct=0.3, seed=1, item_tfms=tfms, bs=8, num_workers=0)
    return quiet(Learner(dls, net(), metrics=accuracy, **kwargs))


def quiet(learn: Learner) -> Learner:
    learn.remove_cbs(learn.cbs.filter(lambda callback: isinstance(callback, fv.ProgressCallback)))
    learn.logger = fv.noop
    return learn


@pytest.fixture(scope="module")
def saved(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Learner, Run]:
    """fastai's tutorial, and what is left of it."""
    learn = stock(photos)
    learn.arch_name = "a small network"
    learn.fit_one_cycle(2, 1e-3)
    before = learn.recorder.values, list(learn.recorder.lrs), random.getstate(), torch.get_rng_state()
    run = fastcls.save(learn, tmp_path_factory.mktemp("saved") / "run", quiet=True)
    assert (learn.recorder.values, list(learn.recorder.lrs), random.getstate()) == before[:3]
    assert torch.equal(torch.get_rng_state(), before[3]), "training goes on as if nothing had happened"
    return learn, run


# --- a run of any Learner -------------------------------------------------------------------------------------------


def test_a_learner_becomes_a_whole_run(saved: tuple[Learner, Run]) -> None:
    learn, run = saved
    assert sorted(file.name for file in run.path.iterdir()) == sorted(WRITTEN.split())
    assert run.record["status"] == "done" and run.record["recipe"] == "by hand" and "seed" not in run.record
    assert run.record["data"]["images"] == {"train": 21, "valid": 9} and len(run.record["data"]["fingerprint"]) == 64
    last = learn.recorder.values[-1]
    assert run.history[["train_loss", "valid_loss", "accuracy"]].to_numpy()[-1] == pytest.approx(list(last))
    assert run.history["step"].tolist() == [2, 4] and run.history["lr"].iloc[-1] == pytest.approx(
        learn.recorder.lrs[-1]
    )
    assert run.metrics.loc[("valid", "accuracy"), "value"] == pytest.approx(last[2])
    assert set(run.predictions["path"]) == {
        str(f.relative_to(run.record["data"]["root"])) for f in learn.dls.valid.items
    }
    page = run.report.read_text()
    title = f"a small network on {Path(run.record['data']['root']).name}, trained by hand"
    assert title in page and "took" not in page, "nobody knows how long it took"
    assert "accuracy" in (run.path / "log.txt").read_text() and "done" in repr(run)


def test_the_shell_takes_it_for_any_other_run(saved: tuple[Learner, Run], photos: Path, tmp_path: Path) -> None:
    learn, run = saved
    file = photos / "horn" / "horn_0.jpg"
    assert f",{learn.predict(file)[0]}," in command("predict", run.path, file).output
    assert command("report", run.path).code == command("check", run.path, "-o", tmp_path / "check").code == 0
    assert "within" in command("export", run.path, "-o", tmp_path / "export").output
    for words in (["resume"], ["resume", "--trust", "--extend-epochs", 1], ["export", "--torch-export", "--trust"]):
        refused = command(words[0], run.path, *words[1:])
        assert refused.code == 2 and "saved from a Learner and has no recipe" in refused.output, refused.output


@pytest.mark.slow
def test_the_tutorial_of_fastai_becomes_a_run(photos: Path, tmp_path: Path) -> None:
    dls = ImageDataLoaders.from_folder(photos, valid_pct=0.3, seed=1, item_tfms=Resize(64), bs=8, num_workers=0)
    learn = quiet(fv.vision_learner(dls, fv.resnet18, pretrained=False, metrics=accuracy))
    learn.fine_tune(1)
    run = fastcls.save(learn, tmp_path / "run", quiet=True)
    file = photos / "horn" / "horn_0.jpg"
    assert f",{learn.predict(file)[0]}," in command("predict", run.path, file).output
    assert f"resnet18 on {photos.name}, trained by hand" in run.report.read_text()
    weights = command("recipe", "folder", "--path", photos, "--arch", "resnet18", "--weights", run.path, "--dry-run")
    assert weights.code == 0, weights.output


def test_files_are_found_and_what_predict_cannot_repeat_is_said(photos: Path, tmp_path: Path) -> None:
    names = [(f"{file.parent.name}/{file.stem}", file.parent.name) for file in sorted(photos.glob("*/*.jpg"))]
    table = pd.DataFrame(names, columns=["name", "kind"])
    lanczos = Resize(32, resamples=(Image.Resampling.LANCZOS, 0))
    dls = ImageDataLoaders.from_df(table[:-3], photos, suff=".jpg", seed=1, item_tfms=lanczos, bs=8, num_workers=0)
    learn = quiet(Learner(dls, net(), metrics=accuracy))
    learn.dls.test_items = table[-3:].reset_index(drop=True)
    learn.fit(1)
    learn.get_preds()  # which empties fastai's recorder
    run = fastcls.save(learn, tmp_path / "run", quiet=True)
    assert run.predictions.query("split == 'test'")["path"].tolist() == [f"pump/pump_{n}.jpg" for n in (7, 8, 9)]
    notes = " ".join(run.record["notes"])
    assert len(run.history) == 0 and "recorder has no epochs" in notes and "No epoch was" in run.report.read_text()
    assert "no model.onnx: Resize resizes with lanczos, which predict does not" in notes and "--trust" not in notes
    refused = command("predict", run.path, photos)
    assert refused.code == 4 and "no recipe either" in refused.output and not (run.path / "model.onnx").exists()


def test_transforms_of_ones_own_are_not_mistaken_for_known_ones(photos: Path) -> None:
    def darker(image: fv.PILImage) -> fv.PILImage:
        return fv.PILImage.create(np.asarray(image) // 2)

    for kwargs in ({"item_tfms": [Resize(32), darker]}, {"blocks": (TransformBlock([fv.PILImage.create, darker]),)}):
        blocks = (*kwargs.pop("blocks", (ImageBlock,)), fv.CategoryBlock)
        own = DataBlock(
            blocks, get_items=fv.get_image_files, get_y=fv.parent_label, **{"item_tfms": Resize(32), **kwargs}
        )
        with pytest.raises(ValueError, match=r"go through \w+, which predict does not support"):
            describe_preprocessing(own.dataloaders(photos, bs=8, num_workers=0))


def block(photos: Path, y: Any, get_y: Any, out: int, **kwargs: Any) -> Learner:
    blocks = DataBlock((ImageBlock, y), get_items=fv.get_image_files, get_y=get_y, item_tfms=Resize(32), **kwargs)
    return quiet(Learner(blocks.dataloaders(photos, bs=8, num_workers=0), net(out=out), loss_func=nn.MSELoss()))


def unfinished(photos: Path) -> Learner:
    learn = stock(photos)
    with torch.no_grad():
        learn.model[-1].bias.fill_(torch.nan)
    return learn


def without_split(photos: Path) -> Learner:
    return block(photos, fv.CategoryBlock, fv.parent_label, 3, splitter=fv.IndexSplitter([]))


REFUSED: dict[str, tuple[Callable[[Path], Any], type[FastclsError], str]] = {
    "masks": (lambda photos: block(photos, fv.MaskBlock, fv.noop, 3), UsageError, "PILMask, not one class"),
    "numbers": (
        lambda photos: block(photos, fv.RegressionBlock, lambda file: 1.5, 1),
        UsageError,
        "Tensor, not one class",
    ),
    "no split": (without_split, UsageError, "no validation images"),
    "too few logits": (
        lambda photos: block(photos, fv.CategoryBlock, fv.parent_label, 1),
        UsageError,
        r"\(1, 1\) for an image instead of \(1, 3\)",
    ),
    "independent classes": (
        lambda photos: stock(photos, loss_func=fv.BCEWithLogitsLossFlat()),
        UsageError,
        "sum to",
    ),
    "not finite": (unfinished, Diverged, "NaN or infinite"),
    "no Learner": (lambda photos: net(), UsageError, "Sequential is not a fastai Learner"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_report_could_tell_is_refused(photos: Path, tmp_path: Path, case: str) -> None:
    make, kind, what = REFUSED[case]
    learn = make(photos)
    with pytest.raises(kind, match=what) as problem:
        fastcls.save(learn, tmp_path / "run", quiet=True)
    assert "\n" not in problem.value.message and not (tmp_path / "run").exists()


def test_what_is_there_stays_and_what_fails_leaves_nothing(photos: Path, tmp_path: Path) -> None:
    learn = stock(photos)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="notes: this folder is not empty"):
        fastcls.save(learn, tmp_path / "notes", quiet=True)
    assert [file.name for file in (tmp_path / "notes").iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    broken = Path(learn.dls.train.items[0])
    content = broken.read_bytes()
    broken.write_bytes(content[:300])
    try:
        with pytest.raises(DataError, match=broken.name):
            fastcls.save(learn, tmp_path / "empty", quiet=True)
    finally:
        broken.write_bytes(content)
    assert list((tmp_path / "empty").iterdir()) == []


# --- fastai's own steps on the loaders of recipes ---------------------------------------------------------------------


def of_folder(photos: Path) -> Learner:
    learn = recipe("folder").get_learner(path=str(photos), arch="squeezenet1_1", weights="none", size=32, bs=8)
    learn.model, learn.splitter = net(), fv.trainable_params  # whose export takes less time
    return learn


def of_gray_files(photos: Path) -> Learner:
    """As digits-cnn has them: class folders of images with one channel."""
    from fastcls import data, models

    gray = DataBlock(
        (ImageBlock(fv.PILImageBW), fv.CategoryBlock),
        get_items=fv.get_image_files,
        get_y=fv.parent_label,
        splitter=data.stratified(fv.parent_label, 0.3),
        item_tfms=Resize(32),
    )
    return models.learner(data.loaders(gray, photos, bs=8), net(1), stats=((0.3,), (0.4,)), metrics=accuracy)


def of_ones_own(photos: Path) -> Learner:
    """A table whose files are found by a prefix, and padding, which goes item by item."""
    from fastcls import data, models

    names = [f"{file.parent.name}/{file.name}" for file in sorted(photos.glob("*/*.jpg"))]
    table = pd.DataFrame({"name": names, "kind": [name.split("/")[0] for name in names]})
    own = DataBlock(
        (ImageBlock, fv.CategoryBlock),
        get_x=fv.ColReader("name", pref=f"{photos}/"),
        get_y=fv.ColReader("kind"),
        splitter=data.stratified("kind", 0.3),
        item_tfms=Resize(32, method="pad", pad_mode="zeros"),
    )
    return models.learner(data.loaders(own, table, bs=8), net(), stats=fv.imagenet_stats, metrics=accuracy)


OF_RECIPES = {"folder": of_folder, "gray files": of_gray_files, "one's own": of_ones_own}


@pytest.fixture(scope="module", params=OF_RECIPES)
def learn(request: pytest.FixtureRequest, photos: Path) -> Learner:
    return quiet(OF_RECIPES[request.param](photos))


def probabilities(learn: Learner, item: Any) -> np.ndarray:
    return learn.predict(item)[2].numpy()


def test_a_prediction_is_that_of_predict(learn: Learner, photos: Path, odd: dict[str, Path], tmp_path: Path) -> None:
    export.save(learn, tmp_path, {})
    exported = Predictor(tmp_path)
    one = photos / "horn" / "horn_1.jpg"
    for file in (one, *odd.values()):
        (expected,) = exported.probabilities([str(file)])
        with Image.open(file) as image:
            items: list[Any] = [file, str(file), file.read_bytes(), image, fv.PILImage.create(file)]
            if file == one:
                pixels = np.asarray(image)
                items += [pixels, torch.tensor(pixels), torch.tensor(pixels).permute(2, 0, 1)]
                items += [fv.TensorImage(torch.tensor(pixels).permute(2, 0, 1))]
            for item in items:
                np.testing.assert_allclose(probabilities(learn, item), expected, atol=2e-5, err_msg=f"{file} {item}")


def test_an_image_that_stock_fastai_has_cast_before_it_was_read_is_read_again(learn: Learner, photos: Path) -> None:
    file = photos / "horn" / "horn_1.jpg"
    lazy = Image.open(file)
    lazy.__class__ = fv.PILImage  # what fastai's cast does; the image loses the loader of its format
    with learn.no_bar():
        assert torch.equal(learn.predict(lazy)[2], learn.predict(file)[2])


def test_test_dl_takes_files_pictures_and_tables(learn: Learner, photos: Path) -> None:
    files = [photos / name / f"{name}_2.jpg" for name in CLASSES]
    expected, _ = learn.get_preds(dl=learn.dls.test_dl(files))
    mixed = [files[0], Image.open(files[1]), str(files[2])]
    assert torch.equal(learn.get_preds(dl=learn.dls.test_dl(mixed))[0], expected)
    assert learn.get_preds(dl=learn.dls.test_dl(mixed), with_decoded=True)[2].shape == (3,)
    own = learn.dls.valid_ds.items
    own = own.iloc[:3] if isinstance(own, pd.DataFrame) else own[:3]
    labelled = learn.dls.test_dl(own, with_labels=True)
    assert torch.equal(
        learn.get_preds(dl=labelled)[1], torch.tensor([int(label) for _, label in list(learn.dls.valid_ds)[:3]])
    )
    if not isinstance(own, pd.DataFrame):
        table = pd.DataFrame({"path": list(map(str, files)), "label": CLASSES[::-1]})
        given, labels = learn.get_preds(dl=learn.dls.test_dl(table, with_labels=True))
        assert torch.equal(given, expected) and labels.tolist() == [2, 1, 0]
        with pytest.raises(DataError, match="no column 'label'"):
            learn.dls.test_dl(table[["path"]], with_labels=True)
        assert learn.get_preds(dl=learn.dls.test_dl([str(files[1])], with_labels=True))[1].tolist() == [1]
    with pytest.raises(DataError, match="has no label"):
        learn.dls.test_dl([np.zeros((40, 40, 3), np.uint8)], with_labels=True)


@pytest.mark.parametrize(
    "item, what",
    [
        (np.zeros((40, 40, 3)), "of shape (40, 40, 3) and type float64"),
        (torch.zeros(3, 40, 40), "type float32"),
        (np.zeros((0, 0), np.uint8), "not an image"),
        (b"GIF89a", "not an image"),
        (None, "NoneType is not an image"),
    ],
    ids=["float array", "float tensor", "empty", "cut", "nothing"],
)
def test_what_is_no_picture_is_named(learn: Learner, item: Any, what: str) -> None:
    with pytest.raises(DataError) as problem:
        learn.predict(item)
    assert what in problem.value.message


@pytest.mark.unpickles
@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of tensors that matplotlib draws
def test_fastais_other_steps_work(learn: Learner, photos: Path, tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    file = photos / "pump" / "pump_3.jpg"
    valid, targets = learn.tta(n=2)
    assert valid.shape == (len(learn.dls.valid_ds), len(CLASSES)) and len(targets) == len(valid)
    assert learn.tta(dl=learn.dls.test_dl([Image.open(file), file]), n=2)[0].shape == (2, len(CLASSES))
    learn.show_results(max_n=2)
    plt.close("all")
    expected = probabilities(learn, file)
    learn.export(tmp_path / "learner.pkl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the pickle, which is fastai's way
        loaded = fv.load_learner(tmp_path / "learner.pkl")
    assert np.allclose(probabilities(loaded, Image.open(file)), expected)
    assert np.allclose(probabilities(loaded, file), expected)
    with pytest.raises(UsageError, match="load_learner keeps none"):
        fastcls.save(loaded, tmp_path / "run", quiet=True)
