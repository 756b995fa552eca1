"""Attempts: a folder of images, odd names, damage, a moment and a command, combined at random from lists.

`attempt` makes one of a seed, runs it and checks what holds of all of them: a declared exit code, no traceback, nothing
touched but the attempt's own folders, nothing of the user's lost or changed.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import shutil
import stat
import struct
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from random import Random

import bad_inputs
import mutations
import numpy as np
import pytest
from conftest import command
from limits import within
from PIL import Image

from fastcls.errors import FastclsError
from fastcls.runfolder import inside
from fastcls.training.checkpoints import Store

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


@dataclass
class Attempt:
    """One attempt: its random choices, its folders, and a line for each thing done."""

    seed: int
    home: Path
    finished: Path  # a run that is done, to copy
    cut: Path  # one that was interrupted
    rng: Random = field(init=False)
    done: list[str] = field(default_factory=list)
    photos: Path = field(init=False)
    run: Path | None = None
    labelled: list[object] = field(default_factory=list)  # words that say where the labels are

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
        file = folder / f"{stem}.{self.rng.choice(['png', 'png', 'PNG', 'jpg'])}"
        file.write_bytes(picture(self.rng, "JPEG" if file.suffix == ".jpg" else "PNG"))
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
    rows = [(made.image().relative_to(made.photos).as_posix(), labels[number % 2]) for number in range(8)]
    delimiter, encoding = made.rng.choice([(",", "utf-8"), ("\t", "utf-8"), (",", "utf-16"), (";", "utf-8-sig")])
    file = made.rng.choice([made.work, made.photos]) / made.rng.choice(["labels.csv", "labels.tsv", "-l.csv"])
    with file.open("w", newline="", encoding=encoding) as stream:
        csv.writer(stream, delimiter=delimiter).writerows([("path", "label"), *rows])
    made.labelled = ["--labels", os.path.relpath(file, made.work)]


def nothing(made: Attempt) -> None:
    made.photos.mkdir()


LAYOUTS = [class_folders, class_folders, split_folders, splits_in_classes, flat, nested, table, table, nothing]


# ---------------------------------------------------------------------------- moments


def damage_photos(made: Attempt) -> None:
    files = sorted(file for file in made.photos.rglob("*") if file.suffix.lower() in (".png", ".jpg"))
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
        damage(made, file)


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


def run_of(made: Attempt) -> object:
    assert made.run is not None
    return made.rng.choice([made.run.name, f"./{made.run.name}", made.run, "last"])


def settings(made: Attempt) -> list[object]:
    rng = made.rng
    found: list[object] = [*SMALL, "--seed", rng.randrange(99)]
    for words in (
        ["--skip-bad"], ["--limit", rng.randint(1, 3)], ["--valid-pct", rng.choice([0.01, 0.5, 0.99])],
        ["--cache-gb", 0], ["--balanced"], ["--loss", "focal", "--class-weights"], ["--mixup", 0.4],
        ["--best-by", "f1"], ["--no-test"],
    ):  # fmt: skip
        found += words if rng.random() < 0.15 else []
    return found


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
         ["--sample-submission", "labels.csv"], ["--probability-of", made.name()], ["--fill", "cat"]]
    )  # fmt: skip
    return ["predict", run_of(made), *what, *out, *more]


def exported(made: Attempt) -> list[object]:
    kinds = made.rng.choice([[], ["--onnx"], ["--safetensors"], ["--onnx", "--safetensors"], ["--torch-export"]])
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
        lambda made: ["report", run_of(made), *made.rng.choice([[], [], ["--split", "test"]])],
        ("{run}/report.html", "{run}/figures/*", "{run}/suspects.csv", "{run}/thumbnails/*"),
        "done",
        3,
    ),
    "export": Verb(exported, run="done"),
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


# ---------------------------------------------------------------------------- what holds of all


def held(folder: Path) -> dict[str, str]:
    """What each entry below a folder is and holds."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            status = path.lstat()
            kind = stat.filemode(status.st_mode)
            if path.is_symlink():
                kind += f" to {path.readlink()}"
            elif stat.S_ISREG(status.st_mode):
                kind += hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path.relative_to(folder))] = kind
    return found


def answer(made: Attempt, name: str) -> None:
    """Run a command of the attempt and check what holds of all."""
    verb = VERBS[name]
    words = verb.words(made)
    made.done.append(f"{name}: {words!r}")
    stdin = f"{made.photos.name}\nnowhere.png\n\0" if "-" in words else ""
    before, sound = held(made.work), made.run is not None and newest(made.run)
    beside = {path: kind for path, kind in held(made.home).items() if path.partition("/")[0] == "canary"}
    shared = held(made.finished.parent)
    with within(LONGEST, waiting=3):
        outcome = command(*words, stdin=stdin)
    said = f"exit {outcome.code}\n{outcome.output}"
    made.done.append(f"  exit {outcome.code}: " + outcome.output.strip().rpartition("\nerror")[2][:300])
    assert outcome.code in DECLARED, said
    assert "Traceback" not in outcome.output, said
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
            shutil.copytree(made.finished if VERBS[name].run == "done" else made.cut, made.run)
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
