"""MLflow, through its client: its own fastai flavour and autologging would pickle the Learner."""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing is sent to anyone
# a server that is down must not hold training up for the ten minutes that are MLflow's own patience
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from fastcls.plugins.tracking.tracker import PROJECT, Ending, Tracker, numbers, public, settings
from fastcls.runfolder import runs
from fastcls.settings import options

MOST = 900  # metrics a request; a server takes 1,000
LONGEST = 500  # characters of a parameter
BY_STEP, BY_EPOCH = "train_loss", "valid_loss"  # which steps and which epochs a resumed run has logged already
OF_STEPS = ("epoch", "train_loss", "images_per_second")  # of the history, logged with an epoch's last step


class Mlflow(Tracker):
    """One MLflow run however often it is resumed; in RUN/tracking/mlflow unless MLFLOW_TRACKING_URI is set."""

    title = "MLflow"
    run_id = ""

    def start(self, record: Mapping[str, Any]) -> None:
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)  # creating a database is logged at length
        self.pending: list[Metric] = []
        self.request: Future[None] | None = None
        self.thread = ThreadPoolExecutor(1, "mlflow")
        self.logged: dict[str, int] = {}
        self.home = self.folder / "mlflow"
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or runs.sqlite_url(self.home / "mlflow.db")
        if self.inside:
            self.home.mkdir(parents=True, exist_ok=True)
        self.client = MlflowClient(tracking_uri=self.uri)
        self.run_id = self._resumed() or self._new(record)
        self.kept = {"run_id": self.run_id, "uri": public(self.uri)}

    @property
    def inside(self) -> bool:
        return not os.environ.get("MLFLOW_TRACKING_URI")

    def _resumed(self) -> str:
        """The run that was begun, going on; its steps are not logged twice."""
        run_id = self.kept.get("run_id")
        if not run_id:
            return ""
        try:
            self.client.update_run(run_id, status="RUNNING")
        except MlflowException as problem:
            if problem.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            options.note(f"MLflow: {public(self.uri)} has no run {run_id}, so a new one is started.")
            return ""
        for name in (BY_STEP, BY_EPOCH):
            steps = [metric.step for metric in self.client.get_metric_history(run_id, name)]
            self.logged[name] = max(steps, default=-1)
        return str(run_id)

    def _new(self, record: Mapping[str, Any]) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        place = (self.home / "artifacts").resolve().as_uri() if self.inside else None
        experiment = self.client.get_experiment_by_name(name)
        identity = experiment.experiment_id if experiment else self.client.create_experiment(name, place)
        tags = {
            "mlflow.source.name": record["command"],
            "mlflow.note.content": f"{record['title']}\n\n    {record['command']}",
            "recipe": record["recipe"],
            "folder": str(self.folder.parent.resolve()),
        }
        run = self.client.create_run(identity, run_name=self.folder.parent.resolve().name, tags=tags)
        params = [Param(key, str(value)[:LONGEST]) for key, value in settings(record).items()]
        for first in range(0, len(params), 100):  # a server takes so many
            self.client.log_batch(run.info.run_id, params=params[first : first + 100])
        return str(run.info.run_id)

    def step(self, step: int, values: Mapping[str, Any]) -> None:
        if step > self.logged.get(BY_STEP, -1):
            self._note(step, values)

    def epoch(self, row: Mapping[str, Any]) -> None:
        if row["step"] > self.logged.get(BY_EPOCH, -1):
            self._note(row["step"], {k: v for k, v in numbers(row).items() if k not in OF_STEPS})
        self._send()

    def _note(self, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        self.pending += [Metric(name, value, now, step) for name, value in values.items()]

    def _send(self, wait: bool = False) -> None:
        """One request at a time, beside training; while one is under way the next metrics wait for the next epoch."""
        if self.request is not None:
            if not wait and not self.request.done():
                return
            self.request.result()  # raises what went wrong
        values, self.pending = self.pending, []
        self.request = self.thread.submit(self._log, values)
        if wait:
            self.request.result()

    def _log(self, metrics: list[Metric]) -> None:
        for first in range(0, len(metrics), MOST):
            self.client.log_batch(self.run_id, metrics=metrics[first : first + MOST])

    def finish(self, ending: Ending) -> None:
        # without MLflow's separator of groups, which would show them before the curves
        self._note(ending.step, {f"final_{name.replace('/', '_')}": v for name, v in ending.figures().items()})
        self._send(wait=True)
        for file in ending.images.values():
            self.client.log_artifact(self.run_id, str(file), "figures")
        for file in ending.records:
            self.client.log_artifact(self.run_id, str(file))
        for file in ending.model:
            self.client.log_artifact(self.run_id, str(file), "model")
        self.client.log_text(self.run_id, ending.network, "model/summary.txt")
        self.client.log_table(self.run_id, ending.top_losses, "top_losses.json")
        self.client.set_terminated(self.run_id, "FINISHED")
        self.thread.shutdown(wait=False)

    def stop(self, status: str) -> None:
        if self.run_id and not self.given_up:  # else it would wait once more for a server that does not answer
            self._send(wait=True)
            self.client.set_terminated(self.run_id, "KILLED" if status == "interrupted" else "FAILED")
            self.thread.shutdown(wait=False)

    def advice(self) -> str:
        if self.inside:
            return f"mlflow ui --backend-store-uri {shlex.quote(self.uri)}"
        return f"{public(self.uri)}, run {self.run_id}"
