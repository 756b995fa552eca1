"""Why the network answers as it does: from the ONNX file alone, what torch would say; neighbours; hostile pictures."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from bad_inputs import encoded, png
from fastai.vision.all import CategoryBlock, DataBlock, ImageBlock, Learner, get_image_files
from fastai.vision.all import parent_label as label
from folders import csv_rows, images_of
from PIL import Image

from fastcls import data, models, transforms
from fastcls.errors import DataError, OutputError, UsageError
from fastcls.evaluation import gradcam
from fastcls.images import decode, uploads
from fastcls.inference import export, neighbours
from fastcls.inference import predictor as predict
from fastcls.inference.explain import Explainer
from fastcls.models import networks
from fastcls.runfolder import predictions
from fastcls.runfolder.predictions import Predicted
from fastcls.running.replay import RecipePredictor

pytestmark = pytest.mark.further


def test_the_onnx_file_alone_explains_as_torch_does_through_the_recipe(digits_run: Path) -> None:
    files = sorted(images_of(digits_run).rglob("*.png"))[::150]
    ours, theirs = Explainer(digits_run, 0.5), RecipePredictor(digits_run, 0.5)
    model = theirs.learn.model.eval()
    assert ours.classes == theirs.classes and ours.has_heat
    for file in files:
        a, (b,) = ours.explain(decode.decode(file, ours.mode), 3), theirs.predict([str(file)])
        assert a.likeliest == np.argsort(-b.probabilities, kind="stable")[:3].tolist()
        np.testing.assert_allclose(a.probabilities, b.probabilities, atol=1e-4)
        loader = theirs.learn.dls.test_dl([file], num_workers=0)
        (image,) = (tensor.as_subclass(torch.Tensor) for tensor in loader.one_batch())
        with torch.no_grad():
            np.testing.assert_allclose(a.features, model[:-1](image)[0], atol=1e-3)
        heat = gradcam.heatmaps(model, image.expand(3, -1, -1, -1), a.likeliest)
        np.testing.assert_allclose(a.heat, heat, atol=0.01)
        assert a.heat.max() > 0.99, "something speaks for some class"
    np.testing.assert_allclose(
        predict.Predictor(digits_run, 0.5).probabilities([str(files[-1])]), [a.probabilities], atol=1e-6
    )


NETWORKS: dict[str, Callable[..., Learner]] = {
    "maximum and mean over places": lambda dls: models.transfer_learner(dls, "timm/test_resnet", weights="none"),
    "flattened": lambda dls: models.learner(dls, networks.cnn(3, dls.c, (8, 16), hidden=(32,))),
    "channels last": lambda dls: models.learner(dls, ChannelsLast(dls.c)),
}


class ChannelsLast(torch.nn.Module):
    """Feature maps as Swin transformers have them, (n, h, w, c)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.maps = torch.nn.Sequential(torch.nn.Conv2d(3, 12, 8, stride=8), torch.nn.ReLU())
        self.mix = torch.nn.Linear(12, 12)
        self.head = torch.nn.Linear(12, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.mix(self.maps(x).permute(0, 2, 3, 1)).mean((1, 2)))


@pytest.fixture(scope="module")
def block(tmp_path_factory: pytest.TempPathFactory) -> tuple[DataBlock, Path]:
    folder, rng = tmp_path_factory.mktemp("blots"), np.random.default_rng(0)
    for klass in "abc":
        (folder / klass).mkdir()
        for i in range(4):
            blot = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(blot).resize((90, 80), Image.Resampling.BICUBIC).save(folder / klass / f"{i}.png")
    blocks = (ImageBlock, CategoryBlock)
    splitter = data.stratified(label, 0.5)
    items = {"get_items": get_image_files, "get_y": label, "splitter": splitter, "item_tfms": transforms.resize(64)}
    return DataBlock(blocks=blocks, **items), folder


def exported(block: tuple[DataBlock, Path], make: Callable[..., Learner], out: Path) -> tuple[Learner, Explainer]:
    torch.manual_seed(0)
    learn = make(data.loaders(block[0], block[1], bs=4))
    learn.model.train()
    with torch.no_grad():  # so that the batch norms' averages are those of images
        for _ in range(4):
            learn.model(learn.dls.one_batch()[0])
    export.save(learn, out, {})
    learn.model.eval()
    return learn, Explainer(out)


@pytest.mark.parametrize(
    "name",
    ["maximum and mean over places", "channels last", pytest.param("flattened", marks=pytest.mark.slow)],
)
def test_grad_cam_without_gradients_is_grad_cam(block: tuple[DataBlock, Path], tmp_path: Path, name: str) -> None:
    learn, explainer = exported(block, NETWORKS[name], tmp_path)
    assert explainer.anatomy.channels_last == (name == "channels last")
    for file in sorted(block[1].rglob("*.png"))[::4]:
        found = explainer.explain(decode.decode(file), 3)
        (image,) = learn.dls.test_dl([file], num_workers=0).one_batch()
        expected = gradcam.heatmaps(learn.model, image.repeat(3, 1, 1, 1).as_subclass(torch.Tensor), found.likeliest)
        assert found.heat.shape == expected.shape
        assert np.abs(found.heat - expected.numpy()).mean() < 0.01


