"""`fastcls push` and runs by the name hf://OWNER/NAME, against a stand-in of the Hugging Face Hub."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from conftest import ROOT, Fastcls, Outcome, python
from folders import images_of
from hub_server import AGAIN, Hub, Repository
from PIL import Image

from fastcls import datasets

pytestmark = pytest.mark.further


@pytest.fixture
def digits(digits_run: Path) -> Path:
    """Images that the run was not trained on, or was: any will do."""
    return images_of(digits_run) / "3"


def test_a_run_goes_to_the_hub_and_predicts_from_there(
    hub: Hub, fastcls: Fastcls, digits_run: Path, digits: Path
) -> None:
    own = fastcls("predict", digits_run, digits, "--json").stdout
    done = fastcls("push", digits_run, "me/digits", "--private", "--json")
    assert done.code == 0, done.output
    sent = json.loads(done.stdout)
    files = hub.repositories["models/me/digits"].files
    assert hub.repositories["models/me/digits"].private and sent["url"].endswith("/me/digits")
    assert sorted(files) == sorted(sent["files"]) and {"README.md", "model.onnx", "model.safetensors"} <= files.keys()
    assert not sent["timm"] and "config.json" not in files, "it is no network of timm's"
    shows_images = {"report.html", "predictions.csv", "splits.csv", "suspects.csv"}
    assert not shows_images & files.keys() and not [name for name in files if name.endswith((".pth", ".pkl", ".bin"))]
    for name in ("run.json", "model.json", "README.md"):
        assert str(digits.parent).encode() not in files[name] and str(Path.home()).encode() not in files[name], name

    found = fastcls("predict", "hf://me/digits", digits, "--json")
    assert found.code == 0 and json.loads(found.stdout) == json.loads(own), found.output
    assert fastcls("push", digits_run, "me/digits", "--report").code == 0, "a second commit"
    assert shows_images <= files.keys()
    commit = hub.repositories["models/me/digits"].commit
    evaluated = fastcls("evaluate", f"hf://me/digits@{commit}", digits.parent, "-o", "new")
    assert evaluated.code in (0, 3) and "Traceback" not in evaluated.output
    page = fastcls("report", "hf://me/digits")
    assert page.code == 0 and Path(page.stdout.strip()).stat().st_size > 100_000
    exported = fastcls("export", "hf://me/digits", "--safetensors", "-o", "files")
    assert exported.code == 0 and Path("files/model.safetensors").is_file()


def test_the_card_says_what_the_report_says(hub: Hub, fastcls: Fastcls, digits_run: Path) -> None:
    fastcls("push", digits_run, "me/digits")
    card = hub.repositories["models/me/digits"].files["README.md"].decode()
    accuracy = json.loads((digits_run / "metrics.json").read_text())["valid"]["accuracy"]
    value, low, high = (f"{100 * accuracy[key]:.1f}" for key in ("value", "low", "high"))
    for part in ("library_name: fastcls", f"{value} % | {low} to {high} %", "ECE", "## Limits", "There was no test"):
        assert part in card, part


def test_timm_loads_a_network_of_its_own(hub: Hub, fastcls: Fastcls, imagenette: Path, pageless: None) -> None:
    import onnxruntime
    import timm
    import torch
    from safetensors.torch import save_file

    words = ["recipe", "folder", "--path", imagenette / "val", "--arch", "timm/test_resnet", "--precision", "fp32"]
    words += ["--size", 64, "--epochs", 1, "--limit", 4, "--out"]
    save_file(timm.create_model("test_resnet").state_dict(), "published.safetensors")
    done = fastcls(*words, "run", "--weights", "published.safetensors")
    assert done.code == 0 and "average and maximum pooling" in done.output, done.output
    pushed = fastcls("push", "run", "me/net")
    assert pushed.code == 0 and "timm.create_model" in pushed.output, pushed.output
    network = timm.create_model("hf-hub:me/net", pretrained=True).eval()
    session = onnxruntime.InferenceSession("run/model.onnx")
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        logits = network(images)
    torch.testing.assert_close(
        logits, torch.tensor(session.run(None, {"images": images.numpy()})[0]), atol=1e-4, rtol=1e-4
    )
    assert network.pretrained_cfg["input_size"] == (3, 64, 64) and network.num_classes == 10
    assert "avgmax" in network.global_pool.pool_type
    again = fastcls(*words, "again", "--weights", "hf://me/net", "--dry-run")
    assert again.code == 0 and "the body starts from hf://me/net" in again.output, again.output


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["push", "RUN", "digits"], 2, "OWNER/NAME"),
        (["predict", "hf://digits", "x.png"], 2, "OWNER/NAME"),
        (["predict", "hf://me/nothing", "x.png"], 2, "no such repository"),
        (["predict", "hf://me/other", "x.png"], 2, "is not a fastcls run"),
        (["predict", "hf://me/other@v9", "x.png"], 2, "no such revision"),
        (["predict", "hf://me/hostile", "x.png"], 4, "model.json cannot be read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_name_that_is_none_of_a_run(
    hub: Hub, fastcls: Fastcls, digits_run: Path, words: list[str], code: int, says: str
) -> None:
    hub.repositories["models/me/other"] = Repository(files={"config.json": b"{}"})
    hub.repositories["models/me/hostile"] = Repository(files={"run.json": b'{"format": "x"}', "model.json": b"[]"})
    Path("x.png").write_bytes(b"")
    outcome = fastcls(*(digits_run if word == "RUN" else word for word in words))
    assert outcome.code == code and says in outcome.output and "Traceback" not in outcome.output, outcome.output


def test_without_a_token_or_with_one_that_may_not_write(
    hub: Hub, fastcls: Fastcls, digits_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", AGAIN)
    refused = fastcls("push", digits_run, "me/digits")
    assert refused.code == 5 and "has no permission" in refused.output and "hf auth login" in refused.output
    monkeypatch.delenv("HF_TOKEN")
    refused = fastcls("push", digits_run, "me/digits")
    assert refused.code == 5 and "requires a token" in refused.output
    assert not hub.repositories


def test_a_hub_that_does_not_answer(
    hub: Hub, fastcls: Fastcls, digits_run: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fastcls("push", digits_run, "me/digits").code == 0
    assert fastcls("predict", "hf://me/digits", digits).code == 0
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert fastcls("predict", "hf://me/digits", digits).code == 0, "it is kept on this machine"
    unknown = fastcls("predict", "hf://me/others", digits)
    assert unknown.code == 5 and "cannot be reached" in unknown.output and "HF_HUB_OFFLINE" in unknown.output


def test_no_way_to_the_hub_is_found_in_two_attempts(
    hub: Hub, fastcls: Fastcls, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    outcome = fastcls("predict", "hf://me/others", digits)
    assert outcome.code == 5 and "me/others: the Hub cannot be reached (ConnectError" in outcome.output
    assert sum(waited) < 5 and not hub.requests, "its client waits half a minute"


def test_another_process_finds_the_hub_by_its_environment(
    hub: Hub, fastcls: Fastcls, digits_run: Path, digits: Path
) -> None:
    """As a user has it, with HF_ENDPOINT alone, and without torch."""
    assert fastcls("push", digits_run, "me/digits").code == 0
    program = "import sys\nfrom fastcls.cli import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"
    done = python("-c", program, "predict", "hf://me/digits", digits, "-o", "labels.csv")
    assert done.returncode == 0, done.stderr
    assert len(Path("labels.csv").read_text().splitlines()) > 10


def test_what_a_run_from_there_holds_is_checked(hub: Hub, fastcls: Fastcls, digits_run: Path, digits: Path) -> None:
    fastcls("push", digits_run, "me/digits")
    files = hub.repositories["models/me/digits"].files
    files["model.onnx"] += b"x"
    changed = fastcls("predict", "hf://me/digits", digits)
    assert changed.code == 4 and "is not the file that its run wrote" in changed.output
    files["model.pkl"] = b"a pickle"
    assert fastcls("predict", "hf://me/digits", digits).code == 4
    assert not [name for name in hub.requests if "model.pkl" in name], "nothing but a run's files is fetched"


# ---------------------------------------------------------------------------- datasets of the Hub


def pictures(folder: Path, form: str) -> dict[str, bytes]:
    """A dataset of two classes as its repository holds it: class folders with a train and a test split, or Parquet."""
    files = {}
    for split, count in (("train", 6), ("test", 4)):
        rows = []
        for number in range(count):
            label = number % 2
            image = Image.new("RGB", (20, 16), (40 * number, 255 * label, 90 if split == "train" else 30))
            image.save(folder / "one.png")
            data = (folder / "one.png").read_bytes()
            files[f"data/{split}/{('cat', 'dog')[label]}/{number}.png"] = data
            rows.append({"image": {"bytes": data, "path": f"{number}.png"}, "label": label if number != 5 else -1})
        if form == "parquet":
            from datasets import ClassLabel, Dataset, Features
            from datasets import Image as Pictures

            features = Features(image=Pictures(), label=ClassLabel(names=["cat/kitten", "dog"]))
            Dataset.from_list(rows, features=features).to_parquet(folder / "rows.parquet")
            files[f"data/{split}-00000-of-00001.parquet"] = (folder / "rows.parquet").read_bytes()
    return {name: data for name, data in files.items() if name.endswith(form)}


IN_A_PROCESS = """
import json
import sys
from conftest import command

