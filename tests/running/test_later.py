"""A run on images that came later: its own figures again, a planted site, unknown classes, what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from bursts import scene
from conftest import Fastcls
from fabricated import make_run
from fastai.vision.all import CategoryBlock, ColReader, DataBlock, ImageBlock
from folders import csv_rows, images_of
from PIL import Image

import fastcls as package
from fastcls import Run, data, datasets, transforms
from fastcls.errors import UsageError
from fastcls.evaluation.shift import FEATURES, SHARES, gaps, matched
from fastcls.reports.build import write
from fastcls.runfolder import splits
from fastcls.running.record import Images


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory, digits_run: Path) -> Path:
    """The digits that the run did not train on, as of two sites: B's pictures are dark and inverted."""
    folder = tmp_path_factory.mktemp("later")
    root = images_of(digits_run)
    rows = []
    for i, (path, label, _) in enumerate(row for row in splits.read(digits_run) if row[2] == "valid"):
        site = "AB"[i % 2]
        pixels = np.asarray(Image.open(root / path))
        Image.fromarray((255 - pixels) // 3 if site == "B" else pixels).save(folder / f"{i}.png")
        rows.append([f"{i}.png", label, site, ["ixus", "eos"][i % 3 == 0], 20 + i % 50, f"patient {i}"])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "label", "site", "camera", "age", "patient"], *rows])
    return folder


def test_the_runs_own_validation_images_give_its_own_figures(digits_run: Path, fastcls: Fastcls) -> None:
    outcome = fastcls("evaluate", digits_run, digits_run, "--split", "valid")
    assert outcome.code == 0, outcome.output
    folder = Path("evaluations") / images_of(digits_run).name
    own, new = Run(digits_run), Run(folder)
    for name in ("accuracy", "top5", "macro_f1", "loss", "brier", "ece", "loss_calibrated"):
        assert new.metrics.loc[("new", name)].tolist() == pytest.approx(
            own.metrics.loc[("valid", name)].tolist(), abs=1e-4, nan_ok=True
        )
    assert "0.0 points higher (95 % interval" in outcome.output and "The new images look like" in outcome.output
    assert f"{len(own.predictions)} of the images above are files of the run's own validation split" in outcome.output
    old = own.predictions.set_index("path").query("split == 'valid'")
    assert (new.predictions.set_index("path")["prediction"] == old["prediction"]).all()
    page = new.report.read_text()
    assert 'id="evaluated"' in page and 'id="learning"' not in page and 'id="slices"' not in page
    assert fastcls("evaluate", digits_run, digits_run, "-o", folder).code == 4, "never over an existing folder"
    assert fastcls("report", folder).code == 0
    again = fastcls("compare", digits_run, folder)
    assert again.code == 0, again.output


@pytest.mark.faults
def test_a_planted_site_is_the_worst_slice_and_is_seen_in_the_pictures(
    later: Path, digits_run: Path, fastcls: Fastcls
) -> None:
    outcome = fastcls("evaluate", digits_run, later, "--labels", "labels.csv", "-o", "found")
    assert outcome.code == 0, outcome.output
    run = Run("found")
    first = run.slices.iloc[0]
    assert (first["column"], first["value"], first["shown"]) == ("site", "B", True)
    assert first["accuracy"] < first["others"] - 0.3 and first["p"] < 1e-6
    assert set(run.slices["column"]) == {"site", "camera", "age"} and (run.slices["column"] == "age").sum() == 4
    assert not run.slices[run.slices["column"] != "site"]["shown"].any()
    page = run.report.read_text()
    assert "patient: 359 different values in 359 images" in page
    assert '<bdi>B</bdi> <span class="tag">worse</span>' in page
    found = {gap["name"]: gap["p"] for gap in run.evaluation["gaps"]}
    assert max(found["brightness"], found["contrast"], found[FEATURES]) < 0.05 < found[SHARES]
    assert "site = B" in outcome.output and "more than chance explains" in outcome.output
    assert "do not look like" in outcome.output
    with (Path("found") / splits.SLICES).open() as file:
        assert next(csv.reader(file)) == ["path", "split", "site", "camera", "age", "patient"]
    other = package.evaluate(digits_run, later, labels="labels.csv", out="again")
    assert other.metrics.equals(run.metrics)
    assert "with these results, more images would not settle it" in fastcls("compare", "found", "again").output


