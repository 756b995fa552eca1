"""A process that has imported everything and forks a child a command, so that a test can kill many runs in seconds.

Reads a JSON list of words a line, forks a child that runs `fastcls WORDS` with its output in the file that the first
word names, and answers its process number; a number instead of a list waits for that child and answers its exit code.
An object instead of a list has the words, what is to be added to the environment, and perhaps `strike`: at which stage
the run is sent which signals. Its own arguments are further modules to import.
What comes after training (the pass over the splits, the report) is left out but where `whole` says otherwise.
"""

import importlib
import json
import os
import sys

import stages


def main() -> None:
    import torch

    torch.set_num_threads(1)
    from fastcls import cli
    from fastcls.cli import recipe, resume  # noqa: F401
    from fastcls.running import evaluation, runner
    from fastcls.running.loading import import_fastai
    from fastcls.training import resume as training  # noqa: F401  what a run needs, before the fork

    import_fastai()
    for module in sys.argv[1:]:
        importlib.import_module(module)
    finish, evaluated = runner._Run._finish, evaluation.evaluated
    runner._Run._finish = lambda self: self._save(status="done")  # type: ignore[method-assign]
    evaluation.evaluated = lambda *_: ({}, {})  # the other processes' share of it
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if isinstance(asked, int):
            print(os.waitstatus_to_exitcode(os.waitpid(asked, 0)[1]), flush=True)
            continue
        more = asked if isinstance(asked, dict) else {}
        words, env = more.get("words", asked), more.get("env", {})
        child = os.fork()
        if child == 0:
            os.environ.update(env)
            if more.get("whole"):
                runner._Run._finish, evaluation.evaluated = finish, evaluated  # type: ignore[method-assign]
            log = os.open(words[0], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.setsid()
            if more.get("strike"):
                stages.arm(*more["strike"])
            sys.argv = ["fastcls", *words[1:]]
            try:
                cli.main()
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
            except BaseException:
                import traceback

                traceback.print_exc()
                code = 99
            sys.stdout.flush()
            os._exit(code)
        print(child, flush=True)


main()
