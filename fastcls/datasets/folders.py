"""Where the images of the datasets that recipes use are, a function for each.

Every function takes `path`: empty means the cache folder, downloading what is missing; otherwise a folder
in any of the layouts that the dataset is published in. Each returns a `Path`. Some have a second function for the
published labels and split; `folder` reads images of your own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fastcls.datasets import layouts, shards
from fastcls.datasets.archives import building, locked, unpack
from fastcls.datasets.catalogue import CATALOGUE, FLOWERS, Dataset
from fastcls.datasets.downloads import cache_dir, download
from fastcls.datasets.label_table import rows_of
from fastcls.datasets.walk import some
from fastcls.errors import DataError, DownloadError, UsageError, did_you_mean
from fastcls.log import logger
from fastcls.settings import options

if TYPE_CHECKING:
    from pandas import DataFrame

Size = Literal["160", "320", "full"]

_IMAGENETTE = {
    "n01440764": "tench", "n02102040": "English springer", "n02979186": "cassette player", "n03000684": "chain saw",
    "n03028079": "church", "n03394916": "French horn", "n03417042": "garbage truck", "n03425413": "gas pump",
    "n03445777": "golf ball", "n03888257": "parachute",
}  # fmt: skip
_IMAGEWOOF = {
    "n02086240": "Shih-Tzu", "n02087394": "Rhodesian ridgeback", "n02088364": "beagle",
    "n02089973": "English foxhound", "n02093754": "Border terrier", "n02096294": "Australian terrier",
    "n02099601": "golden retriever", "n02105641": "Old English sheepdog", "n02111889": "Samoyed", "n02115641": "dingo",
}  # fmt: skip
WNID_NAMES = _IMAGENETTE | _IMAGEWOOF
_CUB_FILES = ("images.txt", "train_test_split.txt", "image_class_labels.txt", "classes.txt")
_FLOWER_FILES = ("imagelabels.mat", "setid.mat")
_PLANET = "https://www.kaggle.com/c/planet-understanding-the-amazon-from-space"
_PLANET_TABLES, _PLANET_IMAGES = ("train_v2.csv", "labels.csv"), ("train-jpg", "train")
_AGAIN = "Unpack the published archive again."


def find(name: str) -> Dataset:
    """The catalogue's entry for `name`."""
    try:
        return CATALOGUE[name]
    except KeyError:
        raise UsageError(
            f"There is no dataset {name!r} in the catalogue{did_you_mean(name, CATALOGUE)}",
            f"Available: {', '.join(CATALOGUE)}.",
        ) from None


folder = layouts.find  # images of your own, whatever their layout


def digits(path: str = "") -> Path:
    """The folder of 1,797 handwritten digits: 8×8 grey PNGs in class folders 0 … 9."""
    if path:
        return _locate(path, [f"{digit}/*" for digit in range(10)], ["digits"], "class folders 0 … 9 with images")
    return _built("digits", _write_digits)


def _write_digits(into: Path) -> None:
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    bunch = load_digits()
    gray = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # published as counts 0 … 16
    for name in bunch.target_names:
        (into / str(name)).mkdir()
    for index, (image, label) in enumerate(zip(gray, bunch.target, strict=True)):
        Image.fromarray(image).save(into / str(label) / f"{index:04d}.png")


def pets(path: str = "") -> Path:
    """The folder of Oxford-IIIT Pet with the files `<Breed>_<N>.jpg`."""
    if not path:
        return _fetch(find("oxford-iiit-pet")) / "images"
    inside = ["images", "oxford-iiit-pet/images", "oxford-iiit-pet"]
    return _locate(path, ["?*_[0-9]*.jpg"], inside, "images named <Breed>_<N>.jpg")


