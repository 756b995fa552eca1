"""Predictions from a run folder: the Learner's own, without torch, for every image that was named."""

import csv
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, Fastcls, command, python, without_sums
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
from folders import csv_rows, images_of, text_rows
from PIL import Image

from fastcls import data, models, transforms
from fastcls.data.describe import describe_preprocessing
from fastcls.datasets import inputs
from fastcls.errors import DataError
from fastcls.images import preprocessing
from fastcls.inference import export
from fastcls.inference import predictor as predict
from fastcls.models import networks
from fastcls.runfolder import runs
from fastcls.settings import options
from fastcls.training.history import quiet


def test_predictions_are_the_learners_own(fastcls: Fastcls, digits_run: Path) -> None:
    """The probabilities of predictions.csv, which the Learner gave, come back from the exported network."""
    kept = {row["path"]: row for row in csv_rows(digits_run / "predictions.csv")}
    files = [images_of(digits_run) / path for path in kept]
    assert fastcls("predict", digits_run, *files, "-o", "out.csv", "--probabilities").code == 0
    answers = text_rows(Path("out.csv").read_text())
    assert [Path(answer["path"]) for answer in answers] == files
    for answer, row in zip(answers, kept.values(), strict=True):
        assert answer["prediction"] == row["prediction"] and answer["error"] == ""
        for name in range(10):
            assert float(answer[f"p:{name}"]) == pytest.approx(float(row[f"p:{name}"]), abs=1e-4)


def test_a_folder_a_recipe_name_and_standard_output(fastcls: Fastcls, digits_run: Path) -> None:
    folder = images_of(digits_run) / "7"
    outcome = command("predict", digits_run, folder)
    answers = text_rows(outcome.output)
    assert len(answers) == len(list(folder.glob("*.png"))) and outcome.code == 0
    Path("runs/digits-cnn").mkdir(parents=True)
    Path("runs/digits-cnn/20990101-000000-aaaa").symlink_to(digits_run)
    listed = "".join(f"{file}\n" for file in sorted(folder.glob("*.png"))[:3])
    assert command("predict", "digits-cnn", folder, "-o", "all.csv").code == 0
    assert command("predict", "last", "-", "-o", "three.csv", stdin=listed).code == 0
    assert [text_rows(Path(name).read_text()) for name in ("all.csv", "three.csv")] == [answers, answers[:3]]


WITHOUT_TORCH = """
import sys
from importlib.machinery import PathFinder
from fastcls.cli.verbs import app

class WithoutTorch(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        absent = name in ("torch", "torchvision", "fastai", "timm", "onnxscript")
        return None if absent else PathFinder.find_spec(name, path, target)

sys.meta_path[:] = [WithoutTorch if finder is PathFinder else finder for finder in sys.meta_path]
run, images, image = sys.argv[1:]
for code, *words in (
    (0, "predict", run, image, "-o", "answers.csv"),
    (0, "report", run),
    (0, "evaluate", run, images, "-o", "later"),
    (0, "check", images, "-o", "checked"),
    (0, "export", run, "-o", "exported"),
    (5, "recipe", "digits-cnn"),
):
    try:
        app(words, prog_name="fastcls")
    except SystemExit as end:
        assert (end.code or 0) == code, (words, end.code)
    if words[0] == "predict":  # what its first answer need not wait for
        assert not {"pandas", "scipy", "sklearn", "matplotlib"} & set(sys.modules)
"""


