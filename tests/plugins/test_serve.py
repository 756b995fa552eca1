"""`fastcls serve`: the page in a real browser, its server over HTTP, the command."""

from __future__ import annotations

import base64
import csv
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, Fastcls, command
from folders import csv_rows, images_of
from PIL import Image

pytest.importorskip("starlette", reason="needs the extra serve")
pytest.importorskip("uvicorn", reason="needs the extra serve")

from fastcls.cli import serve as cli
from fastcls.inference.neighbours import Neighbours
from fastcls.plugins.serve.app import BYTES, application, is_ours
from fastcls.plugins.serve.server import listen, server, url
from fastcls.plugins.serve.site import Site

MARKUP = "<img src=x onerror=document.title='owned'>.png"


def rows(run: Path) -> list[dict[str, str]]:
    return csv_rows(run / "predictions.csv")


@pytest.fixture(scope="module")
def site(digits_run: Path) -> Site:
    calibrated, explainer = cli._explainer(digits_run)
    return Site(digits_run, explainer, calibrated=calibrated, most_bytes=100_000, most_files=12)


@pytest.fixture(scope="module")
def address(site: Site) -> Iterator[str]:
    """The page of the small run, served by a thread, with every known image looked at."""
    with listen("127.0.0.1", 0) as listening, site.looking():
        ready = server(application(site))
        thread = threading.Thread(target=ready.run, kwargs={"sockets": [listening]})
        thread.start()
        for one in threading.enumerate():
            if one.name == "neighbours":
                one.join()
        yield url(listening)
        ready.should_exit = True
        thread.join()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    browser.get(address)
    yield browser
    asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [one["params"]["request"]["url"] for one in asked if one["method"] == "Network.requestWillBeSent"]
    assert urls and all(one.startswith((address, "data:")) for one in urls), "something else was asked for"
    assert browser.get_log("browser") == [], "the console has something to say"


def drop(page: Any, *files: Path | str) -> list[Any]:
    """Choose files; gives their items, the first file's first, once all have an answer."""
    page.find_element("id", "files").send_keys("\n".join(map(str, files)))
    return answers(page, len(files))


def answers(page: Any, count: int) -> list[Any]:
    from selenium.webdriver.support.wait import WebDriverWait

    def settled(page: Any) -> bool:
        script = (
            "return [document.querySelectorAll('#answers > li').length, document.querySelectorAll('.waiting').length]"
        )
        found, waiting = page.execute_script(script)
        return found >= count and waiting == 0

    WebDriverWait(page, 30, 0.05).until(settled)
    return page.find_elements("css selector", "#answers > li")[:count]


def one(item: Any, selector: str) -> Any:
    return item.find_element("css selector", selector)


def test_a_dropped_picture_gets_the_probabilities_of_predict(page: Any, digits_run: Path, tmp_path: Path) -> None:
    files = [tmp_path / MARKUP, tmp_path / "second.png"]
    for file, row in zip(files, rows(digits_run), strict=False):
        shutil.copy(images_of(digits_run) / row["path"], file)
    predicted = command("predict", digits_run, *files, "--calibrated", "--top-k", 5)
    for item, row in zip(drop(page, *files), csv.DictReader(io.StringIO(predicted.output)), strict=True):
        assert one(item, "h3").text == Path(row["path"]).name, "a name is text, whatever it holds"
        shown = item.find_elements("css selector", ".top5 li")
        assert [one(line, ".name").text for line in shown] == [row[f"top{k}"] for k in range(1, 6)]
        for k, line in enumerate(shown, 1):
            assert float(line.get_attribute("data-value")) == pytest.approx(float(row[f"p{k}"]), abs=1e-4)
        assert one(item, ".answer strong").text == row["prediction"]
        assert one(item, ".rest").text == "5 more classes share the rest."
        assert "8 × 8 pixels" in one(item, ".seen p").text
    assert page.find_element("id", "status").text == "2 images processed."
    assert "probabilities calibrated (temperature" in page.find_element("css selector", ".facts").text
    assert page.title != "owned"