def test_images_that_were_moved_may_be_those_of_the_training(
    digits_run: Path, fastcls: Fastcls, tmp_path: Path
) -> None:
    """They cannot be recognised, and the accuracy on them may be that of the training: it is said."""
    shutil.copytree(digits_run, "run")
    record = json.loads(Path("run/run.json").read_text())
    moved = shutil.copytree(record["data"]["root"], tmp_path / "moved")
    record["data"]["root"] = str(tmp_path / "old")
    Path("run/run.json").write_text(json.dumps(record))
    outcome = fastcls("evaluate", "run", moved, "-o", "found")
    assert outcome.code == 0, outcome.output
    n = sum(split == "train" for *_, split in splits.read(Path("run")))
    said = f"{n} images of the run's training are no longer in {tmp_path / 'old'}: whether the new ones"
    assert any(said in note for note in Run("found").record["notes"])
    assert said in " ".join(outcome.output.split())
    assert f"are no longer in {tmp_path / 'old'}" in " ".join(Run("found").report.read_text().split())


def test_unknown_missing_and_trained_images_are_counted_apart(
    later: Path, digits_run: Path, fastcls: Fastcls, tmp_path: Path
) -> None:
    record = Run(digits_run).record
    trained = [path for path, label, split in splits.read(digits_run) if split == "train" and label == "3"][:7]
    for name, files in {"3": [Path(record["data"]["root"]) / path for path in trained], "ten": [], "4": []}.items():
        (tmp_path / "new" / name).mkdir(parents=True)
        for file in files:
            shutil.copy(file, tmp_path / "new" / name)
    table = csv_rows(later / "labels.csv")
    for row in table:
        if row["site"] == "A" and row["label"] in ("4", "5"):
            shutil.copy(later / row["file"], tmp_path / "new" / {"4": "4", "5": "ten"}[row["label"]])
    n = {name: len(list((tmp_path / "new" / name).iterdir())) for name in ("4", "ten")}
    outcome = fastcls("evaluate", digits_run, "new")
    assert outcome.code == 0, outcome.output
    assert f"{n['ten']} more images are of 1 class that this network does not know: ten ({n['ten']})" in outcome.output
    assert "7 images were left out: the run was trained on these files" in outcome.output
    assert "No new image is of 9 of the 10 classes" in outcome.output
    run = Run("evaluations/new")
    assert run.metrics.loc[("new", "accuracy"), "n"] == n["4"] and run.evaluation["unknown"] == {"ten": n["ten"]}
    assert run.predictions["split"].value_counts().to_dict() == {"new": n["4"], "unknown": n["ten"]}
    assert run.predictions.query("split == 'unknown'")["loss"].isna().all()
    assert "Classes that this network does not know" in run.report.read_text()
    refused = fastcls("predict", "evaluations/new", later)
    assert refused.code == 4 and f"Use its run: {digits_run}" in refused.output


