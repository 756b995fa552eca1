"""Sound files damaged at random: every command ends in a result or in our words, soon, and the files stay as they are.

The cases are hypothesis' own, the same each time: 100 of them with `-m faults`, 2,000 with `-m slow`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import mutations
import pytest
from conftest import Outcome, command, without_sums
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from limits import within

from fastcls.errors import FastclsError
from fastcls.images import uploads
from fastcls.inference.explain import Explainer
from fastcls.models import networks, weights
from fastcls.plugins.serve.site import Site
from fastcls.reports.figures import Figure
from fastcls.runfolder import recorded, runs
from fastcls.training import checkpoints

LONGEST = 10  # seconds
OURS = (0, 2, 3, 4, 5, 6)  # exit codes
REPORT, RUNS, COMPARE = ["report", "run"], ["runs", "--folder", "all"], ["compare", "run", "sound", "--out", "compared"]
PREDICT = ["predict", "run", "photos", "--calibrated", "--top-k", "3", "-o", "labels.csv"]
EXPORT, SAFETENSORS = ["export", "run", "-o", "out"], ["export", "run", "--safetensors", "-o", "out"]
CHECK_RUN, CHECK = ["check", "run", "-o", "checked"], ["check", "folder", "-o", "checked"]
LABELS = ["check", "folder", "--labels", "folder/labels.csv", "-o", "checked"]
TABLE = ["predict", "run", "folder/labels.csv", "-o", "labels.jsonl"]
SAMPLE = ["predict", "run", "photos", "-o", "sub.csv", "--sample-submission", "folder/labels.csv", "--fill", "3"]


def answered(words: list[str]) -> Outcome:
    """A command's outcome, which must be a result or a message; a traceback comes out as its exception."""
    before = held()
    outcome = command(*words)
    assert {path: data for path, data in held().items() if path in before} == before, f"{words} changed a file"
    assert outcome.code in OURS, outcome
    assert outcome.code == 0 or "error: " in outcome.output, (words, outcome)
    assert "Traceback" not in outcome.output
    return outcome


def held() -> dict[Path, bytes]:
    """Every file here but those that a report is made of."""
    made = ("report.html", "suspects.csv")
    return {path: path.read_bytes() for path in Path().rglob("*") if path.is_file() and path.name not in made}


def ours(read: Callable[[], object]) -> None:
    """Call a reader, which may refuse in our words."""
    with contextlib.suppress(FastclsError, checkpoints.Damaged):
        read()


class Place:
    """A run and what lies beside it, made anew for each case from what is sound."""

    def __init__(self, folder: Path, run: Path) -> None:
        self.sound, self.folder = folder / "sound place", folder / "place"
        left_out = shutil.ignore_patterns("figures", "export", "terminal.txt", "checkpoints")
        shutil.copytree(run, self.sound / "run", ignore=left_out)
        answers = (self.sound / "run" / "predictions.csv").read_text().splitlines()
        (self.sound / "run" / "predictions.csv").write_text("\n".join(answers[:41]) + "\n")  # a report of few pictures
        without_sums(self.sound / "run")  # else a changed byte of the network would always end there
        shutil.copytree(self.sound / "run", self.sound / "sound")
        shutil.copytree(next((run / "checkpoints").glob("[0-9]*")), self.sound / "checkpoint")
        (self.sound / "photos").mkdir()
        root = Path(runs.read_json(run / "run.json")["data"]["root"])
        rows = ["path,label,split"]
        for label in "37":
            for file in sorted((root / label).glob("*.png"))[:3]:
                target = self.sound / "folder" / label / file.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
                rows.append(f"{label}/{file.name},{label},train")
        shutil.copy(target, self.sound / "photos" / "a.png")
        (self.sound / "folder" / "labels.csv").write_text("\n".join(rows) + "\n")
        self.pictures = mutations.pictures()

    def make(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.sound, self.folder)
        (self.folder / "all" / "digits-cnn").mkdir(parents=True)
        (self.folder / "all" / "digits-cnn" / "a").symlink_to(self.folder / "run")


def of_run(name: str, mutate: mutations.Mutation, *commands: list[str]) -> Callable[[Place, Random], None]:
    """A file of a run, and the commands that read it."""

    def case(place: Place, rng: Random) -> None:
        file = Path("run", name)
        file.write_bytes(mutate(file.read_bytes(), rng))
        for words in commands:
            answered(words)
        if name == "run.json":
            ours(lambda: recorded.request(Path("run"), trust=False))
        if name in ("run.json", "model.json", "predictions.csv"):
            picture = Path("photos/a.png").read_bytes()
            ours(lambda: Site(Path("run"), Explainer(Path("run"))).answer(picture))

    return case


