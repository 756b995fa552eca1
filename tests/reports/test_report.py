"""The report of a run, made from fabricated run folders and opened in a real browser."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricated import make_run
from PIL import Image

from fastcls.errors import OutputError
from fastcls.reports import heat, learning, page, thumbnails
from fastcls.reports import scores as scored
from fastcls.reports.build import write
from fastcls.runfolder.run import open_run
from fastcls.runfolder.text import clean

HOSTILE = [
    "</script><script>window.owned=1</script>",
    '"><img src=x onerror="window.owned=1">',
    "$x_1^2$ & <b>bold</b>",
    "{{ 7*7 }} {% raw %}",
    "קִיפּוֹד כתום",
    "樹獺",
    "w" * 200,
    "a\nb\tc \u202e rtl",
    "NA",
    "_hidden 'quotes' `ticks`",
    "<svg/onload=window.owned=1>",
    "<iframe src=javascript:window.owned=1>",
    "javascript:window.owned=1",
    "' onmouseover='window.owned=1",
    "</style><style>body{display:none}",
    "</title><h1>title",
    "<!-- never closed",
    "]]></svg><script>window.owned=1</script>",
    "&lt;i&gt; &amp; &#x3C;",
    "%s %(name)s %n {0} {name}",
    "${7*7} #{7*7} <%= 7*7 %>",
    r"\frac{1}{2} \n \u0041 \\",
    "$$\\alpha_{i}^{2}$$",
    "a^b_c ~ d#e%f",
    "=HYPERLINK(1,2)",
    "+1-1@SUM(A1)",
    "../../../etc/passwd",
    "C:\\temp\\new",
    "a/b\\c:d*e?f|g",
    ',;"\',","",',
    "line\r\nbreak\u2028and\u2029two",
    "\u0001start of heading \u0007bell",  # NUL is refused in labels: pandas before 3.1 ends a cell there
    "\ufeffbyte order mark",
    "\u200bzero\u200d width\u200c",
    "\u202egnp.exe\u202c",
    "\u2066isolated\u2069 عربى",
    "Z\u0351\u0329a\u0328\u0321l\u0334\u0341g\u0335o\u0336",
    "é and e\u0301",
    "👩\u200d👩\u200d👧 🏳️\u200d🌈",
    "  spaces  at  ends  ",
]
SECTIONS = [
    "headline",
    "learning",
    "confusions",
    "classes",
    "losses",
    "trust",
    "decisions",
    "suspects",
    "data",
    "network",
    "settings",
]


class Page(HTMLParser):
    """What the tests ask of a page: its elements with their attributes and texts, well nested."""

    VOID = frozenset({"meta", "link", "img", "br", "input", "wbr"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        words = "".join(data for tag, data in self.texts if tag not in ("script", "style"))
        return re.sub(r"[ \n]+", " ", words)


def report(run: Path, split: str | None = None) -> Page:
    made = write(run, split)
    assert made == run / "report.html"
    assert not list(run.glob("**/.*")), "a temporary file stayed behind"
    assert made.stat().st_size < 10_000_000
    return Page(made.read_text(encoding="utf-8"))


def check_closed(made: Page) -> None:
    """Nothing is asked of the network, and the policy would forbid it."""
    policy = next(str(m["content"]) for m in made.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;") and "script-src 'sha256-" in policy
    assert len(made.all("script")) == 1
    for tag, attributes in made.elements:
        assert tag not in ("iframe", "object", "embed", "base", "form")
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href"):
            assert str(attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Page]:
    run = make_run(tmp_path_factory.mktemp("ten") / "run", [str(i) for i in range(10)], splits=("valid", "test"))
    return run, report(run, "test")


def test_sections_and_figures(ten: tuple[Path, Page]) -> None:
    run, made = ten
    check_closed(made)
    assert [section["id"] for section in made.all("section")] == SECTIONS
    figures = {file.stem for file in (run / "figures").iterdir()}
    assert figures == {
        *("loss", "metric-accuracy", "learning-rate", "confusion-matrix"),
        *("precision-recall", "roc", "reliability", "coverage"),
    }
    for file in (run / "figures").iterdir():
        with Image.open(file) as image:
            assert image.width > 800 and image.convert("RGB").getpixel((2, 2)) == (255, 255, 255)
    text = made.text
    for words in (
        "Top-5 accuracy",
        "95\u202f% interval",
        "n = 60 images",
        "5\u202fmin 31\u202fs",
        "A processor",
        "Beware.",
    ):
        assert words in text
    assert "fastcls recipe toy --epochs 6" in text and "which agrees with it" in text
    assert "Always predicting “0”, the most common class, would be right for 10.0\u202f%" in text
    ids = [attributes["id"] for _, attributes in made.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    assert len(made.all("svg")) == 2 * len(figures) - 1 and all(  # wide and narrow, but the matrix
        svg["role"] == "img" and svg["aria-label"] for svg in made.all("svg")
    )
    assert all("pixelated" in str(image.get("class")) for image in made.all("img"))
    assert "#a1b2" not in (run / "report.html").read_text(encoding="utf-8"), "a stand-in colour was not replaced"


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Of a run whose images are gone, with decisions by what mistakes cost."""
    folder = tmp_path_factory.mktemp("decided")
    run = make_run(folder / "run", ["a", "b", "c"], images=30, pictures=False)
    names = ["a", "b", "c", "refuse"]
    costs = [["true", *names], *([own, *(50 * (own != name) for name in names[:3]), 0.1] for own in names[:3])]
    (folder / "costs.csv").write_text("\n".join(",".join(map(str, row)) for row in costs))
    return Page(write(run, costs=str(folder / "costs.csv")).read_text(encoding="utf-8"))


