"""Who logs a run while it trains and when it ends: CSV files, TensorBoard, Weights & Biases, MLflow.

A `trackers.Tracking` holds the trackers of one run; each is a module here with a `Tracker` of its own. None of them can
end a run: whatever one raises ends that tracker, with a note.
"""

from collections.abc import Iterable

from fastcls.machine import extras


def names(text: str) -> list[str]:
    """The trackers that `--track a,b` names, each once."""
    return list(dict.fromkeys(filter(None, map(str.strip, text.split(",")))))


def refuse_missing(names: Iterable[str]) -> None:
    """EnvironmentProblem where a tracker's library is not installed, with the command that installs it."""
    missing = [name for name in names if name in extras.MODULES and extras.missing(name)]
    extras.require(f"--track {','.join(missing)}", *missing)
