"""Steps as CSV; epochs are in history.csv, for fastai's CSVLogger knows neither phases nor resuming."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastcls.plugins.tracking.tracker import Tracker
from fastcls.runfolder import runs

NAME = "steps.csv"


class Csv(Tracker):
    """RUN/tracking/steps.csv: step, epoch, loss, the rate of each parameter group, images a second."""

    title = "csv"

    def __init__(self, folder: Path, kept: Mapping[str, Any]) -> None:
        super().__init__(folder, kept)
        self.file = folder / NAME
        self.header: list[str] = []
        self.rows: list[Mapping[str, Any]] = []

    def start(self, record: Mapping[str, Any]) -> None:
        if self.file.is_file():
            with self.file.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                self.rows, self.header = list(reader), list(reader.fieldnames or [])
        self.kept = {"file": f"tracking/{NAME}"}

    def begin(self, step: int) -> None:
        """Rows after the step that a resumed run goes on from are dropped: these steps are trained again."""
        self.rows = [row for row in self.rows if int(row["step"]) <= step]

    def step(self, step: int, values: Mapping[str, Any]) -> None:
        row = {"step": step, **values}
        self.header += [name for name in row if name not in self.header]
        self.rows.append(row)

    def epoch(self, *_: Any, **__: Any) -> None:
        runs.write_csv(self.file, self.header, [[row.get(name, "") for name in self.header] for row in self.rows])

    finish = stop = epoch

    def advice(self) -> str:
        return f"{self.file} (epochs: {self.folder.parent / 'history.csv'})"
