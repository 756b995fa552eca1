"""What every verb has in common, whoever parsed its words: which run it reads, how much it says, how it ends."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastcls import log
from fastcls.cli import streams
from fastcls.cli.streams import ended, refusal
from fastcls.errors import FastclsError, UsageError, of_system
from fastcls.machine import extras, ranks
from fastcls.machine.stop import Stopped
from fastcls.settings import shell

UNREAD = 141  # as a shell has it: 128 + SIGPIPE
FOR_SEVERAL = ("recipe", "resume")  # the verbs that several processes can do together


def chosen(name: str, done: bool = True) -> Path:
    """The run folder that a user named; where 'last' or a recipe's name was given, which one that is is said.

    done: of several the newest that ended well.
    """
    from fastcls.runfolder import runs

    folder = runs.find(name, done)
    if folder != shell.path(name):
        log.logger.info(f"run      {folder}")
    return folder


def guarded(function: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    """Turn our errors into a message and an exit code; anything else is a bug and keeps its traceback."""
    warnings.filterwarnings("ignore", module=r"PIL(\.|$)")  # of odd metadata: what matters is said of the image
    streams.prepare()
    try:
        if ranks.world() > 1 and function.__name__ not in FOR_SEVERAL:
            hint = f"Several processes can only run  fastcls {' or '.join(FOR_SEVERAL)}."
            raise UsageError(f"{ranks.world()} processes were started, and each would do the same.", hint)
        function(*args, **kwargs)
    except FastclsError as error:
        log.logger.debug("traceback:", exc_info=error)
        raise refusal(error) from None
    except Stopped as stop:
        raise ended(stop.code) from None
    except KeyboardInterrupt:
        raise ended(130) from None
    except EOFError as problem:  # click would answer it with "Aborted!" and nothing else
        raise RuntimeError("a file or a stream ended too early") from problem
    except ImportError as problem:
        missing = extras.unimportable(problem)
        if missing is None:
            raise
        raise refusal(missing) from None
    except BrokenPipeError:  # who reads, `| head` say, has seen enough; click would end with 1
        raise ended(UNREAD) from None
    except OSError as problem:
        known = of_system(problem)
        if known is None:
            raise
        raise refusal(known) from None
