"""Weights & Biases: fastai's callback, on the step of the whole run; offline where nobody is logged in."""

from __future__ import annotations

import contextlib
import json
import netrc
import os
import shlex
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import wandb
from fastai.callback.wandb import WandbCallback
from PIL import Image

from fastcls.images.decode import decode
from fastcls.plugins.tracking.tracker import PROJECT, Ending, Tracker, Watching, reason, settings
from fastcls.settings import options

MOST_CLASSES = 60  # of a confusion matrix as a table, which has classes² rows
SIDE = 320  # pixels of a picture in the table of top losses, at most
PATIENCE = 30  # seconds for the server to answer at the start
UPLOAD = 300  # seconds for what is left to upload at the end


class WandbSteps(Watching, WandbCallback):
    """fastai's own counts steps anew when an offline run is resumed, and takes its config from objects that it
    cannot all read; ours is run.json's."""

    def __init__(self, tracker: Wandb) -> None:
        WandbCallback.__init__(self, log_preds=False)
        Watching.__init__(self, tracker)

    def after_create(self) -> None:
        """Nothing: fastai's model would be a pickle."""

    def before_fit(self) -> None:
        self.run = True

    def before_batch(self) -> None:
        """Nothing: its clock would not wait for a GPU."""

    def after_batch(self) -> None:
        if self.due and self.tracker.told_now("step", self.history.step):
            float(self.smooth_loss)  # waits for the device, so that the rate is true
            self.ti_batch = time.perf_counter() - len(self.xb[0]) / self.rate
            self._wandb_step = self.history.step - 1
            self._wandb_epoch = len(self.history.rows) + self.iter / self.n_iter
            super().after_batch()

    def after_epoch(self) -> None:
        row = self.history.rows[-1]
        if not self.tracker.told_now("epoch", row["epoch"]):
            return
        self._wandb_step, self._wandb_epoch = row["step"], row["epoch"]
        super().after_epoch()
        values = {name: row[name] for name in ("images_per_second", "trained_parameters")}
        wandb.log(values, step=self._wandb_step)

    def after_fit(self) -> None:
        """Nothing: the next call of `fit` goes on."""


