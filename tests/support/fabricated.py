"""Run folders made up for the report: of any classes and predictions, without training."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def make_run(
    folder: Path,
    classes: list[str],
    *,
    images: int = 60,
    epochs: int = 6,
    side: int = 8,
    pictures: bool = True,
    splits: tuple[str, ...] = ("valid",),
    seed: int = 0,
    **info: Any,
) -> Path:
    """A run folder such as a finished recipe leaves, about 80 % right."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    root = folder.parent / f"{folder.name}-images"
    root.mkdir()
    many, k = len(classes) > 100, len(classes)
    temperature = 1.25
    columns = [f"{a}{i}" for i in range(1, 6) for a in ("top", "p")] if many else [f"p:{name}" for name in classes]
    rows: list[list[Any]] = []
    metrics = {}
    for split in splits:
        right, losses = 0, []
        for i in range(images):
            label = i % k
            p = rng.dirichlet(np.full(k, 0.05))
            p[label if rng.random() < 0.8 else (label + 1) % k] += 4
            p /= p.sum()
            best, loss = int(p.argmax()), -math.log(max(p[label], 1e-9))
            order = np.argsort(-p)[:5]
            figures = [cell for j in order for cell in (classes[j], p[j])] if many else list(p)
            path = f"{split}_{i}.png"
            if pictures:
                Image.fromarray(rng.integers(0, 255, (side + i % 2, side, 3), dtype=np.uint8)).save(root / path)
            softer = p ** (1 / temperature)
            rows.append(
                [split, path, classes[label], classes[best], p[best], loss, softer[best] / softer.sum(), *figures]
            )
            right += best == label
            losses.append(loss)
        share = {"value": right / images, "low": max(0.0, right / images - 0.1), "high": 0.9, "n": images}
        mean = {"value": float(np.mean(losses)), "low": None, "high": None, "n": images}
        metrics[split] = {
            "n": images,
            "accuracy": share,
            "top5": share,
            "macro_f1": share,
            **dict.fromkeys(["loss", "ece", "brier", "loss_calibrated", "ece_calibrated", "brier_calibrated"], mean),
        }
    with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [["split", "path", "label", "prediction", "confidence", "loss", "calibrated", *columns], *rows]
        )
    with (folder / "history.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = "phase epoch step lr train_loss valid_loss accuracy error_rate seconds images_per_second"
        writer.writerow([*names.split(), "trained_parameters"])
        for e in range(1, epochs + 1):
            phase, trained = ("head only", 9_000) if e == 1 else ("whole network", 331_776)
            losses = 2 / e, 1.5 / e + 0.2
            writer.writerow([phase, e, e * 9, 1e-3 / e, *losses, 1 - 0.5 / e, 0.5 / e, 3.2, "", trained])
    layer = {"type": "Conv2d", "output_shape": [1, 64, 56, 56], "kernel": [3, 3], "parameters": 36864}
    summary = [{"layer": f"0.{i}.conv", **layer, "trainable": i > 3} for i in range(9)]
    summary.append({"layer": "act", "type": "ReLU", "output_shape": [1, 64], "kernel": None, "parameters": 0})
    model = {"format": 1, "arch": "resnet18", "classes": classes, "parameters": 331776, "trainable": 184320}
    model |= {"temperature": temperature, "preprocessing": None, "summary": summary}
    with (folder / "splits.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        writer.writerows([f"{split}_{i}.png", classes[i % k], split] for split in splits for i in range(images))
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    (folder / "model.json").write_text(json.dumps(model))
    record = {"format": 1, "recipe": "toy", "title": "A toy", "claim": "accuracy 82 % (n = 5), 1 min", "status": "done"}
    record |= {"command": "fastcls recipe toy --epochs 6", "knobs": {"get_learner": {"path": ""}, "fit": {"lr": 2e-3}}}
    record |= {"options": {"seed": 42, "limit": None}, "extra": {}, "seed": 42, "versions": {"python": "3.11"}}
    record |= {"device": {"type": "cpu", "name": "A processor", "threads": 2}, "reason": "", "wall_seconds": 331.2}
    record |= {"data": {"root": str(root), "fingerprint": "3f9a", "images": {"train": 240, "valid": 60}, "classes": k}}
    record |= {"started": "2026-11-20T21:00:00+00:00", "best_epoch": 4, "weights": "Those of epoch 4."}
    record |= {"notes": ["Beware."]}
    (folder / "run.json").write_text(json.dumps({**record, **info}), encoding="utf-8")
    return folder


def large_run(folder: Path, classes: int, images: int) -> Path:
    """A run of so many classes and images, 70 % right, that a network of top-5 columns leaves; 1,000 pictures."""
    names = [f"species number {i:05}" for i in range(classes)]
    run = make_run(folder, names[:200], images=1000, side=200)
    rng = np.random.default_rng(0)
    answers = rng.integers(0, classes, (images, 5))
    answers[:, 0] = np.where(rng.random(images) < 0.7, np.arange(images) % classes, answers[:, 0])
    p = -np.sort(-rng.dirichlet(np.full(6, 0.3), images), axis=1)[:, :5]
    with (run / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        top = [f"{a}{i}" for i in range(1, 6) for a in ("top", "p")]
        writer.writerow(["split", "path", "label", "prediction", "confidence", "loss", "calibrated", *top])
        for i, (order, shares) in enumerate(zip(answers.tolist(), p.tolist(), strict=True)):
            label = i % classes
            loss = -math.log(max(shares[order.index(label)], 1e-9) if label in order else 1e-6)
            cells = [cell for answer, share in zip(order, shares, strict=True) for cell in (names[answer], share)]
            path = f"valid_{i % 1000}.png"
            writer.writerow(["valid", path, names[label], names[order[0]], shares[0], loss, shares[0], *cells])
    with (run / "splits.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        writer.writerows([f"{i}.png", names[i % classes], "valid" if i % 5 else "train"] for i in range(5 * images))
    model = json.loads((run / "model.json").read_text())
    (run / "model.json").write_text(json.dumps({**model, "classes": names}))
    return run
