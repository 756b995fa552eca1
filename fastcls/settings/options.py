"""What a run decides and a recipe never mentions: seed, device, precision, workers, limit.

`data.loaders` and `models.*_learner` read the options in force with `current()`; the runner puts them in
force with `using(options)`. A notebook that calls a recipe directly gets the defaults.
"""

from __future__ import annotations

import contextlib
import contextvars
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fastcls.errors import did_you_mean
from fastcls.log import logger
from fastcls.settings import shell
from fastcls.settings.knobs import Knob, refuse, taken

DEVICES = ("auto", "cpu", "cuda", "mps")  # and cuda:N
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Keep = Literal["best", "last"]
Compile = Literal["off", "default", "reduce-overhead", "max-autotune"]
TRACKERS = ("csv", "tensorboard", "wandb", "mlflow")


def _option(default: Any, help: str, metavar: str = "") -> Any:
    """A field that is an option of the command line too."""
    return field(default=default, metadata={"help": help, "metavar": metavar})


@dataclass(frozen=True)
class Options:
    """The settings of a run, whatever its recipe; those with a help are options of every verb that trains."""

    seed: int = _option(42, "Seed of the split, the initial weights and the augmentation.", "N")
    limit: int | None = _option(None, "Use at most N images per class in each split, for a quick try.", "N")
    keep_copies_together: bool = _option(True, "Keep near copies of an image on the same side of a random split.")
    fold: str = _option("", "Validate on fold K of N of the training and validation images.", "K/N")
    skip_bad: bool = _option(False, "Skip images that cannot be read, and list them, instead of stopping.")
    workers: int | None = _option(None, "Data loader workers  [default: depends on the cores]", "N")
    device: str = _option("auto", "Device; auto uses the GPU if there is one, N or cuda:N selects one of several.")
    precision: Precision = _option("auto", "Training precision; auto chooses by device and network.")
    cache_gb: float = _option(
        20.0, "Disk space for decoded images and fetched shards together; 0 decodes in every epoch.", "GB"
    )
    accumulate: int = _option(1, "Accumulate the gradients of N batches before each step.", "N")
    clip: float | None = _option(None, "Clip the gradient to this norm.", "NORM")
    compile: Compile = _option("off", "Use torch.compile, in this mode.")
    fused: bool = _option(True, "Use a fused optimiser kernel.")
    channels_last: bool = _option(True, "Use the channels-last memory format for convolutional networks.")
    sync_norm: bool | None = _option(None, "Synchronise batch norm across processes  [default: on one machine]")
    patience: int | None = _option(
        None, "Early stopping: end a training phase after N epochs without improvement.", "N"
    )
    keep: Keep = _option("best", "Keep the weights of the best epoch (on valid) or of the last.")
    best_by: str = _option(
        "", "Metric on valid that decides; near ties go to the lower loss  [default: the first metric]", "METRIC"
    )
    test: bool = _option(True, "Evaluate the test split at the end.")
    checkpoint_minutes: float = _option(
        5.0, "Minutes between checkpoints within an epoch; the end of an epoch is always saved.", "N"
    )
    checkpoints: str = _option(
        "", "Also save checkpoints there, e.g. s3://bucket/prefix; see docs/resuming.md.", "ADDRESS"
    )
    track: str = _option("", f"Track the run with any of {', '.join(TRACKERS)}; comma-separated.", "NAMES")
    seconds: float | None = None  # of training, which the epochs are to fit into
    auto_epochs: bool = False  # further epochs after the recipe's own for as long as they pay
    extra: dict[str, dict[str, Any]] = field(default_factory=dict)  # function name -> further keywords


DECLARED = {declared.name: declared for declared in fields(Options) if declared.metadata}
TYPES = get_type_hints(Options)
# two runs that differ in these alone compare: they change no figure, or are shown as the seed
SILENT = ("seed", "workers", "cache_gb", "track", "checkpoints", "checkpoint_minutes")


def fold_of(text: str) -> tuple[int, int] | None:
    """(K, N) of 'K/N'; None where the text is not that."""
    numbers = re.fullmatch(r"([1-9]\d{0,3})/([1-9]\d{0,3})", text)
    if numbers is None:
        return None
    k, n = int(numbers[1]), int(numbers[2])
    return (k, n) if k <= n and n > 1 else None


def choices(option: str) -> tuple[str, ...]:
    """The values of an option that has a closed set of them."""
    if option == "device":
        return DEVICES
    return get_args(TYPES[option]) if get_origin(TYPES[option]) is Literal else ()


class Option(Knob):
    """An option of every run, which takes its values as a recipe's knob does."""

    @property
    def allowed(self) -> str:
        return "K/N, such as 1/5" if self.name == "fold" else super().allowed

    def take(self, given: Any) -> Any:
        """The option's value; `device` takes the number of a GPU too, with or without cuda: before it."""
        if self.name == "device" and (number := re.fullmatch(r"(?:cuda:)?(\d+)", str(given))):
            return f"cuda:{number[1]}"
        return super().take(given)

    def _checked(self, value: Any) -> Any:
        if self.name == "fold" and value and not fold_of(value):
            raise ValueError(value)
        return super()._checked(value)


def as_knob(name: str, default: Any = None) -> Option:
    """The option of that name, with a default."""
    types = get_args(TYPES[name]) or (TYPES[name],)
    known = choices(name)
    kind = "choice" if known else types[0].__name__
    help = DECLARED[name].metadata["help"]
    return Option(name, "options", kind, default, help, known, optional=type(None) in types)


def checked(given: Mapping[str, Any], time: str | float = "") -> Options:
    """Options from values or text by name; `time` as --time takes it, or in seconds.

    One KnobError names all that are wrong.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in given.items():
        knob = as_knob(name)
        if value is not None or knob.optional:
            values[name] = taken(knob, value, knob.allowed.removesuffix(" or none"), problems)
    seconds = budget(time, problems)
    names = list(filter(None, map(str.strip, str(values.get("track") or "").split(","))))
    for name in names:
        if name not in TRACKERS:
            problems.append(f"--track {name}: expected {', '.join(TRACKERS)}{did_you_mean(name, TRACKERS)}")
    place = values.get("checkpoints") or ""
    if "://" in place and not place.partition("://")[2].strip("/"):
        problems.append(f"--checkpoints {place}: incomplete address, expected one like s3://bucket/prefix")
    refuse(sorted(problems))
    if place and "://" not in place:  # a run is continued from any folder
        values["checkpoints"] = str(shell.path(place).absolute())
    return Options(**{**values, "track": ",".join(dict.fromkeys(names))}, seconds=seconds)


def budget(time: str | float, problems: list[str]) -> float | None:
    """The seconds of --time, None where it is not given; what is not a time is added to the problems."""
    if time == "" or time is None:
        return None
    found = shell.seconds(time) if isinstance(time, str) else float(time)
    if not 0 < found < float("inf"):
        problems.append(f"--time {time}: expected {shell.TAKEN}")
    return found or None


_options: contextvars.ContextVar[Options | None] = contextvars.ContextVar("options", default=None)
_notes: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar("notes", default=None)


def current() -> Options:
    """The options in force."""
    return _options.get() or Options()


@contextlib.contextmanager
def using(options: Options) -> Iterator[list[str]]:
    """Put `options` in force; yields the list that collects the notes of that time."""
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
        logger.warning(f"note: {text}")
    elif text not in notes:
        notes.append(text)
