"""Starts the processes of one machine by torch's elastic agent, and says which one ended the others.

Rank 0 has the terminal; the others are silent, and the standard error of one that failed is printed at the end. They
find each other through files, so that no port is open: neither the agent's, which would take pickles, nor their own.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fastcls.errors import TrainingError
from fastcls.machine import extras, host, ranks
from fastcls.machine.stop import CODES
from fastcls.settings import shell

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

GRACE = 600  # seconds that the processes have to save after a signal; torch before 2.12 gives them 30
LINES = 20  # of a silent process's standard error, printed when it failed
HANG_UP = getattr(signal, "SIGHUP", None)  # Windows has none
LAUNCHER = "FASTCLS_LAUNCHER"  # the launcher's process, without which the others end
ELASTIC = "TORCHELASTIC_RUN_ID"  # set by torchrun's agent, which is the parent of its processes


def launch(count: int, folder: Path) -> int:
    """Run this very command in `count` processes; gives the exit code. TrainingError where one was killed.

    folder: where the run is to be written.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with tempfile.TemporaryDirectory(prefix="fastcls-") as home:
        os.environ |= {ranks.RENDEZVOUS: Path(home, "store").as_uri(), ranks.FOLDER: str(folder)}
        os.environ |= {LAUNCHER: str(os.getpid()), "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(GRACE)}
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, host.cores() // count)))
        if sys.platform == "linux":
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # one machine: nothing is heard outside of it
        ignored = HANG_UP and signal.getsignal(HANG_UP) == signal.SIG_IGN  # by nohup; the agent would listen
        if HANG_UP and ignored:  # where torch's agent listens to all signals
            signal.pthread_sigmask(signal.SIG_BLOCK, {HANG_UP})
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id="fastcls",
            rdzv_backend="c10d",
            rdzv_endpoint=str(Path(home, "agent")),
            rdzv_configs={"store_type": "file"},
            max_restarts=0,
            local_addr="localhost",
            logs_specs=DefaultLogsSpecs(home, redirects=dict.fromkeys(range(1, count), Std.ERR)),
        )
        if ignored:
            config.signals_to_handle = "SIGTERM,SIGINT,SIGQUIT"
        logging.disable(logging.CRITICAL)  # the agent logs each signal and exit code
        try:
            elastic_launch(config, sys.executable)(*sys.orig_argv[1:])
        except SignalException as end:
            return CODES.get(end.sigval, 128 + end.sigval)
        except ChildFailedError as end:
            return _verdict(end.failures, count, folder, Path(home))
        finally:
            logging.disable(logging.NOTSET)
    return 0


def require_accelerate() -> None:
    """EnvironmentProblem where it is not installed."""
    extras.require("Training with several processes", "distributed")


def _verdict(failures: Mapping[int, ProcessFailure], count: int, folder: Path, logs: Path) -> int:
    """The exit code of the process that made the others end: one that was killed, or else the first that failed."""
    began = min(failure.timestamp for failure in failures.values())

    def order(failure: ProcessFailure) -> tuple[bool, bool, bool]:
        code = failure.exitcode
        ended_by_agent = code == -signal.SIGTERM or (code == -signal.SIGKILL and failure.timestamp > began + 1)
        return ended_by_agent, code >= 0, code in CODES.values()

    cause = min(failures.values(), key=order)
    code, whose = cause.exitcode, f"Rank {cause.local_rank} of {count} processes"
    if code < 0:
        name = signal.Signals(-code).name
        why = "; the system does this when memory runs out" if -code == signal.SIGKILL else ""
        hint = f"Run folder: {folder}"
        if any(folder.glob("checkpoints/[0-9]*")):
            hint = f"Continue with  {shell.command('resume', folder, '--processes', count)}"
        raise TrainingError(f"{whose} was killed by {name}{why}. The others were stopped.", hint)
    main = failures.get(0)
    if cause.local_rank and code not in CODES.values() and (main is None or main.exitcode != code):
        (log,) = logs.glob(f"*/attempt_0/{cause.local_rank}/stderr.log")
        lines = log.read_text(errors="replace").strip().splitlines()[-LINES:]
        print("\n".join([f"{whose} ended with exit code {code}:", *lines]), file=sys.stderr)
    return code


def follow() -> None:
    """Stop training, as SIGTERM does, when the launcher is gone: nothing would be left to end this process.

    Or when it passes on a hang-up. In place of a torchrun that was killed another one would start the same rank again.
    """
    launcher = os.environ.get(LAUNCHER) or (str(os.getppid()) if ELASTIC in os.environ else "")
    if not launcher:
        return
    if HANG_UP and LAUNCHER in os.environ:
        signal.signal(HANG_UP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))

    def watch() -> None:
        while str(os.getppid()) == launcher:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="launcher").start()


def hush() -> None:
    """Ranks other than 0 print nothing; errors still go to standard error."""
    if not ranks.first():
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  until the process ends
