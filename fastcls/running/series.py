"""Many runs of one recipe in one folder, one after another: what `compare` and `search` have in common.

A run that is done is kept, one that was interrupted goes on, one that fails does not stop those after it. All runs of a
folder have the same code, images and common settings, so that their figures compare.
"""

from __future__ import annotations

import ast
import gc
import hashlib
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcls.errors import DataError, FastclsError, OutputError, TrainingError, UsageError
from fastcls.machine.screen import Screen
from fastcls.machine.stop import Ended, listening
from fastcls.runfolder import inside, runs
from fastcls.settings import shell
from fastcls.settings.knobs import as_text
from fastcls.settings.options import SILENT, Options
from fastcls.settings.request import Request
from fastcls.settings.sources import RecipeSource

if TYPE_CHECKING:
    from fastai.callback.core import Callback

LONGEST = 100  # characters of a folder name that says what it holds


def make(
    request: Request, watchers: Sequence[Callback] = (), quiet: bool = False, said: set[str] | None = None
) -> Exception | None:
    """Bring the run in the folder `request.out` to its end, from its checkpoint if it has one; gives what it failed of.

    A signal is passed on, and leaves the run to be continued; so is what keeps an interrupted run from being continued
    now (another process trains it, images that cannot be read), which deletes nothing. Checkpoints of a run that
    ended are removed: they are three times the weights. watchers: further callbacks of training. quiet: the run says
    nothing. said: what need not be said again.
    """
    from fastcls.running.runner import resume, run
    from fastcls.training.checkpoints import Store

    folder = request.out
    assert folder is not None
    if request.options.checkpoints:
        raise UsageError("--checkpoints is for a single run.", "Use it with  fastcls recipe  only.")
    screen = Screen(quiet, said)
    begun = (folder / "run.json").is_file() and bool(Store(folder).folders())
    with listening() as stop:
        try:
            if begun:
                resume(folder, screen, trust=True, watchers=watchers)  # begun by this command
            else:
                with runs.locked(folder):
                    _empty(folder)  # a run without a checkpoint, of this series' own
                run(replace(request, command=command(request)), screen, watchers, of_a_series=True)
            problem: Exception | None = None
        except Exception as found:  # whatever one run dies of, the others have their turn
            if begun and isinstance(found, FastclsError) and not isinstance(found, TrainingError):
                if isinstance(found, DataError):
                    found.hint += f"\nTo start this run over, remove {folder} and run the same command."
                raise
            problem = found
        if problem is None or isinstance(problem, Ended):
            shutil.rmtree(Store(folder).home, ignore_errors=True)
        else:
            problem.__traceback__ = problem.__context__ = None  # whose frames hold the learner
        with stop.deferred():
            gc.collect()
    return problem


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def show_failure(problem: Exception, screen: Screen) -> None:
    """Show what a run failed of, and how to fix it."""
    if isinstance(problem, FastclsError):
        screen.problem(problem)
    else:
        screen.print(f"failed   {type(problem).__name__}: {problem}", style="red", markup=False)


def reason(problem: Exception) -> str:
    """What a run failed of, in a line."""
    return problem.message if isinstance(problem, FastclsError) else f"{type(problem).__name__}: {problem}"


def is_done(folder: Path) -> bool:
    """Whether a run folder holds a run that ended well."""
    return (folder / "metrics.json").is_file() and runs.read_json(folder / "run.json").get("status") == "done"


def precision(folder: Path) -> Any:
    """The number format that a run was made in. The first run decides it for all: two formats would not compare."""
    return runs.read_json(folder / "run.json")["options"]["precision"]


def command(request: Request) -> str:
    """The `fastcls recipe` command that makes a run of its own of this request."""
    name = request.source.name if request.source.shipped else str(request.source.path)
    words = ["recipe", name]
    for knob in request.source.knobs:
        if knob.name in request.knobs:
            words += [knob.flag, as_text(request.knobs[knob.name])]
    for key, value in request.extra.items():
        words += ["--set", f"{key}={value}"]
    return shell.command(*words, *_option_words(request.options))


def _option_words(options: Options) -> Iterator[str]:
    for field in fields(Options):
        value, flag = getattr(options, field.name), field.name.replace("_", "-")
        if field.name == "extra" or value == field.default:
            continue
        if field.name == "auto_epochs":
            yield from ("--epochs", "auto")
        elif field.name == "seconds":
            yield from ("--time", f"{value:g}s")
        elif isinstance(value, bool):
            yield f"--{flag}" if value else f"--no-{flag}"
        else:
            yield from (f"--{flag}", str(value))


def fixed(request: Request) -> list[str]:
    """What every run has that a plain `fastcls recipe` would not, the seed aside: it names the series."""
    defaults = request.source.defaults()
    given = {k: v for k, v in request.knobs.items() if k != "path" and v != defaults[k]}
    plain = {f.name for f in fields(Options)} - {"extra", *SILENT}
    given |= {
        k: getattr(request.options, k) for k in sorted(plain) if getattr(request.options, k) != getattr(Options(), k)
    }
    return [f"{name}={as_text(value)}" for name, value in {**given, **request.extra}.items()]


def slug(words: Sequence[str]) -> str:
    """A folder name that says what it holds; what makes it long or cannot be in one becomes a checksum."""
    text = ",".join(words)
    name = re.sub(r"[^\w=.,+-]+", "-", text)
    if name == text and len(name) <= LONGEST:
        return name
    return f"{name[:LONGEST]}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


# what all runs of a series have in common -> what it is called where it differs
COMMON = {
    "recipe": "a different recipe",
    "code": "different code of this recipe",
    "common": "different common settings",
    "path": "different images",
}


def common(request: Request) -> dict[str, Any]:
    """What the runs of a series must have in common, to be written beside them."""
    source, path = request.source, str(request.knobs.get("path", ""))
    return {"recipe": source.name, "code": _code(source), "common": fixed(request), "path": path}


def _code(source: RecipeSource) -> str:
    """A checksum of a recipe's code, whatever its docstring and comments say: claims are written into those later."""
    tree = ast.parse(source.source)
    if ast.get_docstring(tree) is not None:
        del tree.body[0]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def refuse_others(out: Path, plan: str, now: Mapping[str, Any], kind: str, words: Mapping[str, str] = COMMON) -> None:
    """OutputError where a folder holds anything but a series that has the same in common, or cannot be written.

    plan: the name of the series' file in it, which holds what `now` does. kind: 'comparison', for the message.
    """
    inside.check(out)
    if (out / plan).is_file():
        before = runs.read_json(out / plan)
        if other := " and ".join(text for key, text in words.items() if before.get(key) != now[key]):
            raise OutputError(
                f"{out} has runs of {other}, which are not comparable with these.",
                "Choose another folder with --out, or remove that one.",
            )
    elif out.is_dir() and any(out.iterdir()):
        raise OutputError(f"--out {out}: this folder is not empty and not a {kind}.", "Choose a new folder.")
    runs.check_place(out)
