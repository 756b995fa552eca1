"""The documentation does what it says: its commands run, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    made = {"recipes.md", "reference.md", "index.md", "contributing.md"}  # with the site, by scripts/pages.py
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    gone = [link for link in links if not (page.parent / link).exists() and link not in made]
    assert not gone


def test_the_readme_shows_a_recipe_as_it_is() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (shown,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "def get_learner(" in block]
    (name,) = re.findall(r"`(recipes/[\w-]+\.py)`", text)
    assert shown == (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.published
def test_the_tutorials_commands_run_in_their_order(fastcls: Callable) -> None:
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(bash|python)\n(.*?)```", text, re.S)
    assert len(blocks) >= 9
    for command in [line for kind, block in blocks for line in ([block] if kind == "python" else block.splitlines())]:
        if "\n" in command:
            exec(command, {})
            continue
        program, *words = shlex.split(command)
        files = [str(file) for word in words for file in (sorted(Path().glob(word)) if "*" in word else [word])]
        outcome = fastcls(*files)
        assert program == "fastcls" and outcome.code == 0, f"{command}\n{outcome.output}"
    assert all(Path(name).is_file() for name in ("labels.csv", "sizes/compare.html", "mine-1/report.html"))