def test_classes_without_a_threshold_are_one_sentence_and_decisions_never_made_are_not_listed(decided: Page) -> None:
    text = " ".join(decided.text.split())
    assert (
        "Thresholds for a precision or recall of 95 %: 3 classes without one: a recall needs 19 images of the class"
        in text
    )
    assert "Tuned on 15 valid images, evaluated on the other 15." in text
    assert "refuse 100 %" in text and " 0 %" not in text.split("refuse 100 %")[1][:30]


def test_images_may_be_gone(decided: Page) -> None:
    assert not decided.all("img")
    assert "image not found" in decided.text and "no longer where the run found them" in decided.text


def test_split(ten: tuple[Path, Page]) -> None:
    assert "toy · test split (also evaluated: valid)" in ten[1].text
    with pytest.raises(OutputError, match="did you mean 'test'"):
        write(ten[0], "tset")


def test_same_files_same_page(ten: tuple[Path, Page]) -> None:
    first = (ten[0] / "report.html").read_bytes()
    assert write(ten[0], "test").read_bytes() == first


def test_37_classes_are_drawn_whole(tmp_path: Path) -> None:
    names = [f"breed_of_dog_{i:02}" for i in range(37)]
    made = report(make_run(tmp_path / "run", names, images=74, epochs=20, side=120))
    assert "Confusion matrix, valid split, 37 classes" in made.text
    assert {"open": None} not in made.all("details"), "a table of 20 epochs starts collapsed"


def test_150_classes_show_the_most_confused(tmp_path: Path) -> None:
    names = [f"class {i:03}" for i in range(150)]
    made = report(make_run(tmp_path / "run", names, images=400, pictures=False))
    check_closed(made)
    assert "The 20 most confused classes, valid split" in made.text
    assert len([row for row in made.all("td") if "data-value" in row]) == 150 * 6 + 150  # a class's figures; its images


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Page]:
    """A run whose every text is markup of some kind, and its page."""
    texts = dict(zip(("title", "claim", "command", "recipe", "reason", "status"), HOSTILE, strict=False))
    run = make_run(tmp_path_factory.mktemp("hostile") / "run", HOSTILE, notes=HOSTILE, **texts)
    return run, report(run)