def test_the_picture_is_shown_as_the_network_sees_it(page: Any, digits_run: Path) -> None:
    file = images_of(digits_run) / rows(digits_run)[3]["path"]
    (item,) = drop(page, file)
    source = one(item, ".seen img").get_attribute("src")
    with Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))) as seen, Image.open(file) as original:
        assert seen.mode == "L" and seen.tobytes() == original.convert("L").tobytes()


def test_grad_cam_is_switched_on_and_shown_for_any_class_by_keyboard(page: Any, digits_run: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    (item,) = drop(page, images_of(digits_run) / rows(digits_run)[0]["path"])

    def shown() -> list[str | None]:
        heats = item.find_elements("css selector", ".heat")
        return [heat.get_attribute("data-class") for heat in heats if heat.is_displayed()]

    switch = page.find_element("id", "heat")
    assert shown() == [] and not switch.is_selected()
    switch.send_keys(Keys.SPACE)
    assert shown() == ["0"]
    buttons = item.find_elements("css selector", ".top5 button")
    buttons[2].send_keys(Keys.ENTER)
    assert shown() == ["2"]
    assert [button.get_attribute("aria-pressed") for button in buttons] == ["false", "false", "true", "false", "false"]
    picture, heat = one(item, ".seen .picture").rect, one(item, ".heat[data-class='2']").rect
    assert heat["width"] == pytest.approx(picture["width"], abs=1) and heat["x"] == pytest.approx(picture["x"], abs=1)
    switch.send_keys(Keys.SPACE)
    assert shown() == []


def test_every_control_is_reached_by_the_tab_key(page: Any, digits_run: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    drop(page, images_of(digits_run) / rows(digits_run)[0]["path"])
    page.execute_script("document.activeElement.blur(); window.getSelection().removeAllRanges()")
    reached = []
    for _ in range(12):
        ActionChains(page).send_keys(Keys.TAB).perform()
        reached.append(
            page.execute_script("const e = document.activeElement; return e.id || e.className || e.dataset.class")
        )
    expected = ["files", "threshold", "heat", "clear", "0", "1", "2", "3", "4"]
    assert [name for name in reached if name in expected] == expected


def test_a_known_mistake_is_recognised_and_named(page: Any, digits_run: Path, site: Site) -> None:
    mistake = next(row for row in rows(digits_run) if row["label"] != row["prediction"])
    (item,) = drop(page, images_of(digits_run) / mistake["path"])
    assert one(item, ".near .callout").text == "This image, or a near copy of it, is one of the run’s mistakes."
    shown = item.find_elements("css selector", ".mistakes li")
    assert len(shown) == 4
    words = [one(line, "p").text.replace("\n", " ") for line in shown]
    assert f"{mistake['label']} misclassified as {mistake['prediction']} similarity 1.00" in words
    assert all(one(line, "img").get_attribute("naturalWidth") != "0" for line in shown)
    wrong = sum(row["label"] != row["prediction"] for row in rows(digits_run))
    assert f"Compared: {wrong} mistakes and as many correct predictions on the valid split." in one(item, ".basis").text
    assert site.neighbours.mistakes == wrong


def test_pictures_among_mistakes_are_warned_of_with_the_runs_own_figures(
    address: str, digits_run: Path, site: Site
) -> None:
    warned = 0
    for row in rows(digits_run)[::9]:
        words = site.answer((images_of(digits_run) / row["path"]).read_bytes())
        wrong = int((re.search(r"(\d+) of the 10 images\s+nearest to it are mistakes", words) or [0, 0])[1])
        if "resembles mistakes of the run" in words:
            warned += 1
            assert wrong >= 7
            assert f"of the predictions are wrong; overall, {100 * site.neighbours.error:.0f}" in words
        elif "or a near copy of it" not in words:
            assert wrong < 7
    assert 0 < warned < 20


def test_what_the_network_is_unsure_of_follows_the_slider(page: Any, digits_run: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    items = drop(page, *(images_of(digits_run) / row["path"] for row in rows(digits_run)[:3]))
    slider = page.find_element("id", "threshold")

    def unsure() -> list[bool]:
        return [one(item, ".answer .badge").is_displayed() for item in items]

    slider.send_keys(Keys.END)
    assert page.find_element("id", "threshold-value").text == "100\u202f%" and unsure() == [True] * 3
    slider.send_keys(Keys.HOME)
    assert unsure() == [False] * 3
    slider.send_keys(Keys.PAGE_UP * 4)
    sure = [row for row in rows(digits_run) if float(row["calibrated"]) >= 0.4]
    right = sum(row["label"] == row["prediction"] for row in sure)
    said = f"{100 * len(sure) / len(rows(digits_run)):.1f}\u202f% of the {len(rows(digits_run))} images"
    words = page.find_element("id", "coverage").text
    assert said in words and f"{100 * right / len(sure):.1f}\u202f% of them correctly" in words


def test_dragging_and_pasting_do_as_well_as_choosing(page: Any, digits_run: Path) -> None:
    raw = (images_of(digits_run) / rows(digits_run)[0]["path"]).read_bytes()
    page.execute_script(
        """
        const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
        const carried = new DataTransfer();
        carried.items.add(new File([bytes], "dragged.png", { type: "image/png" }));
        const how = { dataTransfer: carried, bubbles: true, cancelable: true };
        for (const kind of ["dragover", "drop"]) document.body.dispatchEvent(new DragEvent(kind, how));
        document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: carried }));
        """,
        base64.b64encode(raw).decode(),
    )
    items = answers(page, 2)
    assert [one(item, "h3").text for item in items] == ["dragged.png"] * 2
    assert one(items[0], ".answer").text == one(items[1], ".answer").text


def test_hostile_uploads_get_a_message_and_leave_nothing(page: Any, digits_run: Path, tmp_path: Path) -> None:
    kept = sorted(file for file in digits_run.rglob("*"))
    good = images_of(digits_run) / rows(digits_run)[0]["path"]
    Image.new("L", (12_500, 7_000)).save(tmp_path / "bomb.png")
    Image.new("L", (9, 7)).save(tmp_path / "another size.png")
    files: dict[str, tuple[bytes | None, str]] = {
        "text.jpg": (b"this is no picture", "This is not an image in a supported format."),
        "empty.png": (b"", "The file is empty: 0 bytes."),
        "drawing.svg": (
            b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
            "This is an SVG drawing",
        ),
        "huge.jpg": (b"\xff\xd8\xff" + bytes(200_000), "The file has 0.2 MB; the limit is 0.1 MB."),
        "half.png": (good.read_bytes()[:60], "The image is damaged"),
        "bomb.png": (None, "The image has 12,500 × 7,000 pixels"),
        "another size.png": (None, "9 × 7 pixels, but the network expects 8 × 8."),
    }
    for name, (content, _) in files.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
    *refused, last = drop(page, *(tmp_path / name for name in files), good)
    for item, (name, (_, reason)) in zip(refused, files.items(), strict=True):
        assert "refused" in item.get_attribute("class") and one(item, "h3").text == name
        assert one(item, "p").text.startswith(reason), name
    assert one(last, ".answer").text, "and the next picture is looked at as ever"
    assert page.find_element("id", "status").text == f"1 image processed, {len(files)} refused."
    assert sorted(file for file in digits_run.rglob("*")) == kept


def test_no_more_than_some_are_taken_at_once_and_all_can_be_cleared(page: Any, digits_run: Path, site: Site) -> None:
    raw = base64.b64encode((images_of(digits_run) / rows(digits_run)[0]["path"]).read_bytes()).decode()
    page.execute_script(
        """
        const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
        const carried = new DataTransfer();
        for (let i = 0; i < arguments[1]; i++) carried.items.add(new File([bytes], `${i}.png`));
        document.dispatchEvent(new DragEvent("drop", { dataTransfer: carried, cancelable: true }));
        """,
        raw,
        site.most_files + 3,
    )
    assert len(answers(page, site.most_files)) == site.most_files
    status = page.find_element("id", "status")
    assert status.text == f"{site.most_files} images processed, 3 left out: at most {site.most_files} at once."
    assert len(page.find_elements("css selector", "#answers > li")) == site.most_files
    page.find_element("id", "clear").click()
    assert page.find_elements("css selector", "#answers > li") == [] and status.text == ""


def test_the_page_fits_a_phone(page: Any, digits_run: Path, tmp_path: Path) -> None:
    long = tmp_path / f"{'a_very_long_name' * 12}.png"
    shutil.copy(images_of(digits_run) / rows(digits_run)[0]["path"], long)
    try:
        page.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
        )
        (item,) = drop(page, long)
        page.find_element("id", "heat").click()
        root = "document.documentElement"
        assert page.execute_script(f"return {root}.scrollWidth - {root}.clientWidth") == 0
        assert one(item, ".seen .picture").rect["width"] >= 120
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def ask(address: str, method: str = "GET", path: str = "/", body: Any = None, **headers: str) -> tuple[int, str, Any]:
    """Status, text and headers of an answer."""
    connection = http.client.HTTPConnection(address.split("/")[2], timeout=60)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers
    finally:
        connection.close()


def test_other_sites_are_kept_away(address: str, digits_run: Path) -> None:
    raw = (images_of(digits_run) / rows(digits_run)[0]["path"]).read_bytes()
    assert ask(address)[0] == 200
    port = address.split(":")[2].strip("/")
    assert ask(address, Host=f"localhost:{port}")[0] == 200
    for name in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "", "[::2]"):
        status, text, headers = ask(address, Host=name)
        assert status == 421 and "nosniff" in headers["x-content-type-options"] and "fastcls" not in text
        assert ask(address, "POST", "/look", raw, Host=name, Content_Type=BYTES)[0] == 421
    for kind in ("text/plain", "multipart/form-data; boundary=x", "image/png"):  # which any page may send anywhere
        assert ask(address, "POST", "/look", raw, Content_Type=kind)[0] == 415
    status, _, headers = ask(address, "OPTIONS", "/look", Origin="http://evil.example")
    assert status == 405 and not [name for name in headers if name.lower().startswith("access-control")]
    _, _, headers = ask(address)
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert "script-src 'sha256-" in policy and headers["cache-control"] == "no-store" and "server" not in headers
    for path in ("/redoc", "/../etc/passwd", "/look", "/report.html"):
        assert ask(address, path=path)[0] in (404, 405)


def form(**files: bytes) -> dict[str, Any]:
    """The body of a form with these files, and its type."""
    parts = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n%s\r\n' % (name.encode(), data)
        for name, data in files.items()
    )
    return {"body": b"".join(parts) + b"--x--\r\n", "Content_Type": "multipart/form-data; boundary=x"}


