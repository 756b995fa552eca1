"""Groups stay on one side of a split: by a column, by a pattern, in a table or as a splitter."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Outcome
from PIL import Image

from fastcls import data, datasets
from fastcls.errors import DataError
from fastcls.runfolder import predictions
from fastcls.settings import options
from fastcls.settings.options import Options

Fastcls = Callable[..., Outcome]


def table(sizes: dict[str, list[int]], root: Path) -> pd.DataFrame:
    """Of each class groups of these sizes, undrawn; the files need not be there."""
    rows = [
        (f"{root}/{label}/{label}{g:03d}_{i}.png", label, "", f"{label}{g:03d}")
        for label, groups in sizes.items()
        for g, size in enumerate(groups)
        for i in range(size)
    ]
    found = pd.DataFrame(rows, columns=["path", "label", "split", "slice:patient"])
    found.attrs = {"root": str(root), "notes": []}
    return found


def assert_apart(found: pd.DataFrame, groups: pd.Series) -> None:
    assert found["split"].isin(["train", "valid", "test"]).all()
    assert (found["split"].groupby(groups).nunique() == 1).all(), "a group on both sides"


@pytest.mark.parametrize("group", ["patient", r"(\w+\d{3})_", r"[a-z]+\d{3}"])
def test_groups_stay_together_and_class_shares_are_kept(group: str) -> None:
    plain = table({"cat": [3] * 60, "dog": [3] * 100}, Path("/photos"))
    found = data.split(plain, 0.2, 0.1, group)
    assert_apart(found, plain["slice:patient"])
    shares = found.groupby("label")["split"].value_counts(normalize=True).unstack()
    assert np.allclose(shares["valid"], 0.2, atol=0.02) and np.allclose(shares["test"], 0.1, atol=0.02)
    assert "160 groups by" in found.attrs["notes"][-1]
    assert found["group"].nunique() == 160
    again = data.split(plain, 0.2, 0.1, group)
    assert again["split"].tolist() == found["split"].tolist()
    with options.using(Options(seed=7)):
        assert data.split(plain, 0.2, 0.1, group)["split"].tolist() != found["split"].tolist()


def test_every_class_is_trained_where_groups_are_few_and_uneven() -> None:
    sizes = {"cat": [40, 1], "dog": [2, 30, 5], "owl": [9, 9]}
    for seed in range(20):
        with options.using(Options(seed=seed)):
            plain = table(sizes, Path("/photos"))
            found = data.split(plain, 0.2, group="patient")
            assert_apart(found, plain["slice:patient"])
            assert set(found["label"][found["split"] == "train"]) == set(sizes)
            assert (found["split"] == "valid").any()


def test_a_split_that_the_data_come_with_is_kept_and_its_groups_on_both_sides_are_said() -> None:
    plain = table({"cat": [2] * 10, "dog": [2] * 10}, Path("/photos"))
    plain["split"] = ["train", "valid"] * 20
    found = data.split(plain, group="patient")
    assert found["split"].tolist() == plain["split"].tolist()
    assert "20 groups of 20 with images on both sides" in " ".join(found.attrs["notes"])


def test_a_splitter_keeps_groups_of_files_together() -> None:
    files = [Path(path) for path in table({"cat": [3] * 20, "dog": [3] * 20}, Path("/photos"))["path"]]
    for group in (lambda file: file.name[:6], r"/(\w+)_"):
        split = data.stratified(lambda file: file.parent.name, 0.25, group=group)
        train, valid = split(files)
        assert sorted([*train, *valid]) == list(range(120)) and len(valid) == 30
        assert {files[i].name[:6] for i in train}.isdisjoint(files[i].name[:6] for i in valid)
        assert set(split.groups) == set(map(str, files)) and len(set(split.groups.values())) == 40


def test_too_few_groups_for_three_splits_are_refused_with_counts() -> None:
    with pytest.raises(DataError, match=r"2 groups cannot be divided into training, validation and test"):
        both = table({"cat": [3, 3], "dog": [3, 3]}, Path("/photos"))
        both["slice:patient"] = ["a", "b"] * 6
        data.split(both, 0.2, 0.2, "patient")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_no_group_is_ever_on_both_sides(seed: int, tmp_path: Path) -> None:
    """Generated layouts: sizes of groups and classes, groups of several classes, by column, pattern, table on disk."""
    rng = np.random.default_rng(seed)
    classes = [f"c{i}" for i in range(int(rng.integers(2, 9)))]
    people = [f"p{i}" for i in range(int(rng.integers(8, 60)))]
    rows = [(c, p) for p in people for c in rng.choice(classes, rng.integers(1, 3)) for _ in range(rng.integers(1, 6))]
    rows += [(c, p) for c in classes for p in rng.choice(people, 4, replace=False)]
    for i, (label, person) in enumerate(rows):
        file = tmp_path / label / f"{person}-{i}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"")
    by_column = bool(seed % 2)
    words = {"labels": "labels.csv"} if by_column else {}
    if by_column:
        lines = [f"{label}/{person}-{i}.png,{label},{person}\n" for i, (label, person) in enumerate(rows)]
        (tmp_path / "labels.csv").write_text("".join(["file,label,person\n", *lines]))
    plain = datasets.folder(tmp_path, valid_pct=None, **words)
    test_pct = float(rng.choice([0, 0.1, 0.25]))
    with options.using(Options(seed=seed)):
        found = data.split(plain, float(rng.choice([0.1, 0.2, 0.33])), test_pct, "person" if by_column else r"(p\d+)-")
    owner = found["path"].map(lambda path: Path(path).name.partition("-")[0])
    assert_apart(found, owner)
    assert (found["group"] == owner).all()
    assert set(found["label"][found["split"] == "train"]) == set(found["label"])
    assert {"valid", *(["test"] if test_pct else [])} <= set(found["split"])


def test_a_run_by_groups_records_them(fastcls: Fastcls, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        for i in range(24):
            file = tmp_path / "photos" / label / f"{label}_p{i // 3}_{i % 3}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file)
    words = ("--arch", "squeezenet1_1", "--weights", "none", "--size", 32, "--bs", 8, "--epochs", 1)
    outcome = fastcls("recipe", "folder", "--path", "photos", "--group", r"(\w+_p\d+)_", *words, "--out", "run")
    assert outcome.code == 0, outcome.output
    assert "16 groups by the pattern" in " ".join(outcome.output.split())
    splits = pd.read_csv("run/splits.csv")
    assert splits["group"].nunique() == 16 and (splits.groupby("group")["split"].nunique() == 1).all()
    assert json.loads(Path("run/run.json").read_text())["data"]["groups"] == 16
    answers = predictions.read(Path("run/predictions.csv"))
    assert answers["group"].tolist() == [Path(path).stem.rpartition("_")[0] for path in answers["path"]]
