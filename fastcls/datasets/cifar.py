"""CIFAR as published, Python pickles, into folders of PNG files.

A pickle can run code, so it is read only when its md5 is the published one, and then by an unpickler that
knows numpy arrays and nothing else. torchvision lists the published files and their md5s.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastcls.errors import DataError

FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}


@dataclass(frozen=True)
class Published:
    """The files of one CIFAR, each with its published md5, and the keys that its pickles use."""

    train: dict[str, str]
    test: dict[str, str]
    meta: dict[str, str]
    labels: str
    names: str


def published(name: str) -> Published:
    """What was published of 'cifar10' or 'cifar100', as torchvision has it."""
    from torchvision.datasets import CIFAR10, CIFAR100

    kind = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    labels = "labels" if kind is CIFAR10 else "fine_labels"
    meta = {kind.meta["filename"]: kind.meta["md5"]}
    return Published(dict(kind.train_list), dict(kind.test_list), meta, labels, kind.meta["key"])


def convert(source: Path, into: Path, name: str) -> None:
    """Write the images of the pickles in `source` as `into/<split>/<class>/<index>.png`."""
    from PIL import Image

    files = published(name)
    if missing := [file for file in files.train | files.test | files.meta if not (source / file).is_file()]:
        raise DataError(f"Missing in {source}: {', '.join(missing)}.", "Unpack the published archive again.")
    ((file, md5),) = files.meta.items()
    classes = _load(source / file, md5)[files.names]
    for split in ("train", "test"):
        for label in classes:
            (into / split / label).mkdir(parents=True)
        index = 0
        for file, md5 in getattr(files, split).items():
            batch = _load(source / file, md5)
            # A row is 1,024 red, 1,024 green, 1,024 blue values, each a 32×32 image row by row.
            pixels = batch["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            for image, label in zip(pixels, batch[files.labels], strict=True):
                png = into / split / classes[label] / f"{index:05d}.png"
                Image.fromarray(image).save(png, compress_level=1)  # 32×32: small at any level, so the fast one
                index += 1


def _load(file: Path, md5: str) -> dict[str, Any]:
    """The dictionary in one published pickle, after its md5 has been verified."""
    data = file.read_bytes()
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if found != md5:
        raise DataError(
            f"{file} is not the published file: its md5 is {found}, expected {md5}. It is a pickle, which "
            "could run code, and was not read.",
            "Unpack the published archive again, or use class folders of images.",
        )
    # Python 2 wrote these: its byte strings come back as text, and numpy turns that into bytes again.
    return _ArraysOnly(io.BytesIO(data), encoding="latin1").load()


class _ArraysOnly(pickle.Unpickler):
    """Admits numpy arrays; lists, dictionaries, text and numbers need no permission."""

    def find_class(self, module: str, name: str) -> Any:
        import numpy as np

        reconstruct = np.empty(0).__reduce__()[0]  # numpy's own; the modules that pickles name it by have moved
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): reconstruct,
            ("numpy._core.multiarray", "_reconstruct"): reconstruct,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        if (module, name) not in allowed:
            raise DataError(f"Refused: the pickle imports {module}.{name}, which image data does not need.")
        return allowed[module, name]