def pets_split(images_folder: Path) -> dict[str, str]:
    """The official split of `pets()`, file name -> 'train' or 'test'; empty where annotations/ is missing."""
    if (packed := _packed(Path(images_folder))) is not None:
        return {Path(path).name: split for path, _, split in packed[["path", "label", "split"]].itertuples(index=False)}
    lists = {"train": "trainval.txt", "test": "test.txt"}
    files = {split: Path(images_folder).parent / "annotations" / name for split, name in lists.items()}
    if not all(file.is_file() for file in files.values()):
        return {}
    lines = [(split, line.split()) for split, file in files.items() for line in file.read_text().splitlines()]
    return {f"{fields[0]}.jpg": split for split, fields in lines if fields and not fields[0].startswith("#")}


def pets_parts(files: Sequence[Path], split: str) -> tuple[list[Path], list[Path] | None]:
    """The training images of `pets()` and the published test images; with split 'random', all images and None.

    Images in neither published list are left out, with a note. DataError if the lists are missing. They are sorted by
    name, because the order of a file system varies.
    """
    files = sorted(files)
    if split == "random":
        return files, None
    listed = pets_split(files[0].parent)
    if not listed:
        raise DataError(
            f"{files[0].parent.parent / 'annotations'} has no trainval.txt and test.txt, the official split.",
            "Unpack annotations.tar.gz next to images/, or use --split random.",
        )
    parts = {part: [file for file in files if listed.get(file.name) == part] for part in ("train", "test")}
    if missing := len(listed) - sum(map(len, parts.values())):
        options.note(f"Images of the official split that are missing: {missing:,} of {len(listed):,}.")
    if others := sum(file.name not in listed for file in files):
        options.note(f"Images in neither list of the official split, left out: {others:,}.")
    return parts["train"], parts["test"]


def cifar10(path: str = "") -> Path:
    """A root of CIFAR-10 with `train/<class>/` and `test/<class>/`."""
    return _cifar(path, "cifar10")


def cifar100(path: str = "") -> Path:
    """A root of CIFAR-100 with `train/<class>/` and `test/<class>/`, the 100 fine classes."""
    return _cifar(path, "cifar100")


def _cifar(path: str, name: str) -> Path:
    """Class folders as they are; the published pickles as PNG files, converted once, in the cache."""
    from fastcls.datasets import cifar

    inside = cifar.FOLDERS[name]
    pickles = ("batches.meta", "meta", "data_batch_1")  # one of them at least; those that are missing `convert` names
    source: Path | None = None
    if path:
        wanted = f"train/ and test/ with class folders, or {inside}/ with the published files"
        needed = ["|".join((f"{split}/[!.]*/", *pickles)) for split in ("train", "test")]
        source = _locate(path, needed, [inside, name], wanted)
        if shards.opened(path):
            return source
        if not any((source / file).is_file() for file in pickles):
            first = _folders(source / "train")[0]
            if _folders(first) and not any(entry.is_file() for entry in first.iterdir()):  # as fast.ai's archive has it
                raise DataError(
                    f"{first} contains folders, not images: it has two levels, superclass and class.",
                    "Omit --path to use the published files, or move the inner class folders up one level.",
                )
            return source

    def write(into: Path) -> None:
        published = source or _fetch(find(name)) / inside
        logger.info(f"Writing the {find(name).images:,} images of {published} to {into.parent / f'{name}-png'}, once")
        cifar.convert(published, into, name)

    return _built(f"{name}-png", write)


def imagenette(path: str = "", size: Size = "160") -> Path:
    """A root of Imagenette with `train/<wnid>/` and `val/<wnid>/`."""
    return _imagenet_subset(path, "imagenette2", size, _IMAGENETTE)


def imagewoof(path: str = "", size: Size = "160") -> Path:
    """A root of Imagewoof with `train/<wnid>/` and `val/<wnid>/`."""
    return _imagenet_subset(path, "imagewoof2", size, _IMAGEWOOF)