def test_a_network_of_several_views_is_explained_by_the_first(block: tuple[DataBlock, Path], tmp_path: Path) -> None:
    """Neither mirrored nor moved: the heat lies where the picture is."""
    learn, explainer = exported(
        block, lambda dls: models.learner(dls, networks.speednet(3, dls.c, (8, 16), views=2)), tmp_path
    )
    learn.model.views = 1
    file = next(block[1].rglob("*.png"))
    found = explainer.explain(decode.decode(file), 3)
    (image,) = learn.dls.test_dl([file], num_workers=0).one_batch()
    expected = gradcam.heatmaps(learn.model, image.repeat(3, 1, 1, 1).as_subclass(torch.Tensor), found.likeliest)
    np.testing.assert_allclose(found.heat, expected.numpy(), atol=0.01)
    assert np.abs(found.heat - found.heat[..., ::-1]).max() > 0.1, "a heat map that is not its own mirror image"


def test_a_vision_transformer_has_features_and_no_maps(block: tuple[DataBlock, Path], tmp_path: Path) -> None:
    make = lambda dls: models.transfer_learner(dls, "timm/test_vit", weights="none")  # noqa: E731
    _, explainer = exported(block, make, tmp_path)
    found = explainer.explain(decode.decode(next(block[1].rglob("*.png"))), 2)
    assert not explainer.has_heat and found.heat is None
    assert found.features is not None and found.features.ndim == 1


def test_a_run_without_onnx_needs_trust(digits_run: Path, tmp_path: Path) -> None:
    shutil.copytree(digits_run, tmp_path / "run")
    (tmp_path / "run" / "model.onnx").unlink()
    with pytest.raises(OutputError, match="has no model"):
        Explainer(tmp_path / "run")


def made_up(tmp_path: Path, wrong: int, right: int) -> tuple[neighbours.Neighbours, np.ndarray, list[Predicted]]:
    """Images of some features: mistakes lie around 45° between the first two, right answers along either."""
    rng = np.random.default_rng(1)
    images, angles = [], []
    for i in range(wrong + right):
        bad = i < wrong
        images.append(Predicted(f"{i}.png", "cat" if bad else "dog", "dog", 0.9))
        angles.append(rng.normal(45, 12) if bad else rng.normal(rng.choice([0, 90]), 20))
        (tmp_path / f"{i}.png").touch()
    turned = np.radians(angles)[:, None]
    features = np.hstack([np.cos(turned), np.sin(turned), rng.normal(0, 0.1, (len(angles), 6))])
    features *= rng.uniform(1, 9, (len(angles), 1))
    found = neighbours.Neighbours(images, tmp_path)
    found.look(lambda paths: np.stack([features[int(Path(path).stem)] for path in paths]), Event())
    return found, features, images


def towards(degrees: float) -> np.ndarray:
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees)), *[0.0] * 6])


def test_neighbours_tell_of_the_ground_where_mistakes_lie(tmp_path: Path) -> None:
    found, features, images = made_up(tmp_path, 60, 340)
    assert found.mistakes == 60 and len(found.known) == 120 and found.error == pytest.approx(0.15)
    among = found.near(towards(45))
    assert among.telling and not among.twin and len(among.mistakes) == neighbours.SHOWN
    assert all(image.wrong for image, _ in among.mistakes)
    assert [alike for _, alike in among.mistakes] == sorted((alike for _, alike in among.mistakes), reverse=True)
    assert among.error is not None and among.error > 2 * found.error
    assert not found.near(towards(90)).telling
    same, alike = found.near(features[7] * 2).mistakes[0]
    assert same == images[7] and alike == pytest.approx(1) and found.near(features[7]).twin


def test_few_mistakes_say_nothing_of_their_ground(tmp_path: Path) -> None:
    found, _, _ = made_up(tmp_path, 5, 100)
    near = found.near(towards(45))
    assert near.wrong is None and near.error is None and not near.telling and len(near.mistakes) == 4


def test_neighbours_that_are_gone_or_damaged_are_left_out(tmp_path: Path) -> None:
    images = [Predicted(f"{i}.png", "a", "b" if i % 2 else "a", None) for i in range(40)]
    for i in range(30):
        (tmp_path / f"{i}.png").touch()

    def features(paths: list[str]) -> np.ndarray:
        if any(path.endswith("/3.png") for path in paths):
            raise OSError("damaged")
        return np.ones((len(paths), 2))

    found = neighbours.Neighbours(images, tmp_path)
    assert found.lost == 10
    found.look(features, Event())
    near = found.near(np.ones(2))
    assert found.looked == 30 and len(near.mistakes) == 4
    stopped = Event()
    stopped.set()
    found.look(lambda paths: pytest.fail("looked on"), stopped)
    empty = neighbours.Neighbours(images, tmp_path / "nowhere")
    assert empty.mistakes == 0 and empty.near(np.ones(2)).mistakes == []


