"""What a random split of bursts claims, what one in whole groups claims, and what new images show.

python -m benchmarks.bursts FOLDER SCRATCH --weights FILE    FOLDER: class folders of photographs

Bursts: each of some photographs of a class is taken three times (up to 4 % lost a side, ±15 % brightness, JPEG quality
75 to 95). Patients: each of them gets the same coloured veil and frame over all of its six images, which are different
photographs of one class, so that they are similar without being copies. New images are other photographs, of other
patients. A recipe's head is solved on frozen features (`--tune probe`).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

import fastcls
from benchmarks.common import hardware

CLASSES, PHOTOGRAPHS, NEW, SHOTS, OF_PATIENT = 20, {"bursts": 16, "patients": 30}, 24, 3, 6


def again(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The same scene a moment later."""
    w, h = image.size
    lost = rng.uniform(0.01, 0.04)
    x, y = rng.uniform(0, lost, 2)
    moved = image.crop((round(x * w), round(y * h), round((1 - lost + x) * w), round((1 - lost + y) * h)))
    return ImageEnhance.Brightness(moved).enhance(float(rng.uniform(0.85, 1.15)))


def veiled(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """With a veil of one colour and a frame of another, drawn by `rng`: a patient's own."""
    veil = Image.new("RGB", image.size, tuple(int(c) for c in rng.integers(0, 256, 3)))
    mixed = Image.blend(image, veil, 0.45)
    frame = Image.new("RGB", image.size, tuple(int(c) for c in rng.integers(0, 256, 3)))
    w, h = image.size
    frame.paste(mixed.crop((w // 8, h // 8, w - w // 8, h - h // 8)), (w // 8, h // 8))
    return frame


def plant(source: Path, out: Path, kind: str, seed: int) -> None:
    """`out`/seen and `out`/new with class folders, and seen.csv with the patient of each image."""
    shutil.rmtree(out, ignore_errors=True)
    rng = np.random.default_rng(seed)
    rows = []
    for label in sorted(entry.name for entry in source.iterdir() if entry.is_dir())[:CLASSES]:
        files = sorted((source / label).iterdir())
        files = [files[i] for i in rng.permutation(len(files))]
        seen, new = files[: PHOTOGRAPHS[kind]], files[-NEW:]
        for part in ("seen", "new"):
            (out / part / label).mkdir(parents=True)
        for i, file in enumerate(seen):
            with Image.open(file) as opened:
                image = opened.convert("RGB")
            if kind == "bursts":
                for shot in range(SHOTS):
                    name = f"{label}/{i:03d}_{shot}.jpg"
                    picture = again(image, rng) if shot else image
                    picture.save(out / "seen" / name, quality=int(rng.integers(75, 96)))
                    rows.append((name, label, f"{label}{i}"))
            else:
                patient, name = i // OF_PATIENT, f"{label}/{i:03d}.jpg"
                veiled(image, np.random.default_rng([seed, hash_of(label), patient])).save(
                    out / "seen" / name, quality=90
                )
                rows.append((name, label, f"{label}{patient}"))
        for i, file in enumerate(new):
            with Image.open(file) as opened:
                image = opened.convert("RGB")
            if kind == "patients":
                image = veiled(image, np.random.default_rng([seed, hash_of(label), 1000 + i // OF_PATIENT]))
            image.save(out / "new" / label / f"{i:03d}.jpg", quality=90)
    with (out / "seen.csv").open("w", newline="") as table:
        csv.writer(table).writerows([("path", "label", "patient"), *rows])


def hash_of(text: str) -> int:
    """A number that is the same in every process."""
    return int.from_bytes(text.encode()[-6:], "big")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--arch", default="tf_efficientnet_lite0")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    common = {"arch": given.arch, "weights": str(given.weights.absolute()), "tune": "probe", "size": 128}
    common |= {"device": "cpu", "precision": "fp32"}
    source = given.source.absolute()
    given.scratch.mkdir(parents=True, exist_ok=True)
    os.chdir(given.scratch)
    print(f"{hardware()}; n = {given.seeds} seeds")
    for kind in ("bursts", "patients"):
        found: dict[str, list[float]] = {}
        for seed in range(given.seeds):
            plant(source, Path(kind), kind, seed)
            grouped = {"labels": "../seen.csv", "group": "patient"} if kind == "patients" else {}
            splits = {"random": {"keep_copies_together": False}, "grouped": grouped}
            for name, more in splits.items():
                out = Path(f"{kind}-{name}-{seed}")
                shutil.rmtree(out, ignore_errors=True)
                run = fastcls.train("folder", path=f"{kind}/seen", seed=seed, out=out, **common, **more)
                claimed = run.metrics.loc[("valid", "accuracy")]
                later = out.with_name(f"{out.name}-new")
                shutil.rmtree(later, ignore_errors=True)
                new = json.loads((fastcls.evaluate(run, f"{kind}/new", out=later).path / "metrics.json").read_text())
                truth = new["new"]["accuracy"]["value"]
                found.setdefault(f"{name} claimed", []).append(claimed["value"])
                found.setdefault(f"{name} new", []).append(truth)
                found.setdefault(f"{name} holds", []).append(claimed["low"] <= truth <= claimed["high"])
        for name, values in found.items():
            print(f"{kind:9s} {name:16s} {np.mean(values):.1%}  ({', '.join(f'{value:.1%}' for value in values)})")


if __name__ == "__main__":
    main()
