"""Predictions of very many images: parts in place of predictions.csv, figures counted exactly, a page of a sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Fastcls

from fastcls.runfolder import parts, predictions
from fastcls.runfolder.run import open_run

pytest.importorskip("pyarrow", reason="needs pyarrow")

pytestmark = pytest.mark.further
WORDS = ("recipe", "digits-cnn", "--limit", 40, "--filters", "4,8", "--epochs", 2, "--seed", 7)


def trained(fastcls: Fastcls, out: str) -> dict[str, Any]:
    done = fastcls(*WORDS, "--out", out)
    assert done.code == 0, done.output
    return json.loads(Path(out, "metrics.json").read_text())


def figures_of(entry: Any) -> list[float]:
    """The numbers of an entry of metrics.json."""
    return [number for number in (entry.values() if isinstance(entry, dict) else [entry]) if number is not None]


def test_a_large_run_has_the_figures_of_a_small_one_and_a_page_of_a_sample(
    fastcls: Fastcls, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = trained(fastcls, "small")
    monkeypatch.setattr(predictions, "MOST", 10 * expected["valid"]["n"] - 1)  # of ten classes: one too many
    found = trained(fastcls, "large")
    assert not Path("large/predictions.csv").exists() and Path("large/predictions/valid-00000.parquet").is_file()
    for name, value in expected["valid"].items():
        if name.endswith("_calibrated"):  # at the temperature of a sample, which is all images here
            continue
        ours = found["valid"][name]
        assert figures_of(ours) == pytest.approx(figures_of(value), rel=1e-6), name
    small, large = (predictions.of_run(Path(run), probabilities=True) for run in ("small", "large"))
    assert list(large) == list(small) and len(large) == len(small)
    pairs = small.merge(large, on=["split", "path"], suffixes=("", "_large"))
    assert len(pairs) == len(small) and (pairs["prediction"] == pairs["prediction_large"]).all()
    np.testing.assert_allclose(pairs["loss_large"], pairs["loss"], rtol=1e-4, atol=1e-6)
    n = f"{expected['valid']['n']:,}"
    page = Path("large/report.html").read_text()
    assert f"cover all {n} images" in page and "a random sample of" in page
    compared = fastcls("compare", "small", "large")
    assert compared.code == 0 and n in compared.output, compared.output


def blocks(folder: Path, n: int, classes: int, ranks: int = 2) -> np.ndarray:
    """Parts of made-up predictions of n images; gives their confusion matrix."""
    rng, names = np.random.default_rng(0), [f"class {i}" for i in range(classes)]
    matrix = np.zeros((classes, classes), int)
    for rank in range(ranks):
        with predictions.writing_part(folder / predictions.PARTS / f"test-{rank:05d}.parquet", "test", names) as add:
            for start in range(rank, n // 1000, ranks):
                p = rng.dirichlet(np.full(classes, 0.1), 1000).astype(np.float32)
                labels = np.array([rng.choice(classes, p=row / row.sum()) for row in p.astype(float)])
                np.add.at(matrix, (labels, p.argmax(1)), 1)
                own = p[np.arange(1000), labels]
                numbers = np.stack([p.max(1), p.max(1), -np.log(np.maximum(own, 1e-30))])
                add([f"{start:05d}/{i:03d} \udce9.jpg" for i in range(1000)], labels, p.argmax(1), numbers, p)
    return matrix


def test_counts_are_exact_and_the_sample_depends_on_names_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "SAMPLE", 700)
    matrix = blocks(tmp_path / "one", 4000, 5)
    (tmp_path / "one" / "run.json").write_text('{"format": 1}')
    run = open_run(tmp_path / "one")
    assert run.counts is not None and run.counts["count"].sum() == 4000
    for row in run.counts.itertuples():
        assert row.count == matrix[int(row.label[-1]), int(row.prediction[-1])]
    sample = set(run.predictions["path"])
    assert len(sample) == 700
    blocks(tmp_path / "other", 4000, 5, ranks=3)  # in other parts, other predictions
    (tmp_path / "other" / "run.json").write_text('{"format": 1}')
    assert set(open_run(tmp_path / "other").predictions["path"]) == sample


def test_a_damaged_part_is_named_in_the_page_and_refused_elsewhere(fastcls: Fastcls, tmp_path: Path) -> None:
    blocks(Path("run"), 2000, 3)
    Path("run/run.json").write_text('{"format": 1}')
    part = Path("run/predictions/test-00001.parquet")
    part.write_bytes(part.read_bytes()[:-200])
    done = fastcls("report", "run")
    assert done.code == 0 and "Traceback" not in done.output, done.output
    assert "cannot be read" in Path("run/report.html").read_text()
