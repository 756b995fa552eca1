"""How long until the first training step, against `import torch, torchvision`:  python -m benchmarks.imports

The bar: `fastcls recipe digits-cnn` makes its first step within 1.6 times the peer's time, and the terminal shows
what is happening within half a second. The digits lie on the disk already, and a first round, not kept, warms the
disk's cache and lets Python write its bytecode, as every user's second run finds it.
"""

from __future__ import annotations

import os
import pty
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import arguments, ratio, show, spread

ROOT = Path(__file__).parents[1]
PEER = "import torch, torchvision"
OURS = "fastcls recipe digits-cnn, first training step"
FIRST_LINE = "fastcls recipe digits-cnn, first line on the terminal"
FIRST_STEP = """
import os, sys
from fastcls import cli
from fastcls.running import loading

def import_fastai(original=loading.import_fastai):
    original()
    from fastai.learner import Callback, Learner

    class Stop(Callback):
        order = 1000
        def after_batch(self):
            os._exit(42)

    def fit(self, *args, original=Learner.fit, **kwargs):
        self.add_cb(Stop())
        original(self, *args, **kwargs)

    Learner.fit = fit

loading.import_fastai = import_fastai
sys.argv = ["fastcls", "recipe", "digits-cnn"]
cli.main()
"""
# all of them end as the first step does, at once: what Python tidies up when it ends is not measured
PROGRAMS = {name: f"import os\n{name}\nos._exit(0)" for name in ("import torch", PEER, "import fastai.vision.all")}
PROGRAMS["fastcls.running.loading.import_fastai()"] = (
    "import os; from fastcls.running import loading; loading.import_fastai(); os._exit(0)"
)
PROGRAMS[OURS] = FIRST_STEP


def measure(rounds: int, threads: int | None = None) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Wall and processor seconds of every program, interleaved; the first round is not kept."""
    wall: dict[str, list[float]] = {name: [] for name in [*PROGRAMS, FIRST_LINE]}
    cpu: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "FASTCLS_DATA": f"{folder}/data"}
        environment["PYTHONPYCACHEPREFIX"] = f"{folder}/bytecode"
        for name in ("MPLBACKEND", "FASTCLS_LAZY_IMPORTS", "PYTHONDONTWRITEBYTECODE"):
            environment.pop(name, None)
        if threads:
            environment["OMP_NUM_THREADS"] = str(threads)
        write = "from fastcls import datasets; datasets.digits()"
        subprocess.run([sys.executable, "-c", write], env=environment, check=True)
        for _ in range(rounds + 1):
            for name, program in PROGRAMS.items():
                first, seconds, processor = run(program, environment, folder, 42 if name == OURS else 0)
                wall[name].append(seconds)
                cpu[name].append(processor)
                if name == OURS:
                    wall[FIRST_LINE].append(first)
    return {name: times[1:] for name, times in wall.items()}, {name: times[1:] for name, times in cpu.items()}


def run(program: str, environment: dict[str, str], folder: str, code: int) -> tuple[float, float, float]:
    """Seconds until a program's first output on a terminal and until its end, and its processor seconds."""
    ours, theirs = pty.openpty()
    first, shown = float("nan"), b""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program], env=environment, cwd=folder, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    while part := _read(ours):
        first = first if shown else time.perf_counter() - started
        shown += part
    os.close(ours)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != code:
        raise RuntimeError(f"exit code {process.returncode}:\n{shown.decode()}")
    return first, seconds, used.ru_utime + used.ru_stime


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux's way to say that the other end is closed
        return b""


def main() -> None:
    options = arguments(__doc__ or "", rounds=5, threads=0)
    wall, cpu = measure(options.rounds, options.threads or None)
    rows = []
    for name, seconds in wall.items():
        processor = f"{statistics.median(cpu[name]):.2f}" if name in cpu else ""
        rows.append([name, spread(seconds, "{:.2f}"), f"{1 / ratio(wall, PEER, name):.2f}", processor])
    note = (
        "Each row is a separate process, with bytecode, that exits at once. torch._dynamo, timm, scikit-learn and "
        "parts of SciPy, which fastai imports, are imported on first use (fastcls/lazy.py)."
    )
    show("imports", "Start of a run", ["", "seconds", "ratio", "CPU seconds"], rows, options.rounds, note, options.save)


if __name__ == "__main__":
    main()
