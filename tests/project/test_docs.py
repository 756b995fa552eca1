"""The documentation does what it says: every block of it runs, its links lead somewhere."""

from __future__ import annotations

import os
import re
import shutil
import webbrowser
from pathlib import Path
from typing import Any

import documented
import materials
import pytest
from conftest import ROOT
from page_shell import Shell

from fastcls.settings import sources

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = {page: documented.blocks(page) for page in PAGES}
RUN = [page for page, blocks in BLOCKS.items() if any(block.kind in ("bash", "python") for block in blocks)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    made = {"recipes.md", "reference.md", "index.md", "contributing.md"}  # with the site, by scripts/pages.py
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    gone = [link for link in links if not (page.parent / link).exists() and link not in made]
    assert not gone


def test_every_picture_is_made_by_a_script() -> None:
    files = ("scripts/pictures", "benchmarks/growth.py", "benchmarks/transfer_results.py")
    scripts = [(ROOT / file).read_text(encoding="utf-8") for file in files]
    pictures = sorted((ROOT / "docs").rglob("*.png"))
    made = [file for file in pictures if any(f'"{file.name}"' in text for text in scripts)]
    assert set(pictures) - {*made} == {file for file in pictures if file.with_suffix(".json").is_file()}
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [file.name for file in made if f"{file.name})" not in pages] == [], "a picture that no page shows"
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert all(
        command in text
        for command in ("scripts/pictures", "scripts/measure", "benchmarks.growth --save", "benchmarks.transfer")
    )


def test_the_readme_shows_a_recipe_as_it_is() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (shown,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "def get_learner(" in block]
    (name,) = re.findall(r"`(recipes/[\w-]+\.py)`", text)
    assert shown == (ROOT / name).read_text(encoding="utf-8")


def test_every_block_says_what_it_is() -> None:
    kinds = {(page.name, block.line): block.kind for page, blocks in BLOCKS.items() for block in blocks}
    assert {where for where, kind in kinds.items() if kind not in ("bash", "python", "yaml", "text")} == set()
    shown = [block.text for blocks in BLOCKS.values() for block in blocks if block.kind == "text"]
    assert not [text for text in shown if re.match(r"\$|fastcls|scripts/|python|pip", text)], "commands are bash"
    fences = sum(len(re.findall(r"^ *```\S", page.read_text(encoding="utf-8"), re.M)) for page in PAGES)
    assert len(kinds) == fences > 30


def test_what_is_declared_not_to_run_is_on_a_page() -> None:
    bash = [block.text for page in RUN for block in BLOCKS[page] if block.kind == "bash"]
    assert [begin for begin in documented.NOT_RUN if not any(begin in text for text in bash)] == []
    words = [words for text in bash for words in documented.commands(text)]
    ours = [" ".join(command[command.index("fastcls") + 1 :]) for command in words if "fastcls" in command]
    assert [one for one in documented.MORE if not any(re.search(one.pattern, line) for line in ours)] == []
    texts = [block.text for page in RUN for block in BLOCKS[page]]
    assert [long for long in documented.SHORTER if not any(long in text for text in texts)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_within_sentences_have_words_that_exist(page: Path) -> None:
    text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    said = [" ".join(span.split()) for span in re.findall(r"`((?:fastcls|pytest|scripts/|python -m) ?[^`]+)`", text)]
    assert [why for span in said if (why := documented.wrong(span))] == []


def test_recipes_say_how_they_are_run() -> None:
    fields = {name: sources.find(name).fields.get("Run", "") for name in sources.available()}
    lines = [re.split(r"\s{2,}", line.strip())[0] for text in fields.values() for line in text.splitlines()]
    assert all(fields.values()) and all(line.startswith("fastcls ") for line in lines)
    assert [why for line in lines if (why := documented.wrong(line))] == []


@pytest.fixture(scope="session")
def stocked(tmp_path_factory: pytest.TempPathFactory, digits_run: Path) -> Path:
    """What every page finds: work/ is the user's folder, data/ the cache, hub/ torch's, cut-off/ a run."""
    home = tmp_path_factory.mktemp("documentation")
    (home / "work").mkdir()
    materials.photographs(home / "work")
    materials.datasets(home / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTCLS_DATA", str(home / "data"))
        materials.earlier_runs(home / "work", digits_run, patch)
    return home


@pytest.fixture
def shell(
    stocked: Path,
    hub: object,
    pageless: None,
    brief_probe: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: Any,
) -> Shell:
    """A shell in a folder of its own that has what pages take for granted."""
    import torch

    from fastcls.models import suggest

    if request.getfixturevalue("page").stem in documented.NO_NETWORK:
        request.getfixturevalue("unexported")
    monkeypatch.setattr(suggest, "_seconds", lambda *_: 0.01)  # what networks of the ladder take on this machine
    monkeypatch.setenv("FASTCLS_DATA", str(stocked / "data"))
    monkeypatch.setenv("TORCH_HOME", str(stocked / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", materials.random_weights)
    monkeypatch.setattr("timm.models._builder.load_pretrained", lambda *args, **kwargs: None)  # random ones too
    monkeypatch.setattr(webbrowser, "open", lambda url: True)
    folder = tmp_path / "work"
    shutil.copytree(stocked / "work", folder)
    monkeypatch.chdir(folder)
    page = request.getfixturevalue("page").stem
    return Shell(folder, dict(os.environ), page, {"resume last": lambda: materials.newest(stocked / "cut-off")})


@pytest.mark.published
@pytest.mark.unpickles
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_a_pages_blocks_run_from_top_to_bottom(page: Path, shell: Shell) -> None:
    names: dict[str, object] = {"__name__": "__main__"}
    for block in BLOCKS[page]:
        if block.kind == "bash":
            shell.run(block)
        elif block.kind == "python":
            shell.python(block, page.name, names)
