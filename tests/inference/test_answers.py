"""What `fastcls predict` can be given and can write: patterns, tables of paths, formats, thresholds, mirror images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Fastcls, command
from folders import images_of, text_rows
from PIL import Image, ImageOps
from safetensors.numpy import load_file

from fastcls import Run
from fastcls.inference import unknown

Rows = list[dict[str, str]]


@pytest.fixture
def photos(fastcls: Fastcls, digits_run: Path) -> list[str]:
    """photos/, in the empty folder where the command runs, with images in two folders."""
    root = images_of(digits_run)
    for digit in "3142":
        folder = Path("photos", "low" if digit in "12" else "high")
        folder.mkdir(parents=True, exist_ok=True)
        for i, file in enumerate(sorted((root / digit).glob("*.png"))[:3]):
            shutil.copy(file, folder / f"{digit}-{i}.png")
    Path("photos/notes.png.txt").write_text("no image")
    return sorted(str(file) for file in Path("photos").rglob("*.png"))


@pytest.fixture
def plain(digits_run: Path, photos: list[str]) -> Rows:
    """The answers for photos/ as predict gives them without options but for the probabilities."""
    return text_rows(command("predict", digits_run, *photos, "--probabilities").output)


def calibrated(run: Path, temperature: object) -> Path:
    """A copy of the run whose model.json has this temperature, or none."""
    shutil.copytree(run, "calibrated", dirs_exist_ok=True)
    model = json.loads(Path("calibrated/model.json").read_text()) | {"temperature": temperature}
    Path("calibrated/model.json").write_text(json.dumps({k: v for k, v in model.items() if v is not None}))
    return Path("calibrated")


@pytest.mark.parametrize(
    "pattern, wanted", [("photos/*/*.png", ""), ("photos/**", ""), ("photos/low/[!2]*", "low/1"), ("ph*/*/4*", "/4-")]
)
def test_a_pattern_is_the_images_that_it_matches(
    fastcls: Fastcls, digits_run: Path, photos: list[str], pattern: str, wanted: str
) -> None:
    outcome = fastcls("predict", digits_run, pattern)
    assert outcome.code == 0, outcome.output
    assert [row["path"] for row in text_rows(outcome.output)] == [photo for photo in photos if wanted in photo]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(
    fastcls: Fastcls, digits_run: Path, photos: list[str]
) -> None:
    shutil.copy(photos[0], "photo[1]*.png")
    assert [row["path"] for row in text_rows(fastcls("predict", digits_run, "photo[1]*.png").output)] == [
        "photo[1]*.png"
    ]
    outcome = fastcls("predict", digits_run, "nowhere/*.jpg")
    assert outcome.code == 3 and "nowhere/*.jpg: no image matches this pattern" in outcome.output


@pytest.mark.parametrize("table, text", [
    ("a.csv", "path,label\n{0},x\n{1},y\n"),
    ("b.csv", "\ufefflabel;Image\r\n1;{0}\r\n2;{1}\r\n\r\n"),
    ("c.tsv", "split\tfile\nx\t{0}\ny\t{1}\n"),
    ("d.csv", "{0}\n{1}\n"),
    ("photos/e.csv", 'n,filename\n1,"high/3-0.png"\n2,high/3-1.png\n'),
], ids=["path", "BOM, CRLF and semicolons", "tabs", "no titles", "beside the table"])  # fmt: skip
def test_a_table_of_paths(fastcls: Fastcls, digits_run: Path, photos: list[str], table: str, text: str) -> None:
    Path(table).write_bytes(text.format(*photos).encode())
    outcome = fastcls("predict", digits_run, table)
    assert outcome.code == 0, outcome.output
    assert [row["path"] for row in text_rows(outcome.output)] == photos[:2]


def test_predictions_are_a_table_of_paths_too(fastcls: Fastcls, digits_run: Path, photos: list[str]) -> None:
    assert fastcls("predict", digits_run, "photos", "-o", "first.csv").code == 0
    assert fastcls("predict", digits_run, "first.csv", "-o", "second.csv").code == 0
    assert Path("first.csv").read_bytes() == Path("second.csv").read_bytes()
    before = Path("first.csv").read_bytes()
    outcome = fastcls("predict", digits_run, "first.csv", "-o", "first.csv")
    assert outcome.code == 2 and "it is among the PATHS" in outcome.output
    assert Path("first.csv").read_bytes() == before


@pytest.mark.parametrize("data, parts", [
    (b"label,fold\nx,1\n", ["has no column of paths", "'label', 'fold'", "'path'"]),
    (b"", ["has no column of paths", "empty"]),
    (b"path\n\0\xff.png\n", ["not a CSV file", "not text"]),
    (b"path\n", ["Nothing to predict"]),
], ids=["other columns", "empty", "no text", "only titles"])  # fmt: skip
def test_a_table_without_paths_is_explained(fastcls: Fastcls, digits_run: Path, data: bytes, parts: list[str]) -> None:
    Path("table.csv").write_bytes(data)
    outcome = fastcls("predict", digits_run, "table.csv")
    assert outcome.code in (2, 3) and outcome.output.startswith("error: ")
    for part in parts:
        assert part in outcome.output


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_every_format_holds_the_same_table(
    fastcls: Fastcls, digits_run: Path, photos: list[str], plain: Rows, suffix: str
) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow", reason="needs pyarrow")
    Path("photos/broken.png").write_text("no image")
    outcome = fastcls("predict", digits_run, "photos", "-o", f"out.{suffix}", "--top-k", "2", "--probabilities")
    assert outcome.code == 3 and f"{len(photos)} of {len(photos) + 1} images labelled: out.{suffix}" in outcome.output
    if suffix == "csv":
        found = [{k: v or None for k, v in row.items()} for row in text_rows(Path("out.csv").read_text())]
    elif suffix == "jsonl":
        found = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    else:
        from pyarrow import parquet

        found = parquet.read_table("out.parquet").to_pylist()
    titles = ["path", "prediction", "confidence", "error", "top1", "p1", "top2", "p2", *(f"p:{i}" for i in range(10))]
    assert all(list(row) == titles for row in found)
    (broken,) = [row for row in found if row["error"]]
    assert broken["path"] == "photos/broken.png" and broken["error"] == "not an image"
    assert {broken[title] for title in titles if title not in ("path", "error")} == {None}
    for row, expected in zip([row for row in found if row is not broken], plain, strict=True):
        assert (row["path"], row["prediction"]) == (expected["path"], expected["prediction"])
        assert float(row["confidence"]) == pytest.approx(float(expected["confidence"]), rel=1e-5)
        shares = sorted((float(row[f"p:{i}"]) for i in range(10)), reverse=True)
        assert [float(row["p1"]), float(row["p2"])] == shares[:2] and float(row[f"p:{row['top2']}"]) == shares[1]
        assert row["top1"] == row["prediction"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_features_are_what_the_last_layer_is_given(
    fastcls: Fastcls, digits_run: Path, photos: list[str], plain: Rows, suffix: str
) -> None:
    """The last layer's weights make the same logits of them, up to a constant, in every format; Python has them too."""
    weights = load_file(digits_run / "model.safetensors")
    (matrix,) = [weight for name, weight in weights.items() if weight.ndim == 2]
    (bias,) = [weight for name, weight in weights.items() if weight.shape == (10,)]
    Path("photos/broken.png").write_text("no image")
    assert fastcls("predict", digits_run, "photos", "--features", "-o", f"out.{suffix}").code == 3
    if suffix == "parquet":
        frame = pd.read_parquet("out.parquet")
    else:
        frame = pd.read_csv("out.csv") if suffix == "csv" else pd.read_json("out.jsonl", lines=True)
    broken = frame["path"] == "photos/broken.png"
    if suffix == "csv":
        columns = [name for name in frame.columns if name.startswith("feature")]
        assert columns == [f"feature{i}" for i in range(matrix.shape[1])]
        assert frame.loc[broken, columns].isna().to_numpy().all()
        features = frame.loc[~broken, columns].to_numpy()
    else:
        assert frame.loc[broken, "features"].isna().all()
        features = np.stack(frame.loc[~broken, "features"])
        in_python = np.stack(Run(digits_run).predict(photos, features=True)["features"])
        np.testing.assert_allclose(in_python, features, rtol=1e-5)
    logits = features @ matrix.T + bias
    shares = np.exp(logits - logits.max(1, keepdims=True))
    expected = [[float(row[f"p:{i}"]) for i in range(10)] for row in plain]
    np.testing.assert_allclose(shares / shares.sum(1, keepdims=True), expected, atol=1e-4)


