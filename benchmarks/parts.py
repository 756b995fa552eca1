"""The page of a run with ten million validation images, from predictions in parts:  python -m benchmarks.parts

Made-up predictions of 1,000 classes in eight parts, as eight processes would have written them; then `fastcls report`
in a process of its own: its seconds and its peak memory, for each number of images.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.common import arguments
from fastcls.runfolder import parts, predictions

CLASSES, PARTS, BLOCK = 1000, 8, 50_000


def make(run: Path, images: int) -> None:
    """A run folder whose validation split has so many images, three quarters of them right."""
    names = pd.Index([f"class {i:04d}" for i in range(CLASSES)], dtype=object)
    rng, of_all = np.random.default_rng(0), 0
    for part in range(PARTS):
        with parts.writing(run / predictions.PARTS / f"valid-{part:05d}.parquet") as add:
            for start in range(0, images // PARTS, BLOCK):
                n = min(BLOCK, images // PARTS - start)
                top = (rng.integers(0, CLASSES, (n, 1)) + rng.integers(1, 200, (n, 5)).cumsum(1)) % CLASSES
                p = -np.sort(-rng.dirichlet([8, 2, 1, 1, 1, 1], n)[:, :5], axis=1)
                right = rng.random(n) < 0.75
                labels = np.where(right, top[:, 0], top[:, 1])
                own = np.where(right, p[:, 0], p[:, 1])
                first = part * (images // PARTS) + start
                table: dict[str, Any] = {
                    "split": pd.Categorical.from_codes(np.zeros(n, int), ["valid"]),
                    "path": [f"train/{i % CLASSES:04d}/image_{i:09d}.jpg" for i in range(first, first + n)],
                    "label": pd.Categorical.from_codes(labels, names),
                    "prediction": pd.Categorical.from_codes(top[:, 0], names),
                    **dict(zip(predictions.NUMBERS, (p[:, 0], p[:, 0], -np.log(own)), strict=True)),
                }
                for k, (name, value) in enumerate(predictions.TOP):
                    table |= {name: pd.Categorical.from_codes(top[:, k], names), value: p[:, k]}
                add(pd.DataFrame(table))
                of_all += int(right.sum())
    (run / "run.json").write_text(json.dumps({"format": 1, "recipe": "made up", "status": "done"}))
    (run / "model.json").write_text(json.dumps({"format": 1, "classes": list(names)}))
    accuracy = {"value": of_all / (images // PARTS * PARTS), "low": None, "high": None, "n": images // PARTS * PARTS}
    (run / "metrics.json").write_text(json.dumps({"valid": {"n": accuracy["n"], "accuracy": accuracy}}))


REPORT = """
import sys
from fastcls.machine import host
before = host.resident()
from fastcls import cli
sys.argv = ["fastcls", "report", sys.argv[1]]
try:
    cli.main()
except SystemExit as end:
    assert not end.code, end.code
print(host.resident("VmHWM") / 1e6)
"""


def main() -> None:
    options = arguments(__doc__, images="100000,1000000,10000000")
    print("images | bytes an image | s of the report | peak MB | MB of HTML")
    for images in map(int, options.images.split(",")):
        with tempfile.TemporaryDirectory() as home:
            run = Path(home) / "run"
            make(run, images)
            size = sum(file.stat().st_size for file in parts.files(run / predictions.PARTS)) / images
            began = time.perf_counter()
            said = subprocess.run([sys.executable, "-c", REPORT, run], capture_output=True, text=True, check=True)
            seconds, page = time.perf_counter() - began, (run / "report.html").stat().st_size / 1e6
            peak = float(said.stdout.split()[-1])
            print(f"{images:,} | {size:.0f} | {seconds:.0f} | {peak:.0f} | {page:.1f}", flush=True)


if __name__ == "__main__":
    main()
