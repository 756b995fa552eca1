"""Two machines train as one process does, and come back: network namespaces, torchrun's agents, gloo.

The run folder is on a disk that both see, as docs/scaling.md asks for where machines come and go.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from killable import draw, saves, until
from machines import PORT, Machine
from together import IMAGES, RECIPE, assert_same, record

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
STATIC = ["--nnodes", 2, "--max-restarts", 3, "--master-port", PORT]


class Job:
    """One command on both machines."""

    def __init__(self, folder: Path, machines: list[Machine]) -> None:
        self.folder, self.machines = folder, machines

    def words(self, out: str, *more: object) -> list[object]:
        common = ["--device", "cpu", "--precision", "fp32", "--checkpoint-minutes", 0, "--seed", 7, "--epochs", 12]
        where = ["--path", self.folder / "images", "--out", self.folder / out]
        return ["-m", "fastcls", "recipe", self.folder / "mine.py", *where, *common, "--resume", "auto", *more]

    def elastic(self, number: int, out: str, *more: object, nodes: str = "2") -> subprocess.Popen[str]:
        """torchrun's agent on a machine, which finds the other one by c10d."""
        endpoint = f"{self.machines[0].address}:{PORT}"
        how = ["--nnodes", nodes, "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-id", out]
        return self.machines[number].agent(*how, "--max-restarts", 3, *self.words(out, "--sync-norm", *more))

    def both(self, out: str) -> list[subprocess.Popen[str]]:
        return [self.elastic(number, out) for number in (0, 1)]

    def ended(self, *agents: subprocess.Popen[str]) -> None:
        assert [agent.wait(300) for agent in agents] == [0] * len(agents), [machine.said() for machine in self.machines]


@pytest.fixture(scope="module")
def job(machines: list[Machine], tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("shared")
    draw(folder / "images", IMAGES)
    (folder / "mine.py").write_text(RECIPE)
    found = Job(folder, machines)
    found.ended(machines[0].start(*found.words("alone")))
    return found


@pytest.fixture(autouse=True)
def quiet_machines(machines: list[Machine]) -> Iterator[None]:
    """Nothing is left running, and nothing said, of the test before."""
    for machine in machines:
        (machine.folder / "log.txt").unlink(missing_ok=True)
    yield
    for machine in machines:
        machine.crash()


def assert_same_run(run: Path, other: Path) -> None:
    """Weights, history, and every prediction of the whole run."""
    assert_same(run, other)
    assert (run / "predictions.csv").read_text() == (other / "predictions.csv").read_text()
    assert (run / "report.html").is_file()


def test_two_machines_train_and_evaluate_what_one_process_does(job: Job) -> None:
    first, second = job.machines
    how = [*STATIC, "--master-addr", first.address, "--node-rank"]
    words = job.words("static", "--sync-norm")
    job.ended(first.agent(*how, 0, *words), second.agent(*how, 1, *words))
    assert_same_run(job.folder / "static", job.folder / "alone")
    assert record(job.folder / "static")["device"]["processes"] == 2
    assert "batch norms" not in first.said()
    words = job.words("norms", "--epochs", 1)
    job.ended(first.agent(*how, 0, *words), second.agent(*how, 1, *words))
    assert "on 2 machines, each process's batch norm uses only its own 8 images of a batch; --sync-norm" in first.said()


def test_an_agent_that_is_killed_and_started_again_continues_the_run(job: Job) -> None:
    agents = job.both("killed")
    out = job.folder / "killed"
    until(lambda: saves(out) > 20)
    os.kill(agents[1].pid, signal.SIGKILL)  # its process would go on without it
    agents[1].wait()
    job.ended(agents[0], job.elastic(1, "killed"))
    assert_same_run(out, job.folder / "alone")
    assert "resumed  after" in job.machines[0].said()


def test_the_machine_of_rank_0_comes_back(job: Job) -> None:
    """All of it is gone at once, the agents' meeting place too; both are started again by the same command."""
    agents = job.both("crashed")
    out = job.folder / "crashed"
    until(lambda: saves(out) > 20)
    job.machines[0].crash()
    assert agents[1].wait(300) != 0
    job.ended(*job.both("crashed"))
    assert_same_run(out, job.folder / "alone")
    before = (out / "run.json").read_text()
    job.ended(*job.both("crashed"))  # there is nothing left to do
    assert "is finished" in job.machines[0].said() and (out / "run.json").read_text() == before


def test_a_machine_that_stays_away_leaves_the_run_to_the_other(job: Job) -> None:
    first, _ = (job.elastic(number, "alone at last", nodes="1:2") for number in (0, 1))
    out = job.folder / "alone at last"
    until(lambda: saves(out) > 20)
    assert record(out)["device"]["processes"] == 2
    job.machines[1].crash()
    job.ended(first)
    assert_same(out, job.folder / "alone")
    assert record(out)["device"]["processes"] == 1
    assert any("processes 2 then, 1 now" in note for note in record(out)["notes"])
    assert "processes 2 then, 1 now" in job.machines[0].said()


def test_machines_join_and_leave_as_the_range_allows(job: Job) -> None:
    """Three agents of at most eight and at least two; the third one comes later and goes again."""
    out = job.folder / "two to eight"
    words = ("two to eight", "--bs", 12, "--epochs", 30)
    first, second = (job.elastic(number, *words, nodes="2:8") for number in (0, 1))
    until(lambda: saves(out) > 20)
    assert record(out)["device"]["processes"] == 2
    third = job.elastic(1, *words, nodes="2:8")
    until(lambda: record(out)["device"]["processes"] == 3)
    until(lambda: "processes 2 then, 3 now" in job.machines[0].said())
    enough = saves(out) + 20
    until(lambda: saves(out) > enough)
    third.send_signal(signal.SIGTERM)
    job.ended(first, second)
    assert "processes 3 then, 2 now" in job.machines[0].said()
    assert record(out)["device"]["processes"] == 2 and record(out)["status"] == "done"