@pytest.mark.parametrize(
    "words, part", [(["--tta"], "Omit --tta"), (["--label-value", "index", "-o", "x.csv"], "--features: a Kaggle")]
)
def test_features_are_refused_where_there_are_none(
    fastcls: Fastcls, digits_run: Path, photos: list[str], words: list[str], part: str
) -> None:
    outcome = fastcls("predict", digits_run, "photos", "--features", *words)
    assert outcome.code == 2 and part in outcome.output and not Path("x.csv").exists()


def test_far_features_and_energy_each_make_an_image_unknown() -> None:
    """Three classes of known images, others far from all of them, and others near them of which the head is unsure."""
    rng = np.random.default_rng(0)
    centres = np.eye(3, 16)

    def drawn(n: int, energy: float, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        features = centres[np.arange(n) % 3] + rng.normal(0, 0.05, (n, 16))
        features[:, 8:] += shift
        return 7 * features, rng.normal(energy, 1, n)

    train = drawn(300, -10)
    known = unknown.fit(train[0], np.arange(300) % 3, *drawn(199, -10))
    flagged = [np.mean(known.p_known(*drawn(300, *how)) <= 0.1) for how in ((-10,), (-10, 1.0), (-3,))]
    assert flagged[0] < 0.18 and min(flagged[1:]) > 0.95
    assert known.p_known(*drawn(1, -10)).max() <= 1 and known.p_known(*drawn(1, 99)).min() == 1 / 200


def test_below_the_threshold_a_prediction_is_unsure(fastcls: Fastcls, digits_run: Path, plain: Rows) -> None:
    ranked = sorted(float(row["confidence"]) for row in plain)
    middle = sum(ranked[len(ranked) // 2 - 1 :][:2]) / 2  # none is at it, whatever rounding does
    outcome = fastcls("predict", digits_run, "photos", "--threshold", middle, "-o", "out.csv")
    below = [float(row["confidence"]) < middle for row in plain]
    assert f", {sum(below)} of them unsure: out.csv" in outcome.output
    for row, expected, is_below in zip(text_rows(Path("out.csv").read_text()), plain, below, strict=True):
        assert row["prediction"] == ("unsure" if is_below else expected["prediction"])
        assert row["confidence"] == expected["confidence"]


def test_calibrated_divides_the_logits_by_the_runs_temperature(fastcls: Fastcls, digits_run: Path, plain: Rows) -> None:
    answers = text_rows(
        fastcls("predict", calibrated(digits_run, 2.5), "photos", "--calibrated", "--probabilities").output
    )
    for row, before in zip(answers, plain, strict=True):
        p = np.array([float(before[f"p:{i}"]) for i in range(10)]) ** (1 / 2.5)
        assert [float(row[f"p:{i}"]) for i in range(10)] == pytest.approx(p / p.sum(), abs=1e-3)
        assert row["prediction"] == before["prediction"] and float(row["confidence"]) < float(before["confidence"])


@pytest.mark.parametrize(
    "temperature, part",
    [
        (None, "has no temperature"),
        (0, "temperature is 0"),
        (1e-308, "temperature is 1e-308"),
        ("hot", "got str at temperature"),
    ],
)
def test_a_run_without_a_temperature_says_how_to_get_one(
    fastcls: Fastcls, digits_run: Path, photos: list[str], temperature: object, part: str
) -> None:
    outcome = fastcls("predict", calibrated(digits_run, temperature), "photos", "--calibrated", "-o", "out.csv")
    assert outcome.code == 4 and part in outcome.output and not Path("out.csv").exists()
    assert "train again" in outcome.output or temperature is not None


def test_tta_is_the_mean_over_the_image_and_its_mirror_image(
    fastcls: Fastcls, digits_run: Path, photos: list[str], plain: Rows
) -> None:
    for photo in photos:
        ImageOps.mirror(Image.open(photo)).save(photo)
    mirrored = text_rows(fastcls("predict", digits_run, "photos", "--probabilities").output)
    both = text_rows(fastcls("predict", digits_run, "photos", "--probabilities", "--tta").output)
    for row, *views in zip(both, plain, mirrored, strict=True):
        for title in (f"p:{i}" for i in range(10)):
            assert float(row[title]) == pytest.approx(sum(float(view[title]) for view in views) / 2, rel=1e-4)


@pytest.mark.parametrize("words, code, parts", [
    (["--threshold", "1.5"], 2, ["--threshold 1.5", "from 0 to 1"]),
    (["--threshold", "nan"], 2, ["--threshold nan"]),
    (["--top-k", "11"], 2, ["--top-k 11", "has 10 classes"]),
    (["--top-k", "3", "--id", "stem", "-o", "s.csv"], 2, ["--top-k", "Kaggle"]),
    (["-o", "out.xlsx"], 2, ["-o out.xlsx", ".csv, .jsonl, .ndjson, .parquet"]),
    (["-o", "photos/low/1-0.png"], 2, [".png is not a supported format"]),
    (["-o", "nowhere/out.csv"], 4, ["-o nowhere/out.csv", "cannot be written"]),
    (["-o", "/dev/null"], 4, ["-o /dev/null", "cannot be written"]),
    (["-o", "RUN/predictions.csv"], 2, ["is a file of the run"]),
], ids=lambda value: " ".join(value) if isinstance(value, list) and value[0].startswith("-") else "")  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_written(
    fastcls: Fastcls, digits_run: Path, photos: list[str], words: list[str], code: int, parts: list[str]
) -> None:
    before = (digits_run / "predictions.csv").read_bytes(), Path("photos/low/1-0.png").read_bytes()
    words = [word.replace("RUN", str(digits_run)) for word in words]
    outcome = fastcls("predict", digits_run, "photos", *words)
    assert outcome.code == code, outcome.output
    for part in parts:
        assert part in outcome.output
    assert before == ((digits_run / "predictions.csv").read_bytes(), Path("photos/low/1-0.png").read_bytes())
    assert [file.name for file in Path().iterdir()] == ["photos"]
    assert not Path("/dev/null").is_file()


def test_a_class_called_unsure_is_not_mixed_up(fastcls: Fastcls, digits_run: Path, photos: list[str]) -> None:
    shutil.copytree(digits_run, "run")
    model = json.loads(Path("run/model.json").read_text())
    model["classes"][0] = "unsure"
    Path("run/model.json").write_text(json.dumps(model))
    outcome = fastcls("predict", "run", "photos", "--threshold", "0.5")
    assert outcome.code == 2 and "'unsure' is a class of this run" in outcome.output
