"""What the terminal says of a run: what it is, what is worth knowing, what came of it, what to do next."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcls.machine.screen import Screen, escape
from fastcls.runfolder import target
from fastcls.settings import shell

if TYPE_CHECKING:
    from fastcls.evaluation.interpret import Interpretation


class Messages:
    """Says it on the screen, which keeps it for log.txt; `record` is what run.json will hold."""

    def __init__(self, notes: list[str], out: Path, screen: Screen, record: dict[str, Any]) -> None:
        self.all_notes, self.out, self.screen, self.record = notes, out, screen, record
        self.noted = 0

    def _line(self, name: str, text: object) -> None:
        self.screen.print(f"{name:8s} {text}", soft_wrap=True)

    def _once(self, name: str, text: object) -> None:
        self.screen.once(f"{name:8s} {text}", soft_wrap=True)

    def opening(self, precision: str) -> None:
        """What it is, on which images, on which device; precision: and in which number format."""
        data, device = self.record["data"], self.record["device"]
        times = f"{device['processes']} × " if device["processes"] > 1 else ""
        images = ", ".join(f"{n:,} {split}" for split, n in data["images"].items())
        self.screen.once(f"[b]{escape(self.record['title'])}[/b]", soft_wrap=True)
        if "claim" in self.record:
            self._once("claim", escape(self.record["claim"]))
        self._once("images", f"{images} in {data['classes']} {target.of(data).plural} ({escape(data['root'])})")
        where = f"{times}{device['type']} ({escape(device['name'])})"
        self._once("device", f"{where}, {precision}")
        if address := self.record["options"].get("checkpoints"):
            self._once("saved", f"checkpoints also in {escape(address)}")
        self.notes()
        self.screen.print()

    def notes(self) -> None:
        """The notes that have not been shown yet."""
        for text in self.all_notes[self.noted :]:
            self._once("note", escape(text))
        self.noted = len(self.all_notes)

    @contextlib.contextmanager
    def timed(self, what: str, title: str) -> Iterator[Callable[[int, int], object]]:
        """A progress bar for a step before training; its seconds go into the record as `what`."""
        started = time.perf_counter()
        with self.screen.progress() as bar:
            task = bar.add_task(title, total=None, figures="")
            yield lambda done, total: bar.update(task, completed=done, total=total)
        self.record[what] = round(time.perf_counter() - started, 2)

    def resumed(self, steps: int, checkpoint: Path) -> None:
        self._line("resumed", f"after {steps:,} steps, from {escape(checkpoint)}")

    def stopped(self, status: str, reason: str, again: bool) -> None:
        """How it ended before its end; `again`: whether going on could end otherwise."""
        from fastcls.running import faults

        why = escape(reason.splitlines()[0].rstrip(".:"))
        self.screen.print(f"{status}: {why}. Run folder: {escape(self.out)}")
        if status != "pruned":  # a search removes those of pruned runs
            for line in faults.left(self.out, again):
                self.screen.print(line, markup=False, soft_wrap=True)

    def closing(self, figures: Mapping[str, Any], answers: Mapping[str, Interpretation]) -> None:
        """The figures of each split, how fast it was, what is confused, which weights these are.

        The test split's come first: no epoch was chosen by them.
        """
        from fastcls.evaluation import metrics

        self.screen.print()
        splits = sorted(figures, key=lambda split: split != "test")
        for split in splits:
            values = figures[split]
            name = answers[split].judge.target.main
            accuracy, loss, f1 = values[name], values["loss"], values["macro_f1"]
            over = f" over {accuracy['groups']:,} groups" if "groups" in accuracy else ""
            which = " (cross-entropy; valid_loss: as trained)" if split == splits[0] else ""
            self.screen.print(
                f"{split:8s} {name} {accuracy['value']:.4f}  (95 %{over}: {_ends(accuracy)}, "
                f"n = {values['n']:,})  macro F1 {f1['value']:.4f}  loss {loss['value']:.4f}{which}",
                style="bold" if split == splits[0] else None,
                soft_wrap=True,
            )
            if clean := values.get(answers[split].judge.target.without):
                seen = metrics.leaked(values["n"] - clean["n"], "these images")
                without = "too few are left for a figure without leaks"
                if clean["value"] is not None:
                    without = f"without leaks {clean['value']:.4f}  (95 %: {_ends(clean)}, n = {clean['n']:,})"
                self.screen.print(f"{'':8s} [b]{seen}:[/b] {without}", soft_wrap=True)
        if speed := self.record.get("speed"):
            self._line("speed", f"{speed['images_per_second']:,.0f} images/s in training")
        if confused := answers[splits[0]].most_confused()[:3]:
            mistake = answers[splits[0]].judge.target.mistake
            pairs = "; ".join(f"{a} {mistake} {b} ({n})" for a, b, n in confused)
            self._line("confused", escape(f"on {splits[0]}: {pairs}"))
        self._line("weights", escape(self.record["weights"]))
        self.notes()

    def next(self) -> None:
        """Where it lies, and what to do with it."""
        # without an ONNX file, only its recipe can predict
        onnx, recipe = ((self.out / file).is_file() for file in ("model.onnx", "recipe.py"))
        trust = [] if onnx else ["--trust"]
        page = f"   report: {escape(self.out / 'report.html')}" if (self.out / "report.html").is_file() else ""
        self._line("run", f"{escape(self.out)}{page}")
        if (onnx or recipe) and not self.screen.in_series:  # which has a line of its own, at its end
            self._line("next", escape(shell.command("predict", self.out, "PHOTOS", "-o", "predictions.csv", *trust)))


def _ends(figure: Mapping[str, Any]) -> str:
    """Those of its interval."""
    return " to ".join(f"{figure[end]:.4f}" if figure[end] is not None else "–" for end in ("low", "high"))
