"""A process that has imported everything and forks a child a command, watched: processor seconds, memory, exit code.

Reads a JSON object a line: `words` of fastcls, or of `unpack ARCHIVE FOLDER`, the `folder` to run them in, the file
`log` for its output. Answers {"code", "seconds", "megabytes"}: memory is what the child had
more at its most than when it began, which includes what it read anew of the libraries that this process has.
"""

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

LONGEST = 20.0  # seconds until a child is killed
MOST = 3_000_000_000  # bytes above this process that a child may ask for


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run(words: list[str]) -> int:
    """The exit code of fastcls, or of the function behind every archive that it unpacks."""
    from fastcls import cli
    from fastcls.datasets import archives
    from fastcls.errors import FastclsError

    if words[0] == "unpack":
        try:
            archives.unpack(Path(words[1]), Path(words[2]))
        except FastclsError as problem:
            print(f"error: {problem}")
            return problem.exit_code
        return 0
    sys.argv = ["fastcls", *words]
    try:
        cli.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def child(asked: dict[str, object], shown: int) -> None:
    os.write(shown, str(resident()).encode())
    log = os.open(str(asked["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(str(asked["folder"]))
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + MOST, size + MOST))
    try:
        code = run(asked["words"])  # type: ignore[arg-type]
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    os._exit(code)


def main() -> None:
    import onnxruntime  # noqa: F401
    import torch

    torch.set_num_threads(1)
    from fastcls.cli import check, export, import_, predict, recipe, resume, runs  # noqa: F401
    from fastcls.datasets import archives  # noqa: F401  before the fork
    from fastcls.inference import (
        deploy,  # noqa: F401  before the fork
        explain,  # noqa: F401  before the fork
    )
    from fastcls.reports import build  # noqa: F401  before the fork
    from fastcls.running import (  # noqa: F401  before the fork
        dryrun,
        replay,
        runner,
    )
    from fastcls.running.loading import import_fastai

    import_fastai()
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        started = time.monotonic()
        reading, writing = os.pipe()
        number = os.fork()
        if number == 0:
            child(asked, writing)
        os.close(writing)
        before = int(os.read(reading, 100))
        os.close(reading)
        while True:
            ended, status, used = os.wait4(number, os.WNOHANG)
            if ended:
                break
            if time.monotonic() - started > LONGEST:
                os.kill(number, signal.SIGKILL)
            time.sleep(0.005)
        megabytes = (used.ru_maxrss * 1024 - before) / 1e6
        answer = {"code": os.waitstatus_to_exitcode(status), "seconds": used.ru_utime + used.ru_stime}
        print(json.dumps(answer | {"megabytes": megabytes}), flush=True)


main()