class Wandb(Tracker):
    """One W&B run however often it is resumed; its files are in RUN/tracking/wandb unless WANDB_DIR is set."""

    title = "Weights & Biases"
    session: Any = None
    offline = False
    values: dict[str, int]

    def start(self, record: Mapping[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.diary, self.logged = self.folder / "wandb" / "logged.json", {}
        self.diary.parent.mkdir(exist_ok=True)
        with contextlib.suppress(OSError, ValueError):
            self.logged = {kind: int(number) for kind, number in json.loads(self.diary.read_text()).items()}
        self.undo = contextlib.ExitStack()
        self.undo.enter_context(_environment(self.folder / "wandb"))
        mode = _mode()
        try:
            self._open(record, mode)
        except Exception as problem:  # of its many kinds, most say that the server did not answer
            if mode == "offline":
                raise
            options.note(f"W&B could not be reached ({reason(problem)}), so this run is tracked offline.")
            wandb.teardown()
            self._open(record, "offline")
        self.kept = {"id": self.session.id, "project": self.session.project, "entity": self.session.entity}
        self.offline = bool(self.session.offline)
        if mode == "offline" and not os.environ.get("WANDB_MODE"):
            options.note("W&B: not logged in (wandb login), so this run is tracked offline.")

    def _open(self, record: Mapping[str, Any], mode: str | None) -> None:
        given = os.environ.get
        self.session = wandb.init(
            project=self.kept.get("project") or given("WANDB_PROJECT") or PROJECT,
            entity=self.kept.get("entity") or given("WANDB_ENTITY") or None,
            id=self.kept.get("id") or given("WANDB_RUN_ID") or None,
            resume="allow",
            name=given("WANDB_NAME") or self.folder.parent.resolve().name,
            notes=record["command"],
            tags=[record["recipe"]],
            config=settings(record),
            dir=given("WANDB_DIR") or str(self.folder),
            mode=mode,  # type: ignore[arg-type]
            settings=wandb.Settings(console="off", silent=True, init_timeout=PATIENCE, **_newer()),
        )

    def callback(self) -> WandbSteps:
        return WandbSteps(self)

    def told_now(self, kind: str, number: int) -> bool:
        """Whether a step or an epoch is logged for the first time; after a crash some are trained once more."""
        if number <= self.logged.get(kind, 0):
            return False
        self.logged[kind] = number
        self.diary.write_text(json.dumps(self.logged))
        return True

    def finish(self, ending: Ending) -> None:
        values: dict[str, Any] = {name: wandb.Image(str(file)) for name, file in ending.images.items()}
        values["report"] = wandb.Html(str(ending.run / "report.html"))
        values["top losses"] = _top_losses(ending)
        names, answers = ending.classes, ending.answers
        place = {name: i for i, name in enumerate(names)}
        known = answers[answers["label"].isin(place) & answers["prediction"].isin(place)]
        if len(names) <= MOST_CLASSES and len(known):
            values["confusion"] = wandb.plot.confusion_matrix(
                y_true=[place[name] for name in known["label"]],
                preds=[place[name] for name in known["prediction"]],
                class_names=names,
                title="Confusion matrix, valid",
            )
        self.session.log(values, step=ending.step)
        self.session.summary.update(ending.figures("low", "high"))
        self._keep("model", ending.model, ending.network, ending.figures())
        self._keep("report", ending.records, "", ending.figures())
        self._close(0)

    def _keep(self, kind: str, files: list[Path], text: str, figures: Mapping[str, float]) -> None:
        """Files of the run folder as an artifact; offline they are read when it is synced."""
        artifact = wandb.Artifact(f"run-{self.session.id}-{kind}", type=kind, description=text, metadata=dict(figures))
        for file in files:
            artifact.add_file(str(file.resolve()), name=file.name, policy="immutable", skip_cache=True)
        self.session.log_artifact(artifact)

    def stop(self, status: str) -> None:
        self._close(1)

    def _close(self, code: int) -> None:
        if self.session is not None:
            self.home = Path(self.session.dir).parent
            self.url = "" if self.offline else self.session.url
            try:
                self.session.finish(exit_code=code)
            except TimeoutError:
                options.note(
                    f"W&B did not receive everything within {UPLOAD} s; upload the rest later:  "
                    f"wandb sync {shlex.quote(str(self.home))}"
                )
            finally:
                self.session = None
                wandb.teardown()
                self.undo.close()

    def advice(self) -> str:
        return f"wandb sync {shlex.quote(str(self.home.parent))}/offline-run-*" if self.offline else str(self.url)


def _mode() -> str | None:
    """'offline' where nobody is logged in, for W&B would ask for a key and wait; else what W&B's own settings say."""
    asked = os.environ.get("WANDB_MODE")
    if asked and asked != "online":
        return asked
    return None if _logged_in() else "offline"


def _logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    files = [os.environ.get("NETRC") or "", Path.home() / ".netrc", Path.home() / "_netrc"]
    for file in filter(None, files):
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            if netrc.netrc(str(file)).authenticators(host):
                return True
    return False


@contextlib.contextmanager
def _environment(home: Path) -> Iterator[None]:
    """W&B's caches inside the run folder, nothing on the terminal, no reports of errors to its makers."""
    ours = {"WANDB_CACHE_DIR": str(home), "WANDB_DATA_DIR": str(home)}
    ours |= {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
    ours = {name: value for name, value in ours.items() if name not in os.environ}  # the user's own have precedence
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def _newer() -> dict[str, Any]:
    """Settings that W&B has had since 0.31 only: not to wait for ever for a server that no longer answers."""
    wanted = {"finish_timeout": UPLOAD, "finish_timeout_raises": True}
    return {name: value for name, value in wanted.items() if name in wandb.Settings.model_fields}


def _top_losses(ending: Ending) -> Any:
    table = wandb.Table(columns=["image", "file", "label", "prediction", "confidence", "loss"])
    for row in ending.top_losses.itertuples():
        try:
            image = Image.fromarray(decode(ending.root / row.path))
            image.thumbnail((SIDE, SIDE))
            picture = wandb.Image(image)
        except Exception:  # decoders raise what they like, and the file may be gone
            picture = None
        table.add_data(picture, row.path, row.label, row.prediction, row.confidence, row.loss)
    return table
