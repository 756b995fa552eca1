"""`fastcls check` finds every fault that was planted, as often as it was planted, and no other."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_inputs import encoded, exif, png
from conftest import Fastcls
from folders import csv_rows
from PIL import Image, ImageFilter

from fastcls.audit import audit, check_record, contents
from fastcls.audit.check_record import precheck
from fastcls.audit.labels import label_findings
from fastcls.images import heic, measurements
from fastcls.images.measure import measure
from fastcls.machine import extras

HOSTILE = '<img src=x onerror="window.owned=1">'
SCRIPT = "</script><script>window.owned=1</script>"


def photograph(seed: int, width: int = 96, height: int = 72) -> Image.Image:
    """A picture unlike that of any other seed, with coarse shapes and fine grain."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(40, 216, (6, 8, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    grain = rng.normal(0, 20, (height, width, 3))
    return Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8))


def plant(folder: Path, count: int) -> list[Path]:
    """So many different photographs, unlike those of a folder of any other name."""
    folder.mkdir(parents=True)
    files = [folder / f"{i}.jpg" for i in range(count)]
    for file in files:
        photograph(zlib.crc32("/".join(file.parts[-3:]).encode())).save(file, quality=90)
    return files


def odd_files() -> dict[str, tuple[str, bytes | None]]:
    """For every finding on a single file: its name and its bytes; none where it is a link that leads nowhere."""
    photo = photograph(1)
    jpeg = encoded(photo, "JPEG", quality=90)
    rng = np.random.default_rng(5)
    deep = rng.integers(0, 65536, (72, 96), np.uint16)
    colour = b"".join(b"\0" + row.tobytes() for row in rng.integers(0, 65536, (48, 64, 3)).astype(">u2"))
    glass = photograph(2).convert("RGBA")
    glass.putalpha(Image.linear_gradient("L").resize(glass.size))
    dim = Image.fromarray((np.asarray(photograph(3)) // 16).astype(np.uint8))
    pale = Image.fromarray((232 + np.asarray(photograph(4)) // 11).astype(np.uint8))
    huge = Image.fromarray(np.asarray(photograph(5, 64, 64)).repeat(101, 0).repeat(101, 1))
    return {
        "unreadable": ("link.jpg", None),
        "empty": ("empty.jpg", b""),
        "fake": ("text.jpg", b"Dear all, this is no photograph.\n" * 9),
        "truncated": ("half.jpg", jpeg[: len(jpeg) // 2]),
        "too-large": ("bomb.png", png(20_000, 20_000, 8, 2, b"")),
        "deep": ("deep.png", encoded(Image.fromarray(deep))),
        "damaged": ("damaged.jpg", jpeg[:-2] + b"\x00\x11\x22" * 9 + jpeg[-2:]),
        "animated": ("moves.gif", encoded(photograph(6), "GIF", save_all=True, append_images=[photograph(7)])),
        "cmyk": ("print.jpg", encoded(photograph(8).convert("CMYK"), "JPEG")),
        "rotated": ("lying.jpg", encoded(photograph(9), "JPEG", exif=exif(6))),
        "huge": ("huge.jpg", encoded(huge, "JPEG", quality=30)),
        "blank": ("blank.png", encoded(Image.new("RGB", (96, 72), (90, 120, 90)))),
        "palette": ("palette.png", encoded(photograph(10).quantize(64))),
        "transparent": ("glass.png", encoded(glass)),
        "sixteen-bit-colour": ("rich.png", png(64, 48, 16, 2, colour)),
        "misnamed": ("webp.jpg", encoded(photograph(11), "WEBP")),
        "dark": ("night.jpg", encoded(dim, "JPEG")),
        "bright": ("snow.jpg", encoded(pale, "JPEG")),
        "blurred": ("fog.jpg", encoded(photograph(12).filter(ImageFilter.GaussianBlur(4)), "JPEG")),
        "small": ("tiny.png", encoded(photograph(13, 16, 12))),
        "elongated": ("long.jpg", encoded(photograph(14, 300, 72), "JPEG")),
    }


ODD = odd_files()
WITH_PALETTES = ["moves.gif", "palette.png"]


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "check.json").read_text())


def found(folder: Path) -> dict[str, int]:
    """{finding: how often}, of a check's folder."""
    return {finding["kind"]: finding["count"] for finding in record(folder)["findings"]}


def paths(folder: Path, kind: str) -> list[list[str]]:
    groups = next(finding["groups"] for finding in record(folder)["findings"] if finding["kind"] == kind)
    return [sorted(item["path"] for item in group) for group in groups]


# ---------------------------------------------------------------------------- single files


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good classes, one of them with every odd file once."""
    root = tmp_path_factory.mktemp("odd") / "photos"
    for name in ("cat", "dog"):
        plant(root / "train" / name, 30)
        plant(root / "valid" / name, 10)
    for file, data in ODD.values():
        if data is None:
            (root / "train" / "cat" / file).symlink_to("nowhere.jpg")
        else:
            (root / "train" / "cat" / file).write_bytes(data)
    return root


@pytest.mark.parametrize("kind", ODD)
def test_every_odd_file_is_found_as_what_it_is_and_no_other(odd: Path, kind: str, audited: audit.Audit) -> None:
    (finding,) = [finding for finding in audited.findings if finding.kind == kind]
    names = [Path(item.path).name for group in finding.groups for item in group]
    assert names == ([ODD[kind][0]] if kind != "palette" else WITH_PALETTES)
    assert finding.groups[0][0].remark and finding.fix.endswith((".", "?"))


def test_of_good_photographs_nothing_is_said(audited: audit.Audit) -> None:
    assert sorted(finding.kind for finding in audited.findings) == sorted(ODD)
    assert len(audited.measured) == audited.files == 80 + len(ODD)


@pytest.fixture(scope="module")
def audited(odd: Path) -> audit.Audit:
    return audit.audit(contents.read(str(odd)))


def test_what_training_stops_at_is_what_cannot_be_read(odd: Path, audited: audit.Audit) -> None:
    from fastcls.errors import DataError
    from fastcls.images.check import refuse_broken

    faults = {line.split(": ")[0] for line in audited.unreadable}
    assert {Path(path).name for path in faults} == {
        ODD[k][0] for k in ("unreadable", "empty", "fake", "truncated", "too-large")
    }
    for path in audited.measured:
        if path in faults:
            with pytest.raises(DataError):
                refuse_broken([path], decode=True)
        elif Path(path).name != "huge.jpg":
            refuse_broken([path], decode=True)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"%PDF-1.7 ...", "PDF"),
        (b"PK\x03\x04" + b"\1" * 40, "ZIP"),
        (b"<!DOCTYPE html><title>404</title>", "HTML"),
        (b"\x89PNG\r\n\x1a\n" + b"\7" * 60, "header is damaged"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "header is damaged"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "video"),
        (bytes(range(128, 256)), "no image that Pillow knows"),
    ],
)
def test_a_file_that_is_no_image_is_named(tmp_path: Path, data: bytes, what: str) -> None:
    (tmp_path / "x.jpg").write_bytes(data)
    assert what in measure(str(tmp_path / "x.jpg")).reason


def test_without_its_package_a_heic_photograph_says_what_reads_it(
    tmp_path: Path, fastcls: Fastcls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(extras.MODULES, "heic", ("no_such_module",))
    monkeypatch.delitem(Image.OPEN, heic.FORMAT, raising=False)
    heic.register()
    for name in ("cat", "dog"):
        plant(tmp_path / "photos" / name, 3)
        (tmp_path / "photos" / name / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(300))
    outcome = fastcls("check", "photos", "-o", "out")
    assert outcome.code == 3 and found(Path("out"))["unreadable"] == 2
    assert "pip install" in record(Path("out"))["findings"][0]["groups"][0][0]["remark"]
    outcome = fastcls("recipe", "folder", "--path", "photos", "--weights", "none", "--arch", "resnet18", "--dry-run")
    assert outcome.code == 3 and "IMG_1.HEIC: a HEIC image, which needs pillow-heif:  pip" in outcome.output


# ---------------------------------------------------------------------------- copies


def test_copies_are_found_however_they_were_saved_and_other_pictures_are_not(tmp_path: Path, fastcls: Fastcls) -> None:
    for split in ("train", "valid"):
        for name in ("cat", "dog"):
            plant(tmp_path / "p" / split / name, 12)
    train, valid = tmp_path / "p" / "train", tmp_path / "p" / "valid"
    cats = [Image.open(train / "cat" / f"{i}.jpg").convert("RGB") for i in range(12)]
    shutil.copy(train / "cat" / "0.jpg", train / "cat" / "same.jpg")  # duplicates
    cats[1].save(train / "cat" / "poor.jpg", quality=40)  # near duplicates
    cats[2].resize((48, 36)).save(train / "cat" / "small.webp", quality=80)
    cats[8].convert("L").save(train / "cat" / "gray.jpg", quality=85)
    cats[9].convert("L").convert("RGB").save(train / "cat" / "gray-too.jpg", quality=70)
    shutil.copy(train / "cat" / "3.jpg", valid / "cat" / "leak.jpg")  # leaks
    cats[4].resize((192, 144)).save(valid / "cat" / "large.png")
    shutil.copy(train / "cat" / "5.jpg", train / "dog" / "cat.jpg")  # two labels
    cats[6].save(train / "dog" / "a-cat.jpg", quality=50)  # nearly so
    shutil.copy(train / "cat" / "7.jpg", valid / "dog" / "both.jpg")  # both
    outcome = fastcls("check", "p", "-o", "out")
    assert outcome.code == 3, outcome.output
    assert found(Path("out")) == {
        "duplicates": 1,
        "near-duplicates": 4,
        "leaks": 3,
        "two-labels": 2,
        "near-two-labels": 1,
    }
    assert paths(Path("out"), "duplicates") == [["train/cat/0.jpg", "train/cat/same.jpg"]]
    assert paths(Path("out"), "near-duplicates") == [
        ["train/cat/1.jpg", "train/cat/poor.jpg"],
        ["train/cat/2.jpg", "train/cat/small.webp"],
        ["train/cat/8.jpg", "train/cat/gray.jpg"],
        ["train/cat/9.jpg", "train/cat/gray-too.jpg"],
    ]
    assert paths(Path("out"), "near-two-labels") == [["train/cat/6.jpg", "train/dog/a-cat.jpg"]]
    assert ["train/cat/7.jpg", "valid/dog/both.jpg"] in paths(Path("out"), "leaks")
    assert ["train/cat/7.jpg", "valid/dog/both.jpg"] in paths(Path("out"), "two-labels")


@pytest.mark.parametrize("side", [8, 32, 160])
def test_of_many_pictures_no_two_are_taken_for_copies(tmp_path: Path, side: int) -> None:
    from fastcls.images import duplicates

    files = [tmp_path / f"{i}.png" for i in range(300)]
    for i, file in enumerate(files):
        photograph(i, side, side).convert("RGB" if i % 3 else "L").save(file)
    names = [str(file) for file in files]
    rows = [(name, "train", "a") for name in names]
    assert duplicates.groups(measurements.measure_all(names), rows) == []


def test_near_pairs_are_those_of_a_comparison_of_all_with_all() -> None:
    from fastcls.images import duplicates
    from fastcls.images.measure import Measured

    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (8, 8, 3), np.uint8)
    hashes = [int(h) for h in rng.integers(0, 2**63, 40, np.uint64)]
    for start in list(hashes):  # and some that differ from these in 1 to 14 bits
        for bits in range(1, 15):
            hashes.append(start ^ sum(1 << int(bit) for bit in rng.choice(64, bits, replace=False)))
    images = [Measured(str(i), hash=h, contrast=50.0, width=40, height=40, small=small) for i, h in enumerate(hashes)]
    pairs = set(map(tuple, duplicates.near_pairs(images).tolist()))
    apart = {
        (i, j): bin(hashes[i] ^ hashes[j]).count("1") for i in range(len(hashes)) for j in range(i + 1, len(hashes))
    }
    assert {pair for pair, bits in apart.items() if bits <= duplicates.FAR} <= pairs
    assert max(apart[pair] for pair in pairs) <= duplicates.FARTHER
    likely = {pair for pair, bits in apart.items() if bits <= duplicates.FARTHER}
    assert len(pairs) > 0.8 * len(likely)
    photographs = [dataclasses.replace(image, width=99, height=99) for image in images]  # compared all with all
    found = set(map(tuple, duplicates.near_pairs(photographs).tolist()))
    assert found == {pair for pair, bits in apart.items() if bits <= max(most for most, _ in duplicates.BURST)}


def test_plain_surfaces_are_no_copies_of_each_other_unless_the_files_are_the_same(
    tmp_path: Path, fastcls: Fastcls
) -> None:
    for name in ("a", "b"):
        plant(tmp_path / "p" / name, 10)
    for i, gray in enumerate((100, 101, 101)):
        Image.new("RGB", (96, 72), (gray,) * 3).save(tmp_path / "p" / "a" / f"plain{i}.png")
    fastcls("check", "p", "-o", "out")
    assert paths(Path("out"), "duplicates") == [["a/plain1.png", "a/plain2.png"]]
    assert "near-duplicates" not in found(Path("out"))


# ---------------------------------------------------------------------------- labels


def test_classes_are_held_against_each_other(tmp_path: Path, fastcls: Fastcls) -> None:
    sizes = {"train/cat": 40, "train/Cat ": 12, "train/dog": 4, "train/emu": 30, "valid/cat": 5, "valid/fox": 3}
    sizes["valid/Cat "] = 2
    for name, count in sizes.items():
        plant(tmp_path / "p" / name, count)
    outcome = fastcls("check", "p", "-o", "out")
    assert outcome.code == 3 and "'fox' (only in valid)" in outcome.output
    findings = {finding["kind"]: finding for finding in record(Path("out"))["findings"]}
    assert {kind: finding["names"] for kind, finding in findings.items()} == {
        "class-not-in-train": ["fox"],
        "class-not-in-valid": ["dog", "emu"],
        "names-alike": ["'Cat ' / 'cat'"],
        "few-images": ["dog"],
        "imbalance": ["dog", "cat"],
    }
    assert findings["imbalance"]["severity"] == "warning"  # ten times as many


def test_a_single_class_and_a_dataset_without_training_images_are_errors() -> None:
    assert [f.kind for f in label_findings([("a", "train"), ("a", "valid")])] == ["one-class"]
    assert [f.kind for f in label_findings([("a", "test"), ("b", "valid")])] == ["no-training-images"]
    assert [f.kind for f in label_findings([("a", ""), ("b", "")] * 10)] == []


def test_published_datasets_keep_their_official_split(tmp_path: Path, fastcls: Fastcls) -> None:
    pets, birds = tmp_path / "oxford-iiit-pet", tmp_path / "CUB_200_2011"
    breeds = [f"{'Abyssinian' if i % 2 else 'beagle'}_{i}" for i in range(8)]
    for i, breed in enumerate(breeds):
        for file in (pets / f"images/{breed}.jpg", birds / f"images/00{i % 2 + 1}.Bird/{i}.jpg"):
            file.parent.mkdir(parents=True, exist_ok=True)
            photograph(i).save(file)
    (pets / "annotations").mkdir()
    (pets / "annotations/trainval.txt").write_text("\n".join(f"{breed} 1 1 1" for breed in breeds[:5]))
    (pets / "annotations/test.txt").write_text("\n".join(f"{breed} 1 1 1" for breed in breeds[5:]))
    tables = {
        "images.txt": [f"{i + 1} 00{i % 2 + 1}.Bird/{i}.jpg" for i in range(8)],
        "image_class_labels.txt": [f"{i + 1} {i % 2 + 1}" for i in range(8)],
        "train_test_split.txt": [f"{i + 1} {int(i < 5)}" for i in range(8)],
        "classes.txt": ["1 001.Bird", "2 002.Bird"],
    }
    for name, lines in tables.items():
        (birds / name).write_text("\n".join(lines))
    for folder, title in ((pets, "Oxford-IIIT Pet"), (birds, "CUB-200-2011")):
        output = fastcls("check", folder).output
        assert f"{title}\n" in output and "3 test" in output and "5 train or valid" in output


def test_a_table_whose_names_all_differ_says_which_and_how(tmp_path: Path, fastcls: Fastcls) -> None:
    """The commonest mistake: other suffixes, upper case, quotes."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(4):
        Image.new("RGB", (40, 40), (60 * i, 9, 9)).save(photos / f"{i}.png")
    (photos / "labels.csv").write_text("file,label\n" + "".join(f"{i}.tiff,{'ab'[i % 2]}\n" for i in range(4)))
    outcome = fastcls("check", photos, "--labels", "labels.csv")
    said = " ".join(outcome.output.split())
    assert outcome.code == 3 and "a file that is missing (4): 0.tiff, 1.tiff, 2.tiff and 1 more" in said, said
    assert "looked up in this folder" in said
    folder = fastcls("check", photos, "--labels", photos)
    assert folder.code == 3 and "is a folder, not a table" in folder.output


def test_a_table_is_checked_row_by_row(tmp_path: Path, fastcls: Fastcls) -> None:
    files = plant(tmp_path / "p", 24)
    rows = [f"{file.name},{'cat' if i % 2 else 'dog'}" for i, file in enumerate(files)]
    rows += ["3.jpg,dog", "gone.jpg,dog", "5.jpg,"]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *rows]) + "\n")
    outcome = fastcls("check", "p", "--labels", "labels.csv", "-o", "out")
    assert outcome.code == 3
    errors = [f for f in record(Path("out"))["findings"] if f["severity"] == "error"]
    assert sorted((f["kind"], *f["names"]) for f in errors) == [
        ("table", "3.jpg"),
        ("table", "gone.jpg"),
        ("table", "row 28"),
        ("two-labels",),
    ]
    assert paths(Path("out"), "two-labels") == [["3.jpg", "3.jpg"]]
    refused = fastcls("recipe", "folder", "--path", "p", "--labels", "labels.csv")
    assert refused.code == 3 and "gone.jpg" in refused.output  # training says so, too


# ---------------------------------------------------------------------------- real photographs


def test_faults_planted_among_real_photographs_are_found_exactly(
    imagenette: Path, tmp_path: Path, fastcls: Fastcls
) -> None:
    root = tmp_path / "planted"
    shutil.copytree(
        imagenette, root, ignore=lambda place, names: names[10:] if Path(place).parent.name == "val" else []
    )
    train, valid = (sorted((root / split).rglob("*.JPEG")) for split in ("train", "val"))
    leaks = []
    for i, file in enumerate(train[::41][:9] + valid[:1]):  # 4 copied, 3 re-encoded, 3 resized
        here, there = ("train", "val") if i < 9 else ("val", "train")
        target = root / there / file.parent.name / f"leak{i}.jpg"
        with Image.open(file) as image:
            photo = image.convert("RGB")
        if i % 3 == 0:
            shutil.copy(file, target)
        elif i % 3 == 1:
            photo.save(target, quality=60)
        else:
            photo.resize((photo.width // 2, photo.height // 2)).save(target, quality=85)
        leaks.append(sorted([f"{here}/{file.parent.name}/{file.name}", f"{there}/{file.parent.name}/{target.name}"]))
    broken = train[5::80][:5]
    whole = broken[0].read_bytes()
    for file, data in zip(
        broken, (whole[: len(whole) // 2], b"", b"not found", b"PK\3\4" * 9, whole[:40]), strict=True
    ):
        file.write_bytes(data)
    outcome = fastcls("check", "planted", "-o", "out")
    assert outcome.code == 3
    errors = {f["kind"]: f["count"] for f in record(Path("out"))["findings"] if f["severity"] == "error"}
    assert errors == {"leaks": 10, "truncated": 2, "empty": 1, "fake": 2}
    assert sorted(paths(Path("out"), "leaks")) == sorted(leaks)
    named = {path for kind in ("truncated", "empty", "fake") for group in paths(Path("out"), kind) for path in group}
    assert named == {file.relative_to(root).as_posix() for file in broken}
    others = {f["kind"]: f["count"] for f in record(Path("out"))["findings"] if f["severity"] != "error"}
    assert not others.keys() & {"near-duplicates", "duplicates", "near-two-labels"} and sum(others.values()) < 10


# ---------------------------------------------------------------------------- what it leaves behind


def test_the_table_has_a_row_an_image_and_the_record_says_what_there_is(
    odd: Path, tmp_path: Path, fastcls: Fastcls
) -> None:
    outcome = fastcls("check", odd, "-o", "out")
    assert outcome.code == 3
    assert "error" in outcome.output and "train/cat/half.jpg" in outcome.output and "out/check.html" in outcome.output
    facts = record(Path("out"))
    assert facts["kind"] == "fastcls check" and facts["images"] == facts["looked_at"] == 80 + len(ODD)
    assert facts["splits"] == {"train": 60 + len(ODD), "valid": 20} and facts["sizes"]["width"]["median"] == 96
    rows = csv_rows("out/findings.csv")
    assert sorted(row["finding"] for row in rows) == sorted([*ODD, "palette"])
    assert {(row["label"], row["split"]) for row in rows} == {("cat", "train")}
    assert next(row for row in rows if row["finding"] == "rotated")["remark"] == "EXIF orientation 6"
    assert [row["severity"] for row in rows] == sorted((row["severity"] for row in rows), key="error warning note".find)


def test_a_sound_dataset_leaves_exit_code_0(tmp_path: Path, fastcls: Fastcls) -> None:
    for name in ("cat", "dog"):
        plant(tmp_path / "p" / name, 12)
    outcome = fastcls("check", "p")
    assert outcome.code == 0 and "No problems found" in outcome.output
    assert {file.name for file in Path("checks/p").iterdir()} == {"check.html", "check.json", "findings.csv"}
    assert "No problems found" in Path("checks/p/check.html").read_text()
    photograph(1).quantize(64).save(tmp_path / "p" / "cat" / "palette.png")
    outcome = fastcls("check", "p")  # its own files are written over
    assert outcome.code == 0 and "Palette images" in outcome.output and found(Path("checks/p")) == {"palette": 1}


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"findings": 3}', '{"findings": [{"kind": 1}], "files": 1}'])
def test_a_damaged_record_is_as_good_as_none(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "check.json").write_text(text)
    assert check_record.read(tmp_path) is None


def test_a_record_read_is_what_was_found(odd: Path, audited: audit.Audit, tmp_path: Path) -> None:
    check_record.write(tmp_path, audited, "fastcls check", 1.0, "2026-11-21T10:00:00+00:00")
    read = check_record.read(tmp_path)
    assert read and read.files == audited.files
    for one, other in zip(read.findings, audited.findings, strict=True):
        assert (one.line, one.severity, one.count, one.fix) == (other.line, other.severity, other.count, other.fix)
        assert odd / one.example == Path(other.example)


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (("gone",), 3, "does not exist"),
        (("empty",), 3, "contains no files"),
        (("p", "--labels", "none.csv"), 3, "none.csv"),
        (("p", "--label-regex", "("), 2, "regular expression"),
        (("p", "--labels", "a.csv", "--label-regex", "(.)"), 2, "not both"),
        (("p", "-o", "file"), 4, "file"),
        (("p", "-o", "taken"), 4, "from another source"),
    ],
)
def test_what_cannot_be_checked_is_refused(
    words: tuple[str, ...], code: int, what: str, tmp_path: Path, fastcls: Fastcls
) -> None:
    plant(tmp_path / "p" / "a", 2)
    plant(tmp_path / "p" / "b", 2)
    for name in ("empty", "taken"):
        Path(name).mkdir()
    Path("taken/check.html").write_text("mine")
    Path("file").write_text("")
    outcome = fastcls("check", *words)
    assert outcome.code == code and what in outcome.output, outcome.output
    assert Path("taken/check.html").read_text() == "mine"


def test_a_dataset_with_very_many_findings_is_checked_again(tmp_path: Path, fastcls: Fastcls) -> None:
    """Its check.json is longer than what is read of JSON."""
    plant(tmp_path / "p" / "a", 2)
    plant(tmp_path / "p" / "b", 2)
    first = fastcls("check", "p", "-o", "out").code
    with Path("out/check.json").open("a") as file:
        file.write(" " * 17_000_000)
    assert fastcls("check", "p", "-o", "out").code == first


def test_what_was_measured_is_not_measured_again_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTCLS_DATA", str(tmp_path / "data"))
    names = [str(file) for file in plant(tmp_path / "p", 5)] + [str(tmp_path / "p" / "gone.jpg")]
    Path(names[1]).write_bytes(b"text")
    first = measurements.measure_all(names)
    looked: list[str] = []
    monkeypatch.setattr(measurements, "measure", lambda path: looked.append(path) or measure(path))
    again = measurements.measure_all(names)
    for one, other in zip(first, again, strict=True):
        assert repr(one) == repr(other)  # arrays included
    assert looked == [names[5]]  # a file that is not there may come
    photograph(99).save(names[2], quality=90)
    os.utime(names[2], ns=(1, 1))
    changed = measurements.measure_all(names)
    assert looked[1:] == [names[2], names[5]] and changed[2].digest != first[2].digest
    measurements.file().write_bytes(b"no database, but long enough to be misclassified as one" * 99)
    looked.clear()
    assert [image.digest for image in measurements.measure_all(names)] == [image.digest for image in changed]
    assert len(looked) == 6
    looked.clear()
    measurements.measure_all(names)  # the damaged file has made room for a new one
    measurements.measure_all(names)
    assert looked == [*names, names[5]]


def test_measurements_are_listed_and_cleared_with_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fastcls: Fastcls
) -> None:
    monkeypatch.setenv("FASTCLS_DATA", str(tmp_path / "data"))
    measurements.measure_all([str(file) for file in plant(tmp_path / "p", 2)])
    assert "image measurements" in fastcls("cache").output
    assert "MB freed" in fastcls("cache", "--clear", "measurements").output and measurements.size() == 0
    assert "image measurements" not in fastcls("cache").output


def test_no_time_is_no_reason_to_forget_what_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCLS_DATA", str(tmp_path / "data"))
    names = [str(file) for file in plant(tmp_path / "p", 6)]
    measurements.measure_all(names[:2])
    assert [image.path for image in measurements.measure_all(names, seconds=0)] == names[:2]


# ---------------------------------------------------------------------------- the page


def test_the_page_in_a_browser(tmp_path: Path, browser: Any, fastcls: Fastcls) -> None:
    files = plant(tmp_path / "p" / HOSTILE, 3) + plant(tmp_path / "p" / "b", 3)
    shutil.copy(files[0], tmp_path / "p" / "b" / f"{HOSTILE}.jpg")
    files[4].write_bytes(b"\x81 broken")
    labels = [(file, HOSTILE if i < 3 else "b") for i, file in enumerate(files)]
    labels += [(tmp_path / "p" / "b" / f"{HOSTILE}.jpg", SCRIPT)]
    with Path("labels.csv").open("w", newline="") as table:
        csv.writer(table).writerows(
            [("file", "label"), *((file.relative_to(tmp_path / "p"), name) for file, name in labels)]
        )
    assert fastcls("check", "p", "--labels", "labels.csv", "-o", "out").code == 3
    browser.get(Path("out/check.html").absolute().as_uri())
    assert browser.execute_script("return window.owned") is None
    shown = browser.execute_script("return [...document.images].map(i => [i.naturalWidth, i.clientWidth])")
    assert len(shown) == 2 and all(natural > 0 and width > 50 for natural, width in shown)  # the copies
    text = browser.find_element("css selector", "main").text
    assert "One image under two labels" in text and SCRIPT in text and "no image that Pillow knows" in text
    assert f"b/{HOSTILE}.jpg" in text
    for width in (1280, 400):
        browser.set_window_size(width, 900)
        assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    browser.find_element("css selector", "#headline tbody a").click()
    assert browser.execute_script("return location.hash.slice(1) && !!document.getElementById(location.hash.slice(1))")
    assert browser.get_log("browser") == []
    asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = {e["params"]["request"]["url"] for e in asked if e["method"] == "Network.requestWillBeSent"}
    assert not [url for url in urls if not url.startswith(("file:", "data:"))]


# ---------------------------------------------------------------------------- before a training


@pytest.fixture
def run_of(tmp_path: Path) -> Callable[..., Path]:
    """A run folder as it is before the first step."""

    def make(rows: list[tuple[Path, str, str]]) -> Path:
        run = tmp_path / "run"
        run.mkdir()
        (run / "run.json").write_text(json.dumps({"format": 1, "data": {"root": str(tmp_path)}}))
        with (run / "splits.csv").open("w", newline="") as table:
            listed = [(file.relative_to(tmp_path), split, label) for file, split, label in rows]
            csv.writer(table).writerows([("path", "split", "label"), *listed])
        return run

    return make


def test_before_training_leaks_are_told_and_a_page_is_a_command_away(
    tmp_path: Path, run_of: Callable[..., Path], fastcls: Fastcls
) -> None:
    files = plant(tmp_path / "p", 26)
    shutil.copy(files[0], files[25])
    rows = [(file, "train" if i < 20 else "valid", "ab"[i % 2]) for i, file in enumerate(files)]
    run = run_of([*rows[:-1], (files[25], "valid", "a")])
    lines = precheck(run)
    assert len(lines) == 2 and lines[0].startswith("Leaks: one image in two splits: 1 group, 2 images")
    assert lines[1] == f"`fastcls check {run}` shows these images."
    assert found(run) == {"leaks": 1} and record(run)["looked_at"] == 26
    read = check_record.read(run)
    assert read and (read.looked_at, read.files) == (26, 26)
    assert [(item.path, item.split) for item in read.findings[0].groups[0]] == [
        ("p/0.jpg", "train"),
        ("p/25.jpg", "valid"),
    ]
    assert fastcls("check", run).code == 3
    assert (run / "check.html").is_file() and found(run) == {"leaks": 1}


def test_before_training_a_file_that_cannot_be_read_is_refused(tmp_path: Path, run_of: Callable[..., Path]) -> None:
    from fastcls.errors import DataError

    files = plant(tmp_path / "p", 24)
    files[3].write_bytes(files[3].read_bytes()[:900])
    with pytest.raises(DataError, match=r"1 of 24 images cannot be read:\n  .*3\.jpg"):
        precheck(run_of([(file, "train" if i < 20 else "valid", "ab"[i % 2]) for i, file in enumerate(files)]))


def test_before_training_time_is_bounded_and_what_was_left_out_is_told(
    tmp_path: Path, run_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTCLS_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(audit, "SECONDS", 0.0)
    files = plant(tmp_path / "p", 24)
    run = run_of([(file, "train" if i < 18 else "valid", "ab"[i % 2]) for i, file in enumerate(files)])
    few, part = precheck(run)
    assert few.startswith("Classes with fewer than 10 training images") and part.startswith("only 0 of 24 images")
    assert precheck(run, sizes=False) == [part]


@pytest.mark.usefixtures("unreported")
def test_a_training_tells_of_copies_before_its_first_step(tmp_path: Path, fastcls: Fastcls) -> None:
    for name in ("cat", "dog"):
        files = plant(tmp_path / "p" / name, 15)
    shutil.copy(files[0], tmp_path / "p" / "cat" / "copy.jpg")
    words = ["--path", "p", "--arch", "timm/test_resnet", "--weights", "none", "--epochs", "1"]
    outcome = fastcls("recipe", "folder", *words, "--size", "32", "--out", "run", "--seed", "1")
    assert outcome.code == 0, outcome.output
    assert "One image under two labels: 1 group, 2 images" in outcome.output.split("epoch")[0]
    kept = json.loads(Path("run/run.json").read_text())
    assert any(note.startswith("One image under two labels") for note in kept["notes"]) and kept["check_seconds"] > 0
    assert found(Path("run"))["two-labels"] == 1
