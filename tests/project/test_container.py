"""The Dockerfile of `fastcls serve`: its steps done one by one, where no engine builds it; scripts/check lints it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

DOCKERFILE = ROOT / "scripts" / "predict-only" / "Dockerfile"


def steps() -> list[tuple[str, str]]:
    """(instruction, its words) of the file, in order."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def of(instruction: str) -> str:
    (found,) = [rest for word, rest in steps() if word == instruction]
    return found


def test_its_steps_end_in_a_server_that_is_healthy(tmp_path: Path, digits_run: Path) -> None:
    pytest.importorskip("uvicorn", reason="needs the extra serve")
    for source, target in (rest.split() for word, rest in steps() if word == "COPY" and "--from" not in rest):
        shutil.copytree(ROOT / source, tmp_path / target.lstrip("/"), ignore=shutil.ignore_patterns("__pycache__"))
    install = next(rest for word, rest in steps() if word == "RUN" and rest.startswith("pip install"))
    words = [re.sub(r"^/(?=src|install)", f"{tmp_path}/", word) for word in shlex.split(install)]
    # what it depends on is in this environment, and the network is not asked
    words = [sys.executable, "-m", *words, "--no-deps", "--no-build-isolation", "--no-index", "--ignore-installed"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (site,) = (tmp_path / "install").rglob("site-packages")
    (program,) = (tmp_path / "install").rglob("bin/fastcls")
    assert (site / "fastcls" / "recipes" / "digits-cnn.py").is_file()

    entry, command = (json.loads(of(word)) for word in ("ENTRYPOINT", "CMD"))
    assert entry == [program.name] and of("EXPOSE") == "8642"
    arguments = [str(digits_run) if word == "/model" else word for word in command]
    environment = {**os.environ, "PYTHONPATH": str(site), "HOME": str(tmp_path)}
    server = subprocess.Popen(
        [sys.executable, program, *arguments, "--port", "0"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        (port,) = re.findall(r"http://\S+?:(\d+)/", line)
        python, *check = json.loads(of("HEALTHCHECK").removeprefix("CMD "))
        assert python == "python"
        check = [word.replace("8642", port) for word in check]
        healthy = subprocess.run([sys.executable, *check], capture_output=True, text=True)
        assert healthy.returncode == 0, healthy.stderr
    finally:
        server.terminate()
        server.communicate()