def test_hostile_names_are_inert(hostile: tuple[Path, Page]) -> None:
    made = hostile[1]
    check_closed(made)
    for name in HOSTILE:
        assert clean(name) in made.text
    assert not made.all("b") or all(set(b) == {"style"} for b in made.all("b"))


def test_failed_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["cat", "dog"], status="failed", reason="the loss became NaN", best_epoch=None)
    names = ("metrics.json", "predictions.csv", "model.json", "history.csv")
    for name in names:
        (run / name).unlink()
    made = report(run)
    check_closed(made)
    assert [section["id"] for section in made.all("section")] == SECTIONS
    assert all(f"{name} is missing" in made.text for name in names)
    assert "This run failed: the loss became NaN. This page shows what it has written so far." in made.text
    assert "The run has no metrics" in made.text


@pytest.mark.parametrize("name", ["metrics.json", "predictions.csv", "model.json", "history.csv"])
@pytest.mark.parametrize(
    "content", ["", "[1, 2", "a,b\n1,2\n", "[]", '{"valid": {"accuracy": "x"}, "summary": 3}', "\x00"]
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: str) -> None:
    run = make_run(tmp_path / "run", ["cat", "dog"], images=4, pictures=False)
    (run / name).write_text(content)
    files = open_run(run)
    assert any(sentence.startswith(name) for sentence in files.missing) or name in ("metrics.json", "model.json")
    page.callouts(files, "valid", scored.scores(files, "valid"), None)
    page.layers(files), page.settings(files), page.learning(files, 2)


