"""Decisions from probabilities: sets that contain the right class, thresholds, costs, odd pictures, shortcuts."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import Fastcls, command
from fabricated import make_run
from folders import csv_rows
from PIL import Image

from fastcls import Run, check
from fastcls.audit import check_record, shortcuts
from fastcls.errors import UsageError
from fastcls.evaluation import decisions
from fastcls.images.measure import Measured
from fastcls.reports.deciding import decided
from fastcls.runfolder import predictions

pytestmark = pytest.mark.further

CLASSES = 6


def simulated(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, CLASSES) of a network that is too sure of itself, and labels; the first classes are rarer."""
    rng = np.random.default_rng(seed)
    honest = rng.dirichlet(np.linspace(0.1, 0.5, CLASSES), n) + 1e-9
    honest /= honest.sum(1, keepdims=True)
    labels = (honest.cumsum(1) > rng.random((n, 1))).argmax(1)
    return (honest**2 / (honest**2).sum(1, keepdims=True)), labels


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
def test_sets_cover_as_often_as_is_wanted_over_twenty_splits(level: float) -> None:
    found = []
    for seed in range(20):
        (p, y), (new, truth) = simulated(600, seed), simulated(600, 100 + seed)
        thresholds, _ = decisions.set_thresholds(p[np.arange(600), y], y, CLASSES, level)
        found.append((new >= thresholds)[np.arange(600), truth].mean())
    noise = (level * (1 - level) * 2 / 600 / 20) ** 0.5  # of the images that calibrate, and of those that are covered
    assert level - 3 * noise < np.mean(found) < level + 3 * noise + CLASSES / 600


def test_each_class_with_enough_images_is_covered_by_itself() -> None:
    (p, y), (new, truth) = simulated(20_000, 0), simulated(20_000, 1)
    thresholds, apart = decisions.set_thresholds(p[np.arange(len(y)), y], y, CLASSES, 0.9)
    assert apart == CLASSES
    inside = decisions.sets(new, thresholds)[np.arange(len(truth)), truth]
    assert all(inside[truth == k].mean() > 0.88 for k in range(CLASSES))
    few = y[:80]
    thresholds, apart = decisions.set_thresholds(p[np.arange(80), few], few, CLASSES, 0.9)
    assert apart < CLASSES and np.isfinite(thresholds).all()


def test_sets_from_images_in_groups_cover_those_of_new_groups() -> None:
    rng, found = np.random.default_rng(0), []
    for _ in range(1000):
        codes = np.repeat(np.arange(12), rng.integers(1, 9, 12))
        scores = rng.normal(size=12)[codes] + 0.3 * rng.normal(size=len(codes))
        new = rng.normal(size=300) + 0.3 * rng.normal(size=300)
        found.append([(new <= decisions.bound(scores, 0.9, groups)).mean() for groups in (codes, None)])
    by_groups, by_images = np.mean(found, axis=0)
    assert by_images < 0.9 <= by_groups < 0.96
    assert decisions.bound(np.arange(80.0), 0.9, np.arange(80) % 8) == np.inf, "eight groups promise nothing"
    assert decisions.bound(np.arange(30.0), 0.9, np.arange(30)) == decisions.bound(np.arange(30.0), 0.9)


@pytest.mark.parametrize("level, least", [(0.9, 9), (0.95, 19), (0.99, 99), (0.5, 1)])
def test_too_few_images_promise_nothing(level: float, least: int) -> None:
    assert decisions.needed(level) == least
    assert decisions.bound(np.arange(float(least)), level) == least - 1
    assert decisions.bound(np.arange(float(least - 1)), level) == np.inf


def test_thresholds_keep_precision_and_recall_on_new_images() -> None:
    (p, y), (new, truth) = simulated(5000, 0), simulated(20_000, 1)
    found = decisions.tune(p, y, {0: 0.9}, {}).decide(new)
    assert (found[truth == 0] == 0).mean() > 0.87 > (new.argmax(1)[truth == 0] == 0).mean()
    found = decisions.tune(p, y, {}, {5: 0.8}).decide(new)
    kept, likely = found == 5, new.argmax(1) == 5
    assert 0.1 * likely.sum() < kept.sum() < likely.sum()
    assert (truth[kept] == 5).mean() > 0.8 > (truth[likely] == 5).mean()
    assert (found[likely & ~kept] == decisions.UNSURE).all()
    assert not np.isfinite(decisions.tune(p[:20], y[:20], {}, {5: 0.95}).precision[5])