def of_picture(place: Place, rng: Random) -> None:
    name = rng.choice(sorted(place.pictures))
    data = mutations.in_bytes(place.pictures[name], rng)
    for folder in ("photos", "folder/3"):
        Path(folder, name).write_bytes(data)
    answered(PREDICT)
    answered(CHECK)
    ours(lambda: uploads.read(data))


def of_table(place: Place, rng: Random) -> None:
    file = Path("folder/labels.csv")
    file.write_bytes(mutations.in_csv(file.read_bytes(), rng))
    for words in (LABELS, TABLE, SAMPLE):
        answered(words)


def of_weights(place: Place, rng: Random) -> None:
    file = Path("run/model.safetensors")
    file.write_bytes(mutations.in_safetensors(file.read_bytes(), rng))
    answered(SAFETENSORS)
    net = networks.cnn(1, 10, (16, 32), convs=2)
    ours(lambda: weights.load(net, file))
    ours(lambda: weights.preprocessing_of(file))


def of_checkpoint(place: Place, rng: Random) -> None:
    """Damage that its manifest agrees with."""
    name = rng.choice([checkpoints.STATE, checkpoints.TENSORS, checkpoints.BEST, checkpoints.MANIFEST])
    folder = Path("checkpoint")
    mutate = {checkpoints.STATE: mutations.in_json, checkpoints.MANIFEST: mutations.in_bytes}
    file = folder / name
    file.write_bytes(mutate.get(name, mutations.in_safetensors)(file.read_bytes(), rng))
    if name != checkpoints.MANIFEST:
        files = [folder / one for one in (checkpoints.STATE, checkpoints.TENSORS, checkpoints.BEST)]
        (folder / checkpoints.MANIFEST).write_text(checkpoints._manifest(files))
    ours(lambda: checkpoints.read(folder))


KINDS: dict[str, Callable[[Place, Random], None]] = {
    "pictures": of_picture,
    "more pictures": of_picture,
    "tables": of_table,
    "run.json": of_run("run.json", mutations.in_json, REPORT, EXPORT, RUNS, COMPARE, CHECK_RUN),
    "model.json": of_run("model.json", mutations.in_json, PREDICT, EXPORT, SAFETENSORS, REPORT, COMPARE),
    "metrics.json": of_run("metrics.json", mutations.in_json, REPORT, RUNS, COMPARE),
    "check.json": of_run("check.json", mutations.in_json, REPORT),
    "heatmaps.json": of_run("heatmaps.json", mutations.in_json, REPORT),
    "splits.csv": of_run("splits.csv", mutations.in_csv, REPORT, CHECK_RUN),
    "predictions.csv": of_run("predictions.csv", mutations.in_csv, REPORT, EXPORT, COMPARE),
    "history.csv": of_run("history.csv", mutations.in_csv, REPORT, COMPARE),
    "model.onnx": of_run("model.onnx", mutations.in_bytes, PREDICT, EXPORT),
    "weights": of_weights,
    "checkpoints": of_checkpoint,
}


def one_case(place: Place, kind: str, rng: Random) -> None:
    place.make()
    with _within_folder(place.folder), within(LONGEST):
        KINDS[kind](place, rng)


@contextlib.contextmanager
def _within_folder(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, digits_run: Path) -> Place:
    return Place(tmp_path_factory.mktemp("mutated"), digits_run)


@pytest.fixture
def few_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every seventh figure is drawn, for the page alone: drawing takes most of the time of a report."""
    turn, drawn = itertools.count(), Figure.svg
    monkeypatch.setattr(Figure, "png", lambda figure: b"")
    monkeypatch.setattr(Figure, "svg", lambda figure: "" if next(turn) % 7 else drawn(figure))


def mutate(count: int, place: Place) -> None:
    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],  # a smaller case would take minutes to find; this one is in the place it was made
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(sorted(KINDS)), st.randoms(use_true_random=False))
    def every_case_ends_well(kind: str, rng: Random) -> None:
        one_case(place, kind, rng)

    every_case_ends_well()


@pytest.mark.faults
def test_fifty_damaged_files(place: Place, few_figures: None) -> None:
    mutate(50, place)


@pytest.mark.slow
@pytest.mark.timeout(3 * 3600)
def test_two_thousand_damaged_files(place: Place, few_figures: None) -> None:
    mutate(2000, place)
