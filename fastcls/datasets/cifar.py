"""CIFAR as published, Python pickles, into folders of PNG files.

A pickle can run code, so it is read only when its md5 is the published one, and then by an unpickler that
knows numpy arrays and nothing else.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastcls.errors import DataError


@dataclass(frozen=True)
class Published:
    """The files of one CIFAR, each with its published md5, and the keys that its pickles use."""

    folder: str
    train: dict[str, str]
    test: dict[str, str]
    meta: dict[str, str]
    labels: str
    names: str

    @property
    def files(self) -> dict[str, str]:
        return self.train | self.test | self.meta

    def begun(self, folder: Path) -> bool:
        """Whether any of the files is there; `convert` names those that lack."""
        return any((folder / name).is_file() for name in self.files)


PUBLISHED = {
    "cifar10": Published(
        folder="cifar-10-batches-py",
        train={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        },
        test={"test_batch": "40351d587109b95175f43aff81a1287e"},
        meta={"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"},
        labels="labels",
        names="label_names",
    ),
    "cifar100": Published(
        folder="cifar-100-python",
        train={"train": "16019d7e3df5f24257cddd939b257f8d"},
        test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        meta={"meta": "7973b15100ade9c7d40fb424638fde48"},
        labels="fine_labels",
        names="fine_label_names",
    ),
}


def convert(source: Path, into: Path, published: Published) -> None:
    """Write the images of the pickles in `source` as `into/<split>/<class>/<index>.png`."""
    from PIL import Image

    if missing := [name for name in published.files if not (source / name).is_file()]:
        raise DataError(f"{source} lacks {', '.join(missing)}.", "Unpack the published archive again.")
    (meta,) = (_load(source / name, md5) for name, md5 in published.meta.items())
    classes = meta[published.names]
    for split in ("train", "test"):
        for name in classes:
            (into / split / name).mkdir(parents=True)
        index = 0
        for file, md5 in getattr(published, split).items():
            batch = _load(source / file, md5)
            # A row is 1,024 red, 1,024 green, 1,024 blue values, each a 32×32 image row by row.
            pixels = batch["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            for image, label in zip(pixels, batch[published.labels], strict=True):
                png = into / split / classes[label] / f"{index:05d}.png"
                Image.fromarray(image).save(png, compress_level=1)  # 32×32: small at any level, so the fast one
                index += 1


def _load(file: Path, md5: str) -> dict[str, Any]:
    """The dictionary in one published pickle, after its md5 has been found right."""
    data = file.read_bytes()
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if found != md5:
        raise DataError(
            f"{file} is not the published file: its md5 is {found}, expected {md5}. It is a pickle, which "
            "could run code, and was not read.",
            "Unpack the published archive again, or give class folders of images.",
        )
    # Python 2 wrote these: its byte strings come back as text, and numpy turns that into bytes again.
    loaded = _ArraysOnly(io.BytesIO(data), encoding="latin1").load()
    if not isinstance(loaded, dict):
        raise DataError(f"{file} holds {type(loaded).__name__}, expected a dictionary.")
    return loaded


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
            raise DataError(f"A pickle asks for {module}.{name}, which a file of images has no use for; refused.")
        return allowed[module, name]