def test_decisions_by_planted_costs_cost_less_than_the_likeliest_class(tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(CLASSES)]
    table = 1 - np.eye(CLASSES)
    table[0] *= 30  # to miss the first class is dear
    rows = [["true", *names, "refuse"], *([name, *costs, 0.3] for name, costs in zip(names, table, strict=True))]
    (tmp_path / "costs.csv").write_text("\n".join(",".join(map(str, row)) for row in rows))
    costs = decisions.read_costs(tmp_path / "costs.csv", names)
    new, truth = simulated(5000, 1)
    cheap, likely = costs.decide(new, 2.0), new.argmax(1)
    paid, before = costs.table[truth, cheap].mean(), costs.table[truth, likely].mean()
    assert paid < 0.5 * before and (cheap == CLASSES).any()


# ------------------------------------------------------------------ the command


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(line for line in io.StringIO(text) if not line.startswith("note:")))


def held_out(run: Path) -> tuple[list[str], list[str]]:
    """The validation images, and their labels."""
    root = json.loads((run / "run.json").read_text())["data"]["root"]
    table = csv_rows(run / "predictions.csv")
    return [f"{root}/{row['path']}" for row in table], [row["label"] for row in table]


def test_predict_writes_sets(fastcls: Fastcls, digits_run: Path) -> None:
    paths, labels = held_out(digits_run)
    outcome = fastcls("predict", digits_run, *paths, "--coverage", 0.95, "-o", "sets.jsonl")
    assert outcome.code == 0 and f"calibrated on {len(paths)} valid images" in outcome.output
    assert "epoch was chosen" in outcome.output
    answers = [json.loads(line) for line in Path("sets.jsonl").read_text().splitlines()]
    assert np.mean([label in answer["set"] for answer, label in zip(answers, labels, strict=True)]) > 0.94
    assert all(answer["set"][0] == answer["prediction"] for answer in answers)
    again = rows(command("predict", digits_run, paths[0], "--coverage", 0.95, "--calibrated").output)
    assert again[0]["set"].split("|") == answers[0]["set"]
    frame = Run(digits_run).predict(paths[:3], coverage=0.95)
    assert frame["set"].tolist() == [answer["set"] for answer in answers[:3]]


def test_thresholds_and_costs_decide(fastcls: Fastcls, digits_run: Path) -> None:
    paths, labels = held_out(digits_run)
    eights = [path for path, label in zip(paths, labels, strict=True) if label == "8"]
    found = rows(fastcls("predict", digits_run, *eights, "--recall", "8=0.8").output)
    assert np.mean([row["prediction"] == "8" for row in found]) >= 0.8
    outcome = command("predict", digits_run, *paths, "--precision", "8=0.7", "--precision", "1=0.6")
    assert outcome.code == 0, outcome.output
    table = [["true", "even", "odd"], *([str(i), i % 2, 1 - i % 2] for i in range(10))]
    Path("costs.csv").write_text("\n".join(",".join(map(str, row)) for row in table))
    found = [row["prediction"] for row in rows(command("predict", digits_run, *paths, "--costs", "costs.csv").output)]
    assert np.mean([answer == ("even", "odd")[int(y) % 2] for answer, y in zip(found, labels, strict=True)]) > 0.75
    assert Run(digits_run).predict(paths, costs="costs.csv")["prediction"].tolist() == found


@pytest.mark.parametrize(
    "words, code, says",
    [
        (["--coverage", "0"], 2, "expected a number between 0 and 1"),
        (["--coverage", "1"], 2, "expected a number between 0 and 1"),
        (["--coverage", "abc"], 2, "a valid"),
        (["--coverage", "nan"], 2, "expected a number between 0 and 1"),
        (["--coverage", "0.9999"], 2, "needs 9,999 held-out images"),
        (["--coverage", "0.9", "--tta"], 2, "Omit --tta"),
        (["--unknown", "0.0001"], 2, "needs 9,999 held-out images"),
        (["--precision", "0.9999"], 2, "cannot guarantee it for any class"),
        (["--precision", "x=0.9"], 2, "not a class of this run"),
        (["--recall", "8=1.5"], 2, "expected a number between 0 and 1"),
        (["--recall", "8=0.999"], 2, "needs 999 held-out images"),
        (["--costs", "nothing.csv"], 3, "cannot be read"),
        (["--costs", "costs.csv", "--recall", "8=0.9"], 2, "--costs cannot be combined"),
        (["--coverage", "0.9", "-o", "s.csv", "--id", "name"], 2, "--coverage: a Kaggle submission"),
    ],
)
def test_what_cannot_be_decided_is_refused(
    fastcls: Fastcls, digits_run: Path, words: list[str], code: int, says: str
) -> None:
    Path("costs.csv").write_text("true,even,odd\n" + "".join(f"{i},0,1\n" for i in range(10)))
    outcome = fastcls("predict", digits_run, held_out(digits_run)[0][0], *words)
    assert outcome.code == code and says in outcome.output.replace("\n", " "), outcome.output


