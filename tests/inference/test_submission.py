"""Kaggle submissions: the file that is written and what the terminal says, for every layout and every mistake."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from conftest import Fastcls, Outcome
from folders import images_of
from PIL import Image

Table = list[list[str]]


def table(file: str) -> Table:
    with Path(file).open(newline="", encoding="utf-8") as lines:
        return list(csv.reader(lines))


@pytest.fixture
def photos(fastcls: Fastcls, digits_run: Path) -> list[str]:
    """test/, in the empty folder where the command runs: five images under names as Kaggle's; gives their labels."""
    root = images_of(digits_run)
    Path("test").mkdir()
    for digit, name in zip("31415", ("006.png", "007.png", "8.png", "9.png", "a,b.png"), strict=True):
        shutil.copy(min((root / digit).glob("*.png")), Path("test", name))
    assert fastcls("predict", digits_run, "test", "-o", "plain.csv").code == 0
    header, *rows = table("plain.csv")
    assert header == ["path", "prediction", "confidence", "error"], "without submission options all is as before"
    return [row[1] for row in rows]


def submit(fastcls: Fastcls, run: Path, *words: object) -> Outcome:
    return fastcls("predict", run, "test", "-o", "submission.csv", *words)


def refused(outcome: Outcome, code: int, *parts: str) -> None:
    """A message with all of `parts`, no file, nothing half-written."""
    assert outcome.code == code, outcome.output
    for part in ("error: ", *parts):
        assert part in outcome.output
    assert not list(Path().glob("*submission.csv*")) + list(Path().glob(".*"))


@pytest.mark.parametrize("words, header, ids", [
    (["--id", "stem"], ["id", "label"], ["006", "007", "8", "9", "a,b"]),
    (["--id-column", "Image Id"], ["Image Id", "label"], ["006", "007", "8", "9", "a,b"]),
    (["--id", "name", "--label-column", "y", "--id-column", "x"], ["x", "y"],
        ["006.png", "007.png", "8.png", "9.png", "a,b.png"]),
], ids=["defaults", "a title", "names and titles"])  # fmt: skip
def test_ids_and_labels(
    fastcls: Fastcls, digits_run: Path, photos: list[str], words: list[str], header: list[str], ids: list[str]
) -> None:
    outcome = submit(fastcls, digits_run, *words)
    assert outcome.code == 0, outcome.output
    assert table("submission.csv") == [header, *([name, label] for name, label in zip(ids, photos, strict=True))]
    assert outcome.output.splitlines() == [
        "submission.csv: 5 rows of 2 columns, beginning",
        f"  {','.join(header)}",
        f"  {ids[0]},{photos[0]}",
    ]
    assert f'"{ids[-1]}",' in Path("submission.csv").read_text(), "a comma in an id is quoted"


def test_paths_tell_images_of_one_name_apart(fastcls: Fastcls, digits_run: Path, photos: list[str]) -> None:
    for folder in "ab":
        Path("test", folder).mkdir()
        shutil.copy("test/8.png", f"test/{folder}/1.png")
    refused(
        submit(fastcls, digits_run, "--id", "stem"),
        3,
        "1 id would each match several images: '1' for 'test/a/1.png', 'test/b/1.png'",
        "--id path",
    )
    assert submit(fastcls, digits_run, "--id", "path").code == 0
    ids = ["006.png", "007.png", "8.png", "9.png", "a,b.png", "a/1.png", "b/1.png"]
    assert sorted(row[0] for row in table("submission.csv")[1:]) == ids


def test_names_tell_extensions_apart(fastcls: Fastcls, digits_run: Path, photos: list[str]) -> None:
    Image.open("test/8.png").save("test/8.bmp")
    refused(submit(fastcls, digits_run, "--id-column", "n"), 3, "'8' for 'test/8.bmp', 'test/8.png'", "--id name")
    Path("sample.csv").write_text("id,label\n8,0\n")
    refused(submit(fastcls, digits_run, "--sample-submission", "sample.csv"), 3, "'8' for", "does not distinguish them")
    assert submit(fastcls, digits_run, "--id", "name").code == 0
    assert fastcls("predict", digits_run, "test", "test/8.png", "-o", "twice.csv", "--id", "name").code == 0
    assert table("twice.csv") == table("submission.csv"), "an image named twice is one image"


