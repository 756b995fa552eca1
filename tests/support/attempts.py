"""Attempts: a folder of images, odd names, damage, a moment and a command, combined at random from lists.

`attempt` makes one of a seed, runs it and checks what holds of all of them: a declared exit code, no traceback, nothing
touched but the attempt's own folders, nothing of the user's lost or changed.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shutil
import socket
import struct
import threading
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from random import Random
from typing import Any

import bad_inputs
import mutations
import numpy as np
import pytest
from conftest import command
from folders import held
from limits import within
from PIL import Image

from fastcls.errors import FastclsError
from fastcls.runfolder import inside
from fastcls.training.checkpoints import Store

ANSWERS = (200, 307, 400, 403, 404, 405, 408, 413, 415, 421, 422, 503)  # of the server: 500 would be a fault of its own
DECLARED = (0, 2, 3, 4, 5, 6)  # exit codes that `fastcls --help` names and that no signal makes
LONGEST = 60  # seconds of a processor that one command may take; what waits for ever takes three times as many
SMALL = ("--arch", "timm/test_resnet", "--weights", "none", "--size", 32, "--bs", 4, "--epochs", 1, "--workers", 0)
NAMES = [
    *("cat", "a cat", " ", "trailing ", "Cat", "CAT", "007", "7", "1e5", "nan", "None", "train", "test", "valid"),
    *("caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9"), "樹", "\u202egpj.exe", "-rf", "--help", "'quoted'"),
    *('"double"', "two\nlines", "\x1b[31mred", "\x07", "100%", "%s", "$x$", "$HOME", "`id`", "<b>bold", "#?", "a;b"),
    *("*", "[ab]", "{x}", "a,b", "a\tb", "\\", "~nobody", ".hidden", "..x", "=1+1", "\ufeffbom", "x" * 200, "é" * 100),
]  # fmt: skip


def picture(rng: Random, kind: str = "PNG", mode: str = "RGB") -> bytes:
    """A small picture of noise."""
    pixels = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (8, 8, 3), np.uint8)
    return bad_inputs.encoded(Image.fromarray(pixels).convert(mode), kind)


# ---------------------------------------------------------------------------- damage


def _replaced(make: Callable[[Path], object]) -> Callable[[Path, Random], None]:
    """Something else under the name of a file or folder."""

    def damage(path: Path, rng: Random) -> None:
        _remove(path)
        make(path)

    return damage


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _written(make: Callable[[Random], bytes]) -> Callable[[Path, Random], None]:
    """Other bytes in a file."""

    def damage(path: Path, rng: Random) -> None:
        _remove(path)
        path.write_bytes(make(rng))

    return damage


def _changed(change: Callable[[bytes, Random], bytes]) -> Callable[[Path, Random], None]:
    """A file's own bytes, changed; a folder loses what it holds."""

    def damage(path: Path, rng: Random) -> None:
        if path.is_dir():
            shutil.rmtree(path)
            path.mkdir()
        elif path.is_file():
            path.write_bytes(change(path.read_bytes(), rng))

    return damage


def _out(path: Path) -> None:
    """A link to what lies beside the attempt's folders."""
    canary = path.resolve().parent
    while not (canary / "canary").is_dir():
        canary = canary.parent
    path.symlink_to(canary / "canary" / ("folder" if path.suffix == "" else "notes.txt"))


