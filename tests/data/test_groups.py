"""Groups stay on one side of a split: by a column, by a pattern, as copies, in a table or as a splitter."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bursts import burst, scene
from conftest import Fastcls
from fastai.data.all import L
from PIL import Image

from fastcls import data, datasets
from fastcls.data.splitting import folded
from fastcls.errors import DataError
from fastcls.runfolder import predictions
from fastcls.settings import options
from fastcls.settings.options import Options


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


# ---------------------------------------------------------------------------- copies, where nothing is named


def siblings(found: pd.DataFrame) -> int:
    """Validation images of a burst that is trained on."""
    name = found["path"].str.rpartition("_")[0]
    return int(name[found["split"] == "valid"].isin(name[found["split"] == "train"]).sum())


@pytest.fixture(scope="module")
def bursts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """480 images in 160 bursts of three, half of each of two classes."""
    root, rng = tmp_path_factory.mktemp("bursts"), np.random.default_rng(0)
    for i in range(160):
        burst(root / ("cat" if i % 2 else "dog"), f"{i:03d}", scene(rng), rng)
    return root


def test_bursts_are_kept_together_unless_told_otherwise(bursts: Path) -> None:
    plain = datasets.folder(bursts, valid_pct=None)
    with options.using(Options()) as notes:
        found = data.split(plain)
    assert siblings(found) == 0 and found["group"].nunique() == 160
    assert found.groupby("label")["split"].value_counts().loc[:, "valid"].tolist() == [48, 48]
    assert notes == ["480 images are copies or near copies (160 groups): each group stays in one split."]
    with options.using(Options(keep_copies_together=False)) as notes:
        parted = data.split(plain)
    assert siblings(parted) > 70 and "group" not in parted and not notes
    files = [Path(path) for path in plain["path"]]
    split = data.stratified(lambda file: file.parent.name)
    train, valid = split(files)
    assert {files[i].name[:3] for i in train}.isdisjoint(files[i].name[:3] for i in valid) and len(valid) == 96


def test_pictures_that_are_merely_alike_do_not_become_one_group(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    camera = scene(rng)  # a fixed one: what passes before it is small
    for i in range(80):
        file = tmp_path / ("cat" if i % 2 else "dog") / f"{i}.png"
        file.parent.mkdir(exist_ok=True)
        pixels = np.asarray(camera).copy()
        pixels[i : i + 8, 40:48] = 255 * (i % 2)
        Image.fromarray(pixels).save(file)
    (tmp_path / "cat" / "copy.png").write_bytes((tmp_path / "cat" / "1.png").read_bytes())
    with options.using(Options()) as notes:
        found = data.split(datasets.folder(tmp_path, valid_pct=None))
    assert "81 images are similar, in groups of up to 81, too many to be kept together" in notes[0]
    assert "group" not in found and found["split"].value_counts().to_dict() == {"train": 65, "valid": 16}


def test_digits_are_too_small_to_be_near_copies() -> None:
    """Their split is what it was before copies were looked for."""
    files = sorted(datasets.digits().rglob("*.png"))
    label = lambda file: file.parent.name  # noqa: E731
    with options.using(Options()) as notes:
        now = data.stratified(label)(files)
    with options.using(Options(keep_copies_together=False)):
        assert data.stratified(label)(files) == now and not notes


def test_a_class_of_copies_alone_stays_in_train(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    for i in range(10):
        burst(tmp_path / "cat", f"{i}", scene(rng), rng, 1)
    burst(tmp_path / "dog", "1", scene(rng), rng, 4)
    found = data.split(datasets.folder(tmp_path, valid_pct=None))
    assert set(found["split"][found["label"] == "dog"]) == {"train"} and (found["split"] == "valid").any()


@pytest.mark.usefixtures("unexported")
def test_a_leaking_split_that_the_data_come_with_is_kept_and_the_figures_say_so(
    fastcls: Fastcls, tmp_path: Path
) -> None:
    rng = np.random.default_rng(3)
    for label in ("cat", "dog"):
        for i in range(12):
            burst(tmp_path / "photos" / ("train" if i < 8 else "valid") / label, f"{i}", scene(rng, 64), rng, 1)
        for i in range(2):
            copied = (tmp_path / "photos" / "train" / label / f"{i}_0.jpg").read_bytes()
            (tmp_path / "photos" / "valid" / label / f"copy{i}.jpg").write_bytes(copied)
    words = ("--arch", "squeezenet1_1", "--weights", "none", "--size", 32, "--bs", 8, "--epochs", 1)
    outcome = fastcls("recipe", "folder", "--path", "photos", *words, "--out", "run")
    assert outcome.code == 0, outcome.output
    figures = json.loads(Path("run/metrics.json").read_text())["valid"]
    assert figures["n"] == 12 and figures["accuracy_without_leaks"]["n"] == 8
    answers = predictions.read(Path("run/predictions.csv"))
    own = answers[~answers["path"].str.contains("copy")]
    assert figures["accuracy_without_leaks"]["value"] == pytest.approx((own["label"] == own["prediction"]).mean())
    shown, value = " ".join(outcome.output.split()), f"{figures['accuracy_without_leaks']['value']:.4f}"
    assert f"4 of these images have a copy, or one of their group, in train: without leaks {value}" in shown
    page = Path("run/report.html").read_text()
    assert "4 of the 12 valid images have a copy" in page and "Accuracy without leaked images" in page


@pytest.mark.further
@pytest.mark.parametrize("seed", range(25))
def test_no_burst_or_copy_is_ever_on_both_sides(seed: int, tmp_path: Path) -> None:
    """Generated layouts: bursts, and copies that were re-encoded, resized or renamed, of few classes and many."""
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 6))
    for i in range(int(rng.integers(20, 60))):
        folder, shots = tmp_path / f"c{i % classes}", int(rng.integers(1, 5))
        first, *_ = burst(folder, f"{i:02d}", scene(rng), rng, shots if seed % 2 else 1)
        for k in range(0 if seed % 2 else shots - 1):
            kind = rng.choice(["png", "webp", "jpg"])
            size = int(rng.integers(64, 192))
            with Image.open(first) as image:
                image.resize((size, size)).save(folder / f"{i:02d}_{k + 1}.{kind}")
    with options.using(Options(seed=seed)):
        found = data.split(datasets.folder(tmp_path, valid_pct=None), float(rng.choice([0.1, 0.2, 0.33])))
    assert siblings(found) == 0 and {"train", "valid"} == set(found["split"])


def test_vectors_of_0_and_1_are_stratified_label_by_label() -> None:
    rng = np.random.default_rng(0)
    flags = (rng.random((300, 3)) < [0.5, 0.2, 0.05]).astype(int)
    items = [f"{i}.jpg" for i in range(300)]
    kinds: list[Callable[[str], Any]] = [lambda item: flags[int(item[:-4])]]
    kinds += [lambda item: flags[int(item[:-4])].astype(float).tolist()]
    for label in kinds:
        for group in ("", lambda item: int(item[:-4]) // 3):
            _, valid = data.stratified(label, 0.2, group)(items)
            assert np.abs(flags[valid].sum(0) - flags.sum(0) / 5).max() <= 2
        folds = [folded(lambda _: (range(300), []), label, (k, 3))(items)[1] for k in (1, 2, 3)]
        assert all(np.abs(flags[held].sum(0) - flags.sum(0) / 3).max() <= 8 for held in folds)
        assert max(flags[held, 2].sum() for held in folds) - min(flags[held, 2].sum() for held in folds) <= 1


# ---------------------------------------------------------------------------- by time


def timed(dates: list[str]) -> pd.DataFrame:
    """Twenty images a class, with these times."""
    found = table({"cat": [1] * 20, "dog": [1] * 20}, Path("/photos"))
    found["slice:taken"] = dates
    return found


def test_a_share_of_newest_images_without_a_column_of_times_says_that_it_does_nothing() -> None:
    found = data.split(timed([str(number) for number in range(40)]), newest=0.3)
    assert not (found["split"] == "test").any()
    assert any("--newest 0.3 needs --split-by" in note for note in found.attrs["notes"])


def test_the_newest_images_are_kept_for_the_end() -> None:
    days = [f"2026-0{1 + i % 5}-{10 + i % 20:02d}" for i in range(40)]
    cameras = [f"{day.replace('-', ':')} {23 - i % 24:02d}:00:00" for i, day in enumerate(days)]
    british = [f"{day[8:]}/{day[5:7]}/{day[:4]}" for day in days]
    for taken in (days, [day.replace("-", "") for day in days], cameras):
        found = data.split(timed(taken), split_by="taken", newest=0.2)
        test = found["slice:taken"][found["split"] == "test"]
        assert len(test) == 8 and min(test) > max(found["slice:taken"][found["split"] != "test"])
        assert (found["split"] == "valid").sum() == 6
    assert (data.split(timed(british), split_by="taken", newest=0.2)["split"] == found["split"]).all()
    assert "8 images of 40 are the newest by 'taken', from" in found.attrs["notes"][-1]


def test_images_of_one_time_and_of_one_group_stay_on_one_side() -> None:
    found = data.split(timed(["1"] * 15 + ["2"] * 5 + ["1"] * 10 + ["2"] * 5 + ["3"] * 5), split_by="taken")
    assert set(found["slice:taken"][found["split"] == "test"]) == {"3"}  # 5 rather than 15 of the 8 that were wanted
    together = timed([str(i) for i in range(40)])
    together["slice:patient"] = [str(i % 10) if i in (0, 39) else f"p{i}" for i in range(40)]
    together.loc[[0, 39], "slice:patient"] = "same"
    found = data.split(together, group="patient", split_by="taken")
    assert found["split"][0] == found["split"][39] == "test"


@pytest.mark.parametrize(
    ("taken", "says"),
    [
        (["2026-01-01"] * 39 + [""], "not a date or number for 1 of 40 images: dog/dog019_0.png ''"),
        (["2026-01-01"] * 39 + ["soon"], "'soon'"),
        (["2026-01-01"] * 40, "has one value"),
        ([f"{i % 24}:15" for i in range(40)], "not a date or number for 40 of 40 images"),
        ([f"0{1 + i % 9}/04/2026" for i in range(40)], "ambiguous dates: 01/04/2026"),
    ],
)
def test_times_that_are_none_are_refused(taken: list[str], says: str) -> None:
    with pytest.raises(DataError) as refused:
        data.split(timed(taken), split_by="taken")
    assert says in refused.value.message


@pytest.mark.further
@pytest.mark.parametrize("seed", range(25))
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


@pytest.mark.usefixtures("unexported")
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
    held = int((splits["split"] == "valid").sum()) // 3
    assert json.loads(Path("run/metrics.json").read_text())["valid"]["accuracy"]["groups"] == held
    assert f"(95 % over {held} groups: " in outcome.output
    page = Path("run/report.html").read_text()
    assert f"interval over {held} groups" in page
    tuned = re.search(
        r"Tuned on (\d+) valid images in (\d+) groups?, evaluated on the other (\d+) in (\d+) group", page
    )
    assert tuned, "judged on other groups"
    assert [int(tuned[i]) + int(tuned[i + 2]) for i in (1, 2)] == [3 * held, held]
    answers = predictions.read(Path("run/predictions.csv"))
    assert answers["group"].tolist() == [Path(path).stem.rpartition("_")[0] for path in answers["path"]]


@pytest.mark.parametrize("kind", [list, tuple, set, frozenset, np.array, L])
def test_labels_of_any_collection_are_stratified_label_by_label(kind: Callable[[list[str]], Any]) -> None:
    """Each pair of labels is rare, each label is not: pairs as classes would leave the validation split to chance."""
    items = [(f"n{i}", [f"a{i % 10}", f"b{i // 10 % 10}"]) for i in range(200)]
    split = data.stratified(lambda item: kind(item[1]), 0.2)
    _, valid = split(items)
    held = Counter(name for i in valid for name in items[i][1])
    assert 38 <= len(valid) <= 42 and len(held) == 20 and set(held.values()) <= {3, 4, 5}


def test_images_with_several_labels_are_split_in_groups_too() -> None:
    found = table({"cat": [2] * 20, "dog": [2] * 20}, Path("/photos"))
    found["label"] = [[label, "outdoors"] if i % 3 else [label] for i, label in enumerate(found["label"])]
    drawn = data.split(found, group="patient")
    assert_apart(drawn, found["slice:patient"])
    assert drawn["label"].tolist() == found["label"].tolist()
    outdoors = drawn["label"].map(lambda names: "outdoors" in names)
    assert (drawn["split"][outdoors] == "valid").mean() == pytest.approx(0.2, abs=0.08)