def test_label_value_index_is_the_networks_order(fastcls: Fastcls, digits_run: Path, photos: list[str]) -> None:
    shutil.copytree(digits_run, "letters")
    model = json.loads(Path("letters/model.json").read_text())
    Path("letters/model.json").write_text(json.dumps(model | {"classes": list("abcdefghij")}))
    assert submit(fastcls, Path("letters"), "--label-value", "name").code == 0
    assert [row[1] for row in table("submission.csv")[1:]] == ["abcdefghij"[int(label)] for label in photos]
    assert submit(fastcls, Path("letters"), "--label-value", "index").code == 0
    assert [row[1] for row in table("submission.csv")[1:]] == photos


@pytest.mark.parametrize("sample, order", [
    ("image_id,breed\n9,x\n006,x\n8,x\n", [3, 0, 2]),
    ("\ufeffimage_id,breed\r\n9,x\r\n006,x\r\n\r\n", [3, 0]),
    ('"image,id",breed\n"a,b.png",x\n8.png,x\n8.png,x\n', [4, 2, 2]),
], ids=["stems", "a BOM and CRLF", "names, quoted and repeated"])  # fmt: skip
def test_a_sample_submission_gives_columns_rows_and_order(
    fastcls: Fastcls, digits_run: Path, photos: list[str], sample: str, order: list[int]
) -> None:
    Path("sample.csv").write_bytes(sample.encode())
    outcome = submit(fastcls, digits_run, "--sample-submission", "sample.csv")
    assert outcome.code == 0, outcome.output
    header, *rows = table("sample.csv")
    header[0] = header[0].removeprefix("\ufeff")
    expected = [[row[0], photos[i]] for row, i in zip(filter(None, rows), order, strict=True)]
    assert table("submission.csv") == [header, *expected]
    assert not Path("submission.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    left_out = 5 - len(set(order))
    assert f"\n{left_out} images not in the sample submission left out.\n" in outcome.output


def test_a_sample_of_paths(fastcls: Fastcls, digits_run: Path, photos: list[str]) -> None:
    shutil.copytree("test", "whole/test")
    Path("whole/sample.csv").write_text("id,label\ntest/9.png,0\ntest/8.png,0\n")
    words = ("whole", "--sample-submission", "whole/sample.csv", "-o", "submission.csv")
    assert fastcls("predict", digits_run, *words).code == 0
    assert table("submission.csv")[1:] == [["test/9.png", photos[3]], ["test/8.png", photos[2]]]


def test_titles_choose_among_the_columns_of_a_sample(fastcls: Fastcls, digits_run: Path, photos: list[str]) -> None:
    Path("sample.csv").write_text("label,fold,id\nx,f1,9\nx,f2,8\n")
    words = ("--sample-submission", "sample.csv", "--label-column", "label", "--id-column")
    assert submit(fastcls, digits_run, *words, "id").code == 0
    assert table("submission.csv") == [["label", "fold", "id"], [photos[3], "f1", "9"], [photos[2], "f2", "8"]]
    Path("submission.csv").unlink()
    refused(submit(fastcls, digits_run, *words, "idd"), 3, "--id-column idd", "no such column", "did you mean 'id'?")


def test_probability_columns(fastcls: Fastcls, digits_run: Path, photos: list[str]) -> None:
    """A column a class: in the network's order, or in the sample's, whose own probabilities go."""
    assert submit(fastcls, digits_run, "--id-column", "image", "--probabilities").code == 0
    header, *rows = table("submission.csv")
    assert header == ["image", *"0123456789"]
    for row, label in zip(rows, photos, strict=True):
        shares = [float(cell) for cell in row[1:]]
        assert sum(shares) == pytest.approx(1, abs=1e-4) and header[1 + shares.index(max(shares))] == label
    Path("sample.csv").write_text("id,9,8,7,6,5,4,3,2,1,0\n" + "".join(f"{i}{',0.1' * 10}\n" for i in ("9", "gone")))
    words = ("--sample-submission", "sample.csv", "-o", "shares.csv")
    assert submit(fastcls, digits_run, *words, "--fill", "uniform").code == 0
    header, nine, gone = table("shares.csv")
    assert header == ["id", *"9876543210"]
    assert nine == ["9", *rows[3][:0:-1]] and gone == ["gone", *["0.1"] * 10]
    assert submit(fastcls, digits_run, *words, "--fill", "7").code == 0
    assert table("shares.csv")[2] == ["gone", *"0010000000"]
    outcome = submit(fastcls, digits_run, *words, "--fill", "77")
    assert outcome.code == 2 and "--fill 77: not a class of this run" in outcome.output


def test_uniform_is_no_label(fastcls: Fastcls, digits_run: Path, photos: list[str]) -> None:
    Path("sample.csv").write_text("id,label\n9,0\ngone,0\n")
    words = ("--sample-submission", "sample.csv", "-o", "labels.csv", "--fill")
    outcome = submit(fastcls, digits_run, *words, "uniform")
    assert outcome.code == 2 and "--fill uniform: this submission has labels" in outcome.output
    assert not Path("labels.csv").exists()
    assert submit(fastcls, digits_run, *words, "new_whale").code == 0, "some competitions have a class of the rest"


def test_the_probability_of_one_class(fastcls: Fastcls, digits_run: Path, photos: list[str]) -> None:
    """As competitions that are marked by ROC AUC or log loss of two classes have it."""
    assert submit(fastcls, digits_run, "--probabilities", "--id", "stem").code == 0
    seven = [row[1 + 7] for row in table("submission.csv")[1:]]
    assert submit(fastcls, digits_run, "--probability-of", "7").code == 0
    header, *rows = table("submission.csv")
    assert header == ["id", "label"] and [row[1] for row in rows] == seven
    Path("sample.csv").write_text("id,is_seven\n9,0.5\ngone,0.5\n")
    words = ("--sample-submission", "sample.csv", "-o", "shares.csv", "--probability-of", "7", "--fill")
    for fill, cell in {"uniform": "0.1", "7": "1", "3": "0"}.items():
        assert submit(fastcls, digits_run, *words, fill).code == 0
        assert table("shares.csv") == [["id", "is_seven"], ["9", seven[3]], ["gone", cell]]
    Path("submission.csv").unlink()
    Path("shares.csv").unlink()
    refused(submit(fastcls, digits_run, *words[:2]), 2, "0.5 in its column 'is_seven'", "--probability-of 0 or 1, …")
    Path("sample.csv").write_text("id,label\n9,0\n8,1\n")
    assert submit(fastcls, digits_run, *words[:2]).code == 0, "these are labels"


@pytest.mark.parametrize("sample, parts", [
    ("id,0,1,2,3,4,5,6,7,8,nine\n8,0,0,0,0,0,0,0,0,0,0\n", ["no column for '9'", "no class for column 'nine'"]),
    ("id,a,b,c\n8,0,0,0\n", ["has 4 columns", "each of this run's 10 classes", "'0', '1', '2' and 7 more"]),
    ("id,label\nx1,0\nx2,0\nx3,0\nx4,0\n", ["No id of sample.csv", "'x1', 'x2', 'x3' and 1 more", "test/006.png"]),
    ("id,label\n8,0\n88,0\n888,0\n", ["2 of 3 ids without", "'88', '888'", "matched by stem", "--fill LABEL"]),
    ("id,label\n8,0\n7\n", ["sample.csv, line 3: 1 cell under 2 columns"]),
    ("id;label\n8;0\n", ["no second column beside 'id;label'", "commas"]),
    ("id,label\n", ["no rows below a header"]),
    ("", ["no rows below a header"]),
    ('id,label\n"8"x,0\n', ["not a CSV file", "expected after"]),
    ("id,label\nä,0\n".encode("latin-1"), ["not a CSV file in UTF-8"]),
    (None, ["--sample-submission sample.csv", "No such file"]),
], ids=lambda value: None if isinstance(value, list) else repr(value)[:30])  # fmt: skip
def test_a_sample_that_does_not_fit_is_explained(
    fastcls: Fastcls, digits_run: Path, photos: list[str], sample: str | bytes | None, parts: list[str]
) -> None:
    if sample is not None:
        Path("sample.csv").write_bytes(sample if isinstance(sample, bytes) else sample.encode())
    refused(submit(fastcls, digits_run, "--sample-submission", "sample.csv"), 3, *parts)


def test_unreadable_images_and_missing_ones_need_a_fill(fastcls: Fastcls, digits_run: Path, photos: list[str]) -> None:
    Path("test/z.png").write_text("no image")
    Path("test/zz.png").write_text("no image either")
    refused(
        submit(fastcls, digits_run, "--id", "stem"),
        3,
        "2 of 7 images could not be read: 'test/z.png' (not an image), 'test/zz.png'",
        "--fill LABEL",
        "was not written",
    )
    Path("sample.csv").write_text("id,label\n8,x\n9,x\n")
    outcome = submit(fastcls, digits_run, "--sample-submission", "sample.csv")
    assert outcome.code == 0, "an unreadable image that the sample does not ask for does no harm"
    Path("sample.csv").write_text("id,label\nz,x\n8,x\nnowhere,x\n")
    outcome = submit(fastcls, digits_run, "--sample-submission", "sample.csv", "--fill", "cat")
    assert outcome.code == 0, outcome.output
    assert table("submission.csv")[1:] == [["z", "cat"], ["8", photos[2]], ["nowhere", "cat"]]
    for part in ("1 id without an image: --fill cat", "1 unreadable image: --fill cat", "'test/z.png' (not an image)"):
        assert part in outcome.output
    assert "note: --fill cat is not a label that this run predicts" in outcome.output


@pytest.mark.parametrize("words, parts", [
    (["--id", "stems"], ["--id stems: expected stem, name or path"]),
    (["--label-value", "number"], ["--label-value number: expected name or index"]),
    (["--id-column", "x", "--label-column", "x"], ["both 'x'"]),
    (["--probabilities", "--label-column", "x"], ["--label-column", "--probabilities", "Omit one of them"]),
    (["--probabilities", "--label-value", "index"], ["--label-value", "--probabilities"]),
    (["--probabilities", "--probability-of", "7"], ["--probability-of 7", "--probabilities"]),
    (["--probability-of", "7", "--label-value", "index"], ["--probability-of 7", "--label-value"]),
    (["--probability-of", "seven"], ["--probability-of seven: not a class of this run"]),
    (["--probability-of", "7", "--sample-submission", "wide.csv"], ["--probability-of 7: wide.csv has"]),
    (["--probabilities", "--sample-submission", "two.csv"], ["--probabilities: two.csv has one column of labels"]),
    (["--label-value", "index", "--sample-submission", "wide.csv"], ["--label-value index: wide.csv has one prob"]),
    (["--sample-submission", "two.csv", "-o", "two.csv"], ["-o two.csv is the sample submission itself"]),
    (["--id", "stem", "-o", ""], ["A Kaggle submission needs an output file", "-o submission.csv"]),
], ids=lambda value: " ".join(value) if value[0].startswith("--") and value[0] != value[-1] else "")  # fmt: skip
def test_flags_that_contradict_each_other(
    fastcls: Fastcls, digits_run: Path, photos: list[str], words: list[str], parts: list[str]
) -> None:
    Path("two.csv").write_text("id,label\n8,x\n")
    Path("wide.csv").write_text("id,0,1,2,3,4,5,6,7,8,9\n8,0,0,0,0,0,0,0,0,0,0\n")
    refused(submit(fastcls, digits_run, *words), 2, *parts)
    assert Path("two.csv").read_text() == "id,label\n8,x\n"


def test_a_long_line_is_shown_in_part(fastcls: Fastcls, digits_run: Path, photos: list[str]) -> None:
    outcome = submit(fastcls, digits_run, "--id-column", "x" * 200)
    assert outcome.code == 0 and max(map(len, outcome.output.splitlines())) <= 120
