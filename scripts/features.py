"""What each training feature did, as docs/training.md says it: a line a setting, from docs/results/*-features.json."""

import json
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADING = "## What they did\n"
HEAD = """
Each alone, against the recipe without it: the difference in percentage points, with its interval, which for one seed
is over the images alone. Most of these keep a network from learning its images by heart, which takes longer than
these short trainings: what costs accuracy here may pay in thirty epochs. `scripts/measure` writes this from run
folders; tables and commands are in [results.md](results.md).
"""


def sentences(record: dict) -> list[str]:
    """The baseline, then a line a setting, the best first."""
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in record["table"].splitlines()[2:]]
    others = [row for row in cells if not row[0].endswith("(baseline)")]
    (base,) = [row for row in cells if row[0].endswith("(baseline)")]
    words = shlex.split(record["command"])
    taken = words[3 : words.index("--one-at-a-time")]
    measured = f"{base[1]} % on {record['split']} ({_runs(base[2])}, {record['hardware']})"
    lines = [f"`{record['recipe']} {' '.join(taken)}` reaches {measured}:", ""]
    for name, accuracy, _, difference, *_ in others:
        knob, _, value = name.partition("=")
        points, _, interval = difference.partition(" ")
        lines.append(f"- `--{knob.replace('_', '-')} {value}`: {accuracy} %, {points} points {interval}.")
    return [*lines, ""]


def _runs(number: str) -> str:
    return f"n = {number}" + (" seed" if number == "1" else " seeds")


def write() -> None:
    """Everything below the heading is measured."""
    page = ROOT / "docs" / "training.md"
    before = page.read_text(encoding="utf-8").partition(HEADING)[0]
    files = sorted((ROOT / "docs" / "results").glob("*-features.json"))
    found = [line for file in files for line in sentences(json.loads(file.read_text(encoding="utf-8")))]
    text = "\n".join([HEAD, *found]) if found else "\nNot measured yet.\n"
    page.write_text(before + HEADING + text, encoding="utf-8")


if __name__ == "__main__":
    write()
