"""The datasets that recipes use, a function for each.

Every function takes `path`: empty means the cache folder, downloading what is missing; otherwise a folder
in any of the layouts that the dataset is published in. Each returns a `Path`.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fastcls.datasets.archives import building, locked, unpack
from fastcls.datasets.catalogue import CATALOGUE, Dataset
from fastcls.datasets.downloads import cache_dir, download
from fastcls.datasets.flowers import flowers_table, is_flowers
from fastcls.datasets.oxford_pets import pets_parts, pets_split
from fastcls.errors import DataError, DownloadError, UsageError, did_you_mean

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = [
    "CATALOGUE",
    "WNID_NAMES",
    "Dataset",
    "birds",
    "birds_table",
    "cifar10",
    "cifar100",
    "digits",
    "find",
    "flowers",
    "flowers_table",
    "folder",
    "imagenette",
    "imagewoof",
    "pets",
    "pets_parts",
    "pets_split",
]

Size = Literal["160", "320", "full"]

_IMAGENETTE = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
_IMAGEWOOF = {
    "n02086240": "Shih-Tzu",
    "n02087394": "Rhodesian ridgeback",
    "n02088364": "beagle",
    "n02089973": "English foxhound",
    "n02093754": "Border terrier",
    "n02096294": "Australian terrier",
    "n02099601": "golden retriever",
    "n02105641": "Old English sheepdog",
    "n02111889": "Samoyed",
    "n02115641": "dingo",
}
WNID_NAMES = _IMAGENETTE | _IMAGEWOOF
_CUB_FILES = ("images.txt", "train_test_split.txt", "image_class_labels.txt", "classes.txt")


def find(name: str) -> Dataset:
    """The catalogue's entry for `name`."""
    try:
        return CATALOGUE[name]
    except KeyError:
        raise UsageError(
            f"There is no dataset {name!r} in the catalogue{did_you_mean(name, CATALOGUE)}",
            f"It holds: {', '.join(CATALOGUE)}.",
        ) from None


def digits(path: str = "") -> Path:
    """The folder of 1,797 handwritten digits: 8×8 gray PNGs in class folders 0 … 9."""
    names = [str(digit) for digit in range(10)]

    def accepts(folder: Path) -> bool:
        return all(_has_entries(folder / name) for name in names)

    if path:
        return _locate(path, accepts, ["digits"], "class folders 0 … 9 with images")
    folder = cache_dir() / "digits"
    with locked(folder):
        if not folder.is_dir():
            with building(folder) as part:
                _write_digits(part)
    return folder


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
    """The folder of Oxford-IIIT Pet that holds `<Breed>_<N>.jpg`."""

    def accepts(folder: Path) -> bool:
        return any(re.search(r"._\d+\.jpg$", entry.name) for entry in folder.iterdir())

    if not path:
        return _fetch(find("oxford-iiit-pet")) / "images"
    inside = ["images", "oxford-iiit-pet/images", "oxford-iiit-pet"]
    return _locate(path, accepts, inside, "images named <Breed>_<N>.jpg")


def cifar10(path: str = "") -> Path:
    """A root of CIFAR-10 with `train/<class>/` and `test/<class>/`."""
    return _cifar(path, find("cifar10"))


def cifar100(path: str = "") -> Path:
    """A root of CIFAR-100 with `train/<class>/` and `test/<class>/`, the 100 fine classes."""
    return _cifar(path, find("cifar100"))


def _cifar(path: str, data: Dataset) -> Path:
    """Class folders as they are; the published pickles as PNG files, converted once, in the cache."""
    from fastcls.datasets import cifar

    published = cifar.PUBLISHED[data.name]

    def accepts(folder: Path) -> bool:
        return all(_folders(folder / split) for split in ("train", "test")) or published.begun(folder)

    source: Path | None = None
    if path:
        wanted = f"train/ and test/ with class folders, or {published.folder}/ with the published files"
        source = _locate(path, accepts, [published.folder, data.name], wanted)
        if not published.begun(source):
            _refuse_two_levels(source)
            return source
    folder = cache_dir() / f"{data.name}-png"
    with locked(folder):
        if not folder.is_dir():
            source = source or _fetch(data) / published.folder
            _say(f"Writing the {data.images:,} images of {source} to {folder}, once")
            with building(folder) as part:
                cifar.convert(source, part, published)
    return folder


