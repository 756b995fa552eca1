"""What a comparison says of runs: means, paired intervals, McNemar's test, its files and its page."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from folders import csv_rows
from scipy.stats import norm

from fastcls.comparison import comparison, differences
from fastcls.comparison.comparison import Entry
from fastcls.comparison.differences import McNemar, needed
from fastcls.reports.comparison import Comparison, sentences, verdict, write

HOSTILE = [
    "<script>window.owned=1</script>",
    '"><img src=x onerror="window.owned=1">',
    "$x_1^2$",
    "{{ 7*7 }}",
    "a|b",
    "樹",
]


def entry(
    folder: Path, setting: dict[str, str], seed: int, accuracy: float, right: str = "", **record: object
) -> Entry:
    """A run folder with these figures; `right` says image by image whether the answer was right ('10110')."""
    folder.mkdir(parents=True)
    labels = [str(i % 3) for i in range(len(right))]
    answers = [label if mark == "1" else "wrong" for label, mark in zip(labels, right, strict=True)]
    lines = [f"test,{i}.jpg,{label},{answer}" for i, (label, answer) in enumerate(zip(labels, answers, strict=True))]
    (folder / "predictions.csv").write_text("\n".join(["split,path,label,prediction", *lines]) + "\n")
    (folder / "history.csv").write_text(f"phase,epoch,accuracy\na,1,{accuracy / 2}\na,2,{accuracy}\n")
    (folder / "report.html").write_text("<title>a report</title>")
    info = {"format": 1, "status": "done", "recipe": "r", "seed": seed, "train_seconds": 60.0, "peak_memory_bytes": 2e9}
    info |= {"network": {"parameters": 1_000_000, "trained_parameters": 4_000}, "speed": {"images_per_second": 500.0}}
    info |= {"knobs": {"get_learner": dict(setting)}, "options": {"seed": seed}} | record
    metrics = {"test": {name: {"value": accuracy} for name in ("accuracy", "top5", "macro_f1", "loss")}}
    (folder / "run.json").write_text(json.dumps(info))
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "model.json").write_text(json.dumps({"format": 1, "classes": ["0", "1", "2"]}))
    return comparison.read(folder, setting, seed)


@pytest.fixture
def ablation(tmp_path: Path) -> Comparison:
    accuracies = {"none": (0.80, 0.81, 0.79), "batch": (0.82, 0.84, 0.81)}
    entries = [
        entry(tmp_path / norm / f"seed-{seed}", {"norm": norm}, seed, accuracy)
        for norm, values in accuracies.items()
        for seed, accuracy in enumerate(values)
    ]
    entries.append(Entry(tmp_path / "x", {"norm": "group"}, 0, failed="The loss became nan."))
    return Comparison("r: norm", "fastcls compare r --vary norm=none,batch,group", entries, {"norm": "none"})


def test_seeds_are_paired(ablation: Comparison) -> None:
    best, base, failed = ablation.rows
    assert (best.setting, base.baseline, failed.failed) == ({"norm": "batch"}, True, 1)
    assert best.means["accuracy"] == pytest.approx(0.8233, abs=1e-4)
    assert best.deviation == pytest.approx(0.01528, abs=1e-5)
    # differences 0.02, 0.03, 0.02: mean 0.02333, sd 0.005774, t(2) = 4.3027
    found = best.difference
    assert (found.value, found.low, found.high) == pytest.approx((0.02333, 0.00899, 0.03768), abs=1e-5)
    assert math.isnan(failed.means["accuracy"]) and failed.difference is None


def test_a_difference_is_that_of_the_figures_shown(tmp_path: Path) -> None:
    base = [entry(tmp_path / f"b{seed}", {"k": "1"}, seed, value) for seed, value in enumerate((0.5, 0.6, 0.9))]
    other = [entry(tmp_path / f"o{seed}", {"k": "2"}, seed, value) for seed, value in enumerate((0.6, 0.8))]
    row = next(row for row in comparison.tabulate([*base, *other], {"k": "1"}) if not row.baseline)
    assert row.difference.value == pytest.approx(0.7 - 2 / 3)  # not 0.15, that of the seeds in common


def test_two_seeds_that_lie_far_apart_are_told_apart(tmp_path: Path) -> None:
    """By the spread of both settings, where two pairs alone would leave 60 points to either side."""
    base = [entry(tmp_path / f"b{seed}", {"k": "1"}, seed, value) for seed, value in enumerate((0.61, 0.66))]
    other = [entry(tmp_path / f"o{seed}", {"k": "2"}, seed, value) for seed, value in enumerate((0.94, 0.954))]
    row = next(row for row in comparison.tabulate([*base, *other], {"k": "1"}) if not row.baseline)
    assert row.difference.over == "seeds" and 0.1 < row.difference.low < 0.312 < row.difference.high < 0.5
    write(tmp_path / "out", Comparison("t", "c", [*base, *other], {"k": "1"}))
    assert "Better than the baseline: k=2." in (tmp_path / "out" / "table.md").read_text()


def test_the_luck_of_the_images_is_added_where_all_runs_have_the_same(tmp_path: Path) -> None:
    """Seeds that agree say nothing of other images: 20 of them leave more open than 0.1 points."""
    marks = {"1": ("1" * 14 + "0" * 6, "0" + "1" * 13 + "0" * 6), "2": ("1" * 16 + "0" * 4, "1" * 15 + "0" * 5)}
    entries = [
        entry(tmp_path / f"{k}{seed}", {"k": k}, seed, right.count("1") / 20, right)
        for k, rights in marks.items()
        for seed, right in enumerate(rights)
    ]
    row = next(row for row in comparison.tabulate(entries, {"k": "1"}) if not row.baseline)
    assert row.difference.over == "seeds and images" and row.difference.low < -0.03 and row.difference.high > 0.23


def test_single_runs_on_other_images_are_two_samples(tmp_path: Path) -> None:
    first = entry(tmp_path / "a", {"k": "1"}, 0, 0.88, "1" * 176 + "0" * 24)
    second = entry(tmp_path / "b", {"k": "2"}, 1, 0.885, "1" * 177 + "0" * 23)
    file = second.folder / "predictions.csv"
    file.write_text(file.read_text().replace("test,1", "test,other1"))  # some are shared
    row = next(row for row in comparison.tabulate([first, second], {"k": "1"}) if not row.baseline)
    found = row.difference
    assert found.value == pytest.approx(0.005) and found.low < -0.05 < 0 < found.high and found.over == "images"


def test_no_interval_holds_impossible_differences(tmp_path: Path) -> None:
    base = [entry(tmp_path / f"b{seed}", {"k": "1"}, seed, value) for seed, value in enumerate((0.02, 0.9))]
    other = [entry(tmp_path / f"o{seed}", {"k": "2"}, seed, value) for seed, value in enumerate((0.99, 0.98))]
    row = next(row for row in comparison.tabulate([*base, *other], {"k": "1"}) if not row.baseline)
    assert row.difference.low >= -1 and row.difference.high == 1


def test_mcnemar_counts_the_images_that_one_alone_gets_right(tmp_path: Path) -> None:
    first = entry(tmp_path / "a", {"k": "1"}, 0, 0.9, "1" * 88 + "1" * 8 + "00" + "00")
    second = entry(tmp_path / "b", {"k": "2"}, 0, 0.9, "1" * 88 + "0" * 8 + "11" + "00")
    test = comparison.mcnemar(first, second, "test")
    assert test == McNemar(100, 8, 2, pytest.approx(0.109375))  # 2 * sum(C(10, i), i <= 2) / 2^10
    middle, low, high = differences.images_interval(test)
    assert middle == pytest.approx(-0.06) and low < middle < 0 < high < -low


def test_so_many_images_settle_a_difference_in_four_cases_of_five() -> None:
    assert needed(McNemar(100, 5, 5, 1.0)) is None
    n = needed(McNemar(1000, 40, 60, 0.06))
    assert n == pytest.approx((1.959964 * 0.1**0.5 + 0.841621 * (0.1 - 0.02**2) ** 0.5) ** 2 / 0.02**2, abs=1)
    drawn = np.random.default_rng(0).multinomial(n, [0.04, 0.06, 0.9], size=2000)
    first, second = drawn[:, 0], drawn[:, 1]
    shown = 2 * norm.sf(np.abs(second - first) / np.sqrt(first + second)) < 0.05
    assert 0.77 < shown.mean() < 0.83


def test_a_verdict_of_two_runs_says_who_is_better_and_what_would_settle_it() -> None:
    assert verdict(McNemar(1000, 20, 60, 9e-6)).startswith(
        "The second run is better than the first: 4.00 points more accuracy (95 % interval +2.25 to +5.74)."
    )
    text = verdict(McNemar(1000, 60, 40, 0.0569))
    assert "not shown to be better or worse" in text and "about 960 more images would settle it" in text


def test_runs_without_common_images_are_not_tested(tmp_path: Path) -> None:
    first, second = (entry(tmp_path / name, {"k": name}, 0, 0.9, "111") for name in "ab")
    file = second.folder / "predictions.csv"
    file.write_text(file.read_text().replace(".jpg", ".png"))
    assert comparison.mcnemar(first, second, "test") is None


def test_the_files_hold_every_run_and_every_setting(ablation: Comparison, tmp_path: Path) -> None:
    out = tmp_path / "out"
    page = write(out, ablation).read_text()
    runs = csv_rows(out / "results.csv")
    table = csv_rows(out / "table.csv")
    assert len(runs) == 7 and [run["status"] for run in runs].count("failed") == 1
    assert [row["norm"] for row in table] == ["batch", "none", "group"]
    assert float(table[0]["accuracy"]) == pytest.approx(0.8233, abs=1e-4) and table[0]["interval_over"] == "seeds"
    text = (out / "table.md").read_text()
    assert (
        "| norm=batch | 82.33 ± 1.53 | 3 | +2.33 (+0.90 to +3.77) | 1 min 0 s | 500 | 1.00 M | 4,000 | 2.00 GB |"
        in text
    )
    assert "The loss became nan." in page and "Failed runs" in page
    links = [unquote(part.split('"')[0]) for part in page.split('href="')[1:] if part.startswith("..")]
    assert len(links) == 6 and all((out / link).is_file() for link in links)
    assert {file.name for file in (out / "figures").iterdir()} == {"accuracy.png", "learning-curves.png"}


def test_a_single_run_a_setting_has_an_interval_over_the_images_and_says_so(tmp_path: Path) -> None:
    entries = [
        entry(tmp_path / "a", {"k": "1"}, 0, 0.6, "1" * 60 + "0" * 40),
        entry(tmp_path / "b", {"k": "2"}, 0, 0.9, "1" * 90 + "0" * 10),
    ]
    rows = comparison.tabulate(entries, {"k": "1"})
    found = rows[0].difference
    assert found.over == "images" and 0.2 < found.low < 0.3 < found.high < 0.4
    write(tmp_path / "out", Comparison("t", "c", entries, {"k": "1"}))
    assert "says nothing about other seeds" in (tmp_path / "out" / "table.md").read_text()


def on_a_fold(one: Entry, fold: str) -> Entry:
    """The same run, evaluated on the images that a fold holds out."""
    file = one.folder / "predictions.csv"
    file.write_text(file.read_text().replace("test,", "valid,"))
    return replace(one, fold=fold, metrics={"valid": one.metrics["test"]})


def test_two_runs_of_one_fold_are_runs_on_the_same_images_and_no_folds(tmp_path: Path) -> None:
    marks = {"a": "1" * 60 + "0" * 40, "b": "1" * 90 + "0" * 10}
    runs = [on_a_fold(entry(tmp_path / k, {"k": k}, 0, own.count("1") / 100, own), "1/5") for k, own in marks.items()]
    apart = Comparison("t", "c", runs, {"k": "a"})
    assert apart.rows[0].difference.over == "images" and not any(row.interval for row in apart.rows)
    alike = Comparison("t", "c", [replace(run, setting={}) for run in runs], {})
    assert alike.rows[0].interval is None
    said = " ".join([*sentences(apart), *sentences(alike)])
    assert " folds" not in said and "± is the standard deviation over the runs." in said


def test_a_run_that_was_evaluated_on_copies_of_what_it_learned_is_named(tmp_path: Path) -> None:
    runs = [entry(tmp_path / str(k), {"k": str(k)}, 0, 0.7 + k / 5, "11") for k in (0, 1)]
    assert not any("copies" in text for text in sentences(Comparison("t", "c", runs, {"k": "0"})))
    leaking = replace(runs[1], metrics={"test": runs[1].metrics["test"] | {"accuracy_without_leaks": {"value": 0.6}}})
    said = sentences(Comparison("t", "c", [runs[0], leaking], {"k": "0"}))
    assert any(text.startswith("1 of 2 runs was evaluated on images with copies") for text in said)


def test_folds_that_were_drawn_again_are_counted_once(tmp_path: Path) -> None:
    runs = [
        on_a_fold(entry(tmp_path / f"{seed}{fold}", {}, seed, 0.8, "1" * 16 + "0" * 4), f"{fold}/2")
        for seed in (0, 1)
        for fold in (1, 2)
    ]
    (shown,) = [text for text in sentences(Comparison("t", "c", runs, {})) if "95 %" in text]
    assert shown.startswith("Mean accuracy: 80.00 % over 2 folds, drawn 2 times (95 %: ")


def test_names_are_text_in_the_page_and_in_a_browser(tmp_path: Path, browser: Any) -> None:
    entries = [entry(tmp_path / str(i), {"name": name}, 0, 0.5 + i / 100, "110") for i, name in enumerate(HOSTILE)]
    entries.append(Entry(tmp_path / "y", {"name": "<b>"}, 0, failed="<script>window.owned=1</script>"))
    page = write(tmp_path / "out", Comparison("<img src=x onerror=alert(1)>", "c <b>", entries, {"name": HOSTILE[0]}))
    browser.get(page.as_uri())
    assert browser.execute_script("return window.owned") is None
    heads = browser.find_elements("css selector", "thead th")

    def cells() -> list[str]:
        return [e.text for e in browser.find_elements("css selector", "#headline tbody tr > :first-child")]

    first = cells()
    assert first[0].startswith(f"name={HOSTILE[5]}") and f"name={HOSTILE[0]} (baseline)" in first
    heads[1].find_element("css selector", "button").click()
    assert cells()[-2:] == [first[0], first[-1]]  # ascending, what has no figure last
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
