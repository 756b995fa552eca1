"""What is required of predictions beyond the likeliest class, and the network that gives that.

By itself, for a prediction without any of it need not wait for what `deciding` imports.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastcls.errors import OutputError, UsageError
from fastcls.inference.predictor import Average, Features, Predictor
from fastcls.runfolder import model_files

UNSURE, UNKNOWN = "unsure", "unknown"
Row = dict[str, Any]  # a value a column: text, a float, a list of texts, or None where there is no answer
Levels = float | Mapping[str, float] | None  # of all classes, or of some


@dataclass(frozen=True)
class Wanted:
    """coverage: of the sets. precision, recall: of all classes or some. costs: a table. unknown: false alarms."""

    coverage: float | None = None
    precision: Levels = None
    recall: Levels = None
    costs: str = ""
    unknown: float | None = None

    @property
    def first(self) -> str:
        """The flag of the first that is wanted, or ''."""
        return next((f"--{name}" for name, value in vars(self).items() if value not in (None, "")), "")

    def __bool__(self) -> bool:
        return bool(self.first)


def levels(words: Sequence[str], flag: str) -> Levels:
    """'0.95', or 'CLASS=0.95' once or more."""
    if len(words) == 1 and "=" not in words[0]:
        return share(words[0], flag)
    parts = [word.rpartition("=") for word in words]
    if any(not name for name, _, _ in parts):
        raise UsageError(f"{flag} {' '.join(words)}: expected a share, or one or more of CLASS=SHARE.")
    return {name: share(value, f"{flag} {name}=") for name, _, value in parts} or None


def share(value: Any, flag: str) -> float:
    """A number between 0 and 1; UsageError for any other."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < 1:
        raise UsageError(
            f"{flag}{' ' * (not flag.endswith('='))}{value}: expected a number between 0 and 1, such as 0.95."
        )
    return number


def predictor(run: Path, temperature: float, mirror: bool, wanted: Wanted, features: bool = False) -> Predictor:
    """The network of a run, which gives features, and says how known an image is, where that is wanted."""
    if mirror and features:
        raise UsageError("--features and --tta exclude each other: features are those of single images.", "Omit --tta.")
    if mirror and wanted:
        raise UsageError(
            f"{wanted.first} and --tta exclude each other: calibration is for the probabilities of single images.",
            "Omit --tta.",
        )
    if model_files.read(run).get("members"):
        if wanted:
            raise UsageError(
                f"{wanted.first}: {run} predicts with the mean of several networks, but calibration is for each "
                "network alone.",
                f"Use a fold's run, or omit {wanted.first}.",
            )
        if features:
            message = f"--features: {run} predicts with the mean of several networks, whose features differ."
            raise UsageError(message, "Use a fold's run.")
        return Average(run, temperature, mirror)
    if wanted.unknown is not None:
        from fastcls.inference.unknown import Knower

        share(wanted.unknown, "--unknown")
        return Knower(run, temperature)
    if not features:
        return Predictor(run, temperature, mirror)
    network = Features(run, temperature)
    if not network.width:
        raise OutputError(
            f"--features: {network.file} does not end in a linear layer, so it has none.", "Omit --features."
        )
    return network