def test_programs_get_what_predict_writes(address: str, digits_run: Path, fastcls: Fastcls) -> None:
    files = [images_of(digits_run) / row["path"] for row in rows(digits_run)[:3]]
    outcome = fastcls("predict", digits_run, *files, "--json", "--top-k", 2, "--calibrated")
    expected = json.loads(outcome.stdout)
    sent = form(**{file.name: file.read_bytes() for file in files}, broken=b"no picture")
    status, text, _ = ask(address, "POST", "/predict?top_k=2", **sent)
    *rows_of_pictures, broken = json.loads(text)["predictions"]
    assert status == 200 and json.loads(text)["calibrated"]
    for row, same, file in zip(rows_of_pictures, expected, files, strict=True):
        assert list(row) == list(same) and row.pop("path") == file.name
        for name, value in row.items():
            assert value == (pytest.approx(same[name], abs=1e-5) if isinstance(value, float) else same[name])
    assert broken["path"] == "broken" and broken["prediction"] is None and "not an image" in broken["error"]
    for kind in ("image/png", BYTES):
        status, text, _ = ask(address, "POST", "/predict", files[0].read_bytes(), Content_Type=kind)
        assert status == 200 and json.loads(text)["predictions"][0]["prediction"] == expected[0]["prediction"]


def test_programs_are_told_what_is_wrong(address: str, digits_run: Path) -> None:
    raw = (images_of(digits_run) / rows(digits_run)[0]["path"]).read_bytes()
    for status, message, path, body, headers in (
        (422, "The file is empty", "", b"", {}),
        (422, "not an image", "", b"text", {}),
        (413, "More than 0.1 MB", "", bytes(100_001), {}),
        (413, "large is larger than 0.1 MB", "", form(large=bytes(100_001)), {}),
        (413, "More than 0.8 MB", "", form(**{f"f{i}": bytes(90_000) for i in range(10)}), {}),
        (400, "Too many files", "", form(**{f"f{i}": raw for i in range(13)}), {}),
        (400, "no file", "", form(), {}),
        (400, "cannot be read", "", b"x", {"Content_Type": "multipart/form-data"}),
        (400, "Unknown parameter 'topk'", "?topk=2", raw, {}),
        (400, "top_k='two': expected an integer", "?top_k=two", raw, {}),
        (400, "threshold=nan: expected a number", "?threshold=nan", raw, {}),
        (400, "probabilities='maybe': expected true or false", "?probabilities=maybe", raw, {}),
        (400, "top_k=11: this run has 10 classes", "?top_k=11", raw, {}),
        (400, "threshold=2: expected a probability from 0 to 1", "?threshold=2", raw, {}),
        (403, "other sites", "", raw, {"Origin": "http://evil.example"}),
        (403, "other sites", "", raw, {"Sec_Fetch_Site": "cross-site"}),
    ):
        sent = body if isinstance(body, dict) else {"body": body}
        try:
            found, text, _ = ask(address, "POST", f"/predict{path}", **sent, **headers)
        except (BrokenPipeError, ConnectionResetError):  # the server hangs up on what is announced as too large
            assert message.startswith("More than")
            continue
        assert found == status and message in text, text
        assert list(json.loads(text)) == (["calibrated", "predictions"] if status == 422 else ["error"])


