"""Whether fastcls works here: a small network is trained for a step, exported, and predicts as it was trained to."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from fastai.vision.all import CategoryBlock, DataBlock, ImageBlock, accuracy, get_image_files, parent_label
from PIL import Image

from fastcls.data import blocks, splitting
from fastcls.inference import export
from fastcls.models import learners as models
from fastcls.models import networks
from fastcls.settings import options

SIDE, IMAGES = 16, 8  # pixels; images a class


def run() -> None:
    """Raises whatever goes wrong on the way; AssertionError where nothing does and the answers are wrong."""
    quick = options.Options(workers=0, cache_gb=0, precision="fp32")
    with tempfile.TemporaryDirectory(prefix="fastcls-") as folder, options.using(quick) as notes:
        images, out = Path(folder, "images"), Path(folder, "run")
        _draw(images)
        out.mkdir()
        block = DataBlock(
            blocks=(ImageBlock, CategoryBlock),
            get_items=get_image_files,
            get_y=parent_label,
            splitter=splitting.stratified(parent_label, valid_pct=0.5),
        )
        dls = blocks.loaders(block, images, bs=IMAGES)
        learn = models.learner(dls, networks.cnn(3, dls.c, (8,)), stats=((0.5,) * 3, (0.5,) * 3), metrics=accuracy)
        with learn.no_bar(), learn.no_logging():
            learn.fit(1, 0.01)
            probabilities = learn.get_preds(dl=dls.valid)[0].numpy()
        assert np.isfinite(probabilities).all(), "the network's outputs are NaN or infinite"
        export.save(learn, out, {})
        paths = [str(path) for path in dls.valid_ds.items]
        difference = export.verify(out, paths, probabilities)
        assert difference is not None and (out / "model.onnx").is_file(), "; ".join(notes) or "nothing was exported"


def _draw(folder: Path) -> None:
    """Dark pictures and light ones."""
    rng = np.random.default_rng(0)
    for name, low in (("dark", 0), ("light", 128)):
        (folder / name).mkdir(parents=True)
        for index in range(IMAGES):
            pixels = rng.integers(low, low + 128, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
