"""The job files of docs/jobs: run as far as a machine without Slurm can, and checked against what reads them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, Fastcls
from killable import Forks, until

pytestmark = pytest.mark.further

JOBS = ROOT / "docs" / "jobs"
SRUN = """#!/bin/bash
# two nodes: the command once on each, a signal to both
while [[ $1 == --* ]]; do shift; done
for id in 0 1; do SLURM_NODEID=$id "$@" & nodes+=($!); done
trap 'kill -TERM "${nodes[@]}"' TERM
code=0
for node in "${nodes[@]}"; do
  while kill -0 $node 2>/dev/null; do wait $node || code=1; done
done
exit $code
"""
SCONTROL = '#!/bin/bash\n[ "$1" = show ] && echo localhost && echo localhost || echo "$@" >> scontrol.txt\n'
WORDS_OF_TORCHRUN = '#!/bin/bash\nprintf "%q " "$@"\n'
TORCHRUN = """#!{python} -SE
# one process here, forked by the test; passes SIGTERM on, and ends with 1 then, whatever its process ends with
import json, os, select, signal, socket, sys
at = sys.argv.index("-m")
given = dict(zip(sys.argv[1:at:2], sys.argv[2:at:2]))
place = dict(RANK=given["--node-rank"], WORLD_SIZE=given["--nnodes"], LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
place.update(MASTER_ADDR=given["--master-addr"], MASTER_PORT=given["--master-port"])
asked = socket.socket(socket.AF_UNIX)
asked.connect("forks")
asked.sendall(json.dumps([sys.argv[at + 2 :], place]).encode() + b"\\n")
answers, stopped = asked.makefile(), []
child = int(answers.readline())
signal.signal(signal.SIGTERM, lambda *_: (stopped.append(child), os.kill(child, signal.SIGTERM)))
select.select([os.pidfd_open(child)], [], [])
asked.sendall(b"ended\\n")
sys.exit(int(answers.readline()) != 0 or bool(stopped))
"""


def program(folder: Path, name: str, text: str) -> None:
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / name).write_text(text)
    (folder / "bin" / name).chmod(0o755)


def documents(file: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((JOBS / file).read_text()))


def started(tmp_path: Path, script: str, **env: str) -> list[str]:
    """The words that a script gives torchrun."""
    program(tmp_path, "torchrun", WORDS_OF_TORCHRUN)
    program(tmp_path, "python", "#!/bin/bash\n")
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], env={"PATH": path, "HOME": str(tmp_path), **env}, capture_output=True, text=True
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return shlex.split(done.stdout)


def checked(words: list[str], fastcls: Fastcls) -> dict[str, str]:
    """torchrun's options, behind which fastcls takes its own."""
    at = words.index("fastcls")
    done = fastcls(*words[at + 1 :], "--print-config")
    assert done.code == 0, done.output
    assert {"--checkpoints", "--resume", "--out"} <= set(words) and words[words.index("--resume") + 1] == "auto"
    assert words[at - 1] == "-m"
    return dict(zip(words[: at - 1 : 2], words[1 : at - 1 : 2], strict=True))


def test_the_kubernetes_job_is_one_and_starts_every_pod(tmp_path: Path, fastcls: Fastcls) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate")
    service, job = documents("kubernetes.yaml")
    for document in (service, job):
        validator.validate(document, validator.latest_version(), strict=True)
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    for index in range(job["spec"]["completions"]):
        words = started(tmp_path, container["args"][0], JOB_COMPLETION_INDEX=str(index))
        options = checked(words, fastcls)
        assert options["--nnodes"] == str(job["spec"]["completions"]) and options["--node-rank"] == str(index)
        assert options["--master-addr"] == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
        assert options["--nproc-per-node"] == str(container["resources"]["limits"]["nvidia.com/gpu"])


def test_the_skypilot_task_starts_every_machine(tmp_path: Path, fastcls: Fastcls) -> None:
    (task,) = documents("skypilot.yaml")
    for rank in range(task["num_nodes"]):
        env = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NUM_GPUS_PER_NODE": "8", "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2"}
        words = started(tmp_path, task["run"], SKYPILOT_NODE_RANK=str(rank), **env, **task["envs"])
        options = checked(words, fastcls)
        assert options["--node-rank"] == str(rank) and options["--master-addr"] == "10.0.0.1"


def test_skypilot_reads_its_task() -> None:
    sky = pytest.importorskip("sky", reason="needs skypilot, which wants an older click than typer")
    assert sky.Task.from_yaml(str(JOBS / "skypilot.yaml")).num_nodes == 2


@pytest.fixture
def torchrun(request: pytest.FixtureRequest, forks: Forks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """torch's own, or one whose processes need not import it."""
    monkeypatch.chdir(tmp_path)
    if request.param == "torch's":
        yield
        return
    program(tmp_path, "torchrun", TORCHRUN.replace("{python}", sys.executable))
    lock = threading.Lock()

    class Node(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            words, place = json.loads(self.rfile.readline())
            with lock:
                child, _ = forks.start(words, tmp_path / "slurm-77.out", env=place, folder=str(tmp_path), whole=True)
            self.wfile.write(f"{child}\n".encode())
            self.rfile.readline()
            with lock:
                self.wfile.write(f"{forks.wait(child).code}\n".encode())

    with socketserver.ThreadingUnixStreamServer("forks", Node) as server:
        threading.Thread(target=server.serve_forever).start()
        yield
        server.shutdown()


@pytest.mark.faults
@pytest.mark.usefixtures("torchrun")
@pytest.mark.parametrize("torchrun", ["ours", pytest.param("torch's", marks=pytest.mark.slow)], indirect=True)
def test_the_slurm_script_trains_on_two_nodes_and_continues_when_it_is_queued_again(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    text = (JOBS / "slurm.sh").read_text()
    for pattern, mine in (
        (r"TRAIN=\(.*?\)", "TRAIN=(recipe digits-cnn --device cpu --limit 20 --epochs 40 --checkpoint-minutes 0)"),
        (r"KEPT=s3://bucket", f"KEPT={tmp_path}"),
        (r"--nproc-per-node 8", "--nproc-per-node 1"),
        (r"29500", str(port)),
    ):
        text, count = re.subn(pattern, mine, text)
        assert count == 1, pattern
    (tmp_path / "job.sh").write_text(text)
    program(tmp_path, "srun", SRUN)
    program(tmp_path, "scontrol", SCONTROL)
    env = {
        **os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1", "SLURM_JOB_ID": "77", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "node[0-1]",
    }  # fmt: skip
    run = tmp_path / "runs" / "77"

    def job() -> subprocess.Popen[str]:
        with (tmp_path / "slurm-77.out").open("a") as log:
            return subprocess.Popen(["bash", "job.sh"], cwd=tmp_path, env=env, stdout=log, stderr=log, text=True)

    first = job()
    until(lambda: any(run.glob("checkpoints/0000000[3-9]")) or first.poll() is not None)
    first.send_signal(signal.SIGUSR1)  # the time is nearly up
    said = tmp_path / "slurm-77.out"
    assert first.wait(300) != 0, said.read_text()
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 77\n", said.read_text()
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
    assert list(tmp_path.glob("checkpoints/77/*/MANIFEST"))
    shutil.rmtree(run)  # of nodes that share no file system, and are others now
    assert job().wait(500) == 0 and "fetched checkpoint" in said.read_text(), said.read_text()
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "done" and record["device"]["processes"] == 2 and len(record["resumed"]) == 1
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 77\n"
