"""Weights that others keep in pickles, into safetensors: fastai's exported and saved Learners, torch's files.

The one place where fastcls unpickles what is not its own, by `fastcls import FILE --trust-pickle` alone. Tensors are
read by torch's own restricted unpickler; only what holds more than tensors is unpickled in full.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fastai.data.all import Normalize
from fastai.learner import Learner
from fastcore.foundation import L
from safetensors.torch import save_file
from torch import nn

from fastcls.errors import OutputError
from fastcls.runfolder import runs
from fastcls.version import __version__

KEYS = ("model", "state_dict", "model_state_dict", "model_state", "net")  # under which files keep the weights
WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name


@dataclass(frozen=True)
class Foreign:
    """What a file held: its weights, what else is known of the network, and whether its code was run to read it."""

    kind: str
    tensors: dict[str, torch.Tensor]
    metadata: dict[str, str]
    in_full: bool


def read(file: Path) -> Foreign:
    """The weights in a pickle of fastai or torch, which may run code; OutputError where there are none."""
    value, in_full = _unpickled(file)
    kind, state = _weights(value)
    if not state:
        raise OutputError(
            f"{file} contains no weights: it is {kind}.",
            "fastcls import reads files of learn.export, learn.save or torch.save(model.state_dict(), …).",
        )
    metadata = {"written_by": f"fastcls {__version__}", "source": file.name}
    return Foreign(kind, state, metadata | (_of_learner(value) if isinstance(value, Learner) else {}), in_full)


def write(found: Foreign, target: Path) -> None:
    """A .safetensors file that `--weights` takes."""
    runs.atomic_path(target, lambda temporary: save_file(found.tensors, temporary, found.metadata))


def _unpickled(file: Path) -> tuple[Any, bool]:
    """The value, and whether the whole of pickle was needed for it."""
    try:
        with torch.serialization.safe_globals([L]), _silence():  # fastai keeps the optimiser's settings in an L
            return torch.load(file, map_location="cpu", weights_only=True), False
    except pickle.UnpicklingError:
        pass
    except Exception as problem:
        raise _unreadable(file, problem) from None
    try:
        with _silence():
            return torch.load(file, map_location="cpu", weights_only=False), True
    except Exception as problem:  # a pickle may raise anything
        raise _unreadable(file, problem) from None


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """torch warns of old formats, and of classes whose source has changed since."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _unreadable(file: Path, problem: Exception) -> OutputError:
    reason = f"{type(problem).__name__}: {(str(problem).splitlines() or [''])[0]}"
    if isinstance(problem, AttributeError | ImportError):  # a function of the notebook that made it, a package
        return OutputError(
            f"{file} needs code that is not installed: {reason}.",
            "Where it was written, save only the weights:  torch.save(learn.model.state_dict(), 'weights.pth')",
        )
    return OutputError(f"{file} is not a readable torch.save file: {reason}.")


def _weights(value: Any) -> tuple[str, dict[str, torch.Tensor]]:
    """What a value is, in words, and the weights in it."""
    if isinstance(value, Learner):
        return "a fastai Learner", _plain(value.model.state_dict())
    if isinstance(value, nn.Module):
        return f"a {type(value).__name__}", _plain(value.state_dict())
    if isinstance(value, Mapping):
        for key in KEYS:
            inner = value.get(key)
            if isinstance(inner, nn.Module):
                inner = inner.state_dict()
            if isinstance(inner, Mapping) and (state := _plain(inner)):
                return f"weights under {key!r}", state
        return "weights", _plain(value)
    return f"of the type {type(value).__name__}", {}


def _plain(state: Mapping[Any, Any]) -> dict[str, torch.Tensor]:
    """The tensors, in memory of their own, under the network's own names."""
    found = {str(name): value for name, value in state.items() if isinstance(value, torch.Tensor)}
    for wrapper in WRAPPERS:
        if found and all(name.startswith(wrapper) for name in found):
            found = {name.removeprefix(wrapper): value for name, value in found.items()}
    return {
        name: value.detach().as_subclass(torch.Tensor).cpu().clone(memory_format=torch.contiguous_format)
        for name, value in found.items()
    }


def _of_learner(learn: Learner) -> dict[str, str]:
    """Class names and normalisation, where a Learner's loaders still have them."""
    found: dict[str, str] = {}
    dls = getattr(learn, "dls", None)
    vocab = getattr(dls, "vocab", None)
    if vocab is not None:
        found["classes"] = json.dumps([str(name) for name in vocab], ensure_ascii=False)
    steps = getattr(getattr(dls, "after_batch", None), "fs", [])
    for step in steps:
        if isinstance(step, Normalize):
            mean, std = step.mean.flatten().tolist(), step.std.flatten().tolist()
            spec = {"mode": "L" if len(mean) == 1 else "RGB", "method": "", "resize": None, "size": None}
            found["preprocessing"] = json.dumps(spec | {"mean": mean, "std": std})
    return found