@pytest.mark.further
def test_all_but_training_works_where_torch_is_missing(digits_run: Path, tmp_path: Path) -> None:
    shutil.copytree(digits_run, tmp_path / "run")
    image = next((images_of(digits_run) / "3").glob("*.png"))
    done = python("-c", WITHOUT_TORCH, "run", images_of(digits_run), image, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert text_rows((tmp_path / "answers.csv").read_text())[0]["prediction"] in map(str, range(10))
    assert "torch" in done.stderr and "pip install" in done.stderr


def test_the_first_of_several_pages_is_labelled_and_videos_are_refused(fastcls: Fastcls, digits_run: Path) -> None:
    images = [Image.open(path) for path in sorted((images_of(digits_run) / "3").glob("*.png"))[:3]]
    images[0].save("pages.tif", save_all=True, append_images=images[1:])
    images[0].save("first.png")
    answers = text_rows(fastcls("predict", digits_run, "pages.tif", "first.png", "--probabilities").output)
    assert {**answers[0], "path": ""} == {**answers[1], "path": ""}
    Path("my clips").mkdir()
    Path("my clips/clip 1.MP4").write_bytes(b"\0\0\0\x18ftypmp42")
    refused = fastcls("predict", digits_run, "my clips/clip 1.MP4")
    command = "ffmpeg -i 'my clips/clip 1.MP4' -vf fps=1 'my clips/clip 1_%05d.jpg'"
    assert refused.code == 3 and command in refused.output
    for words in (["predict", digits_run, "my clips"], ["check", "my clips"]):
        refused = fastcls(*words)
        assert refused.code == 3 and "Videos (.mp4) are not supported" in refused.output, refused.output


PLAIN = """
import sys
from fastcls.cli import main

main()
assert not {"typer", "pydantic", "pandas", "scipy", "pillow_heif"} & set(sys.modules)
"""


@pytest.mark.parametrize("options", [[], ["--json"], ["-o", "answers.csv"]], ids=" ".join)
def test_a_plain_prediction_imports_no_parser_and_answers_the_same(
    fastcls: Fastcls, digits_run: Path, options: list[str]
) -> None:
    """The first answer comes within twice the time of `import onnxruntime` (`python -m benchmarks.startup`)."""
    image = next((images_of(digits_run) / "3").glob("*.png"))
    parsed = fastcls("predict", digits_run, image, *options, "--top-k", 0)
    written = Path("answers.csv").read_text() if options[:1] == ["-o"] else ""
    done = python("-c", PLAIN, "predict", digits_run, image, *options)
    assert done.returncode == 0 and done.stdout == parsed.stdout, done.stderr
    assert not written or Path("answers.csv").read_text() == written


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["nowhere", "x.png"], 4),
        (["{run}", "missing.png"], 3),
        (["{run}", "empty.png"], 3),
        (["{run}", "{image}", "-o", "{image}"], 2),
        (["{run}", "{image}", "-o", "x.csv", "--json"], 2),
    ],
)
def test_a_plain_prediction_is_refused_as_any_other(
    fastcls: Fastcls, digits_run: Path, words: list[str], code: int
) -> None:
    shutil.copy(next((images_of(digits_run) / "3").glob("*.png")), "image.png")
    Path("empty.png").touch()
    named = ["predict", *(word.format(run=digits_run, image="image.png") for word in words)]
    parsed = fastcls(*named, "--top-k", 0)
    assert parsed.code == code
    done = python("-m", "fastcls", *named)
    assert done.returncode == code and done.stdout + done.stderr == parsed.output


def test_a_damaged_model_file_is_refused(fastcls: Fastcls, digits_run: Path) -> None:
    import shutil

    shutil.copytree(digits_run, "broken")
    Path("broken/model.onnx").write_bytes(b"not a model")
    image = next((images_of(digits_run) / "3").glob("*.png"))
    outcome = fastcls("predict", "broken", image)
    assert outcome.code == 4 and "not the file that its run wrote" in outcome.output and '"sha256"' in outcome.output
    without_sums(Path("broken"))
    outcome = fastcls("predict", "broken", image)
    assert outcome.code == 4 and "not a readable ONNX model" in outcome.output
    Path("broken/model.json").write_text("{")
    outcome = fastcls("predict", "broken", image)
    assert outcome.code == 4 and "model.json cannot be read" in outcome.output