@pytest.fixture
def photographs(digits_run: Path, tmp_path: Path) -> Path:
    """A run of 40 photographs, old/0.jpg, …, in groups of four: new.csv names 40 others and three saved again."""
    rng = np.random.default_rng(0)
    shutil.copytree(digits_run, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    record["data"]["root"] = str(tmp_path / "old")
    record["knobs"]["get_learner"]["group"] = "patient"
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    model = json.loads((tmp_path / "run" / "model.json").read_text())
    model["preprocessing"] |= {"method": "squish", "resize": [8, 8], "size": [8, 8]}
    (tmp_path / "run" / "model.json").write_text(json.dumps(model))
    rows, table = splits.read(digits_run)[:40], []
    rows = [(f"{i}.jpg", label, "train" if i // 4 % 2 else "valid") for i, (_, label, _) in enumerate(rows)]
    belongs = {path: f"p{i // 4}" for i, (path, _, _) in enumerate(rows)}
    splits.write(tmp_path / "run", [(path, part, label) for path, label, part in rows], belongs)
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    for i, (path, label, part) in enumerate(rows):
        picture = scene(rng)
        picture.save(tmp_path / "old" / path, quality=95)
        if part == "train" and i > 36:
            picture.save(tmp_path / "new" / f"again{i}.jpg", quality=70)
            table.append(f"again{i}.jpg,{label},q9")
        scene(rng).save(tmp_path / "new" / path)
        table.append(f"{path},{label},{'p' if i < 8 else 'q'}{i // 4}")
    (tmp_path / "new.csv").write_text("\n".join(["file,label,patient", *table]))
    return tmp_path


def test_copies_of_training_images_are_said_and_the_figure_without_them_shown(
    photographs: Path, fastcls: Fastcls
) -> None:
    """Of the new images three are saved again from those that the run was trained on."""
    Path("plain.csv").write_text("\n".join(row.rpartition(",")[0] for row in Path("new.csv").read_text().splitlines()))
    outcome = fastcls("evaluate", "run", "new", "--labels", "plain.csv", "--out", "out")
    assert outcome.code == 0, outcome.output
    figures = json.loads(Path("out/metrics.json").read_text())["new"]
    assert figures["n"] == 43 and figures["accuracy_without_leaks"]["n"] == 40
    assert "3 of the 43 new images have a copy, or one of their group, in train" in outcome.output
    assert "3 of the 43 new images have a copy" in Path("out/report.html").read_text()
    assert "split by --group patient, and the new images have no such groups" in outcome.output


def test_images_of_groups_that_were_trained_on_are_said_and_the_figure_without_them_shown(
    photographs: Path, fastcls: Fastcls
) -> None:
    """Of the new patients p0 was validated and p1 trained on; three copies are of another name."""
    outcome = fastcls("evaluate", "run", "new", "--labels", "new.csv", "--out", "out")
    assert outcome.code == 0, outcome.output
    figures = json.loads(Path("out/metrics.json").read_text())["new"]
    assert (figures["n"], figures["accuracy"]["groups"]) == (43, 10)
    assert (figures["accuracy_without_leaks"]["n"], figures["accuracy_without_leaks"]["groups"]) == (36, 9)
    assert "4 new images are of groups, by the column 'patient', that the run was trained on: p1." in outcome.output
    assert "7 of the 43 new images have a copy, or one of their group, in train" in outcome.output
    rows = Path("new.csv").read_text().splitlines()
    Path("known.csv").write_text("\n".join([rows[0], *(row for row in rows if row.endswith("p1"))]))
    outcome = fastcls("evaluate", "run", "new", "--labels", "known.csv", "--out", "all")
    assert "4 of the 4 new images have a copy, or one of their group, in train" in outcome.output
    assert "without: too few are left" in outcome.output and "without: too few" in Path("all/report.html").read_text()


def test_images_of_every_fold_are_trained_on(digits_run: Path, fastcls: Fastcls, tmp_path: Path) -> None:
    """What one network of a run of folds predicts, the others were trained on."""
    root = images_of(digits_run)
    held = [(root / path, label) for path, label, part in splits.read(digits_run) if part == "valid"][:20]
    Path("new").mkdir()
    for i, (file, label) in enumerate(held):
        Path("new", label).mkdir(exist_ok=True)
        shutil.copy(file, Path("new", label, f"{i}.png"))
    assert "left out" not in fastcls("evaluate", digits_run, "new").output
    whole = tmp_path / "folds"
    shutil.copytree(digits_run, whole)
    shutil.copytree(digits_run, whole / "fold-1")
    model = json.loads((whole / "model.json").read_text())
    (whole / "model.json").write_text(json.dumps(model | {"members": ["fold-1"]}))
    refused = fastcls("evaluate", whole, "new")
    assert refused.code == 3 and "trained on all 20 images of new" in refused.output


def test_what_cannot_be_evaluated_is_refused(later: Path, digits_run: Path, fastcls: Fastcls, tmp_path: Path) -> None:
    root = images_of(digits_run)
    trained = fastcls("evaluate", digits_run, digits_run, "--split", "train")
    assert trained.code == 3 and "The run was trained on all" in trained.output
    assert fastcls("evaluate", digits_run, digits_run, "--split", "tests").code == 2
    shutil.copytree(root / "3", tmp_path / "odd" / "dog")
    shutil.copytree(root / "4", tmp_path / "odd" / "cat")
    strange = fastcls("evaluate", digits_run, "odd", "-o", "e")
    assert strange.code == 3 and ("has a class that" in strange.output or "trained on" in strange.output)
    for name in ("0", "1"):
        shutil.copytree(later, tmp_path / "bad" / name, ignore=shutil.ignore_patterns("*.csv", "1*.png", "2*.png"))
    (tmp_path / "bad" / "0" / "broken.png").write_bytes(b"\x89PNG nothing")
    bad = fastcls("evaluate", digits_run, "bad", "-o", "e")
    assert bad.code == 3 and "broken.png" in bad.output and "--skip-bad" in bad.output and not Path("e").exists()
    skipped = fastcls("evaluate", digits_run, "bad", "-o", "e", "--skip-bad")
    assert skipped.code == 0 and "1 of" in skipped.output and len(Run("e").record["data"]["skipped"]) == 1
    shutil.copytree(digits_run, tmp_path / "no-onnx", ignore=shutil.ignore_patterns("model.onnx"))
    no_onnx = fastcls("evaluate", "no-onnx", later, "--labels", "labels.csv")
    assert no_onnx.code == 4 and "--trust" in no_onnx.output
    with pytest.raises(UsageError, match="not both"):
        package.evaluate(digits_run, later, labels="labels.csv", label_regex="(.)")


def test_further_columns_of_a_training_table_are_recorded_and_reported(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(20):
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(tmp_path / f"{i}.png")
    rows = [
        [f"{i}.png", "cat" if i % 2 else "dog", "north" if i < 9 else "", "valid" if i < 6 else "train"]
        for i in range(20)
    ]
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "label", "site", "split"], *rows])
    table = datasets.folder(tmp_path, labels="labels.csv")
    block = DataBlock(
        (ImageBlock, CategoryBlock), get_x=ColReader("path"), get_y=ColReader("label"), item_tfms=transforms.resize(8)
    )
    images = Images(SimpleNamespace(dls=data.loaders(block, table, bs=4)))  # type: ignore[arg-type]
    assert images.slices["site"] == {row[0]: row[2] for row in rows}
    splits.write_slices(tmp_path, [row[:2] for row in images.rows], images.slices)
    known = splits.read_slices(tmp_path / splits.SLICES).set_index("path")
    assert known["site"].to_dict() == images.slices["site"] and known.loc["3.png", "split"] == "valid"


def test_the_report_has_a_section_of_slices_and_survives_a_damaged_file(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["cat", "dog"], images=60)
    hostile = "<img src=x onerror=alert(1)>"
    sites = {f"valid_{i}.png": hostile if i % 3 else "B" for i in range(60)}
    splits.write_slices(run, [(path, "valid") for path in sites], {"site": sites})
    page = write(run).read_text()
    assert 'id="slices"' in page and "onerror=alert" not in page.replace("&lt;img src=x onerror=alert", "")
    (run / splits.SLICES).write_text("path,site\nvalid_0.png,B\n")
    assert "slices.csv cannot be read" in write(run).read_text()


def test_two_samples_of_one_kind_do_not_differ_and_others_do() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(list("abc"), 300), rng.choice(list("abc"), 300)
    places = matched(*labels)
    assert (labels[0][places[0]] == labels[1][places[1]]).all() and len(places[0]) > 200
    light = rng.normal(100, 20, 300), rng.normal(100, 20, 300)
    deep = rng.normal(size=(300, 40)), rng.normal(size=(300, 40))
    same = gaps(labels, {"brightness": light}, deep)
    assert [gap.name for gap in same] == [SHARES, "brightness", FEATURES] and not any(gap.shown for gap in same)
    fewer = labels[0], np.where(labels[1] == "a", "b", labels[1])
    other = gaps(fewer, {"brightness": (light[0], light[1] - 15)}, (deep[0], deep[1] + 0.5))
    assert all(gap.shown for gap in other) and other[1].new is not None and other[2].new is not None
    assert other[1].new < other[1].old and other[2].new > 0.8  # type: ignore[operator]


def test_other_groups_of_the_same_kind_do_not_differ_and_darker_ones_do() -> None:
    """Patients of four images each: by images alone 12, 15 and 40 of 40 such samples would differ by what is tested."""
    shown = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        codes = np.repeat(np.arange(50), 4)
        labels = [rng.choice(list("abc"), 50)[codes] for _ in range(2)]
        light = [rng.normal(100, 20, 50)[codes] + rng.normal(0, 5, 200) for _ in range(2)]
        deep = [rng.normal(size=(50, 20))[codes] + rng.normal(0, 0.5, (200, 20)) for _ in range(2)]
        for darker in (0, 30):
            measured = {"brightness": (light[0], light[1] - darker)}
            found = gaps((labels[0], labels[1]), measured, (deep[0], deep[1] + darker), *[(codes, codes + 50)] * 2)
            shown.append([gap.shown for gap in found])
    assert sum(map(sum, shown[::2])) <= 1 and all(one[1:] == [True, True] for one in shown[1::2])


def test_evaluation_json_is_checked_before_it_is_used(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["cat", "dog"])
    (run / "evaluation.json").write_text(json.dumps({"own": [1], "gaps": "x"}))
    page = write(run).read_text()
    assert "evaluation.json cannot be read" in page and 'id="evaluated"' not in page
