"""What trackers log of a finished run, read from its folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from fastcls.evaluation import selection
from fastcls.reports import page
from fastcls.runfolder.run import Run, open_run

CURVES = ("loss", "learning-rate", "metric-")  # figures that trackers draw themselves
MODEL = ("model.safetensors", "model.onnx", "model.json")
RECORDS = ("report.html", "metrics.json", "predictions.csv", "history.csv", "run.json", "recipe.py")


@dataclass
class Ending:
    """A finished run: its folder, its last step, and further pictures."""

    run: Path
    pictures: list[Path]

    @cached_property
    def files(self) -> Run:
        return open_run(self.run)

    @property
    def step(self) -> int:
        return int(self.files.history["step"].iloc[-1])

    def figures(self, *parts: str) -> dict[str, float]:
        """The final figures, `valid/accuracy`; with the parts 'low' and 'high' also the ends of their intervals."""
        return {
            f"{split}/{name}{'' if part == 'value' else f'_{part}'}": float(figure[part])
            for split, values in self.files.metrics.items()
            for name, figure in values.items()
            if isinstance(figure, dict) and ":" not in name  # those of single labels are in metrics.json
            for part in ("value", *parts)
            if figure.get(part) is not None
        }

    @property
    def images(self) -> dict[str, Path]:
        """Pictures by name: a batch as the network saw it, the confusion matrix, top losses, calibration …"""
        drawn = [file for file in sorted((self.run / "figures").glob("*.png")) if not file.stem.startswith(CURVES)]
        return {file.stem: file for file in [*drawn, *self.pictures] if file.is_file()}

    @property
    def model(self) -> list[Path]:
        return self._there(MODEL)

    @property
    def records(self) -> list[Path]:
        return self._there(RECORDS)

    def _there(self, names: Iterable[str]) -> list[Path]:
        return [self.run / name for name in names if (self.run / name).is_file()]

    @property
    def answers(self) -> pd.DataFrame:
        """The validation split's rows of predictions.csv."""
        table = self.files.predictions
        return table[table["split"] == "valid"]

    @property
    def top_losses(self) -> pd.DataFrame:
        return selection.select(self.answers)["losses"]

    @property
    def classes(self) -> list[str]:
        return [str(name) for name in self.files.model.get("classes", [])]

    @property
    def root(self) -> Path:
        """The folder that paths of predictions.csv begin in."""
        return Path(self.files.get("data", "root") or "")

    @property
    def network(self) -> str:
        """The summary of the network, a line a layer, in aligned columns."""
        layers, left = page.layers(self.files)
        columns = ["name", "type", "shape", "kernel", "parameters", "multiply_adds", "receptive_field"]
        table = pd.DataFrame(layers, columns=columns).to_string(index=False, float_format="{:,.0f}".format, na_rep="")
        total = self.files.model.get("parameters")
        more = [f"… and {left} more layers"] if left else []
        return "\n".join([f"{self.files.model.get('arch')}: {total:,} parameters", "", table, *more])
