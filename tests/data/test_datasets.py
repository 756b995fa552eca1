"""The catalogue, and each dataset found in every layout it is published in."""

import hashlib
import shutil
import struct
import tarfile
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastcls import datasets
from fastcls.datasets import cifar, downloads
from fastcls.errors import DataError, DownloadError, UsageError

GRAY = Image.new("L", (8, 8))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTCLS_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache"


def images(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        GRAY.save(root / name)
    return root


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Serve a folder's subfolder as the archive of a dataset, and point the catalogue there."""
    site = tmp_path / "site"
    site.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(site)))
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def _publish(name, folder, archive):
        if folder.is_file():
            shutil.copyfile(folder, site / archive)
        else:
            with tarfile.open(site / archive, "w:gz") as tar:
                tar.add(folder, arcname=folder.name)
        md5 = hashlib.md5((site / archive).read_bytes()).hexdigest()
        url = f"http://127.0.0.1:{httpd.server_port}/{archive}"
        data = datasets.CATALOGUE[name]
        more = [(url, archive, md5) if file == archive else (link, file, old) for link, file, old in data.more]
        if more == list(data.more):
            data = replace(data, url=url, md5=md5)
        monkeypatch.setitem(datasets.CATALOGUE, name, replace(data, more=tuple(more)))

    yield _publish
    httpd.shutdown()
    httpd.server_close()
    thread.join()


# ---------------------------------------------------------------------------- the catalogue


@pytest.mark.parametrize("data", datasets.CATALOGUE.values(), ids=datasets.CATALOGUE)
def test_every_entry_is_complete(data):
    assert data.title and data.licence and data.citation and data.homepage.startswith("https://")
    assert data.classes > 1 and data.images > data.classes
    for url, archive, md5 in [(data.url, data.archive, data.md5), *data.more]:
        assert (url.startswith("https://") and archive in url) or data.name == "digits"
        assert len(md5) in (0, 32)


def test_find_offers_the_nearest_name():
    assert datasets.find("cifar10").classes == 10
    with pytest.raises(UsageError, match="did you mean 'cifar100'") as caught:
        datasets.find("cifra100")
    assert "digits" in caught.value.hint


def test_every_wnid_has_a_name():
    assert len(datasets.WNID_NAMES) == 20
    assert datasets.WNID_NAMES["n02115641"] == "dingo"


# ---------------------------------------------------------------------------- digits


def test_digits_are_written_once(cache):
    root = datasets.digits()
    files = sorted(root.rglob("*.png"))
    assert len(files) == 1797 and sorted(entry.name for entry in root.iterdir()) == [str(n) for n in range(10)]
    first = np.asarray(Image.open(root / "0" / "0000.png"))
    assert first.shape == (8, 8) and first.dtype == np.uint8
    assert first[0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]  # 0 0 5 13 9 1 0 0 of 16
    before = files[0].stat().st_mtime_ns
    assert datasets.digits() == root and files[0].stat().st_mtime_ns == before
    assert datasets.digits(str(root)) == datasets.digits(str(root.parent)) == root


