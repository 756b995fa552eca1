"""Requests at once to `fastcls serve`, and their processor time beside `fastcls predict`'s on the same files:

python -m benchmarks.serve --run RUN --folder PHOTOS

Each of --requests is a photograph of its own connection, all started together. Both sides load the network once.
"""

from __future__ import annotations

import http.client
import os
import signal
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.common import arguments, show, spread

FASTCLS = [sys.executable, "-m", "fastcls"]


def cpu_seconds(process: subprocess.Popen) -> float:
    """User and system time of a child, which is waited for."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def served(run: str, pictures: list[bytes], at_once: int) -> tuple[float, list[float], float]:
    """Wall seconds of all requests, seconds of each, and the server's processor time, its start included."""
    server = subprocess.Popen([*FASTCLS, "serve", run, "--port", "0"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = server.stdout.readline().split()[1].split("/")[2]

    def ask(picture: bytes) -> float:
        started = time.perf_counter()
        connection = http.client.HTTPConnection(address, timeout=600)
        connection.request("POST", "/predict", picture)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        assert answer.status == 200, answer.status
        return time.perf_counter() - started

    ask(pictures[0])
    started = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        each = list(pool.map(ask, pictures))
    wall = time.perf_counter() - started
    server.send_signal(signal.SIGINT)
    return wall, each, cpu_seconds(server)


def predicted(run: str, files: list[Path]) -> float:
    """Processor time of the command on the same files."""
    command = [*FASTCLS, "predict", run, *map(str, files)]
    return cpu_seconds(subprocess.Popen(command, stdout=subprocess.DEVNULL))


def main() -> None:
    given = arguments(__doc__ or "", run="", folder="", requests=200, rounds=3)
    files = sorted(Path(given.folder).expanduser().rglob("*.jpg"))[: given.requests]
    pictures = [file.read_bytes() for file in files]
    rates, medians, slowest, ratios = [], [], [], []
    for _ in range(given.rounds):
        wall, each, cpu = served(given.run, pictures, len(pictures))
        rates.append(len(each) / wall)
        medians.append(statistics.median(each))
        slowest.append(max(each))
        ratios.append(cpu / predicted(given.run, files))
    row = [str(len(files)), spread(rates), spread(medians), spread(slowest), spread(ratios, "{:.2f}")]
    columns = ["requests at once", "responses per second", "median seconds", "slowest", "CPU time, predict = 1"]
    show("serve", "`fastcls serve` with simultaneous requests", columns, [row], given.rounds, save=given.save)


if __name__ == "__main__":
    main()