def test_unreadable_run(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no run folder"):
        write(tmp_path / "nothing")
    with pytest.raises(OutputError, match=r"run\.json is missing"):
        write(tmp_path)
    (tmp_path / "run.json").write_text("[")
    with pytest.raises(OutputError, match="cannot be read"):
        write(tmp_path)


CHANCE = (0.0, math.log(10))  # the bounds of a cross-entropy over ten classes of one size


@pytest.mark.parametrize(
    ("train", "valid", "answer"),
    [
        ([1.0, 0.5], [1.0, 0.6], "Too few epochs to tell"),
        ([1.0, 0.5, 0.3, 0.1], [1.0, 0.6, 0.7, 0.9], "Over-fitting after epoch 2"),
        ([1.0, 0.5, 0.9, 1.1], [1.0, 0.6, 0.9, 1.2], "Unsteady"),
        ([2.3, 2.28, 2.27], [2.3, 2.29, 2.28], "Under-fitting"),
        ([1.0, 0.8, 0.6], [1.0, 0.8, 0.6], "No over-fitting seen"),
        ([1.0, 0.4, 0.2, 0.1], [1.0, 0.6, 0.5, 0.505], "No harmful over-fitting seen"),
        ([1.0, math.inf, math.nan], [1.0, 0.6, 0.5], "Diverged"),
        ([1.0, math.nan, math.nan], [1.0, 0.6, 0.5], "Too few epochs to tell"),
    ],
)
def test_verdict(train: list[float], valid: list[float], answer: str) -> None:
    assert learning.verdict(history(train, valid, steps=1000), CHANCE).answer == answer


def history(train: list[float], valid: list[float], steps: int) -> Any:
    """What history.csv says of epochs of so many steps each."""
    import pandas as pd

    epochs = np.arange(1.0, len(train) + 1)
    columns = {"epoch": epochs, "step": steps * epochs, "train_loss": train, "valid_loss": valid}
    return pd.DataFrame({"phase": "whole network", **columns})


def test_few_steps_are_not_called_free_of_over_fitting() -> None:
    losses = [2.2, 1.8, 1.4], [2.1, 1.7, 1.2]
    assert learning.verdict(history(*losses, steps=9), CHANCE).answer == "Hardly trained"
    assert learning.verdict(history(*losses, steps=900), CHANCE).answer == "No over-fitting seen"


@pytest.mark.parametrize(("bounds", "train", "valid", "answer"), [
    ((0.0, 1.87), [1.6, 1.55, 1.5], [1.6, 1.55, 1.5], "Under-fitting"),  # focal; below 0.7 ln 10
    ((0.0, 1.87), [0.9, 0.6, 0.5], [0.9, 0.6, 0.55], "Hardly trained"),
    ((0.5, 2.3), [1.0, 0.62, 0.61], [0.9, 0.66, 0.655], "No over-fitting seen"),  # label smoothing; above 0.25 ln 10
    ((0.5, 2.3), [1.9, 1.85, 1.8], [1.9, 1.85, 1.8], "Under-fitting"),
    ((0.0, 2.3), [0.005, 0.002, 0.0007], [0.004, 0.001, 0.0005], "No over-fitting seen"),
    ((0.0, 0.33), [0.31, 0.3, 0.3], [0.31, 0.3, 0.3], "Under-fitting"),  # nine of ten images in one of two classes
    ((0.0, 2.3), [1.6, 1.5, 1.5], [0.5, 0.4, 0.38], "No over-fitting seen"),  # mixed images
])  # fmt: skip
def test_the_verdict_knows_what_the_loss_can_be(
    bounds: tuple[float, float], train: list[float], valid: list[float], answer: str
) -> None:
    assert learning.verdict(history(train, valid, steps=50), bounds).answer == answer


def test_the_probe_is_no_epoch_of_training() -> None:
    import pandas as pd

    solved = history([0.1], [0.5], steps=0).assign(phase="linear probe", epoch=0.0)
    trained = history([0.9, 0.5, 0.3], [0.48, 0.46, 0.45], steps=1000)
    assert learning.verdict(solved, CHANCE).answer == "Linear probe"
    assert learning.verdict(pd.concat([solved, trained]), CHANCE) == learning.verdict(trained, CHANCE)


def test_claims() -> None:
    accuracy = scored.Score("accuracy", 0.94, 0.92, 0.96, 300)
    assert "agrees" in scored.claim_sentence("error rate 5.5 % ± 0.2 (n = 5 seeds), 4 min", accuracy, False)
    assert "worse" in scored.claim_sentence("accuracy 99.1 %", accuracy, False)
    assert "better" in scored.claim_sentence("error rate 20 %", accuracy, True)
    assert "part of the data" in scored.claim_sentence("error rate 20 %", accuracy, True)
    assert "Compare" in scored.claim_sentence("top-5 accuracy 99 %", accuracy, False)
    assert "not been measured yet" in scored.claim_sentence("not measured yet", accuracy, False)
    seeds = "accuracy 97.0 % ± 1.5 (mean ± sd, n = 5 seeds)"  # another run may lie so far from the mean, too
    assert "agrees" in scored.claim_sentence(seeds, accuracy, False)
    assert "worse" in scored.claim_sentence(seeds.replace("1.5", "0.1"), accuracy, False)
    assert "not comparable" in scored.claim_sentence("test accuracy 94.0 % (n = 1)", accuracy, False, "valid")
    assert "agrees" in scored.claim_sentence("test accuracy 94.0 % (n = 1)", accuracy, False, "test")


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16"])
def test_thumbnails_of_every_mode(tmp_path: Path, mode: str) -> None:
    file = tmp_path / ("image.tiff" if mode in ("CMYK", "I;16") else "image.png")
    Image.new("L", (90, 70), 120).convert(mode.replace("I;16", "I")).convert(mode).save(file)
    assert thumbnails.Thumbnails(tmp_path).tile(file.name).src.startswith("data:image/")


def test_thumbnails_are_bounded_and_upright(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (900, 600, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise).save(tmp_path / "turned.jpg", exif=exif)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    Image.new("F", (9, 9)).save(tmp_path / "float.tiff")
    tiles = thumbnails.Thumbnails(tmp_path)
    assert len(tiles.tile("turned.jpg").src) <= thumbnails.MOST_BYTES
    assert tiles.tile("broken.jpg").why == "image cannot be read"
    assert tiles.tile("float.tiff").why == "not an 8-bit or 16-bit image"


def test_a_split_of_one_class_has_no_ranking(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["cat", "dog"], images=20)
    header, *rows = (run / "predictions.csv").read_text().splitlines(keepends=True)
    (run / "predictions.csv").write_text(header + "".join(row for row in rows if row.split(",")[2] == "cat"))
    made = report(run)
    assert "All images of this split are of one class" in made.text
    assert not any("ROC" in svg["aria-label"] for svg in made.all("svg"))


def opacity(values: Any, spec: Any, ratio: float) -> Any:
    found = heat.overlay(np.asarray(values, np.uint8), spec, ratio)
    if found is None:
        return None
    with Image.open(io.BytesIO(base64.b64decode(found.src.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGBA"))[..., 3]


def test_heat_ends_softly_inside_a_picture_and_is_whole_at_its_edges() -> None:
    hot = np.full((4, 4), 255)
    seen = opacity(hot, {"method": "crop", "resize": [8, 8], "size": [8, 8]}, 2.0)  # a picture twice as wide as high
    assert seen[:, [0, -1]].max() < 30 and seen[[0, -1], 20:-20].min() > 150
    assert np.abs(np.diff(seen[28].astype(int))).max() < 60
    assert opacity(hot, {"method": "squish", "resize": [8, 8], "size": [8, 8]}, 2.0).min() > 150
    assert opacity(hot * 0, {}, 1.0) is None


def test_in_a_browser(browser: Any, hostile: tuple[Path, Page]) -> None:
    browser.get((hostile[0] / "report.html").as_uri())
    script = browser.execute_script
    rows = "[...document.querySelectorAll('#class-table tbody tr:not([hidden])')]"
    column = f"return {rows}.map(r => r.cells[{{}}].innerText)"

    script("document.documentElement.style.scrollBehavior = 'auto'")
    heads = browser.find_elements("css selector", "#class-table th button")
    heads[0].click()
    names = script(column.format(0))
    heads[0].click()
    assert script(column.format(0)) == names[::-1] and len(names) == len(HOSTILE)
    heads[3].click()
    recalls = [float(text.split()[0].rstrip("%")) for text in script(column.format(3))]
    assert recalls == sorted(recalls)
    assert script("return document.querySelectorAll('th[aria-sort]').length") == 1
    browser.find_element("id", "find").send_keys("BOLD")
    assert script(column.format(0)) == [clean(HOSTILE[2])]
    assert browser.find_element("id", "found").text == f"1 of {len(HOSTILE)} classes"

    paper = "return getComputedStyle(document.body).backgroundColor"
    light = script(paper)
    browser.find_element("id", "theme").click()
    assert script(paper) != light
    browser.find_element("id", "theme").click()
    assert script(paper) == light
    browser.find_element("css selector", "[data-copy]").click()

    for width in (390, 320, 800, 1280):
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        script("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert script("return document.documentElement.scrollWidth") <= width
        cut = "i => i.className != 'heat' && i.offsetHeight > i.parentElement.clientHeight"
        assert script(f"return [...document.querySelectorAll('.picture img')].filter({cut}).length") == 0
        if width == 390:
            letters = script("""return [...document.querySelectorAll('.charts svg')].filter(svg => svg.clientWidth).map(
                svg => svg.clientWidth / svg.viewBox.baseVal.width *
                Math.min(...[...svg.querySelectorAll('text')].map(t => parseFloat(getComputedStyle(t).fontSize))))""")
            assert letters and min(letters) > 9, letters

    assert script("return window.owned") is None
    assert browser.get_log("browser") == []
    entries = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in entries if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in asked if url.startswith("file:")]) == 1