def _imagenet_subset(path: str, name: str, size: str, wnids: dict[str, str]) -> Path:
    if size not in ("160", "320", "full"):
        raise UsageError(f"{name} has no size {size!r}.", "Choose 160, 320 or full.")
    name = name if size == "full" else f"{name}-{size}"
    if not path:
        return _fetch(find(name)) / name
    needed = ["|".join(f"{split}/{wnid}/*" for wnid in wnids) for split in ("train", "val")]
    return _locate(path, needed, [name], f"train/ and val/ with class folders such as {next(iter(wnids))}")


def birds(path: str = "") -> Path:
    """The CUB_200_2011 root: images/ and the text files of names, classes and split."""
    if not path:
        return _fetch(find("caltech-ucsd-birds-200-2011")) / "CUB_200_2011"
    return _locate(path, ["images/", *_CUB_FILES], ["CUB_200_2011"], f"images/ and {', '.join(_CUB_FILES)}")


def birds_table(root: Path) -> DataFrame:
    """One row per image of `birds()`: path, label (the class as published) and the official split."""

    if (packed := _packed(root)) is not None:
        return packed

    def column(name: str) -> dict[str, str]:
        lines = (Path(root) / name).read_text(encoding="utf-8").splitlines()
        return {key: value for key, _, value in (line.strip().partition(" ") for line in lines) if key}

    images, trained, labels, classes = map(column, _CUB_FILES)
    if not images.keys() == trained.keys() == labels.keys():
        raise DataError(
            f"images.txt, train_test_split.txt and image_class_labels.txt in {root} list different images.", _AGAIN
        )
    splits = {"1": "train", "0": "test"}
    rows = [(f"images/{name}", classes[labels[key]], splits[trained[key]]) for key, name in images.items()]
    return _table(Path(root), rows, Path(root) / "images.txt")


def flowers(path: str = "") -> Path:
    """The root of Oxford 102 Flower: jpg/, imagelabels.mat and setid.mat."""
    if not path:
        return _fetch(find("oxford-flowers-102"))
    return _locate(path, ["jpg/", *_FLOWER_FILES], ["flowers-102"], "jpg/, imagelabels.mat and setid.mat")


def flowers_table(root: Path) -> DataFrame:
    """One row per image of `flowers()`: path, label and the official split, train, valid or test."""
    if (packed := _packed(root)) is not None:
        return packed
    labels = _matlab(root / _FLOWER_FILES[0], "labels")
    rows = []
    for key, split in (("trnid", "train"), ("valid", "valid"), ("tstid", "test")):
        for number in _matlab(root / _FLOWER_FILES[1], key):
            if not (1 <= number <= len(labels) and 1 <= labels[number - 1] <= len(FLOWERS)):
                raise DataError(f"{root}: image {number} of setid.mat has no label in imagelabels.mat.", _AGAIN)
            rows.append((f"jpg/image_{number:05d}.jpg", FLOWERS[labels[number - 1] - 1], split))
    return _table(Path(root), rows, root / _FLOWER_FILES[1])


def planet(path: str = "") -> Path:
    """The folder of Planet's training images, train-jpg/ or train/, and train_v2.csv; it cannot be downloaded."""
    if not path:
        raise DataError(
            "Planet's images are only available from Kaggle.",
            f"Download train-jpg and train_v2.csv from {_PLANET}, and pass their folder as --path.",
        )
    needed = ["|".join(f"{name}/" for name in _PLANET_IMAGES), "|".join(_PLANET_TABLES)]
    return _locate(path, needed, ["planet"], "train-jpg/ (or train/) and train_v2.csv (or labels.csv)")


def planet_table(root: Path) -> DataFrame:
    """One row per image of `planet()`: path and label, a list of tags."""
    if (packed := _packed(root)) is not None:
        return packed.drop(columns="split")
    listed_in = next(root / name for name in _PLANET_TABLES if (root / name).is_file())
    folder = next(root / name for name in _PLANET_IMAGES if (root / name).is_dir())
    rows = [cells for _, cells in rows_of(listed_in, [], strict=True)]
    if not rows or rows[0] != ["image_name", "tags"] or any(len(cells) != 2 for cells in rows):
        raise DataError(f"{listed_in} does not have the columns image_name and tags.", _AGAIN)
    named = [(f"{folder.name}/{name}.jpg", tags, "") for name, tags in rows[1:]]
    table = _table(root, named, listed_in)
    table["label"] = table["label"].str.split()
    return table.drop(columns="split")