def test_the_interface_is_described_and_the_server_says_it_is_well(address: str, digits_run: Path, page: Any) -> None:
    health = json.loads(ask(address, path="/health")[1])
    assert health["status"] == "ok" and len(health["classes"]) == 10 and health["run"] == digits_run.name
    described = json.loads(ask(address, path="/openapi.json")[1])
    assert described["openapi"].startswith("3.") and list(described["paths"]) == ["/predict", "/health"]
    page.get(f"{address}docs")
    for name in ("POST /predict", "top_k", "multipart/form-data", f"curl {address}health"):
        assert name in one(page, "body").text


def test_two_hundred_programs_at_once_are_all_answered(address: str, digits_run: Path) -> None:
    known = rows(digits_run)[:20]
    pictures = [(images_of(digits_run) / row["path"]).read_bytes() for row in known]
    with ThreadPoolExecutor(200) as pool:
        found = list(pool.map(lambda i: ask(address, "POST", "/predict", pictures[i % 20]), range(200)))
    assert {status for status, _, _ in found} == {200}
    predicted = [json.loads(text)["predictions"][0]["prediction"] for _, text, _ in found]
    assert predicted == [row["prediction"] for row in known] * 10


def test_a_visitor_who_leaves_is_no_fault(site: Site) -> None:
    """The page was closed, or reloaded, while a picture was on its way."""
    import anyio

    host, kind = (b"host", b"localhost"), (b"content-type", BYTES.encode())
    scope = {"type": "http", "method": "POST", "path": "/look", "query_string": b"", "headers": [host, kind]}
    messages = iter([{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None: ...

    anyio.run(application(site), scope, receive, send)


def test_a_run_whose_images_are_away_has_no_neighbours(site: Site, tmp_path: Path) -> None:
    near = Neighbours(site.images, tmp_path)
    near.look(site.explainer.features, threading.Event())
    assert near.known == [] and near.near(np.ones(3)).mistakes == []


@pytest.mark.parametrize("announced", [True, False])
def test_an_upload_is_not_read_beyond_its_limit(address: str, announced: bool) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(3_000):
            sent += 10_000
            yield bytes(10_000)

    headers = {"Content_Length": "30000000"} if announced else {}
    try:
        status, text, _ = ask(address, "POST", "/look", endless(), Content_Type=BYTES, **headers)
        assert status == 413 and "More than 0.1 MB" in text
    except (BrokenPipeError, ConnectionResetError):
        pass  # the server hung up on who would not stop
    assert sent < 30_000_000


@pytest.mark.parametrize(
    "header, host, ours",
    [
        ("127.0.0.1:8642", "127.0.0.1", True),
        ("LOCALHOST", "127.0.0.1", True),
        ("[::1]:8642", "::1", True),
        ("192.168.1.7:8642", "127.0.0.1", False),
        ("192.168.1.7:8642", "0.0.0.0", True),
        ("[fe80::1]:8642", "::", True),
        ("evil.example:8642", "0.0.0.0", False),
        ("box.lan:8642", "box.lan", True),
        (f"{socket.gethostname()}:8642", "0.0.0.0", True),
    ],
)
def test_only_names_that_nobody_else_can_own_are_answered_to(header: str, host: str, ours: bool) -> None:
    assert is_ours(header, host) == ours


def test_what_a_run_cannot_show_is_said(digits_run: Path, site: Site, tmp_path: Path) -> None:
    raw = (images_of(digits_run) / rows(digits_run)[0]["path"]).read_bytes()

    def altered(name: str, **record: Any) -> Path:
        run = tmp_path / name
        shutil.copytree(digits_run, run)
        old = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps(old | record))
        return run

    gone = altered("gone", data={"root": str(tmp_path / "nowhere")})
    assert "The images of the run’s mistakes are no longer where the run found them" in Site(
        gone, site.explainer
    ).answer(raw)
    bare = altered("bare", data=None, title=None)
    (bare / "predictions.csv").unlink()
    assert "its mistakes are unknown" in Site(bare, site.explainer).answer(raw)
    assert "of the valid split" not in Site(bare, site.explainer).page()
    right = altered("right")
    table = (right / "predictions.csv").read_text().splitlines()
    kept = [line for line in table if line.split(",")[2] == line.split(",")[3] or line.startswith("split")]
    (right / "predictions.csv").write_text("\n".join(kept) + "\n")
    assert f"all {len(kept) - 1} valid images were classified correctly" in Site(right, site.explainer).answer(raw)
    older = altered("older")
    model = json.loads((older / "model.json").read_text())
    (older / "model.json").write_text(json.dumps({key: value for key, value in model.items() if key != "temperature"}))
    calibrated, explainer = cli._explainer(older)
    words = Site(older, explainer, calibrated=calibrated).page()
    assert "probabilities not calibrated: this run has no temperature" in words and explainer.temperature == 1


def test_a_network_without_feature_maps_says_so(site: Site, digits_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastcls.inference.anatomy import Anatomy

    explainer = site.explainer
    monkeypatch.setattr(explainer, "_parts", lambda batch, whole=explainer._parts: (*whole(batch)[:2], None))
    monkeypatch.setattr(explainer, "anatomy", Anatomy("logits", explainer.anatomy.features, None))
    assert "Grad-CAM is not available" in site.page()
    answer = site.answer((images_of(digits_run) / rows(digits_run)[0]["path"]).read_bytes())
    assert 'class="heat"' not in answer and "disabled" in answer and "misclassified as" in answer


def test_the_command_serves_until_ctrl_c(digits_run: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "fastcls", "serve", str(digits_run), "--port", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = subprocess.Popen(words, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, **pipes)
    try:
        line = running.stdout.readline()
        assert line.startswith(f"{digits_run}: http://127.0.0.1:") and "Ctrl-C stops it" in line
        status, text, _ = ask(line.split()[1])
        assert status == 200 and "Drop images here" in text
    finally:
        running.send_signal(signal.SIGINT)
        output, errors = running.communicate(timeout=30)
    assert (running.returncode, output, errors) == (130, "", "")
    assert list(tmp_path.iterdir()) == []


def test_wrong_addresses_and_settings_are_refused(fastcls: Fastcls, digits_run: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        outcome = fastcls("serve", digits_run, "--port", port)
        assert outcome.code == 5 and f"--port {port}" in outcome.output and "--port 0" in outcome.output
    for words, message in {
        ("--host", "no such name.example"): "unknown host",
        ("--host", "192.0.2.1"): "not an address of this machine",
        ("--threshold", 7): "expected a probability",
        ("--max-mb", 0): "expected a number above 0",
        ("--split", "test"): "was not evaluated on it",
        ("--port", 99999): "65535",
    }.items():
        outcome = fastcls("serve", digits_run, *words, *([] if "--port" in words else ["--port", 0]))
        assert outcome.code == 2 and message in outcome.output
    assert fastcls("serve", "nowhere").code == 4
