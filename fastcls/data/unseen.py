"""`test_dl` of a recipe's DataLoaders: what fastai takes as an item, and pictures in memory and tables too."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any

import pandas as pd
from fastai.data.all import DataLoaders, Datasets, test_set

from fastcls.errors import DataError
from fastcls.images import opening


class Loaders(DataLoaders):
    """fastai's DataLoaders; their `test_dl`, which `learn.predict` calls, takes whatever holds an image."""

    def test_dl(self, test_items: Any, rm_type_tfms: Any = None, with_labels: bool = False, **kwargs: Any) -> Any:
        """A loader of further images: items like those of the dataset, or files, pictures, a table, mixed or not.

        A picture is a PIL image, bytes of a file, or uint8: an array or tensor (h, w) or (h, w, channels), a tensor
        also (channels, h, w). It is prepared as its file would be. with_labels: found as the training images' were;
        if those were not in a table, a table's are its column `label`.
        DataError where an item holds no image, or has no label.
        """
        if rm_type_tfms is not None:
            return super().test_dl(test_items, rm_type_tfms, with_labels, **kwargs)
        dataset = self.valid_ds
        images, labels = dataset.tls
        own = labels.types[0]  # of an item, which the getters take
        is_table = isinstance(test_items, pd.DataFrame)
        if is_table and not issubclass(pd.Series, own):
            paths, names = _columns(test_items, with_labels)
            found = test_set(dataset, [_like(path, own) for path in paths])
            if with_labels:
                named = labels._new(names, split_idx=1)
                named.tfms.fs = named.tfms.fs[-1:]  # no getter: these are labels
                found = Datasets(tls=[*found.tls, named])
            return self.valid.new(found, **kwargs)
        if not is_table:
            kind = images.types[-1]
            test_items = [item if isinstance(item, own) else _picture(_like(item, own), kind) for item in test_items]
            if with_labels and (foreign := next((item for item in test_items if not isinstance(item, own)), None)):
                raise DataError(
                    f"{opening.shown(foreign)} has no label: these loaders read the labels from items of another kind, "
                    f"{getattr(own, '__name__', own)}.",
                    "Pass a table like the training table, or omit with_labels.",
                )
        if len(test_items) == 0:
            raise DataError("The list of images is empty.", "Pass files, images or a table.")
        return super().test_dl(test_items, None, with_labels, **kwargs)


def _like(item: Any, own: Any) -> Any:
    """A file's name as the getters of these loaders take it: text where they read text, else a Path."""
    if not isinstance(item, (str, os.PathLike)):
        return item
    return os.fspath(item) if own is str else Path(item)


def _picture(item: Any, kind: type) -> Any:
    """What is in memory as an image of the class that fastai's transforms of these loaders know."""
    mode = getattr(kind, "_open_args", {}).get("mode")
    if isinstance(item, PurePath) or mode not in ("RGB", "L"):
        return item
    image = opening.picture(item, mode)
    return image if isinstance(image, kind) else kind(image)


def _columns(table: pd.DataFrame, with_labels: bool) -> tuple[Iterable[str], list[str]]:
    wanted = ["path", "label"] if with_labels else ["path"]
    if missing := [name for name in wanted if name not in table]:
        raise DataError(
            f"The table has no column {' or '.join(map(repr, missing))}; it has {', '.join(map(str, table))}.",
            "Rename its columns: table.rename(columns={…: 'path', …: 'label'}).",
        )
    return table["path"], table["label"].tolist() if with_labels else []