def _matlab(file: Path, name: str) -> list[int]:
    """A row of integers in a MATLAB file."""
    from scipy.io import loadmat

    try:
        found: Any = loadmat(file, variable_names=[name])[name]
        return [int(number) for number in found.ravel()]
    except Exception as problem:  # SciPy's reader raises whatever a damaged file leads it to
        why = type(problem).__name__
        raise DataError(f"{file} is not a MATLAB file with the array {name!r} ({why}).", _AGAIN) from None


# ---------------------------------------------------------------------------- what they share


def _packed(folder: Path) -> DataFrame | None:
    """Of packed images the published table, in which no validation split was drawn; None where a folder holds files."""
    pack = shards.of_folder(str(folder.absolute()))
    if pack is None:
        return None
    table = pack.table(published=True)
    plain = {name: table[name].astype(object) for name in ("path", "label", "split")}
    return type(table)(plain)


def _table(root: Path, rows: Sequence[tuple[str, str, str]], listed_in: Path) -> DataFrame:
    """Rows (path below root, label, split) as a table of absolute paths; DataError where files are missing."""
    import pandas as pd

    found = [(root.absolute() / path, label, split) for path, label, split in rows]
    if missing := [path.name for path, _, _ in found if not path.is_file()]:
        count = f"{len(missing):,} of the {len(rows):,} images"
        raise DataError(f"{count} listed in {listed_in} are missing: {some(missing)}.", _AGAIN)
    named = [(path.as_posix(), label, split) for path, label, split in found]
    return pd.DataFrame(named, columns=["path", "label", "split"])


def _locate(path: str, needed: Sequence[str], inside: Sequence[str], wanted: str) -> Path:
    """`path`, or the first of the folders `inside` it, that holds all that is needed: patterns, or a|b one of them."""

    def holds(folder: Path) -> bool:
        return all(any(any(folder.glob(one)) for one in patterns.split("|")) for patterns in needed)

    root = layouts.folder(path)
    if pack := shards.opened(root):
        return next((root / name for name in inside if pack.below(str(root / name))), root)
    for folder in (root, *(root / name for name in inside)):
        if folder.is_dir() and holds(folder):
            return folder
    hint = "Pass its folder as --path, or omit --path to download the dataset."
    names = sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir())
    raise DataError(f"{root} does not contain {wanted}. It contains {some(names, 5) or 'nothing'}.", hint)


def _built(name: str, write: Callable[[Path], None]) -> Path:
    """A folder of the cache, filled by `write` if it is missing."""
    folder = cache_dir() / name
    with locked(folder):
        if not folder.is_dir():
            with building(folder) as part:
                write(part)
    return folder


def _fetch(data: Dataset) -> Path:
    """The dataset's folder in the cache, downloaded and unpacked if it is missing; no archive is kept."""
    folder = cache_dir() / data.name
    with locked(folder):
        if not folder.is_dir():
            archives = []
            for url, name, md5 in ((data.url, data.archive, data.md5), *data.more):
                size = data.size if url == data.url else 0
                try:
                    archives.append(download(url, cache_dir() / "archives" / data.name / name, size=size, md5=md5))
                except DownloadError as error:
                    by_hand = f"Or download {url} by hand, unpack it and pass its folder as --path."
                    raise DownloadError(error.message, f"{error.hint}\n{by_hand}".strip()) from error
            logger.info(f"Unpacking {', '.join(archive.name for archive in archives)} to {folder}")
            unpack(archives, folder)
            for archive in archives:
                archive.unlink()
    return folder


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
