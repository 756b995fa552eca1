"""Slices of the images: what is compared with the rest, what is left out, and how often chance is blamed rightly."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fastcls.evaluation.slices import holm, slices


def test_holm_is_that_of_the_paper() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06}
    )
    assert holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0} and holm({}) == {}


def test_numbers_are_binned_and_columns_without_slices_are_named() -> None:
    n = 200
    right, labels = np.arange(n) % 4 > 0, np.array(["x", "y"] * (n // 2))
    columns = pd.DataFrame(
        {
            "age": [str(i % 80) for i in range(n)],
            "id": [f"p{i}" for i in range(n)],
            "one": ["z"] * n,
            "few": ["a" if i < 3 else "b" if i < 100 else "" for i in range(n)],
        }
    )
    found, notes = slices(right, labels, columns)
    age = sorted((one for one in found if one.column == "age"), key=lambda one: float(one.value.split()[0]))
    assert [one.value for one in age] == ["0 to 16", "17 to 33", "34 to 54", "55 to 79"]
    assert sum(one.n for one in age) == n and sum(one.right for one in age) == right.sum()
    assert {one.value for one in found if one.column == "few"} == {"b", "(empty)"}
    assert [note.split(":")[0] for note in notes] == ["id", "one", "few"]
    assert "too many for slices" in notes[0] and "fewer than 5 images" in notes[2]


def test_a_slice_of_difficult_classes_is_told_from_one_of_difficult_pictures() -> None:
    labels = np.array(["hard"] * 200 + ["easy"] * 200)
    site = np.array((["B"] * 150 + ["A"] * 50) + (["A"] * 150 + ["B"] * 50))
    right = np.array([i % 2 == 0 for i in range(200)] + [True] * 200)
    found, _ = slices(right, labels, pd.DataFrame({"site": site}))
    worst = found[0]
    assert worst.value == "B" and worst.shown and worst.accuracy < worst.others
    assert worst.expected == pytest.approx(worst.accuracy, abs=0.03), "its classes explain it"
    assert found[0].p == found[1].p, "of two values there is one test"


def test_where_nothing_differs_a_slice_is_blamed_in_at_most_a_twentieth_of_cases() -> None:
    blamed = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        columns = pd.DataFrame({name: rng.choice(list("abcde"), 150) for name in ("site", "camera", "age")})
        found, _ = slices(rng.random(150) < 0.8, rng.choice(["x", "y"], 150), columns)
        blamed += any(one.shown for one in found)
    assert blamed <= 5  # of a binomial of 40 and 0.05 the 98 % point; Fisher's test is conservative


def test_dates_are_cut_into_quarters_as_numbers_are() -> None:
    n = 400
    when = pd.date_range("2026-01-31 10:00", "2026-09-30", periods=n)
    first = pd.Timestamp("2026-05-01 08:00") + pd.to_timedelta(np.arange(n), "min")
    columns = pd.DataFrame(
        {
            "exif": when.strftime("%Y:%m:%d %H:%M:%S"),
            "iso": when.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "german": when.strftime("%d.%m.%Y"),
            "day": first.strftime("%Y-%m-%d %H:%M"),
            "clock": first.strftime("%H:%M"),
            "days": (first[0] + pd.to_timedelta(10 * np.arange(n), "min")).strftime("%Y:%m:%d %H:%M:%S"),
            "unclear": [f"0{1 + i % 9}/0{1 + i // 9 % 9}/20{i // 81:02d}" for i in range(n)],
        }
    )
    found, notes = slices(np.arange(n) % 4 > 0, np.array(["x"] * n), columns)
    values = {title: sorted(one.value for one in found if one.column == title) for title in columns}
    months = ["2026-01-31 to 2026-04-01", "2026-04-02 to 2026-05-31", "2026-06-01 to 2026-07-31"]
    assert values["exif"] == values["iso"] == values["german"] == [*months, "2026-08-01 to 2026-09-30"]
    assert values["day"] == values["clock"] and values["day"][0] == "08:00:00 to 09:39:00"
    assert values["days"] == ["2026-05-01", "2026-05-02", "2026-05-03", "2026-05-04"]
    assert [note.split(":")[0] for note in notes] == ["unclear"] and not values["unclear"]


def test_words_among_numbers_and_one_number_nearly_everywhere_are_slices_of_their_own() -> None:
    columns = pd.DataFrame(
        {
            "age": ["unknown" if i % 20 == 0 else str(i) for i in range(200)],
            "zeros": [str(max(0, i - 170)) for i in range(200)],
            "most": [str(min(30, i)) for i in range(200)],
        }
    )
    found, notes = slices(np.arange(200) % 4 > 0, np.array(["x"] * 200), columns)
    values = {title: {one.value: one.n for one in found if one.column == title} for title in columns}
    assert values["age"]["unknown"] == 10 and len(values["age"]) == 5
    assert values["zeros"] == {"0": 171, "1 to 29": 29} and values["most"] == {"0 to 29": 30, "30": 170} and not notes
