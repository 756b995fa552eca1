"""Images of your own in every layout that is recognised; bad ones are in support/bad_inputs.py."""

import re
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from conftest import Fastcls
from PIL import Image

from fastcls.datasets import layouts
from fastcls.errors import DataError
from fastcls.settings import options
from fastcls.settings.options import Options


def plant(root, *names):
    """Empty files: a layout is recognised by names alone."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def many(folder, count, suffix=".jpg"):
    return [f"{folder}/{n}{suffix}" for n in range(count)]


def listed(df):
    """{file name: (label, split)}"""
    return {Path(row.path).name: (row.label, row.split) for row in df.itertuples()}


def sizes(df):
    return df.groupby(["split", "label"]).size().to_dict()


def notes(df):
    return "\n".join(df.attrs["notes"])


# ---------------------------------------------------------------------------- class folders


def test_class_folders_are_split_by_class(tmp_path):
    plant(tmp_path, *many("cat", 50), *many("dog", 10))
    df = layouts.find(tmp_path)
    assert list(df.columns) == ["path", "label", "split"]
    assert sizes(df) == {("train", "cat"): 40, ("train", "dog"): 8, ("valid", "cat"): 10, ("valid", "dog"): 2}
    assert df.attrs == {"layout": "2 class folders", "notes": [], "root": str(tmp_path)}
    assert df.path.iloc[0] == (tmp_path / "cat/0.jpg").as_posix()
    assert all(isinstance(value, str) for value in df.to_numpy().ravel())


def test_the_split_depends_on_the_seed_alone(tmp_path):
    plant(tmp_path, *many("cat", 50), *many("dog", 50))
    first = layouts.find(str(tmp_path))
    pd.testing.assert_frame_equal(first, layouts.find(tmp_path, seed=42))
    assert first.split.tolist() != layouts.find(tmp_path, seed=1).split.tolist()
    assert (layouts.find(tmp_path, valid_pct=0.5).split == "valid").sum() == 50


def test_order_is_natural(tmp_path):
    plant(tmp_path, *many("c10", 12), *many("c9", 2), "c9/sub/0.jpg")
    names = [Path(path).relative_to(tmp_path).as_posix() for path in layouts.find(tmp_path).path]
    assert names == ["c9/0.jpg", "c9/1.jpg", "c9/sub/0.jpg", *many("c10", 12)]


@pytest.mark.parametrize("images", [2, 3])
def test_few_images_of_many_classes(tmp_path, images):
    plant(tmp_path, *(name for n in range(40) for name in many(f"c{n}", images)))
    df = layouts.find(tmp_path)
    assert (df.split == "valid").sum() == 40 and set(df[df.split == "train"].label) == set(df.label)


# ---------------------------------------------------------------------------- train, valid, test folders


@pytest.mark.parametrize(
    "names", [("train", "valid", "test"), ("Train", "VAL", "Test"), ("training", "validation", "testing")]
)
def test_split_folders(tmp_path, names):
    train, valid, test = names
    plant(tmp_path, *many(f"{train}/a", 3), *many(f"{train}/b", 3), *many(f"{valid}/a", 2), f"{test}/b/9.jpg")
    plant(tmp_path, f"{valid}/b/0.jpg", "extra/c/0.jpg")
    df = layouts.find(tmp_path)
    assert sizes(df) == {
        ("train", "a"): 3,
        ("train", "b"): 3,
        ("valid", "a"): 2,
        ("valid", "b"): 1,
        ("test", "b"): 1,
    }
    assert df.attrs["layout"] == f"{train}/, {valid}/, {test}/ with 2 class folders"
    assert "Left out extra/" in notes(df)


def test_train_and_test_alone_get_a_validation_split_from_train(tmp_path):
    plant(tmp_path, *many("train/a", 10), *many("train/b", 10), *many("test/a", 5), *many("test/b", 5))
    df = layouts.find(tmp_path)
    assert df.split.value_counts().to_dict() == {"train": 16, "test": 10, "valid": 4}


@pytest.mark.parametrize("inside", ["test", "test/images"])
def test_unlabelled_test_images_are_noted_and_left_out(tmp_path, inside):
    plant(tmp_path, *many("train/a", 10), *many("train/b", 10), *many(inside, 5))
    df = layouts.find(tmp_path)
    assert "test" not in set(df.split) and len(df) == 20
    assert "test/ has no class folders: its 5 images left out as unlabelled." in notes(df)


# ---------------------------------------------------------------------------- labels from file names

PATTERN = r"^(.+)_\d+\.jpg$"


def test_labels_from_file_names_keep_the_split_folders(tmp_path):
    plant(tmp_path, *(f"{split}/{c}_{n}.jpg" for split in ("train", "val") for c in "ab" for n in range(3)))
    assert layouts.find(tmp_path, label_regex=PATTERN).split.value_counts().to_dict() == {
        "train": 6,
        "valid": 6,
    }


# ---------------------------------------------------------------------------- tables

FILES = [f"img{n}.jpg" for n in range(12)]
LABELS = ["cat", "dog", "007"] * 4


def table(root, text, name="labels.csv", encoding="utf-8"):
    (root / name).write_bytes(text.encode(encoding))
    return name


def rows(header="", delimiter=",", files=FILES, labels=LABELS, extra=()):
    columns = [files, labels, *extra]
    return header + "".join(delimiter.join(row) + "\n" for row in zip(*columns, strict=True))


@pytest.mark.parametrize("file", ["path", "file", "filename", "image", "image_id", "id", "name", "Photo"])
@pytest.mark.parametrize("label", ["label", "class", "TARGET", "category", "species", "breed", "what"])
def test_columns_are_known_by_name_or_content(tmp_path, file, label):
    plant(tmp_path, *FILES)
    df = layouts.find(tmp_path, labels=table(tmp_path, rows(f"{file},{label}\n")))
    assert listed(df)["img1.jpg"][0] == "dog" and len(df) == 12
    assert df.attrs["layout"] == f"the table labels.csv: files in column {file!r}, labels in {label!r}"


def test_the_column_that_holds_files_wins(tmp_path):
    plant(tmp_path, *FILES)
    numbers = [str(n + 500) for n in range(12)]
    df = layouts.find(tmp_path, labels=table(tmp_path, rows("id,label,photo\n", files=numbers, extra=[FILES])))
    assert "files in column 'photo', labels in 'label'" in df.attrs["layout"] and len(df) == 12


@pytest.mark.parametrize("turned", [False, True])
def test_two_columns_without_a_header(tmp_path, turned):
    plant(tmp_path, *FILES)
    text = rows(files=LABELS, labels=FILES) if turned else rows()
    df = layouts.find(tmp_path, labels=table(tmp_path, text))
    assert listed(df)["img2.jpg"][0] == "007" and len(df) == 12


@pytest.mark.parametrize("place", ["", "images", "images/deep"])
def test_names_are_found_without_suffix_and_below(tmp_path, place):
    plant(tmp_path / place, *FILES)
    df = layouts.find(tmp_path, labels=table(tmp_path, rows("id,breed\n", files=[Path(name).stem for name in FILES])))
    assert len(df) == 12 and df.path.iloc[3] == (tmp_path / place / "img3.jpg").as_posix()


@pytest.mark.parametrize(("listed_form", "disk_form"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_may_be_written_otherwise_than_on_disk(tmp_path, listed_form, disk_form):
    accented = [f"é{n}.jpg" for n in range(12)]
    plant(tmp_path, *(unicodedata.normalize(disk_form, name) for name in accented))
    text = rows("file,label\n", files=[unicodedata.normalize(listed_form, name) for name in accented])
    df = layouts.find(tmp_path, labels=table(tmp_path, text))
    assert set(listed(df)) == {unicodedata.normalize(disk_form, name) for name in accented}


def test_both_forms_of_an_accent_are_two_files(tmp_path):
    both = [unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD")]
    plant(tmp_path, *both, *FILES)
    text = rows("file,label\n", files=[*both, *FILES[2:]])
    assert set(both) <= set(listed(layouts.find(tmp_path, labels=table(tmp_path, text))))


def test_names_may_be_relative_absolute_or_from_windows(tmp_path):
    plant(tmp_path / "a", *FILES)
    names = [
        f"a/{FILES[0]}",
        str(tmp_path / "a" / FILES[1]),
        f"a\\{FILES[2]}",
        f"./a/../a/{FILES[3]}",
        *FILES[4:],
    ]
    assert len(layouts.find(tmp_path, labels=table(tmp_path, rows("file,label\n", files=names)))) == 12


def test_names_relative_to_a_table_inside_the_folder(tmp_path):
    plant(tmp_path / "set", *FILES)
    plant(tmp_path / "other", *FILES)  # the same names elsewhere do not make them ambiguous
    table(tmp_path / "set", rows("file,label\n"))
    df = layouts.find(tmp_path, labels="set/labels.csv")
    assert {Path(path).parent.name for path in df.path} == {"set"}
    assert "12 images not listed in labels.csv left out" in notes(df)


def test_the_table_may_lie_elsewhere(tmp_path, monkeypatch):
    root = plant(tmp_path / "images", *FILES)
    table(tmp_path, rows("file,label\n"))
    assert len(layouts.find(root, labels=str(tmp_path / "labels.csv"))) == 12
    monkeypatch.chdir(tmp_path)
    assert len(layouts.find("images", labels="labels.csv")) == 12


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("split", ["train", "Valid", "test"]),
        ("set", ["training", "val", "testing"]),
        ("subset", ["train", "dev", "test"]),
    ],
)
def test_a_split_column(tmp_path, column, values):
    plant(tmp_path, *FILES)
    split = [value for value in values for _ in range(4)]
    labels = ["a", "b"] * 6
    df = layouts.find(tmp_path, labels=table(tmp_path, rows(f"file,label,{column}\n", labels=labels, extra=[split])))
    assert df.split.tolist() == [name for name in ("train", "valid", "test") for _ in range(4)]
    assert f"split in {column!r}" in df.attrs["layout"]


@pytest.mark.parametrize("values", ["01", ("False", "True"), ("no", "yes")])
def test_is_valid(tmp_path, values):
    plant(tmp_path, *FILES)
    split = [values[n >= 6] for n in range(12)]
    df = layouts.find(tmp_path, labels=table(tmp_path, rows("name,label,is_valid\n", extra=[split])))
    assert df.split.tolist() == ["train"] * 6 + ["valid"] * 6


def test_a_split_column_without_validation_rows(tmp_path):
    plant(tmp_path, *FILES)
    split = ["train"] * 9 + ["test"] * 3
    df = layouts.find(tmp_path, labels=table(tmp_path, rows("file,label,split\n", extra=[split])))
    assert df.split.value_counts().to_dict() == {"train": 6, "valid": 3, "test": 3}


BAD_TABLES = {
    "windows climb": (rows("file,label\n") + "..\\secret.jpg,cat\n", "outside the folder"),
    "leak": (rows("file,label,split\n", extra=[["train"] * 12]) + "img0.jpg,cat,test\n", "another label or split"),
    "unknown split": (rows("file,label,split\n", extra=[["maybe"] * 12]), r"'maybe' in row 2"),
    "unknown columns": (rows("file,x,y\n", extra=[LABELS]), "recognised as the labels; its columns are file, x, y"),
    "no files": (rows("when,label,y\n", files=["x"] * 12, extra=[LABELS]), "recognised as the file names"),
    "unknown class": (
        rows("file,label,split\n", extra=[["train", "train", "valid"] * 4]),
        "the valid split .* without training images: 007",
    ),
}


@pytest.mark.parametrize(("text", "message"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_bad_tables_are_refused(tmp_path, text, message):
    root = plant(tmp_path / "root", *FILES)
    plant(tmp_path, "secret.jpg")
    with pytest.raises(DataError, match=message):
        layouts.find(root, labels=table(root, text))


def test_rows_without_a_label_or_a_file_are_left_out_on_request(tmp_path):
    root = plant(tmp_path, *FILES, "a/x.jpg", "b/x.jpg")
    text = rows("file,label\n") + "gone.jpg,cat\nx.jpg,cat\n../out.jpg,cat\nimg0.jpg\n"
    labels = table(root, text.replace(f"{FILES[1]},{LABELS[1]}", f"{FILES[1]},"))
    with pytest.raises(DataError, match="skip them with skip_bad"):
        layouts.find(root, labels=labels)
    with options.using(Options(skip_bad=True)):
        df = layouts.find(root, labels=labels)
        assert set(listed(df)) == {*FILES} - {FILES[1]}
        for part in (
            "no label: row 3.",
            "missing: gone.jpg.",
            "several files share: x.jpg.",
            "too few columns: row 17.",
        ):
            assert "1 of 16 rows of " in notes(df) and part in notes(df)
        contradicting = table(root, rows("file,label\n") + f"{FILES[0]},nobody\n")
        with pytest.raises(DataError, match="another label") as caught:
            layouts.find(root, labels=contradicting)
        assert "skip-bad" not in caught.value.hint


def test_ambiguous_names_are_refused(tmp_path):
    plant(tmp_path, *FILES, "img0.png", "a/x.jpg", "b/x.jpg")
    for name in ("img0", "x.jpg", "x"):
        with pytest.raises(DataError, match=f"several files share .*{re.escape(name)}"):
            layouts.find(tmp_path, labels=table(tmp_path, rows("file,label\n") + f"{name},cat\n"))


def test_runs_written_among_the_images_are_no_images(tmp_path: Path, fastcls: Fastcls) -> None:
    """A run's figures would be a class of their own in the next run, and be predicted."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(4):
            Image.effect_noise((40, 40), 50 + i).save(tmp_path / name / f"{i}.png")
    for run in ("runs/folder/a", "cat/run", "comparisons/b"):
        (tmp_path / run / "figures").mkdir(parents=True)
        for file in ("run.json", "splits.csv") if "runs" in run or "cat" in run else ("compare.json", "compare.html"):
            (tmp_path / run / file).write_text("{}")
        Image.effect_noise((40, 40), 9).save(tmp_path / run / "figures" / "batch.png")
    outcome = fastcls("check", ".", "-o", tmp_path.parent / "checked")
    assert "8 images in 2 classes" in outcome.output, outcome.output
    assert "runs/" in outcome.output and "without images: ignored" in " ".join(outcome.output.split())
