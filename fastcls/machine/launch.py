"""Starts the processes of one machine, passes signals on to them, and ends all when one is gone.

torchrun's agent could do it, but imports torch first (seconds) and opens a port. Here rank 0 has the terminal, the
others are silent; the standard error of one that failed is printed at the end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fastcls.errors import TrainingError
from fastcls.machine import cpus, extras, ranks
from fastcls.machine.stop import CODES
from fastcls.settings import shell

GRACE = 15.0  # seconds that the others have to end by themselves once one is gone
LINES = 20  # of a silent process's standard error, printed when it failed
FOLLOWS = "FASTCLS_FOLLOWS"  # set where a process's standard input closes when its launcher is gone


@dataclass
class Child:
    """A process of the run, and its standard error; None where that is the terminal."""

    rank: int
    process: subprocess.Popen[bytes]
    errors: IO[bytes] | None
    killed: bool = False  # by the launcher, because it did not end by itself

    @property
    def code(self) -> int | None:
        return self.process.poll()


def launch(count: int, folder: Path) -> int:
    """Run this very command in `count` processes; gives the exit code. TrainingError where one was killed.

    folder: where the run is to be written.
    """
    with tempfile.TemporaryDirectory(prefix="fastcls-") as rendezvous:
        children: list[Child] = []
        with _passing_on_signals(children):
            for rank in range(count):
                children.append(_start(rank, count, folder, Path(rendezvous)))
            first = _wait(children)
        return 0 if first is None else _verdict(first, children, folder)


def require_accelerate() -> None:
    """EnvironmentProblem where it is not installed."""
    extras.require("Training with several processes", "distributed")


def _start(rank: int, count: int, folder: Path, rendezvous: Path) -> Child:
    env = {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank)}
    env |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), FOLLOWS: "1"}
    env |= {ranks.RENDEZVOUS: (rendezvous / "store").as_uri(), ranks.FOLDER: str(folder)}
    env.setdefault("OMP_NUM_THREADS", str(max(1, cpus.cores() // count)))
    if sys.platform == "linux":
        env.setdefault("GLOO_SOCKET_IFNAME", "lo")  # one machine: nothing is heard outside of it
    errors = None if rank == 0 else tempfile.TemporaryFile()  # noqa: SIM115  read when all have ended
    process = subprocess.Popen(
        [sys.executable, *sys.orig_argv[1:]],
        env=env,
        stdin=subprocess.PIPE,
        stdout=None if rank == 0 else subprocess.DEVNULL,
        stderr=errors,
        start_new_session=True,  # a Ctrl-C reaches this process alone, which passes it on once
    )
    return Child(rank, process, errors)


@contextlib.contextmanager
def _passing_on_signals(children: Sequence[Child]) -> Iterator[None]:
    def pass_on(number: int, _: object) -> None:
        for child in children:
            if child.code is None:
                child.process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in CODES}
    try:
        yield
    finally:
        for child in children:
            child.process.kill()
            child.process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(children: Sequence[Child]) -> Child | None:
    """Until all have ended; gives the one that made the others end, None where all is well."""
    first: Child | None = None
    patience = float("inf")
    while any(child.code is None for child in children):
        for child in children:
            if first is None and child.code not in (None, 0, *CODES.values()):
                first, patience = child, time.monotonic() + GRACE
        if time.monotonic() > patience:
            for child in children:
                child.killed |= child.code is None
                child.process.kill()
        time.sleep(0.1)
    ended = [child for child in children if child.code != 0 and not child.killed]
    signalled = [child for child in ended if (child.code or 0) < 0]
    return next(iter([*signalled, *([first] if first else []), *ended]), None)


def _verdict(cause: Child, children: Sequence[Child], folder: Path) -> int:
    code = cause.code or 0
    if stuck := [str(child.rank) for child in children if child.killed]:
        print(f"Rank {', '.join(stuck)} did not end by itself within {GRACE:g} s.", file=sys.stderr)
    whose = f"Rank {cause.rank} of {len(children)} processes"
    if code < 0:
        name = signal.Signals(-code).name
        why = "; the system does that when memory runs out" if -code == signal.SIGKILL else ""
        hint = f"What there is: {folder}"
        if any(folder.glob("checkpoints/[0-9]*")):
            hint = f"Continue with  {shell.command('resume', folder, '--processes', len(children))}"
        raise TrainingError(f"{whose} was killed by {name}{why}. The others were ended.", hint)
    if cause.errors is not None and code not in CODES.values() and children[0].code != code:
        cause.errors.seek(0)
        lines = cause.errors.read().decode(errors="replace").strip().splitlines()[-LINES:]
        print("\n".join([f"{whose} ended with exit code {code}:", *lines]), file=sys.stderr)
    return code


def follow() -> None:
    """Stop training, as SIGTERM does, when the launcher is gone: nothing would be left to end this process."""
    if FOLLOWS not in os.environ:
        return

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 1):  # not through sys.stdin, whose lock the interpreter wants when it ends
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="launcher").start()


def hush() -> None:
    """Ranks other than 0 print nothing; errors still go to standard error."""
    if not ranks.first():
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  until the process ends
