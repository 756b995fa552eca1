"""The verbs that answer at once: help, lists, a recipe's source. None of them imports torch."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import HEAVY, Fastcls, python

from fastcls.cli.output import table
from fastcls.settings import sources


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["recipes"],
        ["recipe", "--help"],
        ["recipe", "pets-resnet50", "--help"],
        ["recipe", "digits-cnn", "--show"],
        ["recipe", "pets-resnet50", "--lrr", "1"],
        ["recipe", "pets-resnet5"],
        ["runs"],
        ["lr-find", "--help"],
    ],
    ids=" ".join,
)
def test_light_verbs_never_import_torch_or_pandas(words: list[str], tmp_path: Path) -> None:
    program = (
        "import sys\nfrom fastcls.cli.verbs import app\n"
        f"try: app({words!r}, prog_name='fastcls')\nexcept SystemExit: pass\n"
        f"heavy = {HEAVY} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = python("-c", program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [["recipes"], ["recipe", "digits-cnn", "--help"], ["runs"]], ids=" ".join)
def test_a_reader_that_has_seen_enough_and_a_full_disk_are_no_bugs(words: list[str], tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    for output, code, said in ((writing, 141, ""), (os.open("/dev/full", os.O_WRONLY), 4, "No space left on device")):
        done = subprocess.run(
            [sys.executable, "-m", "fastcls", *words], stdout=output, stderr=subprocess.PIPE, text=True, cwd=tmp_path
        )
        os.close(output)
        assert done.returncode == code and said in done.stderr, done.stderr
        assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == bool(said)


def test_a_run_says_what_it_does_before_it_imports_anything_slow(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom fastcls.running import loading\nfrom fastcls.cli.verbs import app\n"
        f"def imports(): print(*({HEAVY} - {{'rich'}}) & set(sys.modules)); sys.exit()\n"
        "loading.import_fastai = imports\napp(['recipe', 'digits-cnn'])"
    )
    done = python("-c", program, cwd=tmp_path)
    assert done.stdout == "digits-cnn: loading torch and fastai …\n\n", done.stdout + done.stderr


def test_recipes_lists_every_recipe_with_its_claim(fastcls: Fastcls) -> None:
    output = fastcls("recipes").output
    assert [name for name in sources.available() if name not in output] == []
    assert {"digits-cnn", "folder", "pets-resnet50"} <= set(sources.available())
    for column in ("recipe", "dataset", "network", "claim", "needs"):
        assert column in output.splitlines()[0]


def test_help_groups_the_knobs_by_stage_with_the_claim_on_top(fastcls: Fastcls) -> None:
    output = fastcls("recipe", "pets-resnet50", "--help").output
    order = [
        "claim",
        "Knobs of get_learner",
        "\n  --arch",
        "Knobs of fit",
        "\n  --tune",
        "full|head",
        "Options of every run",
    ]
    positions = [output.index(part) for part in order]
    assert positions == sorted(positions)
    assert "torchvision or timm name" in output and "[default: 0.0005]" in " ".join(output.split())


def test_a_knob_without_a_comment_is_helped_with_what_there_is(fastcls: Fastcls) -> None:
    lines = ['"""Mine."""', "def get_learner(path: str = ''): ...", "def fit(learn, epochs: int = 5): ..."]
    Path("mine.py").write_text("\n".join(lines))
    output = " ".join(fastcls("recipe", "./mine.py", "--help").output.split())
    assert "--epochs auto: continue while it improves [default: 5]" in output
    assert "Usage: fastcls recipe ./mine.py [" in output


def test_tables_wrap_between_words_alone() -> None:
    header, row = ["name", "what", "n"], ["a-long-name-of-a-network", "of several words " * 6, "1,234,567,890"]
    lines = table(header, [row], width=60).splitlines()
    text = " ".join("\n".join(lines).split())
    assert row[0] in text and row[2] in text and len(lines) > 4
    assert all(len(line) <= 60 for line in lines)
    assert "word\n" not in "".join(table(header, [row], width=20)) and row[2] in table(header, [row], width=20)


@pytest.mark.parametrize("name", sources.available())
def test_a_recipe_opens_with_its_claim_and_explains_every_knob(name: str) -> None:
    source = sources.find(name)
    assert set(source.fields) == set(sources.FIELDS), "a docstring states claim, data, network, needs, run, source"
    assert source.fields["Run"].startswith(f"fastcls recipe {name}")
    assert [knob.name for knob in source.knobs if not knob.help] == []
    assert len(source.source.splitlines()) <= 66, "a recipe fits on one screen"
    assert "fastcls" in source.source and "runs" not in source.source, "a recipe does not know of the machinery"


PUBLIC = {
    "fastcls": "Run __version__ check compare evaluate export lr_find predict push recipe report resume save search "
    "train",
    "fastcls.data": "by_column label_block loaders split stratified",
    "fastcls.models": "ACTIVATIONS FreezeStatistics channels cnn fit_head imagenet_stats learner normalize speednet "
    "split transfer_learner unfreeze whiten xresnet",
    "fastcls.training": "Muon PolyakAverage ema fit_schedule loss metrics optimizer",
    "fastcls.transforms": "Affine ColorJitter Crop Cutout Erase Flip augment grow mix policy resize",
}


@pytest.mark.parametrize("package", PUBLIC)
def test_the_public_names_are_these(package: str) -> None:
    module = importlib.import_module(package)
    names = PUBLIC[package].split()
    assert sorted(module.__all__) == names
    for name in names:
        value = getattr(module, name)
        assert not callable(value) or (value.__doc__ or "").strip(), f"{package}.{name} has no docstring"
    with pytest.raises(AttributeError, match="nothing"):
        _ = module.nothing
