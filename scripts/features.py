"""What each training feature did, as docs/training.md says it: a line a setting, from docs/results/*-features.json."""

import csv
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from fastcls.comparison.differences import McNemar, images_interval
from measurements import MEASUREMENTS

ROOT = Path(__file__).resolve().parents[1]
HEADING = "## What they did\n"
LENGTH = ("epochs", "time")  # knobs that choose how long is trained
HEAD = """
Each feature alone, compared with the recipe without it: the difference in percentage points, with its interval.
With one seed, the interval is over the images alone. Most of these features keep a network from memorising its
images, which takes longer than these short trainings. So what costs accuracy here may pay off in thirty epochs.
`scripts/measure` writes this section from run folders; tables and commands are in [results.md](results.md).
"""


def sentences(title: str, record: dict) -> list[str]:
    """What was measured and the baseline's figure, then a line a setting, the best first."""
    table = [*record["table"].splitlines()[2:], record["tta"]]
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table]
    others = [row for row in cells if not row[0].endswith("(baseline)")]
    (base,) = [row for row in cells if row[0].endswith("(baseline)")]
    words = shlex.split(record["command"])
    taken = words[3 : words.index("--one-at-a-time")]
    measured = f"{base[1]} % on {record['split']} ({_runs(base[2])}, {record['hardware']})"
    lines = [f"{title}. `{record['recipe']} {' '.join(taken)}` reaches {measured}.", ""]
    for name, accuracy, _, difference, *costs in others:
        knob, _, value = name.partition("=")
        points, _, interval = difference.partition(" ")
        typed = "fastcls predict --tta" if name == "tta" else f"--{knob.replace('_', '-')} {value}"
        line = f"- `{typed}`: {accuracy} %, {points} points {interval}".rstrip()
        lines.append(line + (f"; {costs[0]} of training." if knob in LENGTH else "."))
    return [*lines, ""]


def mirrored(runs: Sequence[Path]) -> str:
    """What test-time augmentation does to finished runs, a row of their table: `fastcls predict --tta` compared with
    what each run predicted of the same test images."""
    tests = [_mirrored(run) for run in runs]
    accuracy = mean(share for _, share in tests)
    found = [images_interval(test) for test, _ in tests]
    difference = f"{mean(one[0] for one in found) * 100:+.2f}"
    if len(found) == 1:
        difference += f" ({found[0][1] * 100:+.2f} to {found[0][2] * 100:+.2f})"
    return f"| tta | {accuracy * 100:.2f} | {len(tests)} | {difference} |"


def _mirrored(run: Path) -> tuple[McNemar, float]:
    """The test of a run without and with --tta, and its accuracy with it."""
    images = Path(json.loads((run / "run.json").read_text(encoding="utf-8"))["knobs"]["get_learner"]["path"])
    with (run / "predictions.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    with tempfile.TemporaryDirectory() as folder:
        answers = Path(folder) / "answers.csv"
        words = ["fastcls", "predict", str(run.resolve()), "-", "--tta", "-o", str(answers)]
        paths = "\n".join(str(images / row["path"]) for row in rows)
        subprocess.run([sys.executable, "-m", *words], input=paths, text=True, check=True)
        with answers.open(encoding="utf-8") as file:
            now = {row["path"]: row["prediction"] for row in csv.DictReader(file)}
    before = [row["prediction"] == row["label"] for row in rows]
    after = [now[str(images / row["path"])] == row["label"] for row in rows]
    pairs = list(zip(before, after, strict=True))
    return McNemar(len(rows), pairs.count((True, False)), pairs.count((False, True)), float("nan")), mean(after)


def _runs(number: str) -> str:
    return f"n = {number}" + (" seed" if number == "1" else " seeds")


def write() -> None:
    """Everything below the heading is measured."""
    page = ROOT / "docs" / "training.md"
    before = page.read_text(encoding="utf-8").partition(HEADING)[0]
    found = []
    for one in MEASUREMENTS:
        file = ROOT / "docs" / "results" / f"{one.name}.json"
        if one.name.endswith("-features") and file.is_file():
            found += sentences(one.title, json.loads(file.read_text(encoding="utf-8")))
    text = "\n".join([HEAD, *found]) if found else "\nNot measured yet.\n"
    page.write_text(before + HEADING + text, encoding="utf-8")


if __name__ == "__main__":
    write()
