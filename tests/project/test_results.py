"""docs/results.md and the recipes' claims say what was measured, nothing else, and leave no recipe out."""

from __future__ import annotations

import json
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastcls.settings import sources

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def measure() -> Iterator[dict[str, Any]]:
    sys.path.insert(0, str(ROOT / "scripts"))
    yield runpy.run_path(str(ROOT / "scripts" / "measure"))
    sys.path.remove(str(ROOT / "scripts"))


def test_the_page_is_what_the_measurements_say(measure: dict[str, Any]) -> None:
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == measure["page"]()


def test_every_recipe_is_in_the_page(measure: dict[str, Any]) -> None:
    page = measure["page"]()
    assert [name for name in sources.available() if name not in page] == []
    for measurement in measure["MEASUREMENTS"]:
        assert measurement.recipe in sources.available()


def test_every_measured_default_is_its_recipes_claim(measure: dict[str, Any]) -> None:
    measured = {m.recipe: m for m in measure["MEASUREMENTS"] if m.default and measure["found"](m)}
    assert measured
    for name, measurement in measured.items():
        record = measure["found"](measurement)
        assert sources.find(name).claim == measure["claim"](measurement, record)
    elsewhere = {"cifar10-speedrun"}  # docs/performance.md
    for name in set(sources.available()) - set(measured) - elsewhere:
        assert sources.find(name).claim.startswith("not measured yet")


def test_the_measurements_hold_no_path_of_the_machine_and_enough_to_repeat_them(measure: dict[str, Any]) -> None:
    for file in (ROOT / "docs" / "results").glob("*.json"):
        text = file.read_text(encoding="utf-8")
        record = json.loads(text)
        assert not re.search(r"/(root|home|tmp|Users)/", text)
        assert record["command"].startswith("fastcls compare ") and record["hardware"] and record["versions"]["torch"]
        assert all(row["accuracy"] and row["seconds"] > 0 for row in record["rows"])
        assert file.with_suffix(".png").is_file()