@pytest.mark.parametrize(
    "table, says",
    [
        ("true,a,b,c\na,0,1,1\nb,1,0,1\n", "no row for 'c'"),
        ("true,a,b\na,0,1\nb,1,0\nc,1,1\n", "no column for 'c'"),
        ("true,a,b,c\na,0,1,1\nb,1,0,1\nc,1,1,dear\n", "'c' has the cost 'dear'"),
        ("true,a,b,c\na,0,1,1\nb,1,0,1\nc,1,1,inf\n", "'c' has the cost 'inf'"),
        ("true,a,b,c\na,0,1,1\nb,1,0,1\nc,1,1,0\nd,1,1,1\n", "'d' is not a class"),
        ("true,a,b,c\na,0,1,1\na,1,0,1\nb,1,1,0\nc,0,0,0\n", "occurs twice"),
        ("a\n", "is not a cost table"),
    ],
)
def test_a_cost_table_that_lacks_something_is_refused(fastcls: Fastcls, tmp_path: Path, table: str, says: str) -> None:
    run = make_run(tmp_path / "run", ["a", "b", "c"], pictures=False)
    Path("costs.csv").write_text(table)
    outcome = fastcls("report", run, "--costs", "costs.csv")
    assert outcome.code == 3 and says in outcome.output.replace("\n", " "), outcome.output


def test_a_run_without_held_out_predictions_is_refused(fastcls: Fastcls, digits_run: Path) -> None:
    shutil.copytree(digits_run, "bare")
    Path("bare/predictions.csv").unlink()
    outcome = fastcls("predict", "bare", held_out(digits_run)[0][0], "--coverage", 0.9)
    assert outcome.code == 4 and "no held-out predictions" in outcome.output
    with pytest.raises(UsageError, match="coverage"):
        Run(digits_run).predict("x.png", coverage="abc")  # type: ignore[arg-type]


# ------------------------------------------------------------------ pictures of no class


@pytest.fixture
def odd(fastcls: Fastcls) -> Path:
    """Thirty pictures that are no digits."""
    rng = np.random.default_rng(0)
    Path("odd").mkdir()
    for i in range(30):
        Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(f"odd/{i}.png")
    return Path("odd")


def test_odd_pictures_are_unknown_and_known_ones_seldom(fastcls: Fastcls, digits_run: Path, odd: Path) -> None:
    shutil.copytree(digits_run, "run")
    paths, _ = held_out(digits_run)
    outcome = fastcls("predict", "run", "odd", *paths, "--unknown", 0.1)
    assert outcome.code == 0, outcome.output
    flagged = np.array([row["prediction"] == "unknown" for row in rows(outcome.output)])
    known = flagged[30:]  # each is among those that set the threshold
    assert flagged[:30].mean() > 0.6 and known.sum() <= 0.1 * (len(known) + 1)
    written = Path("run/unknown.safetensors").read_bytes()
    record = json.loads(Path("run/run.json").read_text())
    record["data"]["root"] = "gone"
    Path("run/run.json").write_text(json.dumps(record))
    assert command("predict", "run", "odd", *paths, "--unknown", 0.1).output == outcome.output  # from the file
    Path("run/unknown.safetensors").write_bytes(written[:-40])
    damaged = command("predict", "run", "odd", "--unknown", 0.1)
    assert damaged.code == 3 and "cannot be read" in damaged.output


def test_the_report_judges_costs_and_odd_pictures(fastcls: Fastcls, digits_run: Path, odd: Path) -> None:
    shutil.copytree(digits_run, "run")
    costs = [["true", *range(10), "refuse"], *([i, *(5 * (i != j) for j in range(10)), 1] for i in range(10))]
    Path("costs.csv").write_text("\n".join(",".join(map(str, row)) for row in costs))
    outcome = fastcls("report", "run", "--costs", "costs.csv", "--odd", "odd")
    assert outcome.code == 0, outcome.output
    page = Path("run/report.html").read_text()
    assert "AUROC" in page and "least expected cost" in page and "Prediction sets" in page
    temperature = json.loads(Path("run/model.json").read_text())["temperature"]
    names = [str(i) for i in range(10)]
    found = decided(Path("run"), predictions.held_out(Path("run"), names), names, temperature, "costs.csv")
    assert found is not None
    cheap, likely = (float(row[1].split(" ± ")[0]) for row in found.costs[:2])
    assert cheap <= likely and len(found.thresholds) + int((found.without or "0").split()[0]) == 10
    (odd / "bad.png").write_bytes(b"no picture")
    outcome = command("report", "run", "--odd", "odd")
    assert outcome.code == 3 and "bad.png" in outcome.output