def test_what_a_run_said_is_read_and_counted(digits_run: Path, tmp_path: Path) -> None:
    rows = csv_rows(digits_run / "predictions.csv")
    images = predictions.images(digits_run, "valid")
    assert [image.wrong for image in images] == [row["label"] != row["prediction"] for row in rows]
    table = predictions.coverage(images)
    for percent in (0, 37, 80, 100):
        answered = [row for row in rows if float(row["calibrated"]) >= percent / 100]
        assert table[percent] == (len(answered), sum(row["label"] == row["prediction"] for row in answered))
    with pytest.raises(UsageError, match="not evaluated on it"):
        predictions.images(digits_run, "test")
    shutil.copy(digits_run / "model.json", tmp_path)
    assert predictions.images(tmp_path, "valid") == [] and predictions.coverage([]) == []
    (tmp_path / "predictions.csv").write_text("split,path\nvalid,a.png\n")
    with pytest.raises(OutputError, match="it has no column label, prediction"):
        predictions.images(tmp_path, "valid")


def picture(kind: str, size: tuple[int, int] = (30, 20), **options: object) -> bytes:
    return encoded(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8), kind, **options)


def frames(kind: str) -> bytes:
    return picture(kind, save_all=True, append_images=[Image.new("RGB", (30, 20), "red")])


def book(pages: int) -> bytes:
    """A TIFF of so many pages of one gray pixel each, which Pillow takes minutes to count."""
    tags = ((256, 3, 1), (257, 3, 1), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (278, 3, 1), (279, 4, 1))
    page = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, kind, 1, n) for tag, kind, n in tags)
    step, first = len(page) + 4, 12
    links = (struct.pack("<I", first + (k + 1) * step if k < pages - 1 else 0) for k in range(pages))
    return b"II*\0" + struct.pack("<I", first) + b"\x80\0\0\0" + b"".join(page + link for link in links)


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "empty"),
    "text": (lambda: b"GIF or JPEG, I am none", "not an image"),
    "a drawing": (lambda: b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG drawing"),
    "HEIC": (lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50), "damaged"),
    "a film": (lambda: b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(50), "videos"),
    "a bomb": (lambda: png(20_000, 20_000, 8, 2, b""), "80 million pixels"),
    "a large picture": (lambda: png(9_500, 9_000, 8, 2, b""), "9,500 × 9,000 pixels"),
    "a long picture": (lambda: png(60_000, 1, 8, 2, b""), "60,000 × 1 pixels"),
    "half a JPEG": (lambda: picture("JPEG", (300, 200))[:9000], "damaged"),
    "half a PNG": (lambda: picture("PNG")[:900], "damaged"),
    "another kind": (lambda: picture("PPM"), "not an image in a supported format"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_picture_is_refused_with_a_reason(name: str) -> None:
    make, reason = HOSTILE[name]
    with pytest.raises(DataError, match=reason):
        uploads.read(make())


@pytest.mark.parametrize(
    "make", [lambda: frames("GIF"), lambda: frames("PNG"), lambda: frames("TIFF"), lambda: book(10**5)]
)
def test_of_several_pages_or_frames_the_first_is_read_as_from_a_file(make: Callable[[], bytes], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(make())
    pixels = uploads.read((tmp_path / "file").read_bytes()).pixels
    assert np.array_equal(pixels, decode.decode(str(tmp_path / "file"), "RGB"))


@pytest.mark.parametrize("kind", uploads.FORMATS)
def test_a_picture_in_memory_has_the_pixels_of_the_file(kind: str, tmp_path: Path) -> None:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif", reason="needs pillow-heif").register_heif_opener()
    exif = Image.Exif()
    exif[decode.ORIENTATION] = 6
    raw = picture(kind, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "TIFF") else {}))
    (tmp_path / "file").write_bytes(raw)
    for mode in ("RGB", "L"):
        assert (uploads.read(raw, mode).pixels == decode.decode(tmp_path / "file", mode)).all()
    assert uploads.read(raw).turned == (kind in ("JPEG", "PNG", "WEBP", "TIFF"))


def test_a_photograph_with_its_cameras_preview_is_one_picture(tmp_path: Path) -> None:
    raw = frames("MPO")
    (tmp_path / "photo.jpg").write_bytes(raw)
    assert (uploads.read(raw).pixels == decode.decode(tmp_path / "photo.jpg")).all()


@pytest.mark.parametrize("kind", uploads.FORMATS)
def test_damaged_bytes_never_end_in_anything_but_a_reason(kind: str) -> None:
    rng, whole = np.random.default_rng(0), picture(kind)
    refused = 0
    for _ in range(60):
        raw = bytearray(whole)
        for place in rng.integers(0, min(len(raw), 400), rng.integers(1, 9)):
            raw[place] = rng.integers(0, 256)
        try:
            uploads.read(bytes(raw[: rng.integers(1, len(raw) + 1)] if rng.random() < 0.3 else raw))
        except DataError as problem:
            refused += 1
            assert problem.message.endswith(".") and " at 0x" not in problem.message
    assert refused > 5