print("OUTCOMES", json.dumps([vars(command(*words)) for words in json.loads(sys.argv[1])]))
"""


def in_a_process(*commands: str) -> list[Outcome]:
    """Of commands, one after the other, in a process that knows the Hub as a user's does: when it imports datasets."""
    places = os.pathsep.join(str(ROOT / place) for place in ("", "tests", "tests/support"))
    asked = json.dumps([words.split() for words in commands])
    done = python("-c", IN_A_PROCESS, asked, env={"PYTHONPATH": places})
    assert done.returncode == 0, done.stderr
    return [Outcome(**one) for one in json.loads(done.stdout.rpartition("OUTCOMES ")[2])]


def test_a_dataset_of_the_hub_is_a_folder_of_images(
    hub: Hub, fastcls: Fastcls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets", reason="needs the extra datasets")
    monkeypatch.setenv("FASTCLS_DATA", str(tmp_path / "data"))
    classes = {"png": {"cat", "dog"}, "parquet": {"cat_kitten", "dog"}}
    files = {form: pictures(tmp_path, form) for form in classes}
    for form in classes:
        hub.repositories[f"datasets/me/{form}"] = Repository(files={"README.md": b"", **files[form]})
    checks = [f"check hf://datasets/me/{form} -o {out}" for form in classes for out in (f"{form} --json", f"{form}-2")]
    done = dict(zip(checks, in_a_process(*checks), strict=True))
    for form in classes:
        found, again = (done[words] for words in checks if f"/{form} " in words)
        assert found.stdout.startswith("{") and json.loads(found.stdout), found.output
        (folder,) = (tmp_path / "data" / "hub").glob(f"me--{form}--*")
        written = [file for file in folder.rglob("*") if file.is_file()]
        assert {file.parent.name for file in written} == classes[form]
        assert {file.parent.parent.name for file in written} == {"train", "test"}
        assert len(written) == 10 if form == "png" else 9, "one of the rows has no label"
        if form == "png":
            assert {file.read_bytes() for file in written} == set(files[form].values()), "the bytes are the Hub's"
        fetched = [line for line in hub.requests if f"/me/{form}" in line and ("resolve" in line or "tree" in line)]
        assert len(fetched) == len(set(fetched)) >= len(files[form]), "nothing is fetched again"
        assert again.code == found.code
        assert sorted(datasets.folder(folder)["split"].unique()) == ["test", "train", "valid"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    offline, none = in_a_process("check hf://datasets/me/png -o offline", "check hf://datasets/me/others")
    assert none.code == 3 and offline.code == done[checks[0]].code and "cannot be reached" in offline.output


def test_a_dataset_that_holds_no_images_of_classes(hub: Hub, fastcls: Fastcls) -> None:
    pytest.importorskip("datasets", reason="needs the extra datasets")
    hub.repositories["datasets/me/text"] = Repository(files={"data/train.csv": b"text,label\nhello,1\nbye,0\n"})
    cases = {"pets": (2, "OWNER/NAME"), "me/none": (2, "no such repository"), "me/text": (3, "one column of images")}
    for refused, (code, says) in zip(
        in_a_process(*(f"check hf://datasets/{name}" for name in cases)), cases.values(), strict=True
    ):
        assert refused.code == code and says in refused.output, refused.output