def test_digits_that_fail_half_way_leave_nothing(cache, monkeypatch):
    monkeypatch.setattr(Image.Image, "save", lambda *args, **kwargs: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(Exception, match="No space"):
        datasets.digits()
    assert not [entry for entry in cache.iterdir() if not entry.name.endswith(".lock")]


# ---------------------------------------------------------------------------- pets


@pytest.fixture
def pets(tmp_path):
    root = images(tmp_path / "oxford-iiit-pet", "images/Abyssinian_1.jpg", "images/great_pyrenees_12.jpg")
    (root / "annotations").mkdir()
    (root / "annotations/trainval.txt").write_text("# Image CLASS-ID SPECIES BREED\nAbyssinian_1 1 1 1\n")
    (root / "annotations/test.txt").write_text("great_pyrenees_12 16 2 9\n\n")
    return root


@pytest.mark.parametrize("inside", ["", "images", ".."])
def test_pets_in_every_layout(pets, inside):
    found = datasets.pets(str(pets / inside))
    assert found == pets / "images"
    assert datasets.pets_split(found) == {"Abyssinian_1.jpg": "train", "great_pyrenees_12.jpg": "test"}


def test_pets_without_annotations_have_no_split(tmp_path):
    root = images(tmp_path / "pets", "Abyssinian_1.jpg")
    assert datasets.pets_split(datasets.pets(str(root))) == {}


def test_pets_are_fetched_from_both_archives_once(pets, publish, cache, capsys):
    publish("oxford-iiit-pet", pets / "images", "images.tar.gz")
    publish("oxford-iiit-pet", pets / "annotations", "annotations.tar.gz")
    found = datasets.pets()
    assert found == cache / "oxford-iiit-pet" / "images" == datasets.pets()
    assert len(datasets.pets_split(found)) == 2
    assert not list((cache / "archives").rglob("*.gz"))
    assert capsys.readouterr().err.count("Unpacking") == 1


def test_a_download_that_fails_names_the_other_way(monkeypatch):
    monkeypatch.setattr(downloads, "WAITS", (0,))
    url = "http://127.0.0.1:9/images.tar.gz"  # the discard port: nobody listens
    monkeypatch.setitem(datasets.CATALOGUE, "oxford-iiit-pet", replace(datasets.find("oxford-iiit-pet"), url=url))
    with pytest.raises(DownloadError) as caught:
        datasets.pets()
    assert url in caught.value.hint and "--path" in caught.value.hint


# ---------------------------------------------------------------------------- cifar


def python2_pickle(content):
    """What Python 2 wrote for a dictionary of byte strings, lists and one uint8 array (protocol 2)."""

    def text(value):
        return b"T" + struct.pack("<i", len(value)) + value

    def number(value):
        return b"J" + struct.pack("<i", value)

    def dump(value):
        if isinstance(value, np.ndarray):
            kind = b"cnumpy\ndtype\n(" + text(b"u1") + number(0) + number(1) + b"tR"
            kind += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
            shape = b"(" + b"".join(map(number, value.shape)) + b"t"
            new = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + number(0) + b"t" + text(b"b") + b"tR"
            return new + b"(" + number(1) + shape + kind + b"\x89" + text(value.tobytes()) + b"tb"
        if isinstance(value, list):
            return b"](" + b"".join(map(dump, value)) + b"e"
        return text(value) if isinstance(value, bytes) else number(value)

    pairs = b"".join(text(key.encode()) + dump(value) for key, value in content.items())
    return b"\x80\x02}(" + pairs + b"u."


@pytest.fixture
def published_cifar(tmp_path, monkeypatch):
    """A miniature of each CIFAR as published: two images a file; its md5s put in place of the real ones."""
    rng = np.random.default_rng(0)

    def make(name):
        published = cifar.published(name)
        folder = tmp_path / "published" / cifar.FOLDERS[name]
        folder.mkdir(parents=True)
        sums = {}
        for file in published.train | published.test | published.meta:
            data = rng.integers(0, 256, (2, 3072), dtype=np.uint8)
            content = {"data": data, published.labels: [1, 0], "filenames": [b"a.png", b"b.png"]}
            if file in published.meta:
                content = {published.names: [b"cat", b"dog"]}
            (folder / file).write_bytes(python2_pickle(content))
            sums[file] = hashlib.md5((folder / file).read_bytes()).hexdigest()
        mine = {part: {file: sums[file] for file in getattr(published, part)} for part in ("train", "test", "meta")}
        monkeypatch.setattr(cifar, "published", lambda _: replace(published, **mine))
        return folder

    return make


@pytest.mark.parametrize(("name", "train"), [("cifar10", 10), ("cifar100", 2)])
@pytest.mark.parametrize("inside", ["", ".."])
def test_cifar_pickles_become_png_files(published_cifar, cache, name, train, inside):
    folder = published_cifar(name)
    function = getattr(datasets, name)
    root = function(str(folder / inside))
    assert root == cache / f"{name}-png"
    found = sorted(file.relative_to(root).as_posix() for file in root.rglob("*.png"))
    assert len(found) == train + 2 and found[:2] == ["test/cat/00001.png", "test/dog/00000.png"]
    raw = (folder / next(iter(cifar.published(name).test))).read_bytes()
    first = np.asarray(Image.open(root / "test/dog/00000.png"))
    assert first.shape == (32, 32, 3)
    assert first.transpose(2, 0, 1).tobytes() in raw  # the pixels, in the order they were published in
    assert function(str(folder)) == function() == root  # converted once, nothing fetched


def test_cifar_is_fetched_and_converted(published_cifar, publish, cache):
    publish("cifar10", published_cifar("cifar10"), "cifar-10-python.tar.gz")
    root = datasets.cifar10()
    assert len(list(root.glob("train/*/*.png"))) == 10 and len(list(root.glob("test/*/*.png"))) == 2


def test_cifar_as_class_folders_is_used_in_place(tmp_path):
    root = images(tmp_path / "cifar10", "train/cat/1.png", "test/cat/2.png")
    assert datasets.cifar10(str(root)) == datasets.cifar10(str(tmp_path)) == root


def test_cifar_of_two_levels_is_refused(tmp_path):
    root = images(tmp_path / "cifar100", "train/fish/shark/1.png", "test/fish/shark/2.png")
    with pytest.raises(DataError, match="two levels"):
        datasets.cifar100(str(root))


def test_a_changed_pickle_is_not_read(published_cifar, cache):
    folder = published_cifar("cifar10")
    (folder / "data_batch_3").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(DataError, match="was not read") as caught:
        datasets.cifar10(str(folder))
    assert "data_batch_3" in caught.value.message and not (cache / "cifar10-png").exists()


@pytest.mark.parametrize(
    "pickled",
    [
        b"cos\nsystem\n(S'touch fastcls-was-here'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nfromfile\n(S'/etc/passwd'\ntR.",
        b"cnumpy.core.multiarray\nscalar\n.",
        b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93.",
    ],
)
def test_a_malicious_pickle_is_refused_even_with_the_right_checksum(published_cifar, monkeypatch, tmp_path, pickled):
    monkeypatch.chdir(tmp_path)
    folder = published_cifar("cifar100")
    (folder / "meta").write_bytes(pickled)
    right = replace(cifar.published("cifar100"), meta={"meta": hashlib.md5(pickled).hexdigest()})
    monkeypatch.setattr(cifar, "published", lambda _: right)
    with pytest.raises(DataError, match="Refused"):
        datasets.cifar100(str(folder))
    assert not (tmp_path / "fastcls-was-here").exists()


def test_missing_pickles_are_named(published_cifar):
    folder = published_cifar("cifar10")
    (folder / "data_batch_2").unlink()
    (folder / "test_batch").unlink()
    with pytest.raises(DataError, match=": data_batch_2, test_batch"):
        datasets.cifar10(str(folder))


# ---------------------------------------------------------------------------- imagenette, imagewoof


@pytest.mark.parametrize(
    ("function", "name", "wnid"),
    [(datasets.imagenette, "imagenette2", "n01440764"), (datasets.imagewoof, "imagewoof2", "n02086240")],
)
@pytest.mark.parametrize(("size", "suffix"), [("160", "-160"), ("320", "-320"), ("full", "")])
def test_imagenet_subsets(tmp_path, publish, cache, function, name, wnid, size, suffix):
    root = images(tmp_path / f"{name}{suffix}", f"train/{wnid}/1.png", f"val/{wnid}/2.png")
    assert function(str(root), size) == function(str(tmp_path), size) == root
    publish(root.name, root, f"{root.name}.tgz")
    assert function(size=size) == cache / root.name / root.name
    assert (function(size=size) / "val" / wnid / "2.png").is_file()


def test_imagewoof_is_not_taken_for_imagenette(tmp_path):
    root = images(tmp_path / "woof", "train/n02086240/1.png", "val/n02086240/2.png")
    with pytest.raises(DataError, match="train/, val/") as caught:
        datasets.imagenette(str(root))
    assert "n01440764" in caught.value.message
    with pytest.raises(UsageError, match="no size '224'"):
        datasets.imagewoof(size="224")


# ---------------------------------------------------------------------------- birds


@pytest.fixture
def birds(tmp_path):
    root = images(tmp_path / "CUB_200_2011", "images/001.Albatross/A_1.jpg", "images/002.Auklet/B_2.jpg")
    for name, text in {
        "images.txt": "1 001.Albatross/A_1.jpg\n2 002.Auklet/B_2.jpg\n",
        "train_test_split.txt": "1 0\n2 1\n",
        "image_class_labels.txt": "1 1\n2 2\n",
        "classes.txt": "1 001.Albatross\n2 002.Auklet\n",
    }.items():
        (root / name).write_text(text)
    return root


def test_birds(birds, publish, cache):
    assert datasets.birds(str(birds)) == datasets.birds(str(birds.parent)) == birds
    table = datasets.birds_table(birds)
    assert table.to_dict("list") == {
        "path": [
            (birds / "images/001.Albatross/A_1.jpg").as_posix(),
            (birds / "images/002.Auklet/B_2.jpg").as_posix(),
        ],
        "label": ["001.Albatross", "002.Auklet"],
        "split": ["test", "train"],
    }
    publish("caltech-ucsd-birds-200-2011", birds, "CUB_200_2011.tgz")
    assert len(datasets.birds_table(datasets.birds())) == 2


def test_birds_that_are_not_all_there(birds):
    (birds / "images/002.Auklet/B_2.jpg").unlink()
    with pytest.raises(DataError, match="1 of the 2 images") as caught:
        datasets.birds_table(birds)
    assert "B_2.jpg" in caught.value.message
    (birds / "train_test_split.txt").write_text("1 0\n")
    with pytest.raises(DataError, match="different images"):
        datasets.birds_table(birds)
    (birds / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"classes\.txt"):
        datasets.birds(str(birds))


# ---------------------------------------------------------------------------- flowers


def test_flowers(flowers, publish, cache):
    table = datasets.flowers_table(datasets.flowers(str(flowers.parent)))
    assert table["split"].value_counts().to_dict() == {"train": 10, "valid": 5, "test": 5}
    first = table.iloc[0]
    assert first["path"] == (flowers / "jpg/image_00001.jpg").as_posix() and first["label"] == "pink primrose"
    for file in ("imagelabels.mat", "setid.mat"):
        publish("oxford-flowers-102", flowers / file, file)
    publish("oxford-flowers-102", flowers / "jpg", "102flowers.tgz")
    assert len(datasets.flowers_table(datasets.flowers())) == 20


def test_flowers_that_are_not_all_there(flowers):
    (flowers / "jpg/image_00007.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of the 20 images .* image_00007\.jpg"):
        datasets.flowers_table(flowers)
    labels = (flowers / "imagelabels.mat").read_bytes()
    for damaged in (b"", labels[:200], b"\x80\x04.", (flowers / "setid.mat").read_bytes()):
        (flowers / "imagelabels.mat").write_bytes(damaged)
        with pytest.raises(DataError, match=r"imagelabels\.mat is not a MATLAB file with the array 'labels'"):
            datasets.flowers_table(flowers)


# ---------------------------------------------------------------------------- planet


def test_planet(tmp_path):
    images(tmp_path / "planet" / "train-jpg", "train_0.jpg", "train_1.jpg")
    table = tmp_path / "planet" / "train_v2.csv"
    table.write_text("image_name,tags\ntrain_0,haze primary\ntrain_1,agriculture clear\n")
    found = datasets.planet_table(datasets.planet(str(tmp_path)))
    assert found["label"].tolist() == [["haze", "primary"], ["agriculture", "clear"]]
    assert found["path"][0] == (tmp_path / "planet/train-jpg/train_0.jpg").as_posix()
    for text, message in (
        ("image_name\ntrain_0\n", "image_name and tags"),
        (table.read_text() + "x,y\n", "missing: x.jpg"),
    ):
        table.write_text(text)
        with pytest.raises(DataError, match=message):
            datasets.planet_table(table.parent)
    with pytest.raises(DataError, match="only available from Kaggle") as caught:
        datasets.planet()
    assert "train_v2.csv" in caught.value.hint and "--path" in caught.value.hint


# ---------------------------------------------------------------------------- refusals that all share

FUNCTIONS = [
    getattr(datasets, name)
    for name in ("digits", "pets", "cifar10", "cifar100", "imagenette", "imagewoof", "birds", "flowers", "planet")
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nowhere", "does not exist"),
        ("empty", "It contains nothing"),
        ("file.zip", "is a file"),
        ("other", "It contains 0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 4 more"),
    ],
)
def test_what_is_not_there_is_said(tmp_path, function, given, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.zip").write_text("")
    (tmp_path / "other").mkdir()
    for n in range(9):
        (tmp_path / "other" / f"{n}.txt").write_text("")
    with pytest.raises(DataError, match=message) as caught:
        function(str(tmp_path / given))
    assert str(tmp_path / given) in caught.value.message and "--path" in caught.value.hint


def test_functions_return_paths_for_user_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    images(tmp_path / "pets", "Abyssinian_1.jpg")
    assert datasets.pets("~/pets") == Path(tmp_path / "pets")
    monkeypatch.chdir(tmp_path)
    assert datasets.pets("pets").is_absolute()