def _refuse_two_levels(root: Path) -> None:
    """fast.ai's CIFAR-100 archive has train/<superclass>/<class>/: the labels are one level too deep."""
    first = _folders(root / "train")[0]
    if _folders(first) and not any(entry.is_file() for entry in first.iterdir()):
        raise DataError(
            f"{first} holds folders, not images: a layout of two levels, superclass and class.",
            "Leave --path empty for the published files, or move the inner class folders up one level.",
        )


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

    def accepts(folder: Path) -> bool:
        return all(any(_has_entries(folder / split / wnid) for wnid in wnids) for split in ("train", "val"))

    if not path:
        return _fetch(find(name)) / name
    return _locate(path, accepts, [name], f"train/ and val/ with class folders such as {next(iter(wnids))}")


def birds(path: str = "") -> Path:
    """The CUB_200_2011 root: images/ and the text files of names, classes and split."""

    def accepts(folder: Path) -> bool:
        return (folder / "images").is_dir() and all((folder / file).is_file() for file in _CUB_FILES)

    if not path:
        return _fetch(find("caltech-ucsd-birds-200-2011")) / "CUB_200_2011"
    return _locate(path, accepts, ["CUB_200_2011"], f"images/ and {', '.join(_CUB_FILES)}")


def birds_table(root: Path) -> DataFrame:
    """One row an image of `birds()`: path, label (the class as published) and the official split."""
    import pandas as pd

    def column(name: str) -> dict[str, str]:
        lines = (Path(root) / name).read_text(encoding="utf-8").splitlines()
        return {key: value for key, _, value in (line.strip().partition(" ") for line in lines) if key}

    images, trained, labels, classes = (column(name) for name in _CUB_FILES)
    if not images.keys() == trained.keys() == labels.keys():
        raise DataError(
            f"images.txt, train_test_split.txt and image_class_labels.txt in {root} list different images.",
            "Unpack the published archive again.",
        )
    files = {key: Path(root).absolute() / "images" / name for key, name in images.items()}
    if missing := [images[key] for key, file in files.items() if not file.is_file()]:
        raise DataError(
            f"{len(missing):,} of the {len(files):,} images listed in {root}/images.txt are not there, "
            f"such as {', '.join(missing[:3])}.",
            "Unpack the published archive again.",
        )
    rows = [
        (file.as_posix(), classes[labels[key]], "train" if trained[key] == "1" else "test")
        for key, file in files.items()
    ]
    return pd.DataFrame(rows, columns=["path", "label", "split"])


def flowers(path: str = "") -> Path:
    """The root of Oxford 102 Flower: jpg/, imagelabels.mat and setid.mat."""
    if not path:
        return _fetch(find("oxford-flowers-102"))
    return _locate(path, is_flowers, ["flowers-102"], "jpg/, imagelabels.mat and setid.mat")


# ---------------------------------------------------------------------------- finding and fetching


def _locate(path: str, accepts: Callable[[Path], bool], inside: Sequence[str], wanted: str) -> Path:
    """`path`, or the first of the folders `inside` it, that `accepts`."""
    root = Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100, a link stays the name the user gave
    hint = "Give the folder that holds it with --path, or leave --path empty to download the dataset."
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise DataError(f"{root} {what}; looked there for {wanted}.", hint)
    for folder in (root, *(root / name for name in inside)):
        if folder.is_dir() and accepts(folder):
            return folder
    names = sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir())
    found = ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")
    raise DataError(f"{root} does not hold {wanted}. It holds {found or 'nothing'}.", hint)


def _fetch(data: Dataset) -> Path:
    """The dataset's folder in the cache, downloaded and unpacked if it is not there; no archive is kept."""
    folder = cache_dir() / data.name
    with locked(folder):
        if not folder.is_dir():
            files = [(data.url, data.archive, data.size, data.md5, data.sha256)]
            files += [(url, name, 0, md5, "") for url, name, md5 in data.more]
            archives = []
            for url, name, size, md5, sha256 in files:
                dest = cache_dir() / "archives" / data.name / name
                try:
                    archives.append(download(url, dest, size=size or None, md5=md5, sha256=sha256))
                except DownloadError as error:
                    by_hand = f"Or fetch {url} by hand, unpack it and name its folder with --path."
                    raise DownloadError(error.message, f"{error.hint}\n{by_hand}".strip()) from error
            _say(f"Unpacking {', '.join(archive.name for archive in archives)} to {folder}")
            unpack(archives, folder)
            for archive in archives:
                archive.unlink()
    return folder


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _has_entries(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def folder(
    path: str | Path, *, labels: str = "", label_regex: str = "", valid_pct: float = 0.2, seed: int | None = None
) -> DataFrame:
    """Images of your own, whatever their layout: a table with the columns path, label and split (`layouts.find`)."""
    from fastcls.datasets import layouts

    return layouts.find(path, labels=labels, label_regex=label_regex, valid_pct=valid_pct, seed=seed)
