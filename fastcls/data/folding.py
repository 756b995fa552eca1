"""The K-th of N folds: training and validation images of any recipe divided anew, so that each is held out once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastcls.data import splitting
from fastcls.datasets import groups
from fastcls.datasets.walk import count, some
from fastcls.errors import DataError
from fastcls.runfolder.target import names_of
from fastcls.settings import options


class Fold:
    """A splitter that holds out a fold of what another splits into training and validation images.

    Stratified by class and seeded by the run's seed. Groups stay whole: those that the data or the other splitter have,
    else near copies. label: of an item. DataError where a class has fewer images, or groups, than there are folds.
    """

    def __init__(self, splitter: Callable[[Any], Any], label: Callable[[Any], Any], fold: tuple[int, int]) -> None:
        self.splitter, self.label, self.fold = splitter, label, fold
        self.groups: dict[str, str] = {}

    def __call__(self, items: Any) -> tuple[list[int], list[int]]:
        k, n = self.fold
        places = np.array(
            sorted(int(i) for split in self.splitter(items) for i in splitting.positions(split, len(items)))
        )
        own = items.iloc[places] if hasattr(items, "iloc") else [items[i] for i in places]
        self.groups = splitting.groups_of(own, self.splitter)
        paths = splitting.paths_of(own)
        if self.groups:
            names = [self.groups.get(path, "") for path in paths]
        else:
            together = splitting.copies_of(own) if options.current().keep_copies_together else []
            names = together or [""] * len(paths)
            if any(names):
                self.groups = dict(zip(paths, names, strict=True))
        rows = (row for _, row in own.iterrows()) if hasattr(own, "iterrows") else own
        labels = [names_of(label) for label in splitting.plain(map(self.label, rows))]
        held = places[divide(labels, names, n, options.current().seed) == k - 1]
        return np.setdiff1d(places, held).tolist(), held.tolist()


def divide(labels: Sequence[Sequence[str]], names: Sequence[str], n: int, seed: int) -> np.ndarray:
    """(images,) the fold of each image, 0 … n-1, stratified by the rarest of its labels; groups of a name stay whole.

    names: of each image's group, empty where it is alone: of copies, which go where the first of them goes.
    """
    kept = "group" if names and all(names) else "image"
    unit = [name or (i,) for i, name in enumerate(names)]
    owners: dict[str, set[Any]] = defaultdict(set)
    sizes: Counter[str] = Counter()
    for own, name in zip(labels, unit, strict=True):
        for label in own:
            owners[label].add(name)
            sizes[label] += 1
    if few := {label: len(own) for label, own in owners.items() if len(own) < n}:
        shown = [f"{label} ({count(number, kept)})" for label, number in sorted(few.items(), key=lambda one: one[1])]
        least = min(few.values())
        fewer = f"Use {least} folds, or add" if least > 1 else "Add"
        raise DataError(
            f"{n} folds need {n} {kept}s of every class, and {count(len(few), 'class')} of {len(owners):,} "
            f"have fewer: {some(shown)}.",
            f"{fewer} images to these classes, or remove them.",
        )
    rarest = [min(own, key=lambda label: (sizes[label], label), default="") for own in labels]
    if kept == "group":
        found: np.ndarray = groups.kfold(rarest, [str(name) for name in unit], n, seed)
        return found
    from sklearn.model_selection import StratifiedKFold

    first = {name: i for i, name in reversed(list(enumerate(unit)))}
    names_in_order = sorted(first, key=first.__getitem__)
    strata = np.unique([rarest[first[name]] for name in names_in_order], return_inverse=True)[1]
    fold_of: dict[Any, int] = {}
    for fold, (_, held) in enumerate(StratifiedKFold(n, shuffle=True, random_state=seed % 2**32).split(strata, strata)):
        fold_of |= {names_in_order[i]: fold for i in held}
    return np.array([fold_of[name] for name in unit])
