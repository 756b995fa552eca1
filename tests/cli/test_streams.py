"""Standard streams that are closed, or cannot write every letter: no traceback, and the exit code of the verb."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from fastcls.cli import streams


def shell(line: str, folder: Path, **env: str) -> subprocess.CompletedProcess[bytes]:
    words = ["bash", "-c", line.replace("fastcls", f"{sys.executable} -m fastcls", 1)]
    return subprocess.run(words, cwd=folder, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT), **env})


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("fastcls recipes >&-", 0),
        ("fastcls runs >&- 2>&- <&-", 0),
        ("fastcls predict {run} - <&-", 2),
        ("fastcls predict nowhere x.png 2>&-", 4),
        ("fastcls predict nowhere x.png >&- <&-", 4),
    ],
)
def test_closed_streams(line: str, code: int, digits_run: Path, tmp_path: Path) -> None:
    outcome = shell(line.format(run=digits_run), tmp_path)
    assert outcome.returncode == code and b"Traceback" not in outcome.stderr, outcome


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252"])
@pytest.mark.parametrize("words", ["runs --folder {folder}", "recipe digits-cnn --help"])
def test_output_that_is_no_utf8(encoding: str, words: str, digits_run: Path, tmp_path: Path) -> None:
    (tmp_path / "runs" / "recipe").mkdir(parents=True)
    (tmp_path / "runs" / "recipe" / "one").symlink_to(digits_run)
    outcome = shell(f"fastcls {words.format(folder='runs')}", tmp_path, PYTHONIOENCODING=encoding)
    assert outcome.returncode == 0 and outcome.stderr == b"" and outcome.stdout, outcome


def test_letters_that_an_encoding_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii"))
    streams.prepare()
    print("── 1–2 … é 图 \udcff", end="", flush=True)
    assert raw.getvalue() == b"-- 1-2 ... \\xe9 \\u56fe \xff", "bytes of a file's name go out as they are"
