"""Seconds of `fastcls check` on all 60,000 images of CIFAR-10: python -m benchmarks.check

Whole processes: the first time with nothing known of the images, then with what the first has kept. The files are read
once before, so that the disk is not what is measured.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import arguments, images_folder, show, spread

BAR = 60.0
SIDES = ("first", "again")


def check(folder: Path, data: str, out: str) -> tuple[float, float, dict[str, int]]:
    """Wall and processor seconds of a check, and what it found."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    words = [sys.executable, "-m", "fastcls", "check", str(folder), "-o", out]
    environment = {**os.environ, "FASTCLS_DATA": data, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(words, env=environment, stdout=subprocess.DEVNULL, check=False)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode in (0, 3), "the check failed"
    record = json.loads((Path(out) / "check.json").read_text())
    assert record["looked_at"] == record["files"]
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, busy, {"images": record["images"]} | {f["kind"]: f["count"] for f in record["findings"]}


def main() -> None:
    options = arguments(__doc__ or "", rounds=3)
    folder = images_folder("cifar10")
    for file in folder.rglob("*.*"):
        file.read_bytes()
    wall: dict[str, list[float]] = {side: [] for side in SIDES}
    busy: dict[str, list[float]] = {side: [] for side in SIDES}
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory() as data:
            for side in SIDES:
                seconds, processor, found = check(folder, data, f"{data}/out")
                wall[side].append(seconds)
                busy[side].append(processor)
                print(f"  round {number + 1}: {side}: {seconds:.1f} s", file=sys.stderr, flush=True)
    images = found.pop("images")
    rows = [[side, f"{images:,}", spread(wall[side]), spread(busy[side])] for side in SIDES]
    listed = ", ".join(f"{kind} {count:,}" for kind, count in found.items())
    share = sum(map(sum, busy.values())) / sum(map(sum, wall.values()))
    note = (
        f"Found, in groups or images: {listed}. Seconds include Python's start. Other programs were running: the "
        f"check had {share:.2f} cores of its time, so an idle machine needs hardly more than the CPU seconds."
    )
    columns = ["check", "images", "seconds", "CPU seconds"]
    show("check", "A check of CIFAR-10", columns, rows, options.rounds, note, options.save)


if __name__ == "__main__":
    main()