# ------------------------------------------------------------------ shortcuts


def pictures(folder: Path, kinds: dict[str, str]) -> Path:
    """120 pictures of noise a class, of a format each; each class has its own pattern too."""
    for number, (label, kind) in enumerate(kinds.items()):
        rng = np.random.default_rng(number)
        (folder / label).mkdir(parents=True)
        for i in range(120):
            pixels = rng.integers(60, 190, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{i}.{kind}")
    return folder


def test_a_format_that_goes_with_the_class_is_found(tmp_path: Path) -> None:
    found = check(pictures(tmp_path / "planted", {"cat": "png", "dog": "bmp"}), out=tmp_path / "out")
    (finding,) = [one for one in found.audit.findings if one.kind == "shortcut"]
    assert finding.severity == "warning" and "file format 100%" in finding.what and "of 50%" not in finding.what
    assert "Shortcut" in (tmp_path / "out" / "check.html").read_text()
    record = check_record.read(tmp_path / "out")
    assert record is not None and record.shortcuts == found.audit.shortcuts and record.shortcuts.strong == ["files"]
    assert record.shortcuts.shuffled["files"] < 0.65


def test_clean_images_are_quiet(tmp_path: Path) -> None:
    found = check(pictures(tmp_path / "clean", {"cat": "png", "dog": "png"}))
    assert found.audit.shortcuts is not None and not found.audit.shortcuts.strong
    assert not [one for one in found.audit.findings if one.kind == "shortcut"]


def test_a_source_folder_that_goes_with_the_class_is_found(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "sites", {"north": "png", "south": "png"})
    lines = ["path,label"]
    for i in range(120):
        lines += [f"north/{i}.png,{'ill' if i % 10 else 'well'}", f"south/{i}.png,{'well' if i % 10 else 'ill'}"]
    (folder / "labels.csv").write_text("\n".join(lines))
    found = check(folder, labels="labels.csv").audit.shortcuts
    assert found is not None and found.strong == ["files"] and found.alone["folder"] > 0.85


def test_a_light_that_each_patient_has_is_no_shortcut_to_the_class_of_others() -> None:
    """Forty patients of ten images, of either class, in a light of their own each."""
    rng = np.random.default_rng(0)
    light = rng.uniform(40, 200, 40)
    images = {
        f"{i}.jpg": Measured(f"{i}.jpg", width=64, height=64, brightness=float(light[i // 10] + rng.normal(0, 0.1)))
        for i in range(400)
    }
    rows = [(path, "ab"[i // 10 % 2], "") for i, path in enumerate(images)]
    alone = shortcuts.find(rows, images)
    together = shortcuts.find(rows, images, {path: f"p{i // 10}" for i, path in enumerate(images)})
    assert alone is not None and together is not None
    assert alone.strong == ["look"] and not together.strong and together.effect > 2 > alone.effect


def test_of_few_images_only_what_nearly_decides_the_class_is_a_shortcut() -> None:
    for n, files, strong in ((80, 1.0, ["files"]), (80, 0.75, []), (400, 0.75, ["files"]), (40, 1.0, ["files"])):
        assert shortcuts.Shortcuts(n, 2, 0.5, {"files": files, "look": 0.99 if n < 200 else 0.5}).strong == strong


def test_the_report_warns_of_a_shortcut(fastcls: Fastcls, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "planted", {"cat": "png", "dog": "bmp"})
    run = make_run(tmp_path / "run", ["cat", "dog"], pictures=False)
    check(folder, out=tmp_path / "out")
    shutil.copy(tmp_path / "out" / "check.json", run)
    assert fastcls("report", run).code == 0
    page = (run / "report.html").read_text()
    assert "A shortcut: size, bytes, format and folder" in page and "beyond chance" in page
    record = json.loads((run / "check.json").read_text()) | {"shortcuts": {"n": "many"}}
    (run / "check.json").write_text(json.dumps(record))
    assert fastcls("report", run).code == 0
