"""`fastcls check --suspects`: planted wrong labels head the list, in the terminal, on the page and in the tables."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import torch
from conftest import Fastcls
from folders import csv_rows

import fastcls as package
from fastcls import datasets

TINY = ("--arch", "timm/test_convnext", "--weights", "none", "--size", 32)


def test_planted_wrong_labels_head_the_list(fastcls: Fastcls, tmp_path: Path) -> None:
    root, rng = datasets.digits(), random.Random(0)
    files = [file for digit in range(4) for file in sorted((root / str(digit)).iterdir())[:60]]
    wrong = {file.name for file in rng.sample(files, 8)}
    rows = [(f"{f.parent.name}/{f.name}", (int(f.parent.name) + (f.name in wrong)) % 4) for f in files]
    with (tmp_path / "labels.csv").open("w", newline="") as table:
        csv.writer(table).writerows([("file", "label"), *rows])
    words = ["check", root, "--labels", tmp_path / "labels.csv", "-o", "found"]
    assert "Suspect labels" not in fastcls(*words).output
    torch.manual_seed(0)  # of random weights
    outcome = fastcls(*words, "--suspects", *TINY)
    assert outcome.code == 0 and "Suspect labels" in outcome.output, outcome.output
    found = [row for row in csv_rows("found/findings.csv") if row["finding"] == "suspect-labels"]
    assert {Path(row["path"]).name for row in found[:5]} <= wrong, [row["remark"] for row in found]
    assert len(wrong & {Path(row["path"]).name for row in found}) >= 6
    page = Path("found/check.html").read_text()
    assert "looks like" in page and "--suspects" in page
    assert "suspects" not in str(package.check(root).findings["title"].tolist())


def test_what_cannot_be_cross_validated_is_refused(fastcls: Fastcls, tmp_path: Path) -> None:
    root = datasets.digits()
    for name in ("0", "1"):
        (tmp_path / "few" / name).mkdir(parents=True)
        file = next((root / name).iterdir())
        (tmp_path / "few" / name / file.name).write_bytes(file.read_bytes())
    outcome = fastcls("check", "few", "--suspects", *TINY)
    assert outcome.code == 3 and "--suspects: fewer than two classes have two images each" in outcome.output