ANY = {
    "empty": _written(lambda rng: b""),
    "truncated": _changed(lambda data, rng: data[: len(data) * rng.randrange(1, 9) // 10]),
    "bytes changed": _changed(mutations.in_bytes),
    "removed": _replaced(lambda path: None),
    "a folder": _replaced(lambda path: path.mkdir()),
    "a named pipe": _replaced(os.mkfifo),
    "a link to itself": _replaced(lambda path: path.symlink_to(path.name)),
    "a dangling link": _replaced(lambda path: path.symlink_to("nowhere")),
    "a link out": _replaced(_out),
    "unreadable": lambda path, rng: path.chmod(0) if path.exists() else None,  # but to root
}
OF_IMAGES = ANY | {
    "text": _written(lambda rng: b"not an image\n"),
    "one pixel": _written(lambda rng: bad_inputs.encoded(Image.new("RGB", (1, 1)))),
    "16-bit gray": _written(lambda rng: bad_inputs.encoded(np.arange(64, dtype=np.uint16).reshape(8, 8) * 900)),
    "CMYK": _written(lambda rng: picture(rng, "JPEG", "CMYK")),
    "RGBA": _written(lambda rng: picture(rng, mode="RGBA")),
    "palette": _written(lambda rng: picture(rng, mode="P")),
    "an animation": _written(
        lambda rng: bad_inputs.encoded(
            Image.new("P", (8, 8)), "GIF", save_all=True, append_images=[Image.new("P", (8, 8), 3)]
        )
    ),
    "of huge size": _written(lambda rng: bad_inputs.png(2**31 - 1, 2**31 - 1, 8, 2, b"")),
    "large": _written(lambda rng: bad_inputs.png(20_000, 20_000, 8, 2, b"")),
    "HEIC": _written(lambda rng: struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + bytes(100)),
}
OF_JSON = {
    "NaN": _written(lambda rng: b"NaN"),
    "an infinite number": _changed(lambda data, rng: data.replace(b"1", b"1e999")),
    "a number of 6,000 digits": _changed(lambda data, rng: data.replace(b"1", b"1" * 6000, 1)),
    "deeply nested": _written(lambda rng: b"[" * 100_000),
    "nested below": _written(lambda rng: b'{"format":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001),
    "a list": _written(lambda rng: b"[]"),
    "not UTF-8": _written(lambda rng: b'{"format": "\xff"}'),
    "other values": _changed(mutations.in_json),
}
OF_CSV = {
    "a column missing": _changed(lambda data, rng: b"\n".join(line.partition(b",")[2] for line in data.splitlines())),
    "ragged": _changed(lambda data, rng: data + b"a,b\n" + b",".join([b"c"] * 50) + b'\n"open'),
    "a header alone": _changed(lambda data, rng: data.splitlines(keepends=True)[0] if data else b""),
    "other cells": _changed(mutations.in_csv),
    "NUL": _changed(lambda data, rng: data.replace(b",", b"\0,")),
}


# ---------------------------------------------------------------------------- folders of images


TIMES = [
    "",
    "nan",
    "inf",
    "-1",
    "1e999",
    "2024-02-30",
    "31/12/24",
    "0000-00-00",
    "now",
    "9" * 5000,
    "\x1b[31m",
    "12:00",
]


@dataclass
class Attempt:
    """One attempt: its random choices, its folders, and a line for each thing done."""

    seed: int
    home: Path
    finished: Path  # a run that is done, to copy
    cut: Path  # one that was interrupted
    tagged: Path  # one that is done, of several labels an image
    rng: Random = field(init=False)
    done: list[str] = field(default_factory=list)
    photos: Path = field(init=False)
    run: Path | None = None
    labelled: list[object] = field(default_factory=list)  # words that say where the labels are
    drawn: list[object] = field(default_factory=list)  # words that say how the splits are drawn

    def __post_init__(self) -> None:
        self.rng = Random(self.seed)
        self.work = self.home / "work"

    def name(self) -> str:
        return self.rng.choice(NAMES)

    def names(self, count: int) -> list[str]:
        return self.rng.sample(NAMES, count)

    def image(self, *parts: str) -> Path:
        """Another picture below the photos, now and then with an odd name."""
        folder = self.photos.joinpath(*parts)
        folder.mkdir(parents=True, exist_ok=True)
        stem = self.name() if self.rng.random() < 0.2 else f"{sum(1 for _ in self.photos.rglob('*'))}"
        file = folder / f"{stem}.{self.rng.choice(['png', 'png', 'PNG', 'jpg', 'heic'])}"
        file.write_bytes(picture(self.rng, {".jpg": "JPEG", ".heic": "HEIF"}.get(file.suffix, "PNG")))
        return file

    def classes(self) -> list[str]:
        odd = self.names(self.rng.randint(0, 3))
        return [*odd, *["cat", "dog"][: max(0, 2 - len(odd)) + self.rng.randint(0, 1)]]


def class_folders(made: Attempt) -> None:
    for label in made.classes():
        for _ in range(made.rng.randint(1, 4)):
            made.image(label)


def split_folders(made: Attempt) -> None:
    labels = made.classes()
    names = made.rng.choice([("train", "valid"), ("train", "val", "test"), ("Training", "Testing"), ("train", "test")])
    for split in names:
        for label in labels:
            for _ in range(2):
                made.image(split, label)


def splits_in_classes(made: Attempt) -> None:
    for label in made.classes():
        for split in ("train", "val"):
            for _ in range(2):
                made.image(label, split)


def flat(made: Attempt) -> None:
    for label in ["cat", "dog", made.name()]:
        for number in range(3):
            made.image().rename(made.photos / f"{label[:60]}_{number}.png")
    made.labelled = ["--label-regex", made.rng.choice([r"(.+)_\d+", "([a-z]+)", "(", "", "(.*)"])]


def nested(made: Attempt) -> None:
    for label in made.classes():
        for _ in range(3):
            made.image(*made.rng.choice([("photos",), ("a", "b"), ("photos", "photos")]), label)


def table(made: Attempt) -> None:
    labels = made.names(2)
    written(made, [("path", "label"), *((listed(made), labels[number % 2]) for number in range(8))])


def listed(made: Attempt) -> str:
    """A new picture, as a table names it."""
    return made.image().relative_to(made.photos).as_posix()


def written(made: Attempt, rows: list[tuple[str, ...]]) -> None:
    """A table of labels, in one of the ways that programs write one."""
    delimiter, encoding = made.rng.choice([(",", "utf-8"), ("\t", "utf-8"), (",", "utf-16"), (";", "utf-8-sig")])
    file = made.rng.choice([made.work, made.photos]) / made.rng.choice(["labels.csv", "labels.tsv", "-l.csv"])
    with file.open("w", newline="", encoding=encoding) as stream:
        csv.writer(stream, delimiter=delimiter).writerows(rows)
    made.labelled = ["--labels", os.path.relpath(file, made.work)]


def grouped(made: Attempt) -> None:
    """A table with a patient and a time for each image, now and then odd ones, and splits drawn by them."""
    rng, labels = made.rng, made.names(2)
    patients = [rng.choice([made.name(), "1", "2", "3", "a", "b", *[""] * (rng.random() < 0.3)]) for _ in range(12)]
    times = [rng.choice(TIMES) if rng.random() < 0.2 else f"2024-05-{number + 1:02d}" for number in range(12)]
    patient, taken = rng.choice([("patient", "taken"), (made.name(), made.name())])
    head = ("path", "label", patient, taken)
    written(made, [head, *((listed(made), labels[i % 2], patients[i], times[i]) for i in range(12))])
    made.drawn = rng.choice(
        [["--group", patient], ["--split-by", taken], ["--group", patient, "--split-by", taken, "--newest", 0.3]]
    )


def tags(made: Attempt) -> None:
    """A table of several labels an image."""
    rng, names = made.rng, made.names(3)
    sets = [[name for name in names if rng.random() < 0.5] for _ in range(12)]
    if rng.random() < 0.3:  # a column a label
        yes, no = rng.choice([("1", "0"), ("True", "False"), ("1", "-1"), ("1", ""), ("yes", "no")])
        rows = [tuple(yes if name in tags else no for name in names) for tags in sets]
        written(made, [("path", *names), *((listed(made), *row) for row in rows)])
    else:
        how = rng.choice([json.dumps, repr, "|".join, ";".join, " ".join, ", ".join])
        written(made, [("path", "tags"), *((listed(made), str(how(tags))) for tags in sets)])
    made.labelled += rng.choice([[], [], ["--multi-label", "yes"], ["--multi-label", "no"]])


def nothing(made: Attempt) -> None:
    made.photos.mkdir()


LAYOUTS = [
    *(class_folders, class_folders, split_folders, splits_in_classes, flat, nested),
    *(table, table, grouped, grouped, tags, tags, nothing),
]


# ---------------------------------------------------------------------------- moments


def damage_photos(made: Attempt) -> None:
    files = sorted(file for file in made.photos.rglob("*") if file.suffix.lower() in (".png", ".jpg", ".heic"))
    for file in made.rng.sample(files, min(len(files), made.rng.choice([0, 1, 1, 2, 9]))):
        kind = made.rng.choice(sorted(OF_IMAGES))
        made.done.append(f"photos/{file.relative_to(made.photos)}: {kind}")
        OF_IMAGES[kind](file, made.rng)
    if made.labelled[:1] == ["--labels"] and made.rng.random() < 0.5:
        damage(made, made.work / str(made.labelled[1]), ANY | OF_CSV)


def damage_run(made: Attempt) -> None:
    if made.run is not None:
        files = sorted(path for path in made.run.rglob("*"))
        likely = [path for path in files if path.suffix in (".json", ".csv", ".onnx", ".safetensors", ".py")]
        for file in made.rng.sample(likely if made.rng.random() < 0.8 else files, made.rng.choice([1, 1, 2])):
            damage(made, file)


def damage_cache(made: Attempt) -> None:
    """What fastcls keeps for itself: measurements, decoded images, the list of runs."""
    kept = [path for folder in ("cache", "state") for path in sorted((made.home / folder).rglob("*"))]
    for file in made.rng.sample(kept, min(len(kept), 2)):
        own = {kind: how for kind, how in ANY.items() if kind != "a link out"}  # the choice of its user
        damage(made, file, own if file.is_dir() else None)


def damage(made: Attempt, file: Path, kinds: dict[str, Callable[[Path, Random], None]] | None = None) -> None:
    if not os.path.lexists(file.parent):
        return
    kinds = kinds or ANY | {".json": OF_JSON, ".csv": OF_CSV}.get(file.suffix, {})
    kind = made.rng.choice(sorted(kinds))
    made.done.append(f"{file.relative_to(made.home)}: {kind}")
    with contextlib.suppress(OSError, ValueError, IndexError):  # where the damage before it is
        kinds[kind](file, made.rng)


DAMAGES = [damage_photos, damage_photos, damage_run, damage_run, damage_cache]


# ---------------------------------------------------------------------------- commands


@dataclass(frozen=True)
class Verb:
    """A command: its words, what it may write over in the working folder, whether it needs a run."""

    words: Callable[[Attempt], list[object]]
    rewrites: tuple[str, ...] = ()
    run: str = ""  # "done", "interrupted"
    weight: int = 2


def a_file(made: Attempt) -> str:
    """Something of the user's that is there, as the place of an output."""
    return os.path.relpath(made.rng.choice(sorted(made.work.rglob("*")) or [made.photos]), made.work)


def folder(made: Attempt) -> object:
    """The photos as one would type them."""
    return made.rng.choice([made.photos.name, made.photos, f"./{made.photos.name}/", made.photos.name])


CONFIGS = [
    *(
        b"",
        b"lr: 0.01\n",
        b"lr = 0.01\n",
        b"- a\n",
        b"lr: [1, 2\n",
        b"\xff\xfe",
        b"&a [*a, *a]",
        b"lr: .nan",
        b"sise: 8",
    ),
    *(b"!!python/object/apply:os.system [touch owned]", b"[" * 20_000, b"lr: {a: 1}", b'{"lr": 1e999}', b"\0", b"1: 2"),
    b"a: &a [x,x]\n" + b"".join(b"%c: &%c [*%c,*%c,*%c]\n" % (n, n, *[n - 1] * 3) for n in range(98, 122)) + b"lr: *y",
]


def run_of(made: Attempt) -> object:
    assert made.run is not None
    return made.rng.choice([made.run.name, f"./{made.run.name}", made.run, "last"])


def settings(made: Attempt) -> list[object]:
    rng = made.rng
    found: list[object] = [*SMALL, "--seed", rng.randrange(99)]
    for words in (
        ["--skip-bad"], ["--limit", rng.randint(1, 3)], ["--valid-pct", rng.choice([0.01, 0.5, 0.99])],
        ["--cache-gb", 0], ["--balanced"], ["--loss", "focal", "--class-weights"], ["--mixup", 0.4],
        ["--best-by", "f1"], ["--no-test"], ["--group", rng.choice(["patient", "cat/.", "(.)", "(", "", made.name()])],
        ["--split-by", rng.choice(["taken", "path", "label", made.name()]), "--newest", 0.5], ["--newest", 2],
        ["--test-pct", rng.choice([0.01, 0.5, 0.99])], ["--fit", rng.choice(["squish", "pad", "stretch"])],
        ["--loss", "asymmetric"], ["-q"], ["-v"], ["--overwrite"], ["--print-config"], ["--config", configured(made)],
    ):  # fmt: skip
        found += words if rng.random() < 0.1 else []
    return [*found, *made.drawn]


def configured(made: Attempt) -> str:
    """A file of settings, hardly ever a right one."""
    file = made.work / made.rng.choice(["settings.yaml", "settings.toml", "settings.json"])
    file.write_bytes(made.rng.choice(CONFIGS))
    return file.name


def training(made: Attempt) -> list[object]:
    return ["recipe", "folder", "--path", folder(made), *made.labelled, *settings(made)]


def trained(made: Attempt) -> list[object]:
    out = made.rng.choice([[], ["--out", made.name()], ["--out", made.photos.name], ["--out", a_file(made)]])
    return [*training(made), *out]


def predicted(made: Attempt) -> list[object]:
    rng = made.rng
    what = rng.choice([[folder(made)], [f"{folder(made)}/**/*"], ["."], made.labelled[1:] or ["labels.csv"], ["-"]])
    out: list[object] = rng.choice(
        [[], ["-o", rng.choice(["out.csv", "out.jsonl", "a/out.csv", f"{made.name()}.csv"])]]
    )
    more: list[object] = rng.choice(
        [[], ["--top-k", 2], ["--probabilities"], ["--tta", "--calibrated"], ["--threshold", 0.9], ["--id", "path"],
         ["--sample-submission", "labels.csv"], ["--probability-of", made.name()], ["--fill", "cat"],
         ["--coverage", 0.9], ["--coverage", rng.choice([0, 1, "nan"])], ["--costs", costs(made)], ["--unknown", 0.05],
         ["--unknown", rng.choice([0, 1, -1])], ["--precision", rng.choice([0.9, "cat=0.9", f"{made.name()}=0.5"])],
         ["--recall", rng.choice(["cat=0.9", 0.9, "=", f"{made.name()}=0.5"])], ["--json"], ["-q"], ["-v"]]
    )  # fmt: skip
    return ["predict", run_of(made), *what, *out, *more]


def costs(made: Attempt) -> str:
    """What decisions cost, in a table that is right now and then."""
    cell = made.rng.choice(["1", "0", "-1", "nan", "inf", "", "one", "1e308"])
    (made.work / "costs.csv").write_text(
        f"true,cat,{made.rng.choice(['dog', 'unsure', 'cat'])}\ncat,0,{cell}\ndog,2,0\n"
    )
    return "costs.csv"


def evaluated(made: Attempt) -> list[object]:
    rng = made.rng
    labelled = made.labelled[:2] if made.labelled[:1] in (["--labels"], ["--label-regex"]) else []
    more: list[object] = rng.choice(
        [
            [],
            [],
            ["--skip-bad"],
            ["--json"],
            ["--split", "test"],
            ["-q"],
            ["-v"],
            ["-o", made.name()],
            ["-o", a_file(made)],
        ]
    )
    return [
        "evaluate",
        run_of(made),
        *rng.choice([[folder(made), *labelled], [folder(made), *labelled], ["last"]]),
        *more,
    ]


def reported(made: Attempt) -> list[object]:
    more: list[object] = made.rng.choice(
        [[], [], ["--split", "test"], ["--pictures", made.rng.choice([1, "all", 0, -1])], ["--costs", costs(made)],
         ["--odd", folder(made)]]
    )  # fmt: skip
    return ["report", run_of(made), *more]


def exported(made: Attempt) -> list[object]:
    kinds = made.rng.choice([[], ["--onnx"], ["--safetensors"], ["--onnx", "--safetensors"], ["--torch-export"],
                             ["--int8"], ["--fp16"], ["--int8", "--fp16"]])  # fmt: skip
    return ["export", run_of(made), *kinds, *made.rng.choice([[], ["-o", made.name()], ["-o", a_file(made)]])]


VERBS = {
    "check": Verb(lambda made: ["check", folder(made), *made.labelled], ("checks/*",), weight=4),
    "check into a folder": Verb(
        lambda made: ["check", folder(made), *made.labelled, "-o", made.rng.choice([made.name(), a_file(made)])]
    ),
    "check a run": Verb(lambda made: ["check", run_of(made)], ("{run}/check.*", "{run}/findings.csv"), "done", 1),
    "dry run": Verb(lambda made: [*training(made), "--dry-run"], weight=4),
    "train": Verb(trained, weight=1),
    "weights of a run": Verb(
        lambda made: [*training(made), "--weights", made.run, "--dry-run"], run="done", weight=1
    ),
    "predict": Verb(predicted, ("out.*", "a/out.csv"), "done", 5),
    "report": Verb(
        reported,
        ("{run}/report.html", "{run}/figures/*", "{run}/suspects.csv", "{run}/thumbnails/*"),
        "done",
        3,
    ),
    "export": Verb(exported, run="done", weight=3),
    "evaluate": Verb(evaluated, run="done", weight=4),
    "serve": Verb(lambda made: ["serve", run_of(made), "--port", 0, "--max-mb", 0.1], run="done", weight=4),
    "show": Verb(lambda made: ["runs", "show", run_of(made), *made.rng.choice([[], ["--json"]])], run="done", weight=1),
    "diff": Verb(lambda made: ["runs", "diff", run_of(made), "finished"], run="done", weight=1),
    "resume or train": Verb(
        lambda made: [*training(made), "--resume", "auto", "--out", made.run], ("{run}/*",), "interrupted", 1
    ),
    "resume": Verb(lambda made: ["resume", run_of(made), "--path", folder(made)], ("{run}/*",), "interrupted"),
    "resume as it was": Verb(lambda made: ["resume", run_of(made)], ("{run}/*",), "interrupted", 1),
    "extend": Verb(lambda made: ["resume", run_of(made), "--extend-epochs", 1], ("{run}/*",), "done", 1),
    "runs": Verb(lambda made: ["runs", *made.rng.choice([[], ["--folder", "."], ["--sort", "loss"]])], run="done"),
    "compare runs": Verb(
        lambda made: ["compare", run_of(made), "finished", "--out", made.rng.choice([made.name(), a_file(made)])],
        run="done",
    ),
    "compare": Verb(
        lambda made: ["compare", *training(made)[1:], "--vary", "lr=1e-3,1e-2", "--dry-run"], weight=1
    ),
    "search": Verb(
        lambda made: ["search", *training(made)[1:], "--space", "lr=1e-4..1e-2:log", "--trials", 2, "--dry-run"],
        weight=1,
    ),
    "copy": Verb(
        lambda made: ["recipe", "folder", "--copy", made.rng.choice([f"{made.name()}.py", a_file(made)])], weight=1
    ),
    "cache": Verb(lambda made: ["cache"], weight=1),
}  # fmt: skip


# ---------------------------------------------------------------------------- visitors of the server


BODIES: list[Callable[[Random], bytes]] = [
    picture, picture, lambda rng: picture(rng, "JPEG"), lambda rng: picture(rng, "HEIF"), lambda rng: b"",
    lambda rng: picture(rng)[: rng.randrange(200)], lambda rng: mutations.in_bytes(picture(rng), rng),
    lambda rng: b"<svg>", lambda rng: bytes(200_000), lambda rng: rng.randbytes(300),
    lambda rng: bad_inputs.png(2**31 - 1, 2**31 - 1, 8, 2, b""), lambda rng: bad_inputs.png(12_000, 6_000, 8, 2, b""),
    lambda rng: bad_inputs.png(3000, 3000, 8, 0, bytes(3001 * 3000)), lambda rng: picture(rng, "GIF", "P"),
    lambda rng: picture(rng, "TIFF", "F"), lambda rng: picture(rng, "JPEG", "CMYK"),
]  # fmt: skip
PATHS = [
    *("/predict", "/predict", "/predict", "/look", "/", "/health", "/docs", "/openapi.json", "/predict/", "//predict"),
    *("/predict?top_k=2&probabilities=true", "/predict?top_k=-1", "/predict?top_k=1e9", "/predict?top_k=" + "9" * 5000),
    *("/predict?threshold=nan", "/predict?threshold=7", "/predict?probabilities=maybe", "/predict?top_k=1&top_k=2"),
    *("/../../etc/passwd", "/%2e%2e/run.json", "/run.json", "/%00", "/predict?%ff=%00", "/?" + "a" * 5000, "*", ""),
]
TYPES = [
    "",
    "image/png",
    "application/octet-stream",
    "application/json",
    "multipart/form-data",
    "text/html; charset=utf-7",
]


def form(rng: Random) -> tuple[str, bytes]:
    """A form of files with odd names, whole or not: its type and its bytes."""
    parts = b""
    for _ in range(rng.choice([0, 1, 1, 2, 40])):
        name = rng.choice([*NAMES, "../../../etc/passwd", "C:\\x.png", "a\0b", '"; filename="x']).replace("\n", "%0A")
        field = rng.choice(["files", "files", "", name])
        said = rng.choice(
            [f'name="{field}"; filename="{name}"', f'name="{field}"', "", f"name={field}; filename*=x''%ff"]
        )
        parts += f"--b\r\nContent-Disposition: form-data; {said}\r\n\r\n".encode() + rng.choice(BODIES)(rng) + b"\r\n"
    kind = rng.choice(["multipart/form-data; boundary=b"] * 4 + ["multipart/form-data; boundary=c", TYPES[4]])
    return kind, parts + rng.choice([b"--b--\r\n", b"--b--\r\n", b"", b"--b\r\n" + b"X: y\r\n" * 500])


def visit(made: Attempt, port: int, good: bool = False) -> int:
    """Send one request, perhaps not the whole of it; the status of its answer, 0 where there was none."""
    rng = made.rng
    kind, body = form(rng) if rng.random() < 0.5 else (rng.choice(TYPES), rng.choice(BODIES)(rng))
    method, path = rng.choice(["POST"] * 6 + ["GET", "HEAD", "PUT", "OPTIONS", "\xff"]), rng.choice(PATHS)
    host = rng.choice(["127.0.0.1"] * 8 + ["localhost", "evil.example", "", "[::1", "127.0.0.1:x"])
    length = str(rng.choice([len(body)] * 6 + [0, len(body) // 2, len(body) + 9, -1, 10**12, 10**30]))
    more = rng.choice([""] * 6 + ["Origin: http://evil.example\r\n", "Sec-Fetch-Site: cross-site\r\n", "X\r\n"])
    if good:
        method, path, host, length, more, kind, body = "GET", "/health", "127.0.0.1", "0", "", "", b""
    else:
        made.done.append(f"  {method} {path[:40]} {host!r} {kind!r} {length} of {len(body)} bytes {more!r}")
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{more}\r\n"
    with socket.create_connection(("127.0.0.1", port), 30) as line, contextlib.suppress(OSError):
        line.sendall(head.encode("latin-1", "replace") + body)
        if good or rng.random() < 0.9:  # or go away at once
            line.shutdown(socket.SHUT_WR)
            said = line.recv(1 << 16)
            return int(said.split()[1]) if said else 0
    return 0


@contextlib.contextmanager
def visited(made: Attempt) -> Iterator[None]:
    """Meanwhile, a server does not run until Ctrl-C but until some odd visitors have been there."""
    import uvicorn

    whole = uvicorn.Server.run

    def run(self: Any, sockets: Any) -> None:
        thread = threading.Thread(target=whole, args=(self, sockets))
        thread.start()
        try:
            port = sockets[0].getsockname()[1]
            for _ in range(12):
                status = visit(made, port)
                made.done.append(f"    {status}")
                assert status in (0, *ANSWERS)
            assert visit(made, port, good=True) == 200
        finally:
            self.should_exit = True
            thread.join()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uvicorn.Server, "run", run)
        yield


# ---------------------------------------------------------------------------- what holds of all


def answer(made: Attempt, name: str) -> None:
    """Run a command of the attempt and check what holds of all."""
    verb = VERBS[name]
    words = verb.words(made)
    made.done.append(f"{name}: {words!r}")
    stdin = f"{made.photos.name}\nnowhere.png\n\0" if "-" in words else ""
    before, sound = held(made.work), made.run is not None and newest(made.run)
    beside = {path: kind for path, kind in held(made.home).items() if path.partition("/")[0] == "canary"}
    shared = held(made.finished.parent)
    with within(LONGEST, waiting=3), visited(made) if words[0] == "serve" else contextlib.nullcontext():
        outcome = command(*words, stdin=stdin)
    said = f"exit {outcome.code}\n{outcome.output}"
    made.done.append(f"  exit {outcome.code}: " + outcome.output.strip().rpartition("\nerror")[2][:300])
    assert outcome.code in DECLARED, said
    # under -v a refusal shows where it came from, and nothing else does
    shown = re.sub(r"traceback:\n.*?^error", "", outcome.output, flags=re.DOTALL | re.MULTILINE)
    assert "Traceback" not in shown, said
    assert outcome.code == 0 or outcome.output.strip(), "a refusal without a word"
    after = held(made.home)
    assert {path: kind for path, kind in after.items() if path.partition("/")[0] == "canary"} == beside, said
    places = {path.partition("/")[0] for path in after}
    assert places <= {"work", "home", "cache", "state", "canary"}, said
    assert held(made.finished.parent) == shared, said
    run = made.run.name if made.run is not None else "\0"
    allowed = [pattern.format(run=_literal(run)) for pattern in verb.rewrites]
    if words[0] == "predict" and "-o" in words and words.count(out := words[words.index("-o") + 1]) == 1:
        allowed.append(_literal(str(out)))  # it is named to be written, unless it is read too
    now = held(made.work)
    lost = {
        path: (kind, now.get(path, "gone"))
        for path, kind in before.items()
        if now.get(path) != kind and not any(fnmatch(path, pattern) for pattern in allowed)
    }
    assert not lost, f"lost or changed: {lost}\n{said}"
    assert not sound or newest(made.run), f"no checkpoint is left\n{said}"


def _literal(name: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)


def newest(run: Path) -> bool:
    """Whether a run has a checkpoint that is whole."""
    try:
        inside.check(run)  # no named pipe, which would be waited for
        return Store(run).newest()[0] is not None
    except FastclsError:
        return False


def attempt(made: Attempt) -> None:
    """Make the folders, run one or two commands with the damage before or between them."""
    rng, patch = made.rng, pytest.MonkeyPatch()
    for place in ("work", "home", "cache", "state"):
        (made.home / place).mkdir(parents=True)
    for file in ("notes.txt", "folder/.ssh/id_rsa", "folder/run.json", "folder/model.onnx", "photo.png"):
        (made.home / "canary" / file).parent.mkdir(parents=True, exist_ok=True)
        (made.home / "canary" / file).write_bytes(b"mine\n")
    made.photos = made.work / rng.choice(["photos", "photos", made.name()])
    layout = rng.choice(LAYOUTS)
    name = rng.choices(sorted(VERBS), [VERBS[name].weight for name in sorted(VERBS)])[0]
    made.done.append(f"{layout.__name__} in {made.photos.name!r}")
    with contextlib.ExitStack() as stack:
        stack.callback(patch.undo)
        for variable, place in (("HOME", "home"), ("FASTCLS_DATA", "cache"), ("XDG_STATE_HOME", "state")):
            patch.setenv(variable, str(made.home / place))
        patch.setenv("XDG_CACHE_HOME", str(made.home / "cache" / "xdg"))
        patch.chdir(made.work)
        layout(made)
        if VERBS[name].run:
            shutil.copytree(made.finished, made.work / "finished")
            made.run = made.work / rng.choice(["run", "run", f"{made.name()}.run"])
            done = made.tagged if layout is tags or rng.random() < 0.2 else made.finished
            shutil.copytree(done if VERBS[name].run == "done" else made.cut, made.run)
            if name == "resume" and rng.random() < 0.8:
                shutil.rmtree(made.photos)
                shutil.copytree(json.loads((made.run / "run.json").read_text())["data"]["root"], made.photos)
            (made.home / "state" / "fastcls").mkdir()
            (made.home / "state" / "fastcls" / "runs.txt").write_text(f"{made.run}\n".replace("\n", "\\n")[:-2] + "\n")
        if rng.random() < 0.3:  # between two commands
            answer(made, rng.choice(["check", "dry run", *([name] if VERBS[name].run == "done" else [])]))
        for one in rng.sample(DAMAGES, rng.choice([1, 1, 2])):
            one(made)
        answer(made, name)
