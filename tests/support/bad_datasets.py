"""Folders, tables of labels, names and settings."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bad_case import EACH, Outcome, Rows, case, plain, plant, two, write

# ---------------------------------------------------------------------------- folders that are none, or hold nothing


def folder(name: str, what: str, outcome: Outcome, says: str = "", **more: Any) -> Callable[..., Any]:
    return case("folder", name, what, outcome, says, **more)


@folder("no such folder", "a name that is not there, though one like it is", "refused", "did you mean 'photos'?",
        words=("--path", "photo"))  # fmt: skip
def _(photos: Path) -> None:
    two(photos)


@folder("a file", "an image instead of a folder", "refused", "is a file, not a folder", words=("--path", "one.png"))
def _(photos: Path) -> None:
    write(photos.parent / "one.png", plain("one", 0))


@folder("an archive", "not unpacked", "refused", "unpack it", words=("--path", "photos.zip"))
def _(photos: Path) -> None:
    write(photos.parent / "photos.zip", b"PK\x03\x04")


@folder("the table for the folder", "--path names the CSV file", "refused", "--labels labels.csv",
        words=("--path", "labels.csv"))  # fmt: skip
def _(photos: Path) -> None:
    write(photos.parent / "labels.csv", b"file,label\n")


@folder("a pipe for the folder", "a named pipe", "refused", "is a file, not a folder", words=("--path", "pipe"))
def _(photos: Path) -> None:
    os.mkfifo(photos.parent / "pipe")


@folder("empty", "a folder of nothing", "refused", "holds no files")
def _(photos: Path) -> None:
    photos.mkdir()


@folder("text only", "class folders without a single image", "refused", "holds no images")
def _(photos: Path) -> None:
    write(photos / "cat/notes.txt", b"notes")
    write(photos / "dog/notes.txt", b"notes")


@folder("archives only", "the images are still packed", "refused", "Unpack cats.tar.gz")
def _(photos: Path) -> None:
    write(photos / "cats.tar.gz", b"\x1f\x8b")
    write(photos / "dogs.tar.gz", b"\x1f\x8b")


@folder("images without labels", "no class folders", "refused", "without labels")
def _(photos: Path) -> None:
    plant(photos, ".")


@folder("images beside their table", "the table is there, but was not named", "refused", "--labels labels.csv")
def _(photos: Path) -> None:
    plant(photos, ".")
    write(photos / "labels.csv", b"file,label\n0,cat\n")


@folder("one class", "nothing to tell apart", "refused", "of one class, 'cat'")
def _(photos: Path) -> None:
    plant(photos, "cat")


@folder("one image a class", "none can be held out", "refused", "Every class has a single image")
def _(photos: Path) -> None:
    plant(photos, "cat", count=1), plant(photos, "dog", count=1)


@folder("a class of one image", "it stays in train", "warned", "single image, kept in train: fox")
def _(photos: Path) -> Rows:
    return two(photos) | plant(photos, "fox", "fox train", 1)


@folder("empty class", "a class folder of nothing", "skipped", "without images: ignored")
def _(photos: Path) -> Rows:
    (photos / "fox").mkdir(parents=True)
    return two(photos)


@folder("class of text", "a class folder with notes alone", "skipped", "without images: ignored")
def _(photos: Path) -> Rows:
    write(photos / "fox/notes.txt", b"notes")
    return two(photos)


@folder("images beside the class folders", "in no class", "skipped", "1 image beside the class folders")
def _(photos: Path) -> Rows:
    write(photos / "stray.png", plain("stray", 0))
    return two(photos)


@folder("uneven classes", "60 cats, 3 dogs", "warned", "Unevenly filled classes")
def _(photos: Path) -> Rows:
    return plant(photos, "cat", count=60) | plant(photos, "dog", count=3)


# ---------------------------------------------------------------------------- splits


def splits(photos: Path, train: str, valid: str, test: str = "") -> Rows:
    found: Rows = {}
    for place, split, count in ((train, "train", EACH), (valid, "valid", 2), (test, "test", 2)):
        for label in ("cat", "dog") if place else ():
            found |= plant(photos, f"{place}/{label}", label, count, split)
    return found


for train, valid, test in (("train", "val", "test"), ("training", "validation", "testing"), ("Train", "VALID", "")):

    @folder(f"{train} and {valid}", "the validation folder by another name", "right")
    def _(photos: Path, names: tuple[str, str, str] = (train, valid, test)) -> Rows:
        return splits(photos, *names)


@folder("train and test", "no validation split: one is drawn from train", "right")
def _(photos: Path) -> Rows:
    return {path: row.removesuffix(" train") for path, row in splits(photos, "train", "", "test").items()}


@folder("no training split", "val/ and test/ alone", "refused", "no train/ folder")
def _(photos: Path) -> None:
    splits(photos, "", "val", "test")


@folder("two validation splits", "val/ and valid/", "refused", "two folders for one split")
def _(photos: Path) -> None:
    splits(photos, "train", "val"), splits(photos, "train", "valid")


@folder(
    "a class in valid alone",
    "the network could never name it",
    "refused",
    "of the valid split",
)
def _(photos: Path) -> None:
    splits(photos, "train", "valid")
    plant(photos, "valid/fox", count=2)


@folder("a class in test alone", "the network could never name it", "refused", "of the test split")
def _(photos: Path) -> None:
    splits(photos, "train", "valid", "test")
    plant(photos, "test/fox", count=2)


@folder("a class without validation images", "nothing will be known of it", "warned", "without validation images")
def _(photos: Path) -> Rows:
    return splits(photos, "train", "valid") | plant(photos, "train/fox", split="train")


@folder("train without class folders", "images right in train/", "refused", "images but no class folders")
def _(photos: Path) -> None:
    plant(photos, "train"), plant(photos, "valid/cat"), plant(photos, "valid/dog")


@folder("empty train", "a training folder of nothing", "refused", "holds no images")
def _(photos: Path) -> None:
    splits(photos, "", "valid")
    (photos / "train").mkdir()


@folder("empty valid", "a validation folder of nothing", "refused", "The validation folder")
def _(photos: Path) -> None:
    splits(photos, "train", "")
    (photos / "valid").mkdir()


@folder("test without labels", "images right in test/", "skipped", "holds no class folders")
def _(photos: Path) -> Rows:
    plant(photos, "test")
    return splits(photos, "train", "valid")


@folder("test beside class folders", "is it a class or a split?", "skipped", "test/ is beside class folders")
def _(photos: Path) -> Rows:
    plant(photos, "test")
    return two(photos)


@folder("something beside train", "a folder that belongs to no split", "skipped", "Left out extra/ beside train/")
def _(photos: Path) -> Rows:
    plant(photos, "extra")
    return splits(photos, "train", "valid")


@folder("valid is a link to train", "the same files in both", "warned", "Leaks: one image in two splits")
def _(photos: Path) -> Rows:
    found = splits(photos, "train", "")
    (photos / "valid").symlink_to("train")
    return found | {path.replace("train", "valid"): row.replace("train", "valid") for path, row in found.items()}


@folder("a copy in valid", "one image in two splits", "warned", "Leaks: one image in two splits")
def _(photos: Path) -> Rows:
    found = splits(photos, "train", "valid")
    write(photos / "valid/cat/copy.png", plain("train/cat", 0))
    return found | {"valid/cat/copy.png": "cat valid"}


@folder("copies", "one file twice in a class", "warned", "Duplicates: 1 group, 2 images")
def _(photos: Path) -> Rows:
    found = splits(photos, "train", "valid")
    write(photos / "train/cat/copy.png", plain("train/cat", 0))
    return found | {"train/cat/copy.png": "cat train"}


@folder("one image under two labels", "a cat among the dogs", "warned", "One image under two labels")
def _(photos: Path) -> Rows:
    write(photos / "dog/copy.png", plain("cat", 0))
    return two(photos) | {"dog/copy.png": "dog"}


# ---------------------------------------------------------------------------- hidden, nested, looped, huge


for hidden in (".git", ".ipynb_checkpoints", "__MACOSX"):

    @folder(f"{hidden}/", "a folder that programs leave behind", "right")
    def _(photos: Path, name: str = hidden) -> Rows:
        plant(photos, f"{name}/cat"), plant(photos, f"cat/{name}")
        return two(photos)


@folder("._0.png and .DS_Store", "hidden files that macOS leaves behind", "right")
def _(photos: Path) -> Rows:
    write(photos / "cat/._0.png", b"\0\5\x16\7")
    write(photos / "cat/.DS_Store", b"\0\0\0\1Bud1")
    return two(photos)


@folder("Thumbs.db and desktop.ini", "hidden files that Windows leaves behind", "right")
def _(photos: Path) -> Rows:
    write(photos / "cat/Thumbs.db", b"\xd0\xcf")
    write(photos / "cat/desktop.ini", b"[x]")
    return two(photos)


@folder("folders in a class", "read as the one class", "warned", "with folders inside")
def _(photos: Path) -> Rows:
    return two(photos) | plant(photos, "cat/kittens", "cat")


@folder("a folder around it all", "as archives unpack", "warned", "Took photos/data/")
def _(photos: Path) -> Rows:
    return plant(photos, "photos/data/cat") | plant(photos, "photos/data/dog")


@folder("300 folders deep", "one inside the other", "warned", "with folders inside")
def _(photos: Path) -> Rows:
    place = "/".join(["cat", *"d" * 300])
    return two(photos) | plant(photos, place, "cat", 1)


@folder("a link up", "a class folder that leads back to the whole: a circle", "right")
def _(photos: Path) -> Rows:
    found = two(photos)
    (photos / "cat/again").symlink_to("..")
    return found


@folder("a circle alone", "nothing but a link to itself", "refused", "holds no files")
def _(photos: Path) -> None:
    photos.mkdir()
    (photos / "again").symlink_to(".")


@folder("a class folder elsewhere", "a link to it", "right")
def _(photos: Path) -> Rows:
    found = two(photos)
    plant(photos.parent, "fox")
    (photos / "fox").symlink_to("../fox")
    return found | {f"fox/{number}.png": "fox" for number in range(EACH)}


@folder("a link to another class", "every dog is a cat too", "warned", "One image under two labels")
def _(photos: Path) -> Rows:
    found = two(photos)
    (photos / "cat/more").symlink_to("../dog")
    return found | {f"cat/more/{number}.png": "cat" for number in range(EACH)}


@folder("3,000 images", "of which --limit takes a few", "right", words=("--limit", "20"))
def _(photos: Path) -> None:
    two(photos)
    for number in range(3_000):
        os.link(photos / f"cat/{number % EACH}.png", photos / f"cat/again{number}.png")


@folder("a folder that may not be written to", "a medium that is read only", "right")
def _(photos: Path) -> Rows:
    found = two(photos)
    for place in (photos / "cat", photos / "dog", photos):
        place.chmod(0o555)
    return found


# ---------------------------------------------------------------------------- tables of labels


def table(
    name: str, what: str, outcome: Outcome, says: str = "", text: str | bytes = "",
    gives: tuple[str, str] = ("cat", "dog"), place: str = "labels.csv", left_out: str = "", words: tuple[str, ...] = (),
) -> None:  # fmt: skip
    """A table for twelve images, a0 … a5 and b0 … b5; `gives` are the labels of a and of b."""

    @case("table", name, what, outcome, says, words=("--labels", place, *words))
    def _(photos: Path) -> Rows | None:
        found = {}
        for letter, label in zip("ab", gives, strict=True):
            for number in range(EACH):
                write(photos / f"{letter}{number}.png", plain(letter, number))
                found[f"{letter}{number}.png"] = label
        write(photos / place, text.encode() if isinstance(text, str) else text)
        found.pop(left_out, None)
        return None if outcome == "refused" else found


def lines(
    first: str = "cat", second: str = "dog", form: str = "{file},{label}", end: str = "\n", head: str = ""
) -> str:
    head = head or form.format(file="file", label="label")
    rows = [form.format(file=f"a{i}.png", label=first) for i in range(EACH)]
    rows += [form.format(file=f"b{i}.png", label=second) for i in range(EACH)]
    return end.join([*([head] if head != "-" else []), *rows, ""])


GOOD = lines()
table("byte order mark", "as Excel writes UTF-8", "right", "", b"\xef\xbb\xbf" + GOOD.encode())
table("semicolons", "as Excel writes it in Europe", "right", "", lines(form="{file};{label}"))
table("tabs", "between the columns", "right", "", lines(form="{file}\t{label}"))
table(
    "UTF-16",
    "as Excel saves Unicode text",
    "right",
    "",
    lines("Kätzchen", form="{file}\t{label}").encode("utf-16"),
    ("Kätzchen", "dog"),
)
table("Windows-1252", "not UTF-8", "warned", "is not UTF-8", lines("Kätzchen").encode("cp1252"), ("Kätzchen", "dog"))
table("Windows line ends", "\\r\\n", "right", "", lines(end="\r\n"))
table("line ends of old Macs", "\\r", "right", "", lines(end="\r"))
table("no header", "files and labels from the first row on", "right", "", lines(head="-"))
table("labels first", "the columns the other way round", "right", "", lines(form="{label},{file}"))
table("titles nobody knows", "the columns are known by what they hold", "right", "", lines(head="foto,tier"))
table("blank lines", "between the rows", "right", "", GOOD.replace("\n", "\n\n"))
table("spaces", "around every cell", "right", "", lines(form="  {file} ,  {label}  "))
table("quotes", "around every cell", "right", "", lines(form='"{file}","{label}"'))
table(
    "a comma in the labels",
    "in quotes",
    "right",
    "",
    lines("cat, small", form='{file},"{label}"'),
    ("cat, small", "dog"),
)
table("a comma at the end of every row", "an empty last column", "right", "", lines(form="{file},{label},"))
table(
    "further columns",
    "an index and a remark",
    "right",
    "",
    lines(form="7,{file},{label},fine", head="index,file,label,remark"),
)
table("leading zeros", "007 and 7 are two classes", "right", "", lines("007", "7"), ("007", "7"))
table("decimals", "1.0 and 1 are two classes", "right", "", lines("1.0", "1"), ("1.0", "1"))
table("exponents", "1e5 and 100000 are two classes", "right", "", lines("1e5", "100000"), ("1e5", "100000"))
table("NA and null", "labels, not gaps", "right", "", lines("NA", "null"), ("NA", "null"))
table("True and False", "labels, not truth", "right", "", lines("True", "False"), ("True", "False"))
table("dates", "labels, not dates", "right", "", lines("2024-01-02", "02/01/2024"), ("2024-01-02", "02/01/2024"))
table("formulas", "=1+1 is text here", "right", "", lines("=1+1", "@SUM(A1)"), ("=1+1", "@SUM(A1)"))
table("case twins", "Cat and cat", "warned", "differ by case", lines("Cat", "cat"), ("Cat", "cat"))
table("names without suffix", "a0 for a0.png", "right", "", GOOD.replace(".png", ""))
table("Windows paths", ".\\a0.png", "right", "", lines(form=".\\{file},{label}"))
table("repeated rows", "each row twice", "warned", "12 repeated rows", GOOD + GOOD.partition("\n")[2])
table("unlisted images", "an image has no row", "skipped", "1 image not listed in labels.csv left out: b5.png",
      GOOD.replace("b5.png,dog\n", ""), left_out="b5.png")  # fmt: skip
table("a label missing", "an empty cell", "refused", "no label (1 of 12): row 4", GOOD.replace("a2.png,cat", "a2.png,"))
table("conflicting rows", "one file, two labels", "refused", "named before with another label", GOOD + "a0.png,dog\n")
table("a cell missing", "a row of one cell", "refused", "too few columns (1 of 13): row 14", GOOD + "a0.png\n")
table(
    "unknown files", "not in the folder", "refused", "a file that is missing (1 of 13): c0.png", GOOD + "c0.png,cat\n"
)
table("capitals", "A0.PNG for a0.png", "refused", "a file that is missing", GOOD.replace("a0.png", "A0.PNG"))
table(
    "a web address",
    "in the column of files",
    "refused",
    "a file that is missing",
    GOOD + "https://x.test/a.png,cat\n",
)
table("a path out of the folder", "../secret.png", "refused", "leads out of the folder", GOOD + "../secret.png,cat\n")
table("a path from the root", "/etc/passwd", "refused", "leads out of the folder", GOOD + "/etc/passwd,cat\n")
table("a way out and back", "through the folder above", "right", "", GOOD.replace("a0.png", "../photos/a0.png"))
table("a folder for a file", "the folder itself", "refused", "a file that is missing", GOOD + ".,cat\n")
table("empty", "no bytes at all", "refused", "is empty", "")
table("header alone", "no row below it", "refused", "has no rows", "file,label\n")
table("one column", "files without labels", "refused", "one column only", "file\na0.png\n")
table("no column of labels", "two candidates and no known title", "refused", "known to hold the labels",
      lines(form="{file},{label},x", head="file,tier,art"))  # fmt: skip
table(
    "three columns and no header",
    "which is which?",
    "refused",
    "3 columns and no header",
    lines(form="{file},{label},x", head="-"),
)
table(
    "one-hot",
    "a column of 0 and 1 a class",
    "refused",
    "known to hold the labels",
    "file,cat,dog\na0.png,1,0\nb0.png,0,1\n",
)
table(
    "a quote that is never closed",
    "it swallows the rest",
    "refused",
    "too few columns",
    GOOD.replace("a3.png", '"a3.png'),
)
table("bytes that are no text", "a picture named labels.csv", "refused", "no CSV file", plain("labels", 0))
table("JSON", "named labels.csv", "refused", "known to hold the file names", '{"a0.png": "cat",\n "b0.png": "dog"}\n')
table("a spreadsheet", "labels.xlsx", "refused", "Save it as CSV", b"PK\x03\x04", place="labels.xlsx")
table(
    "another name",
    "labels.csv is there, label.csv was asked for",
    "refused",
    "holds labels.csv",
    GOOD,
    words=("--labels", "label.csv"),
)
table("one class", "the same label everywhere", "refused", "of one class, 'cat'", lines("cat", "cat"))
table("a cell of 200,000 letters", "longer than any label", "refused", "no CSV file", GOOD + "a" * 200_000 + ",cat\n")
table(
    "all rows of one split",
    "none to train on",
    "refused",
    "no training images",
    lines(form="{file},{label},valid", head="file,label,split"),
)
table("a split nobody knows", "train, valid, test and what?", "refused", "a split that is none of train, valid, test",
      lines(form="{file},{label},holdout", head="file,label,split"))  # fmt: skip


@case("table", "a split column", "is_valid of True and False", "right", words=("--labels", "labels.csv"))
def _(photos: Path) -> Rows:
    found = plant(photos, "cat") | plant(photos, "dog")
    text = "".join(
        f"{path},{row},{'True' if path.endswith(('0.png', '1.png')) else 'False'}\n" for path, row in found.items()
    )
    write(photos / "labels.csv", b"file,label,is_valid\n" + text.encode())
    return {path: f"{row} {'valid' if path.endswith(('0.png', '1.png')) else 'train'}" for path, row in found.items()}


@case("table", "a name that two files have", "in two folders", "refused", "a file name that several files have",
      words=("--labels", "labels.csv"))  # fmt: skip
def _(photos: Path) -> None:
    plant(photos, "one"), plant(photos, "two")
    write(photos / "labels.csv", b"file,label\n0.png,cat\n1.png,dog\n")


@case(
    "table", "a row for a text file", "there, but no image", "refused", "not an image", words=("--labels", "labels.csv")
)
def _(photos: Path) -> None:
    plant(photos, ".")
    write(photos / "notes.txt", b"notes")
    write(photos / "labels.csv", b"file,label\n0.png,cat\n1.png,cat\n2.png,dog\n3.png,dog\nnotes.txt,dog\n")


@case(
    "table", "a pipe for the table", "a named pipe", "refused", "no table of labels", words=("--labels", "labels.csv")
)
def _(photos: Path) -> None:
    two(photos)
    os.mkfifo(photos / "labels.csv")


# ---------------------------------------------------------------------------- labels in file names


def pattern(name: str, what: str, outcome: Outcome, says: str, regex: str, code: int = 3, **more: str) -> None:
    @case("table", name, what, outcome, says, words=("--label-regex", regex), code=code)
    def _(photos: Path) -> Rows | None:
        found = {}
        for label in ("cat", "dog"):
            for number in range(EACH):
                write(photos / f"{label}_{number}.png", plain(label, number))
                found[f"{label}_{number}.png"] = label
        for stray in more:
            write(photos / f"{stray}.png", plain(stray, 0))
        return None if outcome == "refused" else found


pattern(
    "a pattern that some names do not match", "--label-regex", "skipped", "1 image left out", r"^(\w+)_\d", stray=""
)
pattern("a pattern that no name matches", "--label-regex", "refused", "matches the label pattern", r"^(\d+)-")
pattern("a pattern without a group", "--label-regex", "refused", "no group", r"^\w+_", code=2)
pattern("a pattern that is none", "an unclosed parenthesis", "refused", "no regular expression", r"^(\w+_", code=2)


# ---------------------------------------------------------------------------- names


def named(name: str, what: str, label: str, outcome: Outcome = "right", says: str = "", file: str = "") -> None:
    """A class folder of this name, and a file of that."""

    @case("name", name, what, outcome, says)
    def _(photos: Path) -> Rows:
        found = plant(photos, label, label) | plant(photos, "dog")
        if file:
            write(photos / label / file, plain(file, 0))
            found[f"{label}/{file}"] = label
        return found


named("Chinese", "a class in Chinese", "猫")
named("emoji", "with a variation selector", "❤️🐈")
named("an accent as one character", "é", "caf\u00e9")
named("an accent as two characters", "e and a combining accent, as macOS writes it", "cafe\u0301")
named("right to left", "with an override that turns the text round", "\u202etac")
named("a newline", "in the class and in the file", "two\nlines", file="a\nb.png")
named("a carriage return", "in the file", "cat", file="a\rb.png")
named("a tab", "in the class", "a\tb")
named("quotes", "of both kinds", '"cat\'s"', file="\"'.png")
named("markup", "a script, if a page did not escape it", "<script>alert(1)<", file="<img src=x onerror=alert(1)>.png")
named("a terminal's colours", "an escape sequence, if a terminal obeyed it", "\x1b[31mred")
named("brackets", "[bold] and [/], which Rich would take for its own", "[bold]cat[", file="[red].png")
named("braces and percent", "{0} and %s", "{0}%s{label}")
named("commas and semicolons", "in the class", "a,b;c")
named("a backslash", "in the class and in the file", "back\\slash", file="a\\b.png")
named("a dash in front", "like an option", "-rf")
named("a tilde and a dollar", "~ and $HOME", "~$HOME")
named("a space", "a class of nothing but a space", " ")
named("numbers", "007", "007", file="7.png")
named("nan", "a class that pandas would take for a gap", "nan")
named("None", "a class that Python would take for nothing", "None")
named("train inside", "a class called traindog", "traindog")
named("the longest class", "255 bytes", "c" * 255)
named("the longest file", "255 bytes", "cat", file="f" * 251 + ".png")
named("stars", "*, ? and [a-z], as patterns have them", "*?[a-z]")


def twins(name: str, what: str, first: str, second: str, says: str = "differ by case") -> None:
    @case("name", name, what, "warned", says)
    def _(photos: Path) -> Rows:
        return plant(photos, first, first) | plant(photos, second, second)


twins("twins by case", "Cat and cat", "Cat", "cat")
twins("twins by a space", "'cat' and 'cat '", "cat", "cat ")
twins("twins by an accent", "é as one character and as two", "caf\u00e9", "cafe\u0301")


@case("name", "bytes that are no text", "a name in another encoding", "skipped", "whose names are not UTF-8")
def _(photos: Path) -> Rows:
    found = two(photos)
    write(photos / "cat" / os.fsdecode(b"\xe9.png"), plain("bytes", 0))
    return found


@case("name", "a folder of stars", "--path 'pho*s[1]', which is no pattern here", "right", words=("--path", "pho*s[1]"))
def _(photos: Path) -> None:
    two(photos.parent / "pho*s[1]")


# ---------------------------------------------------------------------------- settings


def knob(says: str, what: str, *words: str, code: int = 2) -> None:
    @case("knob", " ".join(words).strip(), what, "refused", says, words=words, code=code)
    def _(photos: Path) -> None:
        two(photos)


knob("--size 0", "no pixels", "--size", "0")
knob("--size -5", "fewer than none", "--size", "-5")
knob("--size 8.5", "half a pixel", "--size", "8.5")
knob("--size big", "a word for a number", "--size", "big")
knob("--bs", "no images a batch", "--bs", "0")
knob("--epochs 0", "nothing would be trained", "--epochs", "0")
knob("--epochs -1", "fewer than none", "--epochs", "-1")
knob("--valid-pct", "a share of nothing", "--valid-pct", "0")
knob("--valid-pct", "20 instead of 0.2", "--valid-pct", "20")
knob("--valid-pct", "no number", "--valid-pct", "nan")
knob("--lr", "no number", "--lr", "nan")
knob("--lr", "no step at all", "--lr", "0")
knob("--lr", "the wrong way", "--lr", "-0.1")
knob("--limit 0", "no images", "--limit", "0")
knob("--workers -1", "fewer processes than none", "--workers", "-1")
knob("--cache-gb", "less room than none", "--cache-gb", "-1")
knob("--precision", "a word that is none", "--precision", "fp7")
knob("--device", "a word that is none", "--device", "gpu")
knob("--accumulate", "no batches a step", "--accumulate", "0")
knob("--clip", "nothing would be learned", "--clip", "0")
knob("--patience", "stops before it starts", "--patience", "0")
knob("'--size'", "a knob misspelt", "--sise", "8")
knob("--size", "a knob without its value", "--size")
knob("not both", "labels from a table and from names", "--labels", "labels.csv", "--label-regex", "(a)")
knob("No folder of images was named", "an empty path", "--path", "", code=3)
knob("--lr inf", "no end", "--lr", "inf")
knob("--dropout", "nothing is left", "--dropout", "1")
knob("--filters 0,4", "a layer without channels", "--filters", "0,4")
knob("--filters", "no layer at all", "--filters", "")
