"""Everything that fastcls can refuse or fail at, and the exit code a shell sees.

    FastclsError                    1   anything of ours that fits nowhere below
    ├── UsageError                  2   the command line: an unknown recipe, knob, architecture or value
    │   ├── KnobError               2   one or more wrong settings, reported together
    │   └── RecipeError             2   a recipe file that is missing, unreadable or lacks a stage
    ├── DataError                   3   images, labels or a dataset: missing, empty, unreadable, unusable
    │   └── DownloadError           3   an address that does not answer, or bytes that fail their checksum
    ├── OutputError                 4   a folder or file that cannot be written, a run that cannot be read
    ├── EnvironmentProblem          5   the installation: packages that do not match, a device that is not there
    │   └── WeightsError            5   pretrained weights that cannot be downloaded, or are damaged on this machine
    └── TrainingError               6   training that broke down: no memory left, a dead loader process
        ├── Diverged                6   a loss or weights that are not finites; going on would end the same
        └── ProcessLost             6   another of the run's processes is gone

An interrupted run ends with 130 (Ctrl-C) or 143 (SIGTERM), as shells expect. Any other exception is a
bug of fastcls or of a recipe: it keeps its traceback and ends with 1.
"""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable


class FastclsError(Exception):
    """A problem that the user can fix: what and where in `message`, how in `hint`."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """As Python shows it: the options of a command are keywords there."""
        return in_python(f"{self.message}\n{self.hint}" if self.hint else self.message)


class UsageError(FastclsError):
    """The command line asks for something that does not exist."""

    exit_code = 2


class KnobError(UsageError):
    """One or more settings of a recipe are unknown or have a value they cannot take."""


class RecipeError(UsageError):
    """A recipe file is missing, does not parse, or lacks `get_learner` or `fit`."""


class DataError(FastclsError):
    """Images, labels or a dataset are missing, empty, unreadable or unusable."""

    exit_code = 3


class DownloadError(DataError):
    """A download failed or its bytes do not have the expected checksum."""


class OutputError(FastclsError):
    """A result cannot be written, or a run folder cannot be read."""

    exit_code = 4


_ROOM, _ALLOWED = "Free some space there, or choose another place.", "Change its permissions, or choose another place."
# what a file system answers of a name it is given, no bug whichever line asked; and how to fix it
OF_SYSTEM = {
    errno.EACCES: _ALLOWED,
    errno.EPERM: _ALLOWED,
    errno.EROFS: "It is read-only: choose another place.",
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EIO: "The disk or its network connection failed: see the system's log.",
    errno.ENAMETOOLONG: "Use a shorter name.",
}


def of_system(problem: BaseException) -> OutputError | None:
    """What a file system refused, as an error of ours; None for all else, which may be a bug."""
    if not isinstance(problem, OSError) or problem.errno not in OF_SYSTEM or problem.filename is None:
        return None
    return OutputError(f"{str(problem.filename)[:200]}: {problem.strerror}.", OF_SYSTEM[problem.errno])


class EnvironmentProblem(FastclsError):
    """The installation or the machine cannot do what was asked."""

    exit_code = 5


class WeightsError(EnvironmentProblem):
    """Pretrained weights cannot be downloaded, or what is kept of them on this machine is damaged."""


class TrainingError(FastclsError):
    """Training broke down after it had begun."""

    exit_code = 6


class Diverged(TrainingError):
    """The loss or the weights became NaN or infinite, and would again if the run were resumed."""


class ProcessLost(TrainingError):
    """Another of the processes that train together ended or cannot be reached."""


_COMMAND = re.compile(r"\b(?:fastcls|pip) .*")
# with its value where it is one for certain: a number, or what a colon follows
_FLAG = re.compile(
    r"(?<![\w-])(?:--(no-)?([a-z][\w-]*)|-(o)\b)(?: (-?\d[\d.,]*\b|\S+?(?=:(?:\s|$))|(?:(?! --).)+?(?=: expected )))?"
)
_LITERAL = re.compile(r"-?[\d.,]+|nan|True|False|[\[({<].*")  # and no text
_RENAMED = {"o": "out", "set": "extra", "setting": "settings"}  # of options, in Python


def in_python(text: str) -> str:
    """A message with options as Python has them: `--cache-gb -1:` becomes `cache_gb=-1:`. Commands stay as they are."""

    def keyword(found: re.Match[str]) -> str:
        off, long, short, value = found.groups()
        name = _RENAMED.get(short or long, long).replace("-", "_")
        if value is None:
            return name + "=False" * bool(off)
        return f"{name}={value if _LITERAL.fullmatch(value) else repr(value)}"

    lines = []
    for line in text.splitlines():
        command = _COMMAND.search(line)
        end = command.start() if command else len(line)
        lines.append(_FLAG.sub(keyword, line[:end]) + line[end:])
    return "\n".join(lines)


SLIP = 0.75  # of 1: how like a name must be to be another one mistyped


def nearest(name: str, known: Iterable[str], count: int = 1) -> list[str]:
    """The `count` members of `known` most like `name`, best first; empty when none is close."""
    return difflib.get_close_matches(str(name).lower(), list(dict.fromkeys(known)), n=count, cutoff=0.6)


def slip(name: str, known: Iterable[str]) -> str:
    """The known name that this one is when mistyped, or ''; dashes before a flag do not count."""
    bare = {one.lstrip("-"): one for one in known}
    close = difflib.get_close_matches(str(name).lower().lstrip("-"), bare, n=1, cutoff=SLIP)
    return bare[close[0]] if close else ""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A clause that offers the known name that this is a slip of, or nothing."""
    close = slip(name, known)
    return f"; did you mean {close!r}?" if close else ""
