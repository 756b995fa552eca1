"""What a run decides and a recipe never mentions: seed, device, precision, workers, limit.

`data.loaders` and `models.*_learner` read the options in force with `current()`; the runner puts them in
force with `using(options)`. A notebook that calls a recipe directly gets the defaults.
"""

from __future__ import annotations

import contextlib
import contextvars
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_type_hints

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Keep = Literal["best", "last"]
Compile = Literal["off", "default", "reduce-overhead", "max-autotune"]
TRACKERS = ("csv", "tensorboard", "wandb", "mlflow")


@dataclass(frozen=True)
class Options:
    """The settings of a run, whatever its recipe."""

    seed: int = 42  # seeds the split, the initial weights and the augmentation
    limit: int | None = None  # at most so many images a class in each split; None takes all
    workers: int | None = None  # loader processes; None chooses by the cores
    device: Device = "auto"  # 'auto' is the GPU where there is one
    precision: Precision = "auto"  # 'auto' is what a probe of the device finds fastest
    cache_gb: float = 20.0  # what decoded images may take on disk, all datasets together; 0 decodes every epoch
    fused: bool = True  # optimisers that step all parameters in one kernel
    channels_last: bool = True  # memory format of convolutional networks and their batches
    compile: Compile = "off"  # torch.compile and its mode
    sync_norm: bool = True  # batch norms see the whole batch, where several processes share it
    accumulate: int = 1  # batches whose gradients are summed before a step
    clip: float | None = None  # largest norm of the gradient
    patience: int | None = None  # stop a phase of training after so many epochs without a better one
    keep: Keep = "best"  # which weights the run ends with: the best epoch's on valid, or the last
    best_by: str = ""  # the figure on valid that says which epoch is best; '' is the recipe's first metric
    seconds: float | None = None  # of training, which the epochs are to fit into
    auto_epochs: bool = False  # further epochs after the recipe's own for as long as they pay
    test: bool = True  # whether the test split is evaluated at the end
    checkpoint_minutes: float = 5.0  # between checkpoints inside an epoch; its end always has one
    track: str = ""  # which of TRACKERS are told of the run, with commas
    extra: dict[str, dict[str, Any]] = field(default_factory=dict)  # function name -> further keywords


def choices(option: str) -> tuple[str, ...]:
    """The values that an option with a closed set of them can take."""
    return get_args(get_type_hints(Options)[option])


_options: contextvars.ContextVar[Options | None] = contextvars.ContextVar("options", default=None)
_notes: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar("notes", default=None)


def current() -> Options:
    """The options in force."""
    return _options.get() or Options()


@contextlib.contextmanager
def using(options: Options) -> Iterator[list[str]]:
    """Put `options` in force; yields the list that collects what `note` is told meanwhile."""
    notes: list[str] = []
    tokens = _options.set(options), _notes.set(notes)
    try:
        yield notes
    finally:
        _options.reset(tokens[0])
        _notes.reset(tokens[1])


def note(text: str) -> None:
    """Tell the user something worth knowing that is not an error; a run also records it."""
    notes = _notes.get()
    if notes is None:
        print(f"note: {text}", file=sys.stderr)
    elif text not in notes:
        notes.append(text)
