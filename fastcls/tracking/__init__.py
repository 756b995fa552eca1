"""Who is told of a run while it trains and when it ends: CSV files, TensorBoard, Weights & Biases, MLflow.

A `trackers.Tracking` holds the trackers of one run; each is a module here with a `Tracker` of its own. None of them can
end a run: whatever one raises ends that tracker, with a note.
"""

import importlib.util
from collections.abc import Iterable

from fastcls.errors import EnvironmentProblem

NEEDED = {"csv": "", "tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}  # tracker -> what it imports


def names(text: str) -> list[str]:
    """The trackers that `--track a,b` names, each once."""
    return list(dict.fromkeys(filter(None, map(str.strip, text.split(",")))))


def refuse_missing(names: Iterable[str]) -> None:
    """EnvironmentProblem where a tracker's library is not installed, with the command that installs it."""
    missing = [name for name in names if NEEDED.get(name) and importlib.util.find_spec(NEEDED[name]) is None]
    if missing:
        which = " and ".join(missing)
        raise EnvironmentProblem(
            f"--track {','.join(missing)} needs {which}, which {'are' if len(missing) > 1 else 'is'} not installed.",
            f"Install {'them' if len(missing) > 1 else 'it'}:  pip install 'fastcls[{','.join(missing)}]'",
        )