@pytest.mark.parametrize("verb", ["predict", "submission", "models", "lr-find", "compare"])
def test_outputs_take_the_place_of_their_own_earlier_ones_alone(fastcls: Fastcls, digits_run: Path, verb: str) -> None:
    image = next((images_of(digits_run) / "3").glob("*.png"))
    words, out, written = {
        "predict": (["predict", digits_run, image, "-o"], "out.csv", "out.csv"),
        "submission": (["predict", digits_run, image, "--id", "stem", "-o"], "out.csv", "out.csv"),
        "models": (["models", "resnet18", "-o"], "out.csv", "out.csv"),
        "lr-find": (["lr-find", "digits-cnn", "--steps", 20, "--limit", 20, "--out"], "out.png", "out.png"),
        "compare": (["compare", digits_run, "other", "--out"], "out", "out/compare.html"),
    }[verb]
    if verb == "compare":
        shutil.copytree(digits_run, "other")
    for _ in range(2):
        assert (outcome := fastcls(*words, out)).code == 0, outcome.output
    Path(written).write_text("edited by me\n")
    outcome = fastcls(*words, out)
    assert outcome.code == 4 and "not written by fastcls" in outcome.output and "Choose another" in outcome.output
    assert Path(written).read_text() == "edited by me\n"
    if verb == "compare":
        Path("mine").mkdir()
        Path("mine/table.csv").write_text("mine\n")
        assert fastcls(*words, "mine").code == 4 and Path("mine/table.csv").read_text() == "mine\n"


def test_a_million_paths_are_read_as_they_are_needed(digits_run: Path) -> None:
    files = [str(file) for file in sorted(images_of(digits_run).rglob("*.png"))[:50]]
    predictor = predict.Predictor(digits_run)
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        for file in itertools.cycle(files):
            taken += 1
            yield file

    answers = predictor.predict(endless())
    some = [next(answers) for _ in range(1000)]
    assert [answer.path for answer in some] == files * 20
    assert taken <= 1000 + (predict.AHEAD + 1) * predict.host.cores() * predict.BATCH
    answers.close()
    expected = predictor.probabilities(files)
    for answer, row in zip(some, itertools.cycle(expected)):
        np.testing.assert_allclose(answer.probabilities, row, atol=1e-6)


def test_images_that_cannot_be_used_have_a_reason_and_a_place(digits_run: Path, tmp_path: Path) -> None:
    files = [str(file) for file in sorted(images_of(digits_run).rglob("*.png"))[:40]]
    large, text, none = tmp_path / "large.jpg", tmp_path / "text.jpg", tmp_path / "none.jpg"
    Image.new("L", (9, 7)).save(large)
    text.write_text("no image")
    os.mkfifo(pipe := tmp_path / "pipe.png")
    mixed = [*files[:20], *map(str, (large, text, none, pipe)), *files[20:]]
    answers = list(predict.Predictor(digits_run).predict(iter(mixed)))
    assert [answer.path for answer in answers] == mixed
    assert [i for i, answer in enumerate(answers) if answer.probabilities is None] == [20, 21, 22, 23]
    assert answers[20].error == "9 × 7 pixels, but the network expects 8 × 8"
    assert answers[21].error == "not an image" and answers[22].error == "No such file or directory"
    assert answers[23].error == "a pipe or a device, not a file", "it was not waited for"


