"""A process that has imported everything and forks a child a command, so that a test can kill many runs in seconds.

Reads a JSON line each. An object: a child runs the `words` of fastcls, or of `unpack ARCHIVE FOLDER`, its output at the
end of the file `log`, and answers its process number and its bytes of memory; perhaps in a `folder`, with more in its
`env`ironment, `limited` in time and memory, and sent the signals that `strike` names at a stage. What comes after
training (the pass over the splits, the report) is left out but where `whole` says otherwise. A number: waits for that
child, and answers its exit code, its seconds of a processor and the most bytes that it had.
"""

import functools
import json
import os
import resource
import sys
import traceback
from pathlib import Path
from typing import Any

import quicker
import stages

LONGEST = 20  # seconds of a processor that a limited child may take
MOST = 3_000_000_000  # bytes above this process that it may ask for


def memory() -> list[int]:
    """Bytes of memory that this process asked for, and that it has."""
    return [int(pages) * os.sysconf("SC_PAGE_SIZE") for pages in Path("/proc/self/statm").read_text().split()[:2]]


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


def child(asked: dict[str, Any]) -> None:
    os.setsid()
    os.environ.update(asked.get("env", {}))
    size, resident = memory()
    print(os.getpid(), resident, flush=True)
    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(asked.get("folder", "."))
    if asked.get("limited"):
        resource.setrlimit(resource.RLIMIT_AS, (size + MOST, size + MOST))
        resource.setrlimit(resource.RLIMIT_CPU, (LONGEST, LONGEST))
    if not asked.get("whole"):
        from fastcls.running import evaluation, runner

        runner._Run._finish = lambda self: self._save(status="done")  # type: ignore[method-assign]
        evaluation.evaluated = lambda *_: ({}, {})  # the other processes' share of it
    if asked.get("strike"):
        stages.arm(*asked["strike"])
    try:
        code = run(asked["words"])
    except BaseException:
        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    os._exit(code)


@functools.cache
def import_all() -> None:
    """What whole runs, joint ones and commands that do not train need, too, before the fork."""
    import onnxruntime  # noqa: F401
    import torch
    from torch.onnx._internal.exporter import _registration  # noqa: F401

    from fastcls.cli import check, export, import_, predict, runs  # noqa: F401
    from fastcls.datasets import archives  # noqa: F401
    from fastcls.inference import deploy, explain  # noqa: F401
    from fastcls.reports import build  # noqa: F401
    from fastcls.running import dryrun, replay  # noqa: F401
    from fastcls.training import parallel  # noqa: F401

    quicker.operators_once()
    torch.onnx.export(torch.nn.Linear(1, 1), (torch.zeros(1, 1),), dynamo=True, verbose=False)
    quicker.freeze()


def main() -> None:
    import torch

    torch.set_num_threads(1)
    import rich._emoji_codes  # noqa: F401
    from PIL import Image
    from typer.main import get_command

    from fastcls.audit import shortcuts
    from fastcls.cli import recipe, resume  # noqa: F401
    from fastcls.cli.verbs import app
    from fastcls.running import evaluation, runner  # noqa: F401
    from fastcls.running.loading import import_fastai
    from fastcls.training import resume as training  # noqa: F401

    import_fastai()
    from timm import create_model

    from fastcls.models import learners  # noqa: F401

    create_model("test_resnet")  # timm is put off until something is called
    get_command(app)
    Image.init()
    shortcuts.find = lambda *_: None  # of what predicts the classes without looking at the content, which takes long
    quicker.freeze()
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if isinstance(asked, int):
            _, status, used = os.wait4(asked, 0)
            print(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, flush=True)
            continue
        if asked.get("whole") or "RANK" in asked.get("env", {}):
            import_all()
        if os.fork() == 0:
            child(asked)


main()
