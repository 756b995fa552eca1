"""What the page knows of a run, and what it answers to a picture: HTML, made from templates that escape everything."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastcls.errors import DataError
from fastcls.images import uploads
from fastcls.inference.explain import Explainer, Explanation
from fastcls.inference.neighbours import NEAREST, TELLING, Neighbours
from fastcls.inference.predictor import Prediction
from fastcls.reports import heat, shell
from fastcls.reports.thumbnails import TINY, Thumbnails, Tile
from fastcls.reports.wording import grouped, percent
from fastcls.runfolder import predictions, runs
from fastcls.runfolder.text import clean, number

HERE = Path(__file__).parent
TOP = 5  # classes shown


@dataclass
class Site:
    """A run, ready for pictures.

    calibrated: whether the temperature was fitted, or only stands at 1.  threshold: where the page's slider starts.
    most_bytes: of one picture.  most_files: that the page takes at once.
    """

    run: Path
    explainer: Explainer
    split: str = "valid"
    calibrated: bool = False
    threshold: float = 0.5
    most_bytes: int = 20_000_000
    most_files: int = 32
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.record = runs.read_json(self.run / "run.json")
        data = self.record.get("data")
        self.root = Path(data.get("root") or "") if isinstance(data, dict) else Path()
        self.images = predictions.images(self.run, self.split)
        self.neighbours = Neighbours(self.images, self.root)
        self.thumbnails = Thumbnails(self.root)
        self.templates = shell.environment(HERE)

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Meanwhile, find the features of the known images, in the pauses that visitors leave."""
        stop = threading.Event()

        def features(paths: Any) -> np.ndarray | None:
            with self.lock:
                return self.explainer.features(paths)

        thread = threading.Thread(target=self.neighbours.look, args=(features, stop), name="neighbours", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def page(self) -> str:
        """The page, before any picture."""
        return shell.render(
            "page.html.j2",
            HERE,
            title=clean(self.record.get("title") or self.record.get("recipe") or self.run.name),
            recipe=clean(self.record.get("recipe") or ""),
            folder=self.run.resolve().name,
            facts=self._facts(),
            calibrated=self.calibrated,
            several=self.explainer.target.several,
            coverage=json.dumps(predictions.coverage(self.images)),
            threshold=round(100 * self.threshold),
            split=self.split,
            formats=uploads.NAMES,
            kinds=",".join(f"image/{name.lower()}" for name in uploads.FORMATS),
            most_bytes=self.most_bytes,
            most_files=self.most_files,
            has_heat=self.explainer.has_heat,
        )

    def answer(self, data: bytes) -> str:
        """What the network makes of one picture, as a piece of HTML; DataError says why there is none."""
        with self.lock:
            upload = uploads.read(data, self.explainer.mode)
            found = self.explainer.explain(upload.pixels, TOP)
            near = None if found.features is None else self.neighbours.near(found.features)
        height, width = upload.pixels.shape[:2]
        target = self.explainer.target
        chosen, _ = target.answer(found.probabilities, self.explainer.thresholds, 0)
        return self.templates.get_template("answer.html.j2").render(
            classes=[(clean(self.explainer.classes[i]), float(found.probabilities[i])) for i in found.likeliest],
            several=target.several,
            said=", ".join(clean(self.explainer.classes[i]) for i in chosen) or "no label",
            others=len(self.explainer.classes) - len(found.likeliest),
            seen=shell.data_uri(Image.fromarray(found.seen)),
            pixelated=max(found.seen.shape[:2]) < TINY,
            shape=(found.seen.shape[1], found.seen.shape[0]),
            size=(width, height),
            turned=upload.turned,
            overlays=_overlays(found),
            near=near,
            mistakes=[self._mistake(one, alike) for one, alike in near.mistakes] if near else [],
            neighbours=self.neighbours,
            compared=len(self.neighbours.known),
            nearest=NEAREST,
            telling=TELLING,
            split=self.split,
            evaluated=len(self.images),
        )  # fmt: skip

    def predict(self, pictures: Iterable[tuple[str, bytes]]) -> Iterator[Prediction]:
        """What the network predicts for each of these files, (name, bytes); an error for what is no picture."""
        for name, data in pictures:
            try:
                pixels = uploads.read(data, self.explainer.mode).pixels
                with self.lock:
                    (row,) = self.explainer.probabilities([pixels])
                yield Prediction(clean(name), row)
            except (DataError, ValueError) as problem:
                yield Prediction(clean(name), None, str(problem))

    def _mistake(self, one: predictions.Predicted, alike: float) -> tuple[str, str, float, Tile, str]:
        path = clean(one.path)
        return self._shown(one.label), self._shown(one.prediction), alike, self.thumbnails.tile(one.path), path

    def _shown(self, label: str) -> str:
        """A label of predictions.csv in words."""
        return ", ".join(map(clean, self.explainer.target.names(label))) or "no label"

    def _facts(self) -> list[str]:
        target = self.explainer.target
        facts = [f"{grouped(len(self.explainer.classes))} {target.plural}"]
        if self.images:
            right = sum(not image.wrong for image in self.images)
            share = percent(right / len(self.images))
            facts.insert(0, f"{share} of the {grouped(len(self.images))} images of the {self.split} split right")
            if target.several:
                facts[0] = f"all labels {facts[0]}"
        if self.calibrated:
            return [*facts, f"probabilities calibrated (temperature {number(self.explainer.temperature):.3g})"]
        return [*facts, "probabilities not calibrated: this run has no temperature"]


def _overlays(found: Explanation) -> list[heat.Overlay | None]:
    """Grad-CAM of each class shown, over the picture as the network sees it."""
    if found.heat is None:
        return []
    ratio = found.seen.shape[1] / found.seen.shape[0]
    return [heat.overlay(levels, None, ratio) for levels in (found.heat * 255).round().astype(np.uint8)]