def test_every_name_in_a_list_has_its_row(fastcls: Fastcls, digits_run: Path) -> None:
    """Names with carriage returns, and longer than any file system takes."""
    image = next(images_of(digits_run).rglob("*.png"))
    names = ["a\rb.png", "c" * 300 + ".png", "\x1b[2J.png"]
    for name in (names[0], names[2]):
        Path(name).write_bytes(image.read_bytes())
    with Path("list.csv").open("w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["path"], *([name] for name in names)])
    assert fastcls("predict", digits_run, "list.csv", "-o", "out.csv").code == 3
    found = csv_rows("out.csv")
    assert [row["path"] for row in found] == names
    assert [row["error"] for row in found] == ["", "File name too long", ""]


def test_a_name_is_not_obeyed_by_the_terminal(fastcls: Fastcls, digits_run: Path) -> None:
    name = "\x1b[2J.png"
    Path(name).write_bytes(next(images_of(digits_run).rglob("*.png")).read_bytes())
    leader, follower = os.openpty()
    words = [sys.executable, "-m", "fastcls", "predict", str(digits_run), name]
    running = subprocess.run(words, stdout=follower, env={**os.environ, "PYTHONPATH": str(ROOT)})
    shown = os.read(leader, 10_000)
    os.close(leader)
    os.close(follower)
    assert running.returncode == 0 and b"\x1b" not in shown and b"\\x1b[2J.png" in shown


def test_folders_are_listed_lazily_and_in_order(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/1.JPG", "a.png", "c/d/x.webp", "c/.hidden.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    images = [str(tmp_path / name) for name in ("a.png", "b/1.JPG", "b/2.png", "c/d/x.webp")]
    assert list(inputs.collect([str(tmp_path), images[0]])) == [*images, images[0]]
    with pytest.raises(DataError, match="no such file"):
        inputs.collect([str(tmp_path), "nowhere"])


def test_folders_are_searched_as_for_training(tmp_path: Path) -> None:
    kept, litter = ["a.png", "linked/1.png"], [".ipynb_checkpoints/a.png", "__MACOSX/a.png", ".Trash/a.png"]
    for name in ("elsewhere/1.png", *(f"new/{name}" for name in ["a.png", *litter])):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "new/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "new/again").symlink_to(tmp_path / "new")
    assert list(inputs.collect([str(tmp_path / "new")])) == [str(tmp_path / "new" / name) for name in kept]


LISTS = {
    "line ends of Windows": "a b.png\r\né.png\r\n".encode(),
    "a byte order mark": "\ufeffa b.png\né.png".encode(),
    "UTF-16": "a b.png\r\né.png\r\n".encode("utf-16"),
    "find -print0": "a b.png\0é.png\0".encode(),
    "blank lines": "\na b.png\n\né.png\n".encode(),
}


@pytest.mark.parametrize("listed", LISTS.values(), ids=LISTS.keys())
def test_a_list_is_read_whatever_wrote_it(monkeypatch: pytest.MonkeyPatch, listed: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listed)))
    assert list(inputs.collect(["-"])) == ["a b.png", "é.png"]


def test_closed_standard_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(DataError, match="Standard input is closed"):
        list(inputs.collect(["-"]))


TABLES = {
    "UTF-16": "path,label\n{0},x\n{1},y\n".encode("utf-16"),
    "semicolons, Windows-1252": "path;label\n{0};x\n{1};é\n".encode("cp1252"),
    "backslashes": b"path\nsub\\a.png\nsub\\b.png\n",
    "without suffixes": b"id,label\nsub/a,x\nsub/b,y\n",
    "numbers first, unknown titles": b",picture\n0,{0}\n1,{1}\n",
    "no titles": b"0,{0}\n1,{1}\n",
}


@pytest.mark.parametrize("listed", ["\u00e9.png", "e\u0301.png", "\u00e9", "e\u0301"])
@pytest.mark.parametrize("on_disk", ["\u00e9.png", "e\u0301.png"])
def test_accents_in_a_table_may_be_of_the_other_form(tmp_path: Path, listed: str, on_disk: str) -> None:
    (tmp_path / on_disk).touch()
    (tmp_path / "list.csv").write_text(f"path\n{listed}\n", encoding="utf-8")
    (found,) = inputs.collect([str(tmp_path / "list.csv")])
    assert Path(found).samefile(tmp_path / on_disk)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_a_table_of_paths_is_read_as_a_table_of_labels_is(tmp_path: Path, table: bytes) -> None:
    images = ["sub/a.png", "sub/b.png"]
    (tmp_path / "sub").mkdir()
    for number, name in enumerate(images):
        (tmp_path / name).touch()
        for encoding in ("utf-8", "utf-16-le"):
            table = table.replace(f"{{{number}}}".encode(encoding), name.encode(encoding))
    (tmp_path / "list.csv").write_bytes(table)
    assert list(inputs.collect([str(tmp_path / "list.csv")])) == [str(tmp_path / name) for name in images]


