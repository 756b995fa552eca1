"""A run's exported network without fastcls, on odd photographs:  python -m benchmarks.deployed PHOTOS RUN…

Of 200 photographs below PHOTOS, as JPEG, PNG, GIF, WebP and BMP of 20 to 1,500 pixels a side, some turned by EXIF,
gray, transparent or with a palette: what the program of docs/exporting.md (onnxruntime, NumPy, Pillow alone) gives for
RUN's export is compared with `fastcls predict --probabilities`.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.common import hardware
from fastcls import export
from fastcls.datasets.inputs import collect
from fastcls.inference.answers import Table
from fastcls.inference.predictor import Predictor

ROOT = Path(__file__).parents[1]
COUNT = 200


def odd(photos: str, folder: Path) -> list[Path]:
    """The photographs, changed by chance but the same every time."""
    rng = random.Random(0)
    found = []
    for i, source in enumerate(rng.sample(sorted(collect([photos])), COUNT)):
        with Image.open(source) as image:
            image = image.convert("RGB").resize([round(20 * 75 ** rng.random()) for _ in range(2)])
        exif = Image.Exif()
        suffix = ("jpg", "png", "gif", "webp", "bmp")[i % 5]
        if suffix == "jpg" and rng.random() < 0.6:
            exif[0x0112] = rng.randint(2, 8)
        kind = rng.choice({"jpg": ["RGB", "L"], "bmp": ["RGB", "L"], "gif": ["P"]}.get(suffix, ["RGB", "RGBA"]))
        if kind == "RGBA":
            image.putalpha(image.convert("L"))
        elif suffix == "png" and rng.random() < 0.5:
            kind = rng.choice(["L", "P", "LA"])
        found.append(folder / f"{i:03d}.{suffix}")
        image.convert(kind).save(found[-1], **({"exif": exif} if len(exif) else {}))
    return found


def program(model: Path, files: list[Path]) -> np.ndarray:
    """Probabilities (files, classes) by the documentation's program, in a process without this package."""
    text = (ROOT / "docs" / "exporting.md").read_text()
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "InferenceSession" in block]
    start, rest = code.split("image = ", 1)
    start = start.replace('glob.glob("runs/folder/*/export/model.onnx")[0]', repr(str(model)))
    rest = ("image = " + rest).replace('glob.glob("new_photos/*")[0]', "file").partition("print(")[0]
    body = rest.replace("\n", "\n    ")
    code = (
        f"{start}\nimport sys\nfor file in sys.argv[1:]:\n    {body}\n    print(json.dumps(probabilities.tolist()))\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code, *map(str, files)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return np.array([json.loads(line) for line in done.stdout.splitlines()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos")
    parser.add_argument("runs", nargs="+", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = odd(options.photos, Path(folder))
        print(hardware())
        for run in options.runs:
            out = Path(folder, run.name)
            export(run, out=out)
            theirs = program(out / "model.onnx", files)
            network = Predictor(run)
            table = Table(network.classes, all_classes=True)
            rows = list(table.rows(network.predict(map(str, files))))
            ours = np.array([[row[f"p:{name}"] for name in network.classes] for row in rows])
            apart = np.abs(theirs - ours).max(1)
            same = (theirs.argmax(1) == ours.argmax(1)).sum()
            arch = json.loads((run / "model.json").read_text()).get("arch", run.name)
            print(
                f"{arch}: same class {same} of {len(files)}, probabilities apart by {np.median(apart):.1e} in the "
                f"median, {apart.max():.1e} at most; mean confidence {ours.max(1).mean():.2f}"
            )


if __name__ == "__main__":
    main()
