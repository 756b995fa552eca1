"""Two machines on one: network namespaces with an address, a name and a loopback of their own, joined by a cable."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

PORT = 29400
NETWORK = "10.203.77"


@dataclass
class Machine:
    """A namespace; what is started in it is ended with it."""

    name: str
    address: str
    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *words: object, log: str = "log.txt") -> subprocess.Popen[str]:
        """Run `python WORDS` here, in the machine's folder, its output at the end of a file there."""
        inside = f'hostname {self.name}; exec "$@"'
        command = ["ip", "netns", "exec", self.name, "unshare", "--uts", "sh", "-c", inside, "sh", sys.executable]
        there = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "FASTCLS_DATA": str(self.folder / "data"),
        }
        there |= {"GLOO_SOCKET_IFNAME": "cable", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        with (self.folder / log).open("a") as output:
            process = subprocess.Popen(
                [*command, *map(str, words)], cwd=self.folder, env=there, stdout=output, stderr=subprocess.STDOUT,
                text=True, start_new_session=True,
            )  # fmt: skip
        self.started.append(process)
        return process

    def agent(self, *words: object) -> subprocess.Popen[str]:
        """torchrun with one process here, whose arguments begin `words`."""
        return self.start("-m", "torch.distributed.run", "--nproc-per-node", 1, *words)

    def said(self) -> str:
        """All that was shown here."""
        file = self.folder / "log.txt"
        return file.read_text() if file.exists() else ""

    def processes(self) -> list[int]:
        """All that run here."""
        found = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=True)
        return list(map(int, found.stdout.split()))

    def crash(self) -> None:
        """Every process here is gone at once."""
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        for process in self.started:
            process.wait()
        self.started.clear()


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Machine]]:
    """Two, each with a folder of its own; skipped where namespaces cannot be made."""
    tmp_path = tmp_path_factory.mktemp("machines")
    made: list[Machine] = []

    def ip(words: str) -> Any:
        return subprocess.run(["ip", *words.split()], capture_output=True, text=True, check=True)

    names = [f"fastcls-{os.getpid()}-{i}" for i in (1, 2)]
    try:
        for number, name in enumerate(names, 1):
            ip(f"netns add {name}")
            (tmp_path / name).mkdir()
            made.append(Machine(name, f"{NETWORK}.{number}", tmp_path / name))
        first, second = made
        ip(f"link add cable netns {first.name} type veth peer name cable netns {second.name}")
        hosts = "127.0.0.1 localhost\n" + "".join(f"{machine.address} {machine.name}\n" for machine in made)
        for machine in made:
            etc = Path("/etc/netns") / machine.name  # what `ip netns exec` lays over /etc
            etc.mkdir(parents=True)
            (etc / "hosts").write_text(hosts)
            ip(f"-n {machine.name} addr add {machine.address}/24 dev cable")
            for device in ("cable", "lo"):
                ip(f"-n {machine.name} link set {device} up")
    except (OSError, subprocess.CalledProcessError) as problem:
        remove(made)
        pytest.skip(f"needs network namespaces: {problem}")
    yield made
    for machine in made:
        machine.crash()
    remove(made)


def remove(machines: list[Machine]) -> None:
    for machine in machines:
        subprocess.run(["ip", "netns", "del", machine.name], check=False)
        etc = Path("/etc/netns") / machine.name
        if etc.exists():
            (etc / "hosts").unlink(missing_ok=True)
            etc.rmdir()
