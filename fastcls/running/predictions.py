"""predictions.csv: what the network said of every evaluated image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastcls.evaluation import calibration
from fastcls.evaluation.interpret import Interpretation
from fastcls.runfolder import runs

ALL_COLUMNS = 100  # up to so many classes, a probability column a class; above, the five likeliest


def write_predictions(
    file: Path, passes: Mapping[str, Interpretation], relative: Callable[[str], str], temperature: float = 1.0
) -> None:
    """A row an image of every split: path, label, prediction, confidence (also calibrated), loss, probabilities."""
    vocab = [str(name) for name in next(iter(passes.values())).vocab]
    many = len(vocab) > ALL_COLUMNS
    columns = [f"{kind}{k}" for k in range(1, 6) for kind in ("top", "p")] if many else [f"p:{c}" for c in vocab]
    header = ["split", "path", "label", "prediction", "confidence", "calibrated", "loss", *columns]

    def rows() -> Iterator[list[Any]]:
        for split, answer in passes.items():
            probabilities, losses = answer.preds.numpy(), answer.losses.numpy()
            targets, predicted = answer.targs.tolist(), answer.decoded.tolist()
            calibrated = np.empty(len(probabilities))
            for block, softened in calibration.blocks(probabilities, temperature):
                calibrated[block] = softened.max(1)
            for i, path in enumerate(answer.paths()):
                p = probabilities[i]
                best = f"{p[predicted[i]]:.6g}", f"{calibrated[i]:.6g}", f"{losses[i]:.6g}"
                yield [split, relative(path), vocab[targets[i]], vocab[predicted[i]], *best, *_columns(p, vocab, many)]

    runs.write_csv(file, header, rows())


def _columns(p: np.ndarray, vocab: list[str], many: bool) -> list[str]:
    if not many:
        return [f"{value:.6g}" for value in p.tolist()]
    top = np.argpartition(p, -5)[-5:]
    return [cell for i in top[np.argsort(-p[top])] for cell in (vocab[i], f"{p[i]:.6g}")]
