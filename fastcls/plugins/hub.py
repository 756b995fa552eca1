"""`push`: a run to the Hugging Face Hub, with a model card, and what timm needs to load it. Never a pickle."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from fastcls.errors import EnvironmentProblem, OutputError
from fastcls.machine import extras
from fastcls.reports.card import card
from fastcls.runfolder import hub, model_files, runs
from fastcls.runfolder.run import open_run

EXPORTED = ("model.onnx", "model-int8.onnx", "model-int8.json", "model-fp16.onnx", "model-fp16.json")


class Pushed(NamedTuple):
    """Where a run is on the Hub, the files that were sent, and whether timm loads it from there."""

    url: str
    commit: str
    files: list[str]
    in_timm: bool


def push(run: Path, repository: str, private: bool = False, report: bool = False) -> Pushed:
    """Send a finished run to the repository OWNER/NAME, which is made where it is missing; see `fastcls.push`."""
    name = hub.parsed(repository)
    extras.require("fastcls push", "hub")
    from huggingface_hub import HfApi, get_token

    if runs.read_json(run / "run.json").get("status") != "done":
        raise OutputError(f"{run} did not finish successfully.", "Push a finished run:  fastcls runs  lists them")
    if get_token() is None:
        raise EnvironmentProblem(f"{repository}: the Hub requires a token, and there is none.", hub.SIGN_IN)
    with tempfile.TemporaryDirectory(prefix="fastcls-push-") as scratch:
        folder = Path(scratch)
        in_timm = stage(run, folder, name.repository, report)
        files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
        with hub.reached(repository):
            api = HfApi()
            url = api.create_repo(name.repository, private=private, exist_ok=True)
            done = api.upload_folder(
                repo_id=name.repository,
                folder_path=folder,
                revision=name.revision,
                commit_message=f"fastcls run {run.name}",
            )
    return Pushed(str(url), done.oid, files, in_timm)


def stage(run: Path, folder: Path, repository: str, report: bool = False) -> bool:
    """Lay out what the repository of a run holds; gives whether timm can load it.

    Paths of this machine are not in it: the folder of the images is named without those around it. report: also what
    shows the images or their names.
    """
    for file in (*hub.MODEL, *(hub.REPORT if report else ()), *(f"export/{name}" for name in EXPORTED)):
        if (run / file).is_file():
            (folder / file).parent.mkdir(exist_ok=True)
            shutil.copyfile(run / file, folder / file)
    in_timm = False
    if extras.there("timm"):
        from fastcls.models import as_timm

        in_timm = as_timm.write(run, folder)
    _without_places(folder)
    if in_timm:  # the same weights under other names
        record = runs.read_json(folder / model_files.RECORD)
        runs.write_json(folder / model_files.RECORD, record | {"sha256": model_files.sums(folder)})
    whole = open_run(run)
    whole.info = runs.read_json(folder / "run.json")
    (folder / "README.md").write_text(card(whole, repository, in_timm), encoding="utf-8")
    return in_timm


def _without_places(folder: Path) -> None:
    """Take the folders around the images, and the user's home, out of the records."""
    record = runs.read_json(folder / "run.json")
    root = str(record.get("data", {}).get("root") or "")
    for file in ("run.json", model_files.RECORD):
        text = json.dumps(runs.read_json(folder / file), ensure_ascii=False)
        for place, short in ((root, Path(root).name), (str(record.get("folder") or ""), "."), (str(Path.home()), "~")):
            if len(place) > 1:
                text = text.replace(json.dumps(place, ensure_ascii=False)[1:-1], short)
        runs.write_json(folder / file, json.loads(text) | ({"tracking": {}} if file == "run.json" else {}))
