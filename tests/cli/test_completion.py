"""Tab: what the shell offers behind `fastcls …`, without torch."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import HEAVY, ROOT, Fastcls, python
from typer.testing import CliRunner

from fastcls.cli.verbs import app
from fastcls.models import zoo
from fastcls.settings import sources


def offered(line: str, shell: str = "bash") -> list[str]:
    """What is offered where the cursor stands at the end of a line, by the protocol of the installed script."""
    words = [*line.split(), *([""] if line.endswith(" ") else [])]
    env = {"_FASTCLS_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": line}
    env |= {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    result = CliRunner().invoke(app, [], prog_name="fastcls", env=env)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return [word for word in result.output.splitlines() if word]


@pytest.fixture
def some_runs(fastcls: Fastcls) -> None:
    for name in ("digits-cnn/20260101-101010-aaaa", "pets-resnet50/20260102-101010-bbbb"):
        (Path("runs") / name).mkdir(parents=True)
        (Path("runs") / name / "run.json").write_text(json.dumps({"recipe": name.partition("/")[0]}))


def test_verbs_recipes_and_knobs_are_offered(some_runs: None) -> None:
    assert offered("fastcls re") == ["recipe", "recipes", "report", "resume"]
    assert offered("fastcls recipe pets") == [name for name in sources.available() if name.startswith("pets")]
    assert offered("fastcls search ") == offered("fastcls lr-find ") == sources.available()
    assert offered("fastcls recipe ./m") == [], "of files the shell knows itself"
    knobs = offered("fastcls recipe pets-resnet50 --")
    assert {"--arch", "--tune", "--epochs", "--limit", "--device", "--dry-run"} <= set(knobs)
    assert "--rotate" not in knobs and "--rotate" in offered("fastcls recipe folder --")
    assert {"--flip", "--no-flip"} <= set(offered("fastcls recipe folder --path photos --"))
    for verb in ("compare", "search", "lr-find"):
        assert offered(f"fastcls {verb} pets-resnet50 --tu") == ["--tune"]
    assert offered("fastcls recipe no-such-recipe --tu") == []


def test_values_are_offered(some_runs: None) -> None:
    assert offered("fastcls recipe pets-resnet50 --tune ") == ["full", "head", "probe"]
    assert offered("fastcls compare cifar10-cnn --epochs 5 --act ") == ["relu", "mish", "gelu", "silu"]
    assert offered("fastcls recipe digits-cnn --epochs 3 --keep ") == ["best", "last"]
    assert offered("fastcls recipe digits-cnn --track csv,w") == ["csv,wandb"]
    assert offered("fastcls runs --sort ") == ["time", "accuracy", "loss"]
    assert offered("fastcls recipe pets-resnet50 --weights ") == [
        "imagenet",
        "none",
        "last",
        "digits-cnn",
        "pets-resnet50",
    ]


def test_runs_are_offered(some_runs: None) -> None:
    for verb in ("predict", "serve", "export", "report", "resume", "recipe digits-cnn --resume"):
        assert offered(f"fastcls {verb} ") == ["last", "digits-cnn", "pets-resnet50"]
    assert offered("fastcls predict digits-cnn/") == ["digits-cnn/20260101-101010-aaaa"]
    assert offered("fastcls predict runs/p") == ["runs/pets-resnet50/20260102-101010-bbbb"]
    assert offered("fastcls compare digits") == ["digits-cnn"]


def test_architectures_are_offered_by_prefix() -> None:
    assert offered("fastcls recipe pets-resnet50 --arch resnet5")[0] == "resnet50"
    assert "vit_tiny_patch16_224" in offered("fastcls recipe folder --path x --arch vit_ti")
    assert "timm/resnet50" in offered("fastcls recipe folder --path x --arch timm/resnet5")
    assert offered("fastcls models mobilenet_v3_s") == ["mobilenet_v3_small"]


@pytest.mark.published
def test_the_names_of_networks_that_need_no_import_are_the_libraries_own() -> None:
    import timm
    import torchvision.models as library

    assert sorted(zoo.names("torchvision")) == sorted(library.list_models(module=library))
    assert sorted(zoo.names("timm")) == sorted(timm.list_models())


def test_zsh_and_fish_are_offered_the_same_with_help(some_runs: None) -> None:
    assert "tune" in offered("fastcls recipe pets-resnet50 --tu", "zsh")[0]
    assert offered("fastcls recipe pets-resnet50 --tune ", "fish") == ["full", "head", "probe"]
    (line,) = offered("fastcls recipe pets-resnet50 --tu", "fish")
    assert line == "--tune\ttrain the whole network, only its head, or keep the solved head"


def test_nothing_slow_is_imported(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom fastcls.cli.verbs import app\n"
        "try: app(prog_name='fastcls')\nexcept SystemExit: pass\n"
        f"assert not {HEAVY} & set(sys.modules), {HEAVY} & set(sys.modules)"
    )
    line = "fastcls recipe pets-resnet50 --arch resnet"
    env = {"_FASTCLS_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": "4"}
    done = python("-c", program, cwd=tmp_path, env=env)
    assert done.returncode == 0 and "resnet50" in done.stdout, done.stderr


@pytest.mark.published
def test_bash_completes_with_the_script_that_is_installed(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "fastcls"
    program.parent.mkdir()
    program.write_text(f'#!/bin/bash\nexec {sys.executable} -m fastcls "$@"\n')
    program.chmod(0o755)
    env = {"PATH": f"{program.parent}:/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}

    def bash(script: str) -> str:
        done = subprocess.run(["bash", "--norc", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "completion installed" in bash("fastcls --install-completion; exit $?")
    assert "fastcls" in (tmp_path / ".bashrc").read_text()

    def completed(*words: str) -> list[str]:
        line = shlex.join(words)
        return bash(
            f"source ~/.bashrc; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; "
            "$(complete -p fastcls | sed 's/.*-F \\([^ ]*\\) .*/\\1/') fastcls; printf '%s\\n' \"${COMPREPLY[@]}\""
        ).split()

    assert completed("fastcls", "recipe", "pets-resnet50", "--tune", "") == ["full", "head", "probe"]
    assert completed("fastcls", "lr-f") == ["lr-find"]
    assert "--valid-pct" in completed("fastcls", "recipe", "pets-resnet50", "--")
    assert "resnet50" in completed("fastcls", "recipe", "pets-resnet50", "--arch", "resnet5")