TRANSFORMS = {
    "crop": transforms.resize(48),
    "squish": transforms.resize(48, fit="squish"),
    "pad by reflection": Resize(48, method="pad"),
    "letterbox": transforms.resize(48, fit="pad"),
    "squish, random crops in training": transforms.resize(48, 0.4, "squish"),
    "pad with zeros": Resize(48, method="pad", pad_mode="zeros"),
    "pad with the border": Resize(48, method="pad", pad_mode="border"),
    "random resized crop": RandomResizedCrop(48, min_scale=0.4),
    "not square": Resize((40, 56)),
    "larger than in training": transforms.resize(48, min_scale=0.4, valid_size=60),
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
        batch_tfms=transforms.augment(translate=0.1, erase=0.2, shear=5),
    )
    dls = data.loaders(block, tmp_path, bs=2)
    models.normalize(dls, models.imagenet_stats)
    spec = json.loads(json.dumps(describe_preprocessing(dls)))
    files = list(dls.valid_ds.items)
    ours = np.stack([preprocessing.load(file, spec) for file in files])
    (theirs,) = dls.test_dl(files, bs=len(files)).one_batch()
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)


NETWORKS = {
    "torchvision": lambda dls: models.transfer_learner(dls, "resnet18", weights="none"),
    "timm": lambda dls: models.transfer_learner(dls, "timm/test_resnet", weights="none"),
    "our own": lambda dls: models.learner(dls, networks.cnn(models.channels(dls), dls.c, (8, 16), convs=2)),
}


@pytest.mark.parametrize(
    "name, gray",
    [
        ("our own", False),
        ("our own", True),
        ("timm", True),
        pytest.param("torchvision", True, marks=pytest.mark.slow),
        pytest.param("torchvision", False, marks=pytest.mark.slow),
    ],
)
def test_an_exported_network_gives_the_learners_probabilities(tmp_path: Path, name: str, gray: bool) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    for klass in "abc":
        (tmp_path / klass).mkdir()
        for i, shape in enumerate([(60, 90, 3), (91, 57, 3), (48, 48, 3), (30, 90, 3)]):
            Image.fromarray(rng.integers(0, rng.integers(9, 255), shape, dtype=np.uint8)).save(
                tmp_path / klass / f"{i}.png"
            )
    block = DataBlock(
        blocks=(ImageBlock(PILImageBW) if gray else ImageBlock, CategoryBlock),
        get_items=get_image_files,
        get_y=label,
        splitter=data.stratified(label, 0.5),
        item_tfms=transforms.resize(48),
        batch_tfms=transforms.augment(),
    )
    with options.using(options.Options(precision="fp32")):  # which the export computes in
        learn = NETWORKS[name](data.loaders(block, tmp_path, bs=4))
    with quiet(learn), torch.no_grad():  # batch norms that know these images tell them apart
        learn.model.train()
        for _ in range(20):
            learn.model(learn.dls.one_batch()[0])
    files = sorted(tmp_path.rglob("*.png"))
    export.save(learn, tmp_path, {})
    with quiet(learn):
        theirs, _ = learn.get_preds(dl=learn.dls.test_dl(files, num_workers=0))
    assert theirs.max() < 0.999 and theirs.std(0).min() > 1e-4, "a network that tells the images apart"
    ours = [answer.probabilities for answer in predict.Predictor(tmp_path).predict(map(str, files))]
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4)


class Invert(DisplayedTransform):
    def encodes(self, x: TensorImage):
        return 1 - x


def test_transforms_that_cannot_be_described_are_named(tmp_path: Path, digits_run: Path) -> None:
    block = DataBlock(blocks=(ImageBlock, CategoryBlock), get_items=get_image_files, get_y=label, batch_tfms=[Invert()])
    dls = data.loaders(block, images_of(digits_run))
    with pytest.raises(ValueError, match="Invert"):
        describe_preprocessing(dls)


def test_run_json_from_a_newer_fastcls_is_refused(tmp_path: Path) -> None:
    from fastcls.errors import OutputError

    runs.write_json(tmp_path / "run.json", {"format": 99})
    with pytest.raises(OutputError, match="newer fastcls"):
        runs.read_json(tmp_path / "run.json")
